"""NumPy's options of einsum: the values that `optimize`, `order`, `casting` and `dtype` take, and the casts allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from einc.base.errors import CallError, DTypeError, nearest
from einc.base.types import DType, numpy_join
from einc.base.words import count
from einc.runtime.tensors import dtype_of, numpy_dtype

ORDERS = ("C", "F", "A", "K")
CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")
STRATEGIES = ("greedy", "optimal", "auto", "auto-hq", "dp", "branch-all", "branch-1", "branch-2", "random-greedy")


class PathError(CallError, RuntimeError):
    """A contraction path that does not reduce the operands to one; also a RuntimeError, as in NumPy."""


def check_optimize(optimize: object, operands: int) -> None:
    """Accept what NumPy accepts: a bool, a strategy, a strategy with a memory limit, or a path of `einsum_path`.

    The compiler orders contractions by its own cost model, so that a valid choice has no effect.
    """
    match optimize:
        case None | bool() | np.bool():
            return
        case str():
            _one_of("optimize", optimize, STRATEGIES)
        case ["einsum_path", *steps]:
            _check_path(steps, operands)
        case [str() as strategy, int() | float()]:
            _one_of("optimize", strategy, STRATEGIES)
        case _:
            raise CallError(
                "'optimize' is neither a bool, nor a strategy, nor a path",
                fact=f"optimize={optimize!r:.80}",
                hint="optimize=True, or leave it out",
            )


def _check_path(steps: Sequence[object], operands: int) -> None:
    left = operands
    for step in steps:
        indices = list(step) if isinstance(step, list | tuple) else [None]
        if not all(isinstance(k, int | np.integer) and 0 <= k < left for k in indices) or len(set(indices)) < len(
            indices
        ):
            raise PathError(
                "a step of the path contracts operands that do not exist",
                fact=f"the step {step!r:.80} meets {count(left, 'operand')}",
                hint="optimize=True",
            )
        left -= len(indices) - 1
    if left != 1:
        raise PathError(
            f"the path leaves {left} operands", fact="a path contracts all operands into one", hint="optimize=True"
        )


def check_order(order: object) -> str:
    """The order as one capital letter."""
    return _one_of("order", order.upper() if isinstance(order, str) else order, ORDERS)


def check_casting(casting: object) -> str:
    return _one_of("casting", casting, CASTINGS)


def _one_of(option: str, value: object, known: Sequence[str]) -> str:
    if isinstance(value, str) and value in known:
        return value
    raise CallError(
        f"'{option}' cannot be {value!r:.80}",
        fact=f"it is one of {', '.join(known)}",
        hint=nearest(str(value)[:80], known) or f"{option}='{known[0]}'",
    )


def read_dtype(dtype: object) -> DType | None:
    """The type that `dtype=` names: a NumPy or torch type, or None."""
    if dtype is None:
        return None
    if type(dtype).__module__ == "torch":
        import torch

        return dtype_of(torch.empty(0, dtype=dtype), "dtype")  # type: ignore[call-overload]  # a torch.dtype by its module
    try:
        known: np.dtype[Any] = np.dtype(dtype)  # type: ignore[call-overload]  # raises TypeError unless it is a type
    except (TypeError, ValueError):
        raise DTypeError(f"{dtype!r:.80} is not a type", hint="dtype='f4', np.float32 or torch.float32") from None
    return dtype_of(np.empty(0, known), "dtype")


def check_cast(what: str, given: DType, wanted: DType, casting: str) -> None:
    """Raise `DTypeError` where the casting rule does not let one type become the other."""
    if given == wanted or castable(given, wanted, casting):
        return
    raise DTypeError(
        f"{what} is {given}, and casting='{casting}' does not allow a cast to {wanted}",
        fact=f"casting='{casting}' allows {_ALLOWS[casting]}",
        hint="casting='unsafe'",
    )


_ALLOWS = {
    "no": "no cast",
    "equiv": "no cast",
    "safe": "casts that keep every value",
    "same_kind": "safe casts, and those within a kind",
    "unsafe": "any cast",
}


def castable(given: DType, wanted: DType, casting: str) -> bool:
    """NumPy's `can_cast`, extended to the narrow floats that it lacks."""
    a, b = numpy_dtype(given), numpy_dtype(wanted)
    if read_dtype(a) == given and read_dtype(b) == wanted:
        return bool(np.can_cast(a, b, casting))  # type: ignore[arg-type]  # one of CASTINGS
    match casting:
        case "no" | "equiv":
            return given == wanted
        case "safe":
            return numpy_join(given, wanted) == wanted
        case "same_kind":
            return "biufc".index(given.kind) <= "biufc".index(wanted.kind)
        case _:
            return True
