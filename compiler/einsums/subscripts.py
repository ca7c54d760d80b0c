"""The ways to call einsum, read as one: the string first, or last as in einops, or lists of integers as in NumPy."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from einc.base.errors import CallError
from einc.runtime.tensors import is_torch

_LONGEST = 1000  # the most axes read from a list; no operand has as many
LABELS = 52  # lists of integers hold 0 to 51, as in NumPy and PyTorch


@dataclass(frozen=True, slots=True)
class Call:
    """A string and its operands; `named` if the string came last and holds names, as in einops."""

    text: str
    operands: tuple[object, ...]
    named: bool = False


def read_call(args: Sequence[object]) -> Call:
    """The string and operands of a call; raises `CallError` where there are none."""
    if not args:
        raise CallError("einsum needs a string and operands", hint="einc.einsum('ij,jk->ik', A, B)")
    first, last = args[0], args[-1]
    if isinstance(first, str):
        operands = tuple(args[1:])
        if len(operands) == 1 and isinstance(operands[0], list | tuple) and any(map(is_torch, operands[0])):
            operands = tuple(operands[0])
        return _filled(Call(first, operands))
    if isinstance(last, str):
        return _filled(Call(last, tuple(args[:-1]), named=True))
    return _interleaved(args)


def _filled(call: Call) -> Call:
    if call.operands:
        return call
    raise CallError(
        "einsum needs at least one operand", fact=f"the string is '{call.text[:80]}'", hint="pass one operand a term"
    )


def _interleaved(args: Sequence[object]) -> Call:
    """`einsum(A, [0, 1], B, [1, 2], [0, 2])` as `"ab,bc->ac"`."""
    operands, lists = args[: len(args) // 2 * 2 : 2], [_labels(a) for a in args[1::2]]
    output = _labels(args[-1]) if len(args) % 2 else None
    if not operands:
        raise CallError(
            "einsum needs a string, or a list of axes after each operand",
            fact=f"it received one {type(args[0]).__name__}",
            hint="einc.einsum('ij->i', A), or einc.einsum(A, [0, 1], [0])",
        )
    highest = max([0, *(n for row in (*lists, output or ()) for n in row if n is not None)])
    terms = [_term(row, highest) for row in lists]
    arrow = "" if output is None else f"->{_term(output, highest)}"
    return Call(",".join(terms) + arrow, tuple(operands))


def _term(row: Sequence[int | None], highest: int) -> str:
    return "".join("..." if n is None else _letter(n, highest) for n in row)


def _letter(n: int, highest: int) -> str:
    """Letters in the order of the integers: a to z if they suffice, else A to Z and a to z."""
    if highest < 26:
        return chr(ord("a") + n)
    return chr(ord("A") + n) if n < 26 else chr(ord("a") + n - 26)


def _labels(value: object) -> list[int | None]:
    """The integers of a list, None for an `Ellipsis`."""
    try:
        items = None if isinstance(value, str | bytes | dict | set) else list(islice(value, _LONGEST))  # type: ignore[call-overload]
    except Exception:  # iterating over a foreign object may raise anything
        items = None
    if items is None:
        raise CallError(
            "each operand is followed by a list of its axes",
            fact=f"there is a {type(value).__name__} instead of a list",
            hint="einc.einsum(A, [0, 1], B, [1, 2]), or a string as the first argument",
        )
    return [_label(item) for item in items]


def _label(item: object) -> int | None:
    if item is Ellipsis:
        return None
    try:
        if isinstance(item, bool):
            raise TypeError
        n = operator.index(item)  # type: ignore[arg-type]  # raises TypeError unless it is an integer
    except TypeError:
        raise CallError(
            "a list of axes holds integers and Ellipsis",
            fact=f"it holds a {type(item).__name__}",
            hint="number the axes",
        ) from None
    if not 0 <= n < LABELS:
        raise CallError(
            f"{n} is not an axis: a list holds integers from 0 to {LABELS - 1}",
            fact="NumPy and PyTorch have the same limit",
            hint="write a string, in which every letter of every script is a label",
        )
    return n
