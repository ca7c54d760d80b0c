"""Where a program runs, and on which backend: kernels on the operands' GPU, or torch over the same tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.errors import CallError, RoomError, TargetError, nearest
from einc.base.targets import INTERPRETER, TARGETS, Target, cores
from einc.binding import Bindings, completed, with_scalars
from einc.driver import Compiled
from einc.ein.arithmetic import ScalarValue

if TYPE_CHECKING:
    import torch

    from einc.codegen.tape import Again
    from einc.runtime.again import Run
    from einc.runtime.orders import Views

Tensors = Mapping[str, "torch.Tensor"]
Scalars = Mapping[str, ScalarValue]
Outputs = tuple["torch.Tensor", ...]

_TRIES = 8  # of writing down what a computation does: for other numbers, or after values that decided otherwise

BACKENDS = ("triton", "interpret", "torch", "evaluate")
ON_CPU = "torch"  # the backend for operands on the CPU, unless a call names one


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call runs, and on which backend."""

    backend: str
    device: torch.device

    @property
    def target(self) -> Target:
        """The target for code that runs here; raises `TargetError` for a device that no target fits."""
        return INTERPRETER if self.backend == "interpret" else target_of(self.device)


def target_of(device: torch.device) -> Target:
    """The target for code on a device; raises `TargetError` for a device that no target fits."""
    import torch

    if device.type == "cpu":
        return cores(torch.get_num_threads())

    if device.type == "cuda" and torch.version.hip:
        name = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    elif device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        name = f"sm_{10 * min(major, 10)}"
    else:
        name = device.type
    if name in TARGETS:
        return TARGETS[name]
    raise TargetError(
        f"kernels are not compiled for the device {device}",
        fact=f"it is a {name}; targets are {', '.join(TARGETS)}",
        hint="move the operands to one of these, or to the CPU",
    )


def place(home: torch.device, backend: str | None = None) -> Place:
    """Where a call with operands on `home` runs; raises `CallError` for a backend that is unknown or not available.

    Without a backend, operands on the CPU run by torch operations, others as compiled kernels on their device.
    """
    import torch

    if backend is None:
        backend = ON_CPU if home.type == "cpu" else "triton"
    if backend == "torch":
        return Place(backend, home)
    if backend == "interpret":
        return Place(backend, torch.device("cpu"))
    if backend != "triton":
        raise CallError(
            f"there is no backend {backend!r}",
            fact=f"backends are {', '.join(BACKENDS)}",
            hint=nearest(str(backend), BACKENDS) or "leave it out",
        )
    if home.type != "cpu":
        return Place(backend, home)
    if not torch.cuda.is_available():
        raise TargetError("there is no GPU here", fact="torch.cuda.is_available() is False", hint='backend="torch"')
    return Place(backend, torch.device("cuda", torch.cuda.current_device()))


def usual_device() -> torch.device:
    """The device that operands would be on: a GPU if there is one."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def machine_of(where: torch.device | Target) -> str:
    """What kernels have to fit: the name of a target, or of a GPU, and the shared memory that a program has there."""
    if isinstance(where, Target):
        return f"{where.name} {where.shared}"
    if where.type != "cuda":
        return where.type
    import torch

    found = torch.cuda.get_device_properties(where)
    return f"{found.name} {getattr(found, 'shared_memory_per_block_optin', 0)}"


def parameters(program: ein.Program) -> list[str]:
    """The operands and scalars of a program in the order of its launcher: those with a default last."""
    optional = [isinstance(p, ein.Param) and p.default is not None for p in program.params]
    return [program.params[k].name for k in sorted(range(len(optional)), key=lambda k: optional[k])]


class InTriton:
    """Runs the emitted file, on a GPU or in Triton's interpreter; its launcher finds the extents.

    If its kernels need more than the machine has, the file is compiled again with smaller tiles, which are kept.
    `views` are of results that lie in memory in another order than their axes are asked for.
    """

    def __init__(self, compiled: Compiled, bindings: Bindings, where: Place, views: Views = ()) -> None:
        from einc.codegen.run.load import launcher

        program = compiled.program
        self.compiled, self.bindings, self.machine = compiled, bindings, machine_of(where.device)
        self.fitting = compiled.fitted(self.machine)
        self.launch = launcher(self.fitting.source, self.fitting.emitted.launcher)
        self.order, self.views = parameters(program), views
        self.device = {} if program.operands else {"device": where.device}
        self.lock = RLock()  # if several threads need a kernel, one compiles it

    def run(self, tensors: Tensors, scalars: Scalars, out: Outputs = ()) -> Outputs:
        """The results in order, in the tensors `out` if there are any."""
        from einc.codegen.run.load import noted

        single = len(self.fitting.program.results) == 1
        values: Mapping[str, Any] = {**tensors, **scalars}
        into = out[0] if out and single else out or None
        with self.lock:
            while True:
                try:
                    with noted():  # none of those that were made before one had no room
                        found = self.launch(*map(values.get, self.order), out=into, **self.device)  # None is a default
                except RoomError:
                    self.tighten()
                else:
                    results = (found,) if single else tuple(found)
                    if not self.views:
                        return results
                    return tuple(t.permute(view) for t, view in zip(results, self.views, strict=True))

    def first(
        self, tensors: Tensors, scalars: Scalars, varying: Sequence[str], out: Outputs = ()
    ) -> tuple[Outputs, Run | None]:
        """The results in order, and what gives them in further calls, which may differ in the `varying` scalars: in the
        value of floats, in that of integers without more digits. Results are distinct if they are written to `out`."""
        from einc.codegen.run.load import noted
        from einc.runtime.replay import replay

        with noted() as launches:
            results = self.run(tensors, scalars, out)
        if varying and not self.is_steady(scalars, varying):
            return results, None
        order, names = tuple(tensors), self.fitting.program.results

        def anew(given: Sequence[torch.Tensor], numbers: Sequence[Any]) -> Outputs:
            values = {**scalars, **dict(zip(varying, numbers, strict=True))}
            return self.run(dict(zip(order, given, strict=False)), values, tuple(given[len(order) :]))

        found = dict(zip(names, results, strict=True))
        made = replay(anew, launches, self.fitting.emitted.kernels, order, found, varying, names, bool(out))
        return results, None if made is None else made.run

    def is_steady(self, scalars: Scalars, varying: Sequence[str]) -> bool:
        """Would the launcher choose the same kernels for all integers of as many digits as these?"""
        from einc.codegen.emit import index_width

        state = self.fitting.state
        assert state.schedule is not None
        found = completed(state.program, with_scalars(self.compiled.program, self.bindings, scalars))
        return index_width.is_steady(state.schedule, found.extents, found.scalars, varying)

    def tighten(self) -> None:
        """Compile smaller tiles, where these need more than the machine has; raises the current error if none do."""
        from einc.codegen.run.load import launcher

        smaller = self.fitting.tightened()
        if smaller is None:
            raise
        self.compiled.note_fit(self.machine, smaller)
        self.fitting, self.launch = smaller, launcher(smaller.source, smaller.emitted.launcher)


class Repeated:
    """A computation of small tensors, as the operations that it makes, from its second run with the same numbers on.

    Only the first few numbers have operations of their own: scales stay, seeds change.
    """

    def __init__(self, compute: Run) -> None:
        self.compute = compute
        self.known: dict[tuple[str, ...], Again | None] = {}
        self.tries = _TRIES

    def run(self, tensors: Sequence[torch.Tensor], addresses: Sequence[int], numbers: Sequence[Any]) -> Outputs:
        """The results in order."""
        key = tuple(map(repr, numbers))
        operations = self.known.get(key)
        if operations is not None:
            found = operations(*tensors)
            if found is not None:
                return found
        if self.tries == 0:
            return tuple(self.compute(list(tensors), list(addresses), list(numbers)))
        from einc.codegen.tape import record

        self.tries -= 1
        results, self.known[key] = record(lambda given: self.compute(list(given), [], list(numbers)), tensors)
        return results


class InTorch:
    """Runs the compiled kernels by torch operations, vectorised over the grid.

    Integers that are `changing` are taken at each run, others are compiled for. A program that is one operation of
    torch is computed by that, unless it is to be run as it is `tiled`.
    """

    def __init__(
        self,
        compiled: Compiled,
        bindings: Bindings,
        where: Place,
        changing: frozenset[str] = frozenset(),
        tiled: bool = False,
    ) -> None:
        from einc.codegen.executor.run import executor
        from einc.codegen.operation import gathered, operation, scattered

        schedule = compiled.state.schedule
        assert schedule is not None
        self.program, self.bindings = compiled.program, bindings
        self.names = tuple(p.name for p in compiled.program.operands)
        self.executor = executor(compiled.state.program, schedule, bindings, where.device, changing)
        single = operation(compiled.program) or scattered(compiled.program) or gathered(compiled.program)
        self.single = None if tiled or compiled.context.level < 2 else single

    def run(self, tensors: Tensors, scalars: Scalars, out: Outputs = ()) -> Outputs:
        """The results in order, in the tensors `out` if there are any."""
        return tuple(self.computation(scalars, ())(self.given(tensors, out), [], []))

    def first(
        self, tensors: Tensors, scalars: Scalars, varying: Sequence[str], out: Outputs = ()
    ) -> tuple[Outputs, Run | None]:
        """The results in order, and what gives them in further calls, which may differ in the `varying` scalars."""
        compute = self.computation(scalars, varying)
        results = compute(self.given(tensors, out), [], [scalars[name] for name in varying])
        repeats = self.single is None and self.executor.small
        return tuple(results), Repeated(compute).run if repeats else compute

    def given(self, tensors: Tensors, out: Outputs) -> list[torch.Tensor]:
        return [*(tensors[name] for name in self.names), *out]

    def computation(self, scalars: Scalars, varying: Sequence[str]) -> Run:
        """What gives the results for operands, and for others of the `varying` scalars."""
        names, execute, single = self.names, self.executor.run, self.single
        if single is not None:
            count = len(names)
            return lambda given, _, __: (single(given, *given[count:]),)
        own = with_scalars(self.program, self.bindings, scalars).scalars if self.program.scalars else {}

        def run(given: Sequence[torch.Tensor], _: Sequence[int], numbers: Sequence[Any]) -> Outputs:
            values = {**own, **dict(zip(varying, numbers, strict=True))} if varying else own
            return execute(dict(zip(names, given, strict=False)), values, tuple(given[len(names) :]))

        return run
