"""`einc.compile`: a text becomes a function of tensors, which can be looked at from every side."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.base.files import read_text
from einc.driver import elaborate
from einc.ein.printer import print_program
from einc.inspection import Inspected, Known, openly
from einc.options import read_options
from einc.runtime.arguments import Arguments
from einc.runtime.callee import Called, callee
from einc.runtime.derivative import call as differentiable
from einc.runtime.derivative import differentiate, needed
from einc.runtime.execution import Outputs, place
from einc.runtime.halves import half_of
from einc.runtime.interop import any_foreign, exchanged
from einc.runtime.prepared import Options
from einc.runtime.results import several, unpacked, write
from einc.runtime.tensors import as_numpy, as_torch, compiling, device_of, is_meta, is_torch, watched
from einc.tuning.modes import OFF, checked

if TYPE_CHECKING:
    from einc.derive import Ahead, Behind, Together
    from einc.stages import Stage
    from einc.tuning.search import Outcome
    from einc.tuning.sessions import Said

Array = Any  # a torch tensor, or whatever numpy.asarray takes


def compile(  # noqa: A001 - einc.compile is the name users look for
    text: str | os.PathLike[str],
    level: int = 2,
    target: str | None = None,
    name: str | None = None,
    verify: bool = True,
    splits: int | None = None,
    choices: Mapping[str, int | str] | None = None,
    tune: str | None = None,
    generator: str = "auto",
    deterministic: bool = True,
    precision: str = "exact",
) -> Program:
    """The program that a text means: an einsum string, an expression over einsum strings, or definitions.

    A path gives the text of its file. `level` is the optimisation level, 0 to 2. `target` names the machine to make
    code for; without one it is the device that the operands are on. `name` is what diagnostics call the text. `verify`
    checks the compiler's own work after each pass. `splits` asks for walks over reduced axes in so many parts, wherever
    that is possible; without it they are as many as pay. `choices` go before those of the heuristics, which `explain`
    prints: sizes of tiles by their names in the source, `{"BI": 64, "BJ": "16..64"}`, and `warps`, `stages`, `parts`
    and `section`; for one kernel alone with its name before them, `"O.warps"`. `tune` says how the rest is chosen on
    the device of a call: `"quick"` times the model's best few at the first call of a size class, `"full"` more of them
    and other plans; what is fastest is kept for further calls, also of other processes. `"off"` leaves it to the model
    alone; without it the environment decides (`EINC_TUNE`), and what was measured before is used. `generator` writes
    the kernels: `triton`, or `gluon`, for Hopper, whose warps have roles where a kernel allows that, all others being
    Triton's; `auto` gives roles where that is predicted to pay. What need not be `deterministic` may add in another
    order in each run: where data decides the places of a sum's terms, as in the gradient of an embedding, each is added
    at its place as it is computed, and nothing is sorted. `precision` is what contractions of float32 multiply in,
    those of gradients included: `"exact"`, or `"tf32"`, `"tf32x3"`, `"bf16x3"` on the matrix units of a GPU, with the
    errors that LANGUAGE.md gives; sums are of float32. It is not read from torch's settings. Raises `einc.Error` where
    the text or a choice is wrong, `TargetError` for a target that a generator has no kernels for; what depends on
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
    options = read_options(level, target, verify, splits, choices, tune, generator, deterministic, precision)
    return Program(text, name, options)


class Program(Inspected):
    """A compiled text. Call it with tensors; ask it for its `source`, its `dump` at a stage, its `explain`."""

    def __call__(self, /, *operands: Array, out: Any = None, backend: str | None = None, **named: Any) -> Any:
        """The result, or the tuple of several.

        Tensors by position, in the order of the text, or by name; scalars after them, or by name. NumPy arrays and
        numbers give NumPy arrays, torch tensors give torch tensors on their device, and arrays of another library, by
        DLPack, give its arrays. `out` takes the results, and may overlap the operands. `backend` chooses how to run:
        `triton` on a GPU; `torch`, the same tiles by torch operations; `interpret`, the kernels' source in Triton's
        interpreter; `evaluate`, the meaning of the text, in double precision. Without one, operands on a GPU run there,
        and others by torch. Where a parameter of the program is called `out` or `backend`, the keyword is that
        parameter's; `run` tells them apart.
        """
        if compiling():
            from einc.runtime.operator import node

            return node(self._callee, operands, named, out)
        calls = self._callee.calls
        if calls is not None and backend is None and (out is None or "out" not in calls.places):
            found = calls(operands, named, out)
            if found is not None:
                return found
        own = self._own(out=out, backend=backend)
        return self.run(operands, named | own, **({"out": out, "backend": backend} | dict.fromkeys(own)))

    def run(
        self, operands: Sequence[Array], named: Mapping[str, Any], out: Any = None, backend: str | None = None
    ) -> Any:
        """The call with the program's arguments apart from its options, whatever they are called."""
        if any_foreign((*operands, *named.values())):
            return exchanged(self.run, operands, named, out, backend=backend)
        given = self._arrange(operands, named, shaped=True)
        if backend == "evaluate":
            return self._evaluate(given, out)
        if backend is None and any(map(is_torch, given.arrays)) and watched(given.arrays):
            from einc.runtime.operator import node

            return node(self._callee, given.arrays, given.scalars, out)
        tensors = [as_torch(a) for a in given.arrays]
        home = device_of(tensors, given.names)
        where = place(home, backend)
        torch_operands = [a for a in given.arrays if is_torch(a)]
        if out is None and needed(torch_operands):
            watched_tensors = [a if is_torch(a) else t for a, t in zip(given.arrays, tensors, strict=True)]
            return unpacked(tuple(differentiable(self._callee, watched_tensors, given.scalars, backend)), True)
        there = [t.to(where.device) for t in tensors]
        other = self._callee.otherwise(Called(tensors, given.facts, given.scalars, where, backend))
        if other is not None:
            results = tuple(other(tensors, given.scalars))
            if out is None:
                return unpacked(results, bool(torch_operands))
            program, bindings = self._callee.bound(given.facts, given.scalars)
            return write(out, program, bindings.extents, None, lambda _: results)
        call = self._callee.prepared(given.facts, given.scalars, where, there)
        values = dict(zip(given.names, there, strict=True))

        wanted = () if out is None else several(out)
        usual = backend is None and bool(tensors)

        def run(into: Outputs) -> Outputs:
            if usual and len(into) == len(wanted):
                return self._callee.first(call, tensors, given.scalars, operands, named, out, into)
            found = call.run(values, given.scalars, into)
            return found if where.device == home else tuple(t.to(home) for t in found)

        if out is not None:
            reachable = tensors if where.device == home else None
            return write(out, call.program, call.bindings.extents, reachable, run)
        return unpacked(run(()), bool(torch_operands))

    def _evaluate(self, given: Arguments, out: Any) -> Any:
        if out is not None:
            raise CallError("the evaluator takes no out", fact='backend="evaluate"', hint="leave out the argument out=")
        from einc.evaluate import evaluate

        named = dict(zip(given.names, given.facts, strict=True))
        arrays = {name: as_numpy(as_torch(a).cpu()) for name, a in zip(given.names, given.arrays, strict=True)}
        results = evaluate(elaborate(self.text, named), arrays, given.scalars)
        return results[0] if len(results) == 1 else results

    def tune(
        self, /, *operands: Array, mode: str = "quick", budget: float | None = None, **named: Any
    ) -> tuple[Outcome, ...]:
        """Measure what is fastest for calls with such operands, whether it was measured before or not; what came of it.

        Arguments are those of a call, on the device that is tuned for. `mode` is `"quick"` or `"full"`, as for
        `einc.compile`, and `budget` the seconds that it may take. Where an operand requires gradients, what gives them
        is tuned as well. Further calls, of all processes of this user, run what was found. Raises `CallError` for an
        unknown mode, without operands, and for those of the meta device.
        """
        own = self._own(mode=mode, budget=budget)
        if "mode" in own:
            mode = "quick"
        budget = None if "budget" in own else budget
        return self.tuned((operands, named | own), mode, budget)

    def tuned(
        self,
        call: tuple[Sequence[Array], Mapping[str, Any]],
        mode: str = "quick",
        budget: float | None = None,
        said: Said | None = None,
    ) -> tuple[Outcome, ...]:
        """The same for a call as its arguments by position and by name; `said` is told what happens."""
        from einc.tuning import session

        operands, named = call
        if self.options.choices or self.options.begin is not None:
            raise CallError("nothing is left to tune", fact="the choices are given", hint="leave them out")
        if checked(mode) == OFF:
            raise CallError("nothing is tuned", fact='mode="off"', hint='mode="quick"')
        if not operands and not named and self.text.operands:
            hint = "program.tune(a, b), or einc tune FILE --size i=4096"
            raise CallError("a program is tuned for operands", fact="there are none", hint=hint)
        if any(is_torch(a) and is_meta(a) for a in (*operands, *named.values())):
            raise CallError("operands without memory cannot be timed", fact="they are on the meta device", hint="zeros")
        self._callee.forget()
        with session(mode, budget, said) as found:
            results = self.run(operands, named)
            tensors = [a for a in (*operands, *named.values()) if is_torch(a)]
            if needed(tensors):
                differentiate(results, tensors)
        self._callee.forget()
        return tuple(found.outcomes)

    def source(self, /, *operands: Array, gradient: bool | str | Sequence[str] = False, **named: Any) -> str:
        """The Triton file: kernels and launcher, complete in itself.

        With `gradient`, for all operands of floats or for those named, the file holds what runs ahead and what gives
        the gradients, and a function of the program's name that torch differentiates, once. It sorts, and goes over
        slices, where calls of such sizes do. Where a parameter of the program is called `gradient`, the keyword is that
        parameter's.
        """
        own = self._own(gradient=None if gradient is False else gradient)
        if own or gradient is False:
            return super().source(*operands, **named | own)
        names = () if gradient is True else (gradient,) if isinstance(gradient, str) else tuple(gradient)
        return self.gradient(*names, given=operands, **named).together.source

    def gradient(self, /, *names: str, given: Sequence[Array] | Array = (), **named: Any) -> Gradient:
        """The gradients by these operands, or by all of floats or complex numbers, as a program.

            backward = attention.gradient("Q", "K", given=(q, k, v))       # or Q=q, K=k, V=v
            print(backward.text.source.text)                               # the equations that gradients are found by
            print(backward.dump("partition"), backward.source(), backward.explain())

        It takes those operands of the program that it reads, tensors that were saved, and a cotangent `dO` for each
        result `O` that has a derivative, of its shape and type; it gives `dQ` for each operand `Q` asked for, in the
        program's order, of its shape and type. What saves tensors is its `ahead`. `given` and arguments by name are
        those of a call, on the meta device if need be: the gradients are those for their types, and what is saved and
        compiled is decided for their sizes and their device. Without them, operands are float32, of likely sizes. Where
        a parameter of the program is called `given`, the keyword is that parameter's.

        Raises `CallError` for a name that is no operand, an operand of integers or truth values, and one that no result
        depends on.
        """
        if not isinstance(given, Sequence) or "given" in self._own(given=given or None):
            named, given = named | {"given": given}, ()
        if not given and not named:
            return self._gradient(self._meaning, names, self._known)
        program, known = self._bound(self._arrange(given, named, shaped=True))
        return self._gradient(program, names, known)

    def gradient_for(self, facts: Mapping[str, Fact], extents: Mapping[str, int], names: Sequence[str]) -> Gradient:
        """The same for operands that need not be there; `extents` are of all axes."""
        return self._gradient(elaborate(self.text, facts), names, Known(extents))

    def _gradient(self, program: ein.Program, names: Sequence[str], known: Known | None) -> Gradient:
        from einc.derive import ahead, asked, backward

        known = known or openly(program)
        machine = self.options.machine(known.where)
        program = self.options.meant(program)
        run = ahead(program, asked(program, names), self.options.level, machine, known.extents)
        return Gradient(program, run, backward(run, names), replace(self.options, choices=(), begin=None), known)

    @property
    def description(self) -> str:
        """Its text and options as one text, from which any process makes the same program: a constant of graphs."""
        return self._callee.description

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, (self.description,)

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, _: Any) -> Program:
        return self


class Gradient(Program):
    """The gradients of a program, as a program: what `Program.gradient` gives.

    `ahead` is the program that runs in place of the one it was asked of: it gives the same results, and behind them the
    tensors that are `saved`, by name. The operands of this one are results of `ahead`, operands of it, and cotangents:

        found = dict(zip(backward.ahead.results, backward.ahead(q, k, v)))
        dQ, dK = backward(Q=q, K=k, V=v, dO=cotangent, **{name: found[name] for name in backward.saved})

    `saved` are those results of `ahead` that this one reads, whether they are results of the program or not.
    """

    def __init__(self, whole: ein.Program, run: Ahead, half: Behind, options: Options, known: Known) -> None:
        super().__init__(print_program(half.program), None, options, half_of(half.program, options))
        self.ahead = Program(print_program(run.program), None, options)
        self._known, self.ahead._known = (_of(p, whole, known) for p in (half.program, run.program))
        self.saved = tuple(run.program.results[k] for kind, k in half.sources if kind == "output")
        self._origin, self._fates, self._behind = (whole, run, half), run.fates, True

    def stages(self, /, *operands: Array, **named: Any) -> tuple[Stage, ...]:
        """The program whose gradients these are after each law that they are found by, and these after every pass."""
        from einc.derive import stages

        return stages(self._origin[1], self.compiled(*operands, **named))

    @property
    def together(self) -> Together:
        """Both halves, compiled for what the gradients were asked for."""
        from einc.derive import Together, in_parts

        return Together(*self._origin, self.ahead.compiled(), in_parts(self.compiled()))


def _of(program: ein.Program, whole: ein.Program, known: Known) -> Known:
    """What is known of the axes of a program, some of which it may have alone: places in what is one axis of the whole
    program's operands."""
    from einc.explain.sizes import extents

    given, before = dict(known.extents), {p.name: p.dims for p in whole.operands}
    for p in program.operands:
        for own, dim in zip(p.dims, before.get(p.name, p.dims), strict=True):
            missing = [a for a in own if a not in given]
            if len(missing) == 1 and all(a in given for a in dim):
                others = prod(given[a] for a in own if a in given)
                given[missing[0]] = prod(given[a] for a in dim) // max(others, 1)
    found = extents(program, given, {})
    return replace(known, extents={a.name: found[a.name] for a in program.axes})


def _described(description: str) -> Program:
    """The program of a description."""
    found = callee(description)
    text, name, *_ = json.loads(description)[1]
    return Program(text, name, found.options, type(found))
