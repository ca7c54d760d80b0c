"""Where a program runs, and on which backend: kernels on the operands' GPU, or torch over the same tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.errors import CallError, RoomError, TargetError, nearest
from einc.base.targets import INTERPRETER, TARGETS, Target
from einc.binding import Bindings, with_scalars
from einc.driver import Compiled
from einc.ein.arithmetic import ScalarValue

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
Scalars = Mapping[str, ScalarValue]
Outputs = tuple["torch.Tensor", ...]
Launch = Callable[[Tensors, Scalars, Outputs | None], Outputs]

BACKENDS = ("triton", "interpret", "torch", "evaluate")
ON_CPU = "torch"  # the backend for operands on the CPU, unless a call names one


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call runs, and on which backend."""

    backend: str
    device: torch.device


def target_of(device: torch.device) -> Target:
    """The target for code on a device; raises `TargetError` for a device that no target fits."""
    if device.type == "cpu":
        return INTERPRETER
    import torch

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


def launch_in_triton(compiled: Compiled, bindings: Bindings, where: Place) -> Launch:  # noqa: ARG001 - finds its extents
    """The function that runs the emitted file, on a GPU or in Triton's interpreter; its launcher finds the extents.

    If its kernels need more than the machine has, the file is compiled again with smaller tiles, which are kept.
    """
    from einc.codegen.run.load import launcher

    program = compiled.program
    fitting, launch = compiled, launcher(compiled.source, compiled.emitted.launcher)
    optional = [isinstance(p, ein.Param) and p.default is not None for p in program.params]
    order = [program.params[k].name for k in sorted(range(len(optional)), key=lambda k: optional[k])]
    single = len(program.results) == 1
    device = {} if program.operands else {"device": where.device}

    def run(tensors: Tensors, scalars: Scalars, out: Outputs | None) -> Outputs:
        nonlocal fitting, launch
        values: Mapping[str, Any] = {**tensors, **scalars}
        into = out[0] if out is not None and single else out
        while True:
            try:
                found = launch(*map(values.get, order), out=into, **device)  # None stands for a default
            except RoomError:
                smaller = fitting.tightened()
                if smaller is None:
                    raise
                fitting, launch = smaller, launcher(smaller.source, smaller.emitted.launcher)
            else:
                return (found,) if single else tuple(found)

    return run


def launch_in_torch(compiled: Compiled, bindings: Bindings, where: Place) -> Launch:
    """The function that runs the compiled kernels by torch operations, vectorised over the grid."""
    from einc.codegen.executor.run import executor

    program, schedule = compiled.state.program, compiled.state.schedule
    assert schedule is not None
    prepared = executor(program, schedule, bindings, where.device)

    def run(tensors: Tensors, scalars: Scalars, out: Outputs | None) -> Outputs:
        own = with_scalars(compiled.program, bindings, scalars).scalars if compiled.program.scalars else {}
        return prepared.run(tensors, own, out or ())

    return run
