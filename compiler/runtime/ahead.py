"""Calls prepared before there are operands: their kernels compiled for a device, or for a machine that is not here.

programs, operands without memory  -->  launches of all of them  -->  compiled at once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.errors import CallError, TargetError
from einc.base.targets import Target, target
from einc.base.types import BY_NAME, DType
from einc.binding import Bindings
from einc.binding.checks import checked_scalars
from einc.driver import Compiled
from einc.runtime.arguments import Arguments
from einc.runtime.callee import Callee
from einc.runtime.execution import Place, machine_of, parameters, place, target_of
from einc.runtime.prepared import Options
from einc.runtime.tensors import device_of, dtype_of, is_meta, is_torch, torch_dtype

if TYPE_CHECKING:
    import torch

    from einc.codegen.run.warm import Launch

Call = tuple[Compiled, Arguments]


def make_ready(
    callee: Callee, calls: Sequence[Arguments], device: object, machine: str | None, backend: str | None
) -> None:
    """Prepare calls on a device, or compile their kernels for the machine that is named, where it is not this one."""
    options = callee.options
    away = elsewhere(machine, options.target, device, backend)
    bound = [callee.bound(c.facts, c.scalars) for c in calls]
    if away is not None:
        there = replace(options, target=away)
        made = [_compiled(there, c, *b, None) for c, b in zip(calls, bound, strict=True)]
        compile_calls(list(zip(made, calls, strict=True)), away)
        return
    where = place(home(calls, device), backend)
    made = [_compiled(options, c, *b, where) for c, b in zip(calls, bound, strict=True)]
    compile_calls(list(zip(made, calls, strict=True)), where)
    for c in calls:
        callee.prepared(c.facts, c.scalars, where, without(c))


def without(given: Arguments) -> list[torch.Tensor]:
    """The operands of a call as tensors without memory, contiguous."""
    import torch

    return [torch.empty(f.shape, dtype=torch_dtype(f.dtype), device="meta") for f in given.facts]


def _compiled(
    options: Options, given: Arguments, program: ein.Program, bound: Bindings, where: Place | None
) -> Compiled:
    """A call compiled for operands that lie in memory as new ones do."""
    return options.compile(program, bound.extents, where, options.layouts(without(given), where))


def compile_calls(calls: Sequence[Call], where: Place | Target) -> None:
    """Compile the kernels of all calls in parallel, with smaller tiles for those that need more than the machine has.

    There is nothing to do where no kernels are compiled. Raises `TargetError` for what does not compile, `RoomError`
    for what has no smaller tiles.
    """
    if where.vendor == "cpu" if isinstance(where, Target) else where.backend != "triton":
        return
    from einc.codegen.run.warm import compile_all

    there = where if isinstance(where, Target) else where.device
    left = [(c, c[0].fitted(machine_of(there))) for c in calls]
    while left:
        wanted = [(c, fitting, launch) for c, fitting in left for launch in _launches(fitting, c[1])]
        errors = compile_all([launch for _, _, launch in wanted], there)
        again: dict[int, tuple[Call, Compiled]] = {}
        for (c, fitting, _), error in zip(wanted, errors, strict=True):
            if error is not None and id(c) not in again:
                smaller = fitting.tightened()
                if smaller is None:
                    raise error
                c[0].note_fit(machine_of(there), smaller)
                again[id(c)] = c, smaller
        left = list(again.values())


def _launches(fitting: Compiled, given: Arguments) -> Sequence[Launch]:
    """What a call launches, found by its own launcher from operands without memory."""
    import torch

    from einc.codegen.run.warm import launches

    program = fitting.program
    values: dict[str, Any] = dict(checked_scalars(program, given.scalars)) if program.scalars else {}
    values |= zip(given.names, without(given), strict=True)
    device = {} if program.operands else {"device": torch.device("meta")}
    return launches(fitting.emitted, [values.get(name) for name in parameters(program)], device)


# ---------------------------------------------------------------------------------------------------------------------
# What a call is described by


def without_memory(
    call: Any, named: Mapping[str, Any], program: ein.Program, dtype: object
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call by position and by name, with shapes as tensors that have no memory.

    The type of a tensor that is given as a shape is that of the text; where the text leaves open which float it is,
    `dtype`, or what that says of the operand.
    """
    by_position, by_name = ((), {**named, **call}) if isinstance(call, Mapping) else (tuple(call), named)
    operands = {p.name: p for p in program.operands}

    def empty(name: str, value: Any) -> Any:
        if name not in operands or not isinstance(value, tuple) or not all(type(n) is int and n >= 0 for n in value):
            return value
        import torch

        return torch.empty(value, dtype=torch_dtype(_type_of(operands[name], dtype)), device="meta")

    names = (*(p.name for p in program.operands), *(p.name for p in program.scalars))
    placed = [empty(name, x) for name, x in zip(names, by_position, strict=False)]
    return [*placed, *by_position[len(names) :]], {name: empty(name, x) for name, x in by_name.items()}


def _type_of(operand: ein.Operand, dtype: object) -> DType:
    if isinstance(dtype, Mapping):
        return _named(dtype[operand.name]) if operand.name in dtype else operand.dtype
    open_float = operand.dtype.is_float and not operand.declared
    return operand.dtype if dtype is None or not open_float else _named(dtype)


def _named(dtype: object) -> DType:
    """An element type by its name, or as torch has it."""
    if isinstance(dtype, str) and dtype in BY_NAME:
        return BY_NAME[dtype]
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype_of(torch.empty(0, dtype=dtype, device="meta"), "dtype")
    raise CallError(f"there is no element type {dtype!r:.40}", fact=f"types are {', '.join(BY_NAME)}", hint='"bf16"')


def elsewhere(named: str | None, own: Target | None, device: object, backend: str | None) -> Target | None:
    """The machine to compile for, where it is not this one: the one named, or that of the program without a GPU here.

    Raises `TargetError` if a GPU of this machine is not of the target that is named.
    """
    import torch

    wanted = own if named is None else target(named)
    if wanted is None or device is not None or backend is not None:
        return None
    if not torch.cuda.is_available():
        return wanted
    here = target_of(torch.device("cuda", torch.cuda.current_device()))
    if named is None or here == wanted:
        return None
    raise TargetError(
        f"kernels are not prepared for {wanted.name} here",
        fact=f"Triton compiles for the GPU of this machine, which is {here.name}",
        hint="leave out the target, or write the kernels to files: einc emit --format cubin",
    )


def home(calls: Sequence[Arguments], device: object) -> torch.device:
    """Where calls will be: on the device named, or that of the operands that have memory; else on a GPU if there is
    one."""
    import torch

    if device is None:
        held = {n: a for c in calls for n, a in zip(c.names, c.arrays, strict=True) if is_torch(a) and not is_meta(a)}
        if held or any(not is_torch(a) for c in calls for a in c.arrays):
            return device_of(list(held.values()), list(held))
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)  # type: ignore[call-overload]  # whatever torch takes
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CallError(f"there is no device {device!r:.40}", fact=reason, hint='device="cuda"') from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise TargetError("there is no GPU here", fact="torch.cuda.is_available() is False", hint='target="sm_90"')
    index = torch.cuda.current_device() if found.type == "cuda" and found.index is None else found.index
    return found if index is None else torch.device(found.type, index)
