"""A call, prepared: found once for operands of the same shapes and types, and kept.

    facts  -->  program, bindings  -->  kernels for a target  -->  launch

Every call goes through here: of a compiled text, an einsum, a row of a benchmark.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.facts import Fact, Layout
from einc.base.targets import INTERPRETER, Target, target
from einc.base.types import F32, DType
from einc.base.written import writable
from einc.binding import Bindings
from einc.binding.checks import checked_scalars
from einc.binding.obligations import depends_on, obligations
from einc.codegen import AUTO, BACKENDS
from einc.driver import Compiled, compile_program
from einc.pipeline import Backend
from einc.runtime.execution import ON_CPU, InTorch, InTriton, Outputs, Place
from einc.runtime.orders import batch_first
from einc.runtime.tensors import layout
from einc.runtime.timing import seconds_of
from einc.tile.asked import (
    Choice,
    check_heeded,
    check_precision,
    choices_read,
    choices_written,
    named_precision,
    precision,
)
from einc.tuning import OFF, Entry, applied, current, effective, tables
from einc.tuning.keys import key_of
from einc.tuning.machines import machine
from einc.tuning.progress import shown
from einc.tuning.sessions import begun

if TYPE_CHECKING:
    import torch

    from einc.runtime.again import Run
    from einc.stages import Given

Layouts = tuple[Layout, ...]  # of operands in order; none where they decide nothing
Operands = tuple[Mapping[str, "torch.Tensor"], Mapping[str, Any]] | None  # operands and scalars of a call

_MOST_KEPT = 4096
_MOST_BAKED = 4  # values that torch's tiles are compiled for: that takes longer than what is gained for small tiles

_kept: OrderedDict[tuple[Hashable, Hashable], Prepared] = OrderedDict()
_baked: Counter[Hashable] = Counter()  # the calls among these that were prepared for values, by what else they are for
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Options:
    """A user's options for the compiler; a `target` of None is the machine that the operands are on.

    `begin` are kernels that the text itself gives, if it does; `generator` writes the kernels, or what takes its place.
    If results are `free`, they may lie in memory in any order of their axes. `tune` says how much is measured, where
    None leaves it to the environment (`einc.tuning.modes`). What need not be `deterministic` may add in another order
    in each run. `precision` is what contractions of f32 multiply in. Descriptions have those that are `writable`.
    """

    level: int = field(default=2, metadata=writable())
    target: Target | None = field(
        default=None, metadata=writable(lambda t: t and t.name, lambda name: name and target(name))
    )
    verify: bool = field(default=True, metadata=writable())
    choices: tuple[Choice, ...] = field(default=(), metadata=writable(choices_written, choices_read))
    begin: Given | None = None
    generator: Backend = field(default=AUTO, metadata=writable(lambda g: g.name, BACKENDS.__getitem__))
    free: bool = False
    tune: str | None = None
    deterministic: bool = field(default=True, metadata=writable())
    precision: DType = field(default=F32, metadata=writable(named_precision, precision))

    def meant(self, program: ein.Program) -> ein.Program:
        """The program whose contractions of f32 multiply as precisely as is asked for."""
        return program if program.precision == self.precision else replace(program, precision=self.precision)

    def machine(self, where: Place | None) -> Target:
        """The target named, else that of the place; the interpreter without either."""
        return self.target or (INTERPRETER if where is None else where.target)

    def writer(self, machine: Target) -> Backend:
        """The generator for a machine. Kernels that a text gives are as they are: none gets roles unasked."""
        own = self.generator
        return own.on(machine) if self.begin is None else own.elsewhere or own

    def layouts(self, tensors: Sequence[torch.Tensor], where: Place | None) -> Layouts:
        """How operands lie in memory, where the machine has several ways to that."""
        by_torch = where is not None and where.backend == "torch"
        if by_torch or self.level < 2 or self.machine(where).vendor != "cuda":
            return ()
        return tuple(map(layout, tensors))

    def compile(
        self,
        program: ein.Program,
        extents: Mapping[str, int] | None,
        where: Place | None = None,
        layouts: Layouts = (),
    ) -> Compiled:
        """The program compiled for extents and layouts, and for the place where it runs if no target was named.

        What was measured on the device goes before what the model chooses. Raises `CallError` where a choice cannot be
        followed.
        """
        made = self.by_model(program, extents, where, layouts)
        found = self.measured(made, where)
        return made if found is None else applied(made, found)

    def by_model(
        self,
        program: ein.Program,
        extents: Mapping[str, int] | None,
        where: Place | None = None,
        layouts: Layouts = (),
    ) -> Compiled:
        """The same with what was asked for and what the model chooses."""
        machine, program = self.machine(where), self.meant(program)
        generator = self.writer(machine)
        if self.target is not None or (where is not None and where.backend == "triton"):
            generator.check(machine)
        check_precision(self.precision, machine.name, lambda t: generator.multiplies(machine, t))
        lying = {p.name: own for p, own in zip(program.operands, layouts, strict=False)}
        made = compile_program(
            program,
            self.level,
            machine,
            extents,
            self.verify,
            self.choices,
            self.begin,
            generator,
            lying,
            self.deterministic,
        )
        if self.choices:
            assert made.state.schedule is not None
            check_heeded(self.choices, made.state.schedule.kernels)
        return made

    def measured(self, made: Compiled, where: Place | None) -> Entry | None:
        """What was measured of a program on the device where it runs, if it was, and may be used."""
        named = self.machine_name(where)
        if named is None or effective(self.tune) == OFF or tables.is_empty(named):
            return None
        key = key_of(made.measured_as)
        return None if key is None else tables.find(named, key)

    def machine_name(self, where: Place | None) -> str | None:
        """The device that measurements are for; None where there is none, or choices are made already."""
        if where is None or self.choices or self.target is not None or where.backend not in ("triton", ON_CPU):
            return None
        own = where.device.type == "cpu"
        return machine(where.device) if own == (where.backend == ON_CPU) else None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A call prepared for all calls with operands of the same shapes and types that agree in the deciding scalars."""

    program: ein.Program
    bindings: Bindings
    compiled: Compiled
    launch: InTorch | InTriton

    def run(
        self,
        tensors: Mapping[str, torch.Tensor],
        scalars: Mapping[str, Any] | None = None,
        out: Outputs = (),
    ) -> Outputs:
        """The results in order, for operands on the device that the call was prepared for, in the tensors `out` if
        there are any."""
        given = checked_scalars(self.program, scalars or {}) if self.program.scalars else {}
        return self.launch.run(tensors, given, out)

    def first(
        self,
        tensors: Mapping[str, torch.Tensor],
        scalars: Mapping[str, Any],
        varying: Sequence[str],
        out: Outputs = (),
    ) -> tuple[Outputs, Run | None]:
        """The results in order, and what gives them in calls that differ in memory and in these scalars only."""
        given = checked_scalars(self.program, scalars) if self.program.scalars else {}
        return self.launch.first(tensors, given, varying, out)


def prepared(
    source: Hashable,
    facts: tuple[Fact, ...],
    scalars: Mapping[str, Any],
    where: Place,
    options: Options,
    meaning: Callable[[], tuple[ein.Program, Bindings]],
    baked: frozenset[str] = frozenset(),
    layouts: Layouts = (),
    given: Operands = None,
) -> Prepared:
    """The prepared call of `source`, which makes a program of facts, for such operands and scalars.

    `layouts` are those of the operands, if they decide anything (`Options.layouts`). `given` are the operands and all
    scalars of the call, if they are there: what a program is tuned with.
    `meaning` gives the program and its bindings, and raises `einc.Error` where the operands do not fit; errors are not
    kept. `scalars` are those that decide (`Deciding`); others may differ between calls. After calls for several values
    of those in `baked`, one is prepared that serves all values.
    """
    settled = tuple((n, type(v), v) for n, v in scalars.items() if n not in baked)
    changing = tuple(n for n in scalars if n in baked)
    alike = (source, facts, settled, changing, where, options, layouts)
    values = tuple(scalars[n] for n in changing)
    found = None if current() else _kept.get((alike, values)) or _kept.get((alike, None))
    return found or _prepare(alike, values, frozenset(changing), where, options, meaning, layouts, given)


def _prepare(
    alike: Hashable,
    values: tuple[int, ...] | None,
    changing: frozenset[str],
    where: Place,
    options: Options,
    meaning: Callable[[], tuple[ein.Program, Bindings]],
    layouts: Layouts,
    given: Operands,
) -> Prepared:
    """The call prepared for these values of what is changing, or for all."""
    with _lock:  # if several threads ask for a program, one compiles it
        if values and (alike, values) not in _kept and _baked[alike] >= _MOST_BAKED:
            values = None
        key = (alike, values)
        if key not in _kept or current():
            program, bindings = meaning()
            program, views = batch_first(program) if options.free and layouts else (program, ())
            taken = changing if values is None else frozenset[str]()

            def launched(compiled: Compiled) -> InTorch | InTriton:
                if where.backend == "torch":
                    return InTorch(compiled, bindings, where, taken)
                return InTriton(compiled, bindings, where, views)

            compiled = options.compile(program, bindings.extents, where, layouts)
            made = Prepared(program, bindings, compiled, launched(compiled))
            _kept[key] = _tuned(made, options, where, layouts, given, launched)
            if values:
                _baked[alike] += 1
            if len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
        return _kept[key]


# ---------------------------------------------------------------------------------------------------------------------
# Choices by measuring


def _tuned(
    made: Prepared,
    options: Options,
    where: Place,
    layouts: Layouts,
    given: Operands,
    launched: Callable[[Compiled], InTorch | InTriton],
) -> Prepared:
    """The call with what is measured to be fastest, where it is to be tuned and can be."""
    named, asked = options.machine_name(where), current()
    mode = effective(options.tune)
    if named is None or given is None or (asked is None and mode in (None, OFF)):
        return made
    from einc.tuning.devices import OnDevice, can_time
    from einc.tuning.search import tuned

    if not can_time(given[0].values()):
        return made
    model = options.by_model(made.program, made.bindings.extents, where, layouts)
    key = key_of(model.measured_as)
    if (
        key is None
        or (asked is None and options.measured(model, where) is not None)
        or getattr(made.launch, "single", None) is not None
    ):
        return made
    scalars = checked_scalars(made.program, given[1]) if made.program.scalars else {}
    trials = OnDevice(launched, where.device, given[0], scalars, seconds_of)
    if asked is not None:
        asked.outcomes.append(outcome := tuned(model, named, key, trials, asked))
    else:
        with shown(made.program.name) as said:
            outcome = tuned(model, named, key, trials, begun(mode or "quick", said=said))
    tables.keep(named, key, outcome.entry)
    compiled = applied(model, outcome.entry)
    return Prepared(made.program, made.bindings, compiled, launched(compiled))


@dataclass(frozen=True, slots=True)
class Deciding:
    """The scalars of a program whose values decide how a call runs.

    `always` are truth values, and what extents, defaults and checks depend on. Emitted kernels take all others as
    arguments. Tiles run by torch are compiled for some values of the integers `baked`: so they know what masks leave.
    """

    always: frozenset[str] = frozenset()
    baked: frozenset[str] = frozenset()

    def of(self, backend: str) -> frozenset[str]:
        """Those for calls that run on a backend."""
        return self.always | self.baked if backend == "torch" else self.always


NOTHING = Deciding()


def deciding(program: ein.Program) -> Deciding:
    """The scalars that decide: all but floats and seeds, beside those in formulas and in what is checked."""
    dims = program.shapes()
    formulas = [e for e in (*(a.extent for a in program.axes), *(p.default for p in program.scalars)) if e is not None]
    formulas += [e for eq in program.equations for owed in obligations(eq, dims) for e in depends_on(owed)]
    always = {n.name for e in formulas for n in ein.walk(e) if isinstance(n, ein.Scalar)}
    found: set[str] = set()
    for root in (e for eq in program.equations for e in eq.expressions()):
        stack = [root]
        while stack:
            match stack.pop():
                case ein.Scalar(name):
                    found.add(name)
                case ein.Apply("rand", (ein.Scalar() | ein.Cast(arg=ein.Scalar()), *rest)):
                    stack += rest
                case node:
                    stack += ein.children(node)
    always |= {p.name for p in program.scalars if p.dtype.is_bool and p.name in found}
    baked = {p.name for p in program.scalars if p.dtype.is_int and p.name in found} - always
    return Deciding(frozenset(always), frozenset(baked))


def forget() -> None:
    """Drop all prepared calls."""
    with _lock:
        _kept.clear()
        _baked.clear()
