"""A program run on torch tensors: on the GPU they are on, else by torch operations over the same tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.errors import CallError, TargetError, nearest
from einc.base.targets import INTERPRETER, TARGETS, Target
from einc.binding import Bindings, bind, completed
from einc.driver import Compiled, compile_program
from einc.ein.arithmetic import ScalarValue

if TYPE_CHECKING:
    import torch

Runner = Callable[..., tuple["torch.Tensor", ...]]

BACKENDS = ("triton", "interpret", "torch", "evaluate")
ON_CPU = "torch"  # what runs operands on the CPU, unless a call says otherwise


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call runs, and by which of the backends."""

    backend: str
    device: torch.device


def target_of(device: torch.device) -> Target:
    """The target that code is made for on a device; raises `TargetError` for a device that none fits."""
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
        f"nothing is compiled for the device {device}",
        fact=f"it is a {name}; targets are {', '.join(TARGETS)}",
        hint="move the operands to one of these, or to the CPU",
    )


def place(home: torch.device, backend: str | None = None) -> Place:
    """Where a call with operands at home runs; raises `CallError` for a backend that is not known or not there.

    Without one, operands on the CPU run by torch operations, others as compiled kernels on their device.
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


@lru_cache(maxsize=1024)
def runner(compiled: Compiled) -> Runner:
    """The compiled program as a function of its parameters in order; `out` is a tuple of results, or None.

    None stands for a scalar that has a default. `device` is where a program without operands runs.
    """
    from einc.codegen.run.load import launcher

    program = compiled.program
    launch = launcher(compiled.source, compiled.emitted.launcher)
    optional = [isinstance(p, ein.Param) and p.default is not None for p in program.params]
    order = sorted(range(len(optional)), key=lambda k: optional[k])  # a launcher's defaults come last
    single = len(program.results) == 1

    def run(
        *args: Any, out: tuple[torch.Tensor, ...] | None = None, device: torch.device | None = None
    ) -> tuple[torch.Tensor, ...]:
        into = out[0] if out is not None and single else out
        where = {} if program.operands else {"device": device}
        found = launch(*(args[k] for k in order), out=into, **where)
        return (found,) if single else tuple(found)

    return run


def run_in_torch(
    compiled: Compiled,
    tensors: Mapping[str, torch.Tensor],
    bindings: Bindings,
    out: tuple[torch.Tensor, ...] | None = None,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, ...]:
    """The results of the compiled kernels by torch operations, vectorised over the grid; `out` takes them, if given.

    `device` is where a program without operands runs.
    """
    from einc.codegen.executor.run import run

    schedule = compiled.state.schedule
    assert schedule is not None
    into = None if out is None else dict(zip(compiled.program.results, out, strict=True))
    final = compiled.state.program
    return run(final, schedule, tensors, completed(final, bindings), into, device)


def execute(
    program: ein.Program,
    tensors: Sequence[torch.Tensor],
    scalars: Mapping[str, ScalarValue] | None = None,
    extents: Mapping[str, int] | None = None,
    level: int = 2,
    out: tuple[torch.Tensor, ...] | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, ...]:
    """The results of a program on its operands, in order, all on one device; shapes are checked by the caller.

    `extents` are those of the call, which schedules are chosen by.
    """
    import torch

    where = place(tensors[0].device if tensors else torch.device("cpu"), backend)
    compiled = compile_program(program, level, target_of(where.device), extents)
    given = dict(zip((p.name for p in program.operands), tensors, strict=True))
    if where.backend == "torch":
        bindings = bind(program, {name: tuple(x.shape) for name, x in given.items()}, scalars)
        return run_in_torch(compiled, given, bindings, out, where.device)
    values: dict[str, Any] = given | dict(scalars or {})
    return runner(compiled)(*(values.get(p.name) for p in program.params), out=out, device=where.device)
