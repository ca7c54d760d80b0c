"""A compiled text to be looked at: its stages, its source, what it is and what it costs; and made ready ahead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from einc import ein
from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.driver import Compiled, elaborate, parse
from einc.ein.arithmetic import ScalarValue
from einc.pipeline.fates import Fate
from einc.runtime.arguments import Arguments, arrange
from einc.runtime.callee import Callee, of_text
from einc.runtime.execution import Place, place, target_of, usual_device
from einc.runtime.prepared import Layouts, Options
from einc.runtime.tensors import as_numpy, as_torch, device_of, is_meta, is_torch
from einc.tuning import OFF, Entry, effective, tables
from einc.tuning.keys import key_of
from einc.tuning.machines import machine

if TYPE_CHECKING:
    from einc.explain import Story
    from einc.stages import Stage

Array = Any  # a torch tensor, or whatever numpy.asarray takes

LEVELS = (0, 1, 2)
_FORMATS = ("text", "json", "html")  # of an explanation


@dataclass(frozen=True, slots=True)
class Known:
    """What a program was made for: extents of its axes, and the place and layouts of operands, if there were any."""

    extents: Mapping[str, int]
    where: Place | None = None
    layouts: Layouts = ()


class Inspected:
    """A program as its text means it, with what shows it from every side; arguments are those of a call."""

    def __init__(self, text: str, name: str | None, options: Options, made: type[Callee] = Callee) -> None:
        self.text = parse(text, name)
        self._meaning = elaborate(self.text)
        self._callee = of_text(text, name, options, made)
        self.options, self._signature = self._callee.options, self._callee.signature
        self._known: Known | None = None
        self._fates: tuple[Fate, ...] = ()  # of what a program of gradients reads
        self._behind = False  # is it such a program, which is called in its own way?

    @property
    def results(self) -> tuple[str, ...]:
        """The names of what a call gives, in order."""
        return self._meaning.results

    def _own(self, **options: Any) -> dict[str, Any]:
        """The options of a call that were given and have the name of a parameter."""
        known = (*self.text.operands, *self.text.scalars)
        return {name: value for name, value in options.items() if name in known and value is not None}

    def _arrange(self, operands: Sequence[Array], named: Mapping[str, Any], shaped: bool = False) -> Arguments:
        return arrange(self.text.operands, self.text.scalars, self._signature, operands, named, shaped)

    def __str__(self) -> str:
        """The signature: `attention(Q[b, i, d], K[b, j, d], scale: float = ...) -> O[b, i, e]`."""
        return self._signature

    def __repr__(self) -> str:
        return f"<einc.Program {self}>"

    def compiled_for(self, facts: Mapping[str, Fact], extents: Mapping[str, int]) -> Compiled:
        """Every stage of the compilation, for operands that need not be there; `extents` are of all axes."""
        return self.options.compile(elaborate(self.text, facts), extents)

    def compiled(self, /, *operands: Array, **named: Any) -> Compiled:
        """Every stage of the compilation, for these operands; without any, for float32 operands of likely sizes.

        Operands on the meta device, which have a shape and no memory, will do.
        """
        if not operands and not named:
            return self._made(self._meaning, self._known or openly(self._meaning))
        return self._made(*self._bound(self._arrange(operands, named, shaped=True)))

    def _made(self, program: ein.Program, known: Known) -> Compiled:
        return self.options.compile(program, known.extents, known.where, known.layouts)

    def _bound(self, given: Arguments) -> tuple[ein.Program, Known]:
        """What it means for these arguments, with the extents of all axes."""
        program, bindings = self._callee.bound(given.facts, given.scalars)
        where = _place(given)
        lying = self.options.layouts(given.arrays, where) if all(map(is_torch, given.arrays)) else ()
        return program, Known(bindings.extents, where, lying)

    def dump(self, stage: str | None = None, /, *operands: Array, **named: Any) -> str:
        """The program after a pass, as text that compiles again, its kernels included once there are any.

        Without a name, the list of stages and which of them changed it.
        """
        found = self.stages(*operands, **named)
        if stage is not None:
            from einc.stages import stage as stage_called

            return stage_called(found, stage).full
        return "".join(f"{s.name}{'' if s.changed else ' (unchanged)'}\n" for s in found)

    def stages(self, /, *operands: Array, **named: Any) -> tuple[Stage, ...]:
        """The program as elaborated, and after every pass."""
        return self.compiled(*operands, **named).stages

    def source(self, /, *operands: Array, **named: Any) -> str:
        """The Triton file: kernels and launcher, complete in itself."""
        return self.compiled(*operands, **named).source

    def story(self, /, *operands: Array, **named: Any) -> Story:
        """What the program is and what it costs at every level, for these operands; without any, for small ones."""
        if not operands and not named and self.text.operands:
            known = self._known or usually(self._meaning)
            return self._story(self._meaning, known.extents, {}, {}, known.where)
        given = self._arrange(operands, named, shaped=True)
        program, known = self._bound(given)
        indices = {
            name: as_numpy(as_torch(a).cpu())
            for name, a, f in zip(given.names, given.arrays, given.facts, strict=True)
            if (f.dtype.is_int or f.dtype.is_bool) and not is_meta(a)
        }
        return self._story(program, known.extents, given.scalars, indices, known.where)

    def story_for(
        self, facts: Mapping[str, Fact], extents: Mapping[str, int], scalars: Mapping[str, ScalarValue] | None = None
    ) -> Story:
        """The same for operands that need not be there."""
        return self._story(elaborate(self.text, facts), extents, scalars or {}, {})

    def _story(
        self,
        program: ein.Program,
        extents: Mapping[str, int],
        scalars: Mapping[str, ScalarValue],
        operands: Mapping[str, Any],
        where: Place | None = None,
    ) -> Story:
        from einc.explain import story

        begin = self.options.begin
        chosen = LEVELS if begin is None else (self.options.level,)  # kernels that are given are those of every level
        levels = [replace(self.options, level=n).compile(program, extents, where) for n in chosen]
        known = tables_of(levels[-1], self.options, where)
        return story(
            self.text.source.text,
            levels,
            extents,
            self.options.level,
            scalars,
            operands,
            self._fates,
            known,
            self._behind,
        )

    def explain(self, /, *operands: Array, format: str = "text", **named: Any) -> str:  # noqa: A002
        """What the program is, how it is streamed, and what it costs: as text, as JSON or as a page.

        `format="json"` gives, for this program's level at the top and for every level under `levels`:

        - `kernels`, each with `name`, `equations`, `grid` axes, `streamed` axes (walked block by block), axes walked
          `within` a block, `held` axes;
          `accumulators`, a map from reduction to what it carries before equal ones are shared (`name`, `body`, `axes`,
          and `moves`: the coefficient of each accumulator in its value after a movement); `state`, what is carried
          after sharing (`name`, `dtype`, `axes`), and `state_bytes_per_row`; `tiles` by walked axis (`visited`, of
          which `full` without a mask and `mixed` with one, of `total`; estimates where `sample` is true); `splits`;
          `flops`, `bytes`, `intensity`,
          `predicted_us` and its `limit` (memory, matrix, vector, special, launch); `reads`, `writes`; `derivation`;
        - `sweeps`, from streamed axis to passes over it; `intermediates` with `axes`, `shape`, `dtype` and `bytes`;
        - `flops`, `bytes`, `intensity`, `predicted_us` in total; `decisions`, which kernels were joined or left apart,
          with predicted times and the tensors `spared` from being stored; `not_closed`, reductions with the `part` that
          does not follow and the `reason`.

        Beside them stands what the program is: `boundary`, `kind`, `einsums`, `products` (the types that contractions
        multiply in, and why), `unheeded` (a precision that is asked for where none is of f32), `parallel`, `story` and
        so on. `saving`, of gradients, are the tensors of the program
        that they are of which they read: `name`, `axes`, `shape`, `dtype`, `bytes`, and whether each is `saved` or
        computed again, for what `reason`. `scatters` are the sums whose terms data sends to their places: `sum`, its
        `kind` (sorted, added, compared), `places`, `positions`, `bytes` beside the result, the `fact` that decided, and
        a `hint`. `slices`, of gradients that torch has computed in slices: `axis`, `count`, `length`, `bytes` between
        kernels, and those `at_once` otherwise.
        `format="html"` gives one page that needs nothing else, with the cascade before and after as a picture.
        """
        if own := self._own(format=None if format in _FORMATS else format):
            named, format = named | own, "text"  # noqa: A001
        if format not in _FORMATS:
            raise CallError(
                f"there is no format {format!r}", fact="formats are text, json and html", hint='format="text"'
            )
        found = self.story(*operands, **named)
        if format == "json":
            from einc.present.data import story_data

            return json.dumps(story_data(found), indent=2, ensure_ascii=False)
        if format == "html":
            from einc.present.page import page

            return page(found)
        from einc.present.terminal import as_text, explanation

        return as_text(explanation(found))

    def prepare(
        self,
        /,
        *operands: Any,
        dtype: Any = None,
        device: Any = None,
        target: str | None = None,
        backend: str | None = None,
        **named: Any,
    ) -> Self:
        """Make ready for calls with operands of these shapes; returns the program.

            attention.prepare((4, 16, 4096, 128), (4, 16, 4096, 128), (4, 16, 4096, 128), dtype="bf16")
            product.prepare([((8, 8), (8, 8)), ((64, 8), (8, 64))])                      # several calls at once

        Arguments are those of a call, with a shape, which is a tuple, in place of any tensor; tensors need no memory. A
        list holds several calls: a tuple of operands each, or a dictionary by name. All their kernels are compiled in
        parallel, and kept on disk for all processes of this user. `dtype` is the type of operands that are given as
        shapes, if they are floats whose type the text leaves open; a dictionary gives types by operand. `device` is
        where the calls will be; without it, where given tensors are, else a GPU if there is one. On a machine without
        a GPU, `target="sm_90"` compiles for another one. Raises `einc.Error` as the calls would, and `TargetError` for
        a kernel that does not compile.
        """
        from einc.runtime.ahead import make_ready, without_memory

        options = {"dtype": dtype, "device": device, "target": target, "backend": backend}
        own = self._own(**options)
        dtype, device, target, backend = (options | dict.fromkeys(own)).values()
        several = operands[0] if len(operands) == 1 and isinstance(operands[0], list) else [operands]
        calls = (without_memory(call, named | own, self._meaning, dtype) for call in several)
        make_ready(self._callee, [self._arrange(*call, shaped=True) for call in calls], device, target, backend)
        return self


def tables_of(compiled: Compiled, options: Options, where: Place | None) -> tuple[str, Entry] | None:
    """What was measured of a program for such sizes, and where: on the device of its operands, or that calls run on, or
    on one of the target that is named."""
    key = key_of(compiled.measured_as)
    if key is None or options.choices or effective(options.tune) == OFF:
        return None
    found = [] if options.target is None else tables.targeted(options.target.name)
    if not tables.is_empty() or (where is not None and where.device.type == "cuda"):
        here = (where or place(usual_device())).device
        if options.target is None or target_of(here).name == options.target.name:
            found = [n for n in (machine(here),) if n is not None] + found
    entries = ((name, tables.find_alike(name, key)) for name in found)
    return next(((name, e) for name, e in entries if e is not None), None)


def usually(program: ein.Program) -> Known:
    """Small extents: what a program is looked at for where no operands are given."""
    from einc.explain.sizes import USUAL, extents, usual

    return Known(extents(program, usual(program), {}, USUAL))


def openly(program: ein.Program) -> Known:
    """Likely extents: what kernels are planned for where no operands are given."""
    from einc.explain.sizes import USUAL, extents, likely

    return Known(extents(program, likely(program, {}), {}, USUAL))


def _place(given: Arguments) -> Place | None:
    """Where a call with these operands would run; None if they are not in torch's memory.

    Operands on the CPU are taken to be tried out there: what is looked at are kernels, as they are interpreted.
    """
    held = {n: a for n, a in zip(given.names, given.arrays, strict=True) if is_torch(a) and not is_meta(a)}
    if not held:
        return None
    home = device_of(list(held.values()), list(held))
    return place(home, "interpret" if home.type == "cpu" else None)
