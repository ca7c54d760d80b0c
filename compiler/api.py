"""`einc.compile`: a text becomes a function of tensors, which can be looked at from every side."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base import targets
from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.base.files import read_text
from einc.base.targets import Target
from einc.binding import Bindings, bind
from einc.binding.checks import checked_scalar
from einc.driver import Compiled, compile_program, elaborate, given, parse
from einc.ein.arithmetic import ScalarValue
from einc.ein.printer import print_dims, print_expr
from einc.evaluate import evaluate
from einc.runtime.arguments import Arguments, arrange, unpacked, write
from einc.runtime.autograd import connect
from einc.runtime.execution import place, run_in_torch, runner, target_of
from einc.runtime.tensors import as_numpy, as_torch, device_of, is_meta, is_torch

if TYPE_CHECKING:
    import torch

    from einc.explain import Story

Array = Any  # a torch tensor, or whatever numpy.asarray takes

LEVELS = (0, 1, 2)
MOST_SPLITS = 1024
_REMEMBERED = 1024  # calls of different shapes and types that a program keeps at hand


def compile(  # noqa: A001 - einc.compile is the name users look for
    text: str | os.PathLike[str],
    level: int = 2,
    target: str | None = None,
    name: str | None = None,
    verify: bool = True,
    splits: int | None = None,
) -> Program:
    """The program that a text means: an einsum string, an expression over einsum strings, or definitions.

    A path gives the text of its file. `level` is the optimisation level, 0 to 2. `target` names the machine to make
    code for; without one it is the device that the operands are on. `name` is what diagnostics call the text. `verify`
    checks the compiler's own work after each pass. `splits` asks for walks over reduced axes in so many parts, wherever
    that is possible; without it they are as many as pay. Raises `einc.Error` where the text is wrong; what depends on
    operands is found at the call.
    """
    if isinstance(text, os.PathLike):
        text, name = read_text(Path(text)), name or os.fspath(text)
    if isinstance(text, str) and re.fullmatch(r"[\w./\\ -]*[^.]\.ein", text):
        raise CallError("this is the name of a file, and no program", fact=text, hint=f'einc.compile(Path("{text}"))')
    if not isinstance(text, str):
        raise CallError(
            "a program is text, or the path of a file",
            fact=f"it is a {type(text).__name__}",
            hint='einc.compile("ij,jk->ik")',
        )
    if level not in LEVELS or isinstance(level, bool):
        raise CallError(f"there is no optimisation level {level!r}", fact="levels are 0, 1 and 2", hint="level=2")
    if splits is not None and (type(splits) is not int or not 1 <= splits <= MOST_SPLITS):
        raise CallError(f"a walk is not in {splits!r:.40} parts", fact=f"1 to {MOST_SPLITS} are", hint="splits=8")
    return Program(text, name, level, None if target is None else targets.target(target), verify, splits)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a call with operands of given shapes and types comes to."""

    program: ein.Program
    bindings: Bindings
    compiled: Compiled

    def checked(self, given: Arguments) -> dict[str, ScalarValue]:
        """The scalars that the caller gave, each as its parameter's kind; the launcher finds the others."""
        return {
            p.name: checked_scalar(p, given.scalars[p.name]) for p in self.program.scalars if p.name in given.scalars
        }

    def bound(self, given: Arguments) -> Bindings:
        """The extents, and all scalars of this call; those remembered may be another call's."""
        if not self.program.scalars:
            return self.bindings
        shapes = {name: f.shape for name, f in zip(given.names, given.facts, strict=True)}
        return bind(self.program, shapes, given.scalars)


class Program:
    """A compiled text. Call it with tensors; ask it for its `source`, its `dump` at a stage, its `explain`."""

    def __init__(
        self,
        text: str,
        name: str | None,
        level: int,
        target: Target | None,
        verify: bool = True,
        splits: int | None = None,
    ) -> None:
        self.text = parse(text, name)
        self._level, self._target, self._verify, self._splits = level, target, verify, splits
        self._calls: dict[object, _Call] = {}
        self._meaning = elaborate(self.text)
        self._begin = given(self.text, self._meaning)
        self._signature = signature(self._meaning)

    def __call__(self, *operands: Array, out: Any = None, backend: str | None = None, **named: Any) -> Any:
        """The result, or the tuple of several.

        Tensors by position, in the order of the text, or by name; scalars after them, or by name. NumPy arrays and
        numbers give NumPy arrays, torch tensors give torch tensors on their device. `out` takes the results, and may
        overlap the operands. `backend` chooses how to run: `triton` on a GPU; `torch`, the same tiles by torch
        operations; `interpret`, the kernels' source in Triton's interpreter; `evaluate`, the meaning of the text, in
        double precision. Without one, operands on a GPU run there, and others by torch.
        """
        given = self._arrange(operands, named)
        if backend == "evaluate":
            return self._evaluate(given, out)
        tensors = [as_torch(a) for a in given.arrays]
        home = device_of(tensors, given.names)
        where = place(home, backend)
        device = where.device
        call = self._call(given, device)
        values: dict[str, Any] = {n: t.to(device) for n, t in zip(given.names, tensors, strict=True)}

        def run(into: tuple[torch.Tensor, ...] | None) -> tuple[torch.Tensor, ...]:
            if where.backend == "torch":
                return run_in_torch(call.compiled, values, call.bound(given), into, device)
            args = map((values | call.checked(given)).get, (p.name for p in call.program.params))
            found = runner(call.compiled)(*args, out=into, device=device)
            return found if device == home else tuple(t.to(home) for t in found)

        if out is not None:
            return write(out, call.program, call.bindings.extents, tensors if device == home else None, run)
        torch_operands = [a for a in given.arrays if is_torch(a)]
        results = connect(run(None), torch_operands) if torch_operands else run(None)
        return unpacked(results, bool(torch_operands))

    def _arrange(self, operands: tuple[Array, ...], named: Mapping[str, Any], shaped: bool = False) -> Arguments:
        return arrange(self.text.operands, self.text.scalars, self._signature, operands, named, shaped)

    def _call(self, given: Arguments, device: torch.device | None) -> _Call:
        """The compiled program for these operands; what was found for equal shapes, types and integers is kept."""
        facts = given.facts
        key = (facts, tuple((n, type(v), v) for n, v in given.scalars.items() if not isinstance(v, float)), device)
        try:
            found = self._calls.get(key)
        except TypeError:  # a scalar that is no number at all: `bind` will say so
            found = None
        if found is None:
            named = dict(zip(given.names, facts, strict=True))
            program = elaborate(self.text, named)
            bindings = bind(program, {name: f.shape for name, f in named.items()}, given.scalars)
            target = self._target or (targets.INTERPRETER if device is None else target_of(device))
            found = _Call(program, bindings, self._compile(program, bindings.extents, target))
            if len(self._calls) >= _REMEMBERED:
                self._calls.clear()
            self._calls[key] = found
        return found

    def _evaluate(self, given: Arguments, out: Any) -> Any:
        if out is not None:
            raise CallError("the evaluator takes no out", fact='backend="evaluate"', hint="leave out= away")
        named = dict(zip(given.names, given.facts, strict=True))
        arrays = {name: as_numpy(as_torch(a).cpu()) for name, a in zip(given.names, given.arrays, strict=True)}
        results = evaluate(elaborate(self.text, named), arrays, given.scalars)
        return results[0] if len(results) == 1 else results

    # -----------------------------------------------------------------------------------------------------------------
    # To be looked at

    def __str__(self) -> str:
        """The signature: `attention(Q[b, i, d], K[b, j, d], scale: float = ...) -> O[b, i, e]`."""
        return self._signature

    def __repr__(self) -> str:
        return f"<einc.Program {self}>"

    def _compile(
        self,
        program: ein.Program,
        extents: Mapping[str, int] | None,
        target: Target | None = None,
        level: int | None = None,
    ) -> Compiled:
        target = target or self._target or targets.INTERPRETER
        level = self._level if level is None else level
        return compile_program(program, level, target, extents, self._verify, self._splits, self._begin)

    def compiled_for(self, facts: Mapping[str, Fact], extents: Mapping[str, int]) -> Compiled:
        """Every stage of the compilation, for operands that need not be there; `extents` are of all axes."""
        return self._compile(elaborate(self.text, facts), extents)

    def compiled(self, *operands: Array, **named: Any) -> Compiled:
        """Every stage of the compilation, for these operands; without any, for float32 operands of no known size.

        Operands on the meta device, which have a shape and no memory, will do.
        """
        if not operands and not named:
            return self._compile(self._meaning, None)
        given = self._arrange(operands, named, shaped=True)
        held = {n: a for n, a in zip(given.names, given.arrays, strict=True) if is_torch(a) and not is_meta(a)}
        return self._call(given, device_of(list(held.values()), list(held)) if held else None).compiled

    def dump(self, stage: str | None = None, *operands: Array, **named: Any) -> str:
        """The program after a pass, as text that compiles again, its kernels included once there are any.

        Without a name, the list of stages and which of them changed it.
        """
        found = self.compiled(*operands, **named)
        if stage is not None:
            return found.stage(stage).full
        return "".join(f"{s.name}{'' if s.changed else ' (unchanged)'}\n" for s in found.stages)

    def source(self, *operands: Array, **named: Any) -> str:
        """The Triton file: kernels and launcher, complete in itself."""
        return self.compiled(*operands, **named).source

    def story(self, *operands: Array, **named: Any) -> Story:
        """What the program is and what it costs at every level, for these operands; without any, for small ones."""
        if not operands and not named and self.text.operands:
            from einc.explain.accounts import extents
            from einc.trials.request import USUAL, usual

            return self._story(self._meaning, extents(self._meaning, usual(self._meaning), {}, USUAL), {}, {})
        given = self._arrange(operands, named, shaped=True)
        call = self._call(given, None)
        indices = {
            name: as_numpy(as_torch(a).cpu())
            for name, a, f in zip(given.names, given.arrays, given.facts, strict=True)
            if (f.dtype.is_int or f.dtype.is_bool) and not is_meta(a)
        }
        return self._story(call.program, call.bindings.extents, given.scalars, indices)

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
    ) -> Story:
        from einc.explain import story

        chosen = LEVELS if self._begin is None else (self._level,)  # kernels that are given are those of every level
        levels = [self._compile(program, extents, level=n) for n in chosen]
        return story(self.text.source.text, levels, extents, self._level, scalars, operands)

    def explain(self, *operands: Array, format: str = "text", **named: Any) -> str:  # noqa: A002
        """What the program is, how it is streamed, and what it costs: as text, as JSON or as a page.

        `format="json"` gives, for this program's level at the top and for every level under `levels`:

        - `kernels`, each with `name`, `equations`, `grid` axes, `streamed` axes (walked block by block), `held` axes;
          `accumulators`, a map from reduction to what it carries before equal ones are shared (`name`, `body`, `axes`,
          and `moves`: the coefficient of each accumulator in its value after a movement); `state`, what is carried
          after sharing (`name`, `dtype`, `axes`), and `state_bytes_per_row`; `tiles` by walked axis (`visited`, of
          which `full` without a mask and `mixed` with one, of `total`); `splits`; `flops`, `bytes`, `intensity`,
          `predicted_us` and its `limit` (memory, matrix, vector, special, launch); `reads`, `writes`; `derivation`;
        - `sweeps`, from streamed axis to passes over it; `intermediates` with `axes`, `shape`, `dtype` and `bytes`;
        - `flops`, `bytes`, `intensity`, `predicted_us` in total; `decisions`, which kernels were joined or left apart,
          with predicted times; `not_closed`, reductions with the `part` that does not follow and the `reason`.

        Beside them stands what the program is: `boundary`, `kind`, `einsums`, `parallel`, `story` and so on.
        `format="html"` gives one page that needs nothing else, with the cascade before and after as a picture.
        """
        if format not in ("text", "json", "html"):
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


def signature(program: ein.Program) -> str:
    """The parameters and results of a program, on one line."""
    shapes = program.shapes()
    params = []
    for p in program.params:
        if isinstance(p, ein.Operand):
            params.append(f"{p.name}{print_dims(p.dims)}")
        else:
            params.append(f"{p.name}: {p.dtype}" + ("" if p.default is None else f" = {print_expr(p.default)}"))
    results = ", ".join(f"{name}{print_dims(shapes[name])}" for name in program.results)
    return f"{program.name}({', '.join(params)}) -> {results}"
