"""Operations on the bits of integers, by the arithmetic that the language has.

    x & 0b0110   -->   x // 2 % 4 * 2          in runs of ones
    x & y        -->   the sum over the bits of both, where it is known how many there are
    x | y        -->   x + y - (x & y)
    x ^ y        -->   x + y - 2 * (x & y)

Division and remainder round down, so that negative integers have the bits of their two's complement.
"""

from __future__ import annotations

from typing import Never

import torch

from einc.dropins.kinds import cast, joined, like
from einc.dropins.symbols import Symbol, refuse, rule
from einc.dropins.values import Value, apply, number

_MOST = 32  # bits that are taken apart one by one


def _logic(op: str, *names: str) -> None:
    """An operation that is logic on truth values, and takes bits of integers."""

    @rule(2, *names)
    def call(x: Symbol, y: Symbol) -> Symbol:
        dtype = joined(x, y)
        if x.dtype == y.dtype == torch.bool:
            return like(x, apply({"and": "and", "or": "or", "xor": "ne"}[op], x.value, y.value))
        if dtype.is_floating_point:
            refuse(f"torch.{names[0]} takes integers or truth values", f"here it gets {dtype}", "x.int()")
        if x.number is None and y.number is None:
            x.recorder.sized = True  # the text has as many terms as there are bits
        left, right = (cast(s, torch.int32).value if s.dtype == torch.bool else s.value for s in (x, y))
        return like(x, _combined(op, names[0], left, right), dtype)


_logic("and", "bitwise_and", "and")
_logic("or", "bitwise_or", "or")
_logic("xor", "bitwise_xor", "xor")


def _combined(op: str, name: str, x: Value, y: Value) -> Value:
    if isinstance(x.number, int):
        x, y = y, x
    both = _and_number(x, y.number) if isinstance(y.number, int) else _and(name, x, y)
    if op == "and":
        return both
    once = both if op == "or" else apply("mul", number(2), both)
    return apply("sub", apply("add", x, y), once)


def _and_number(x: Value, mask: int) -> Value:
    if mask < 0:
        return apply("sub", x, _and_number(x, ~mask))
    parts, start = [], 0
    while mask >> start:
        if not mask >> start & 1:
            start += 1
            continue
        stop = start
        while mask >> stop & 1:
            stop += 1
        parts.append(_field(x, start, stop))
        start = stop
    return _sum(parts)


def _field(x: Value, start: int, stop: int) -> Value:
    """The bits from `start` to `stop`, in their place."""
    if start:
        x = apply("floordiv", x, number(1 << start))
    x = apply("mod", x, number(1 << stop - start))
    return apply("mul", x, number(1 << start)) if start else x


def _and(name: str, x: Value, y: Value) -> Value:
    """Both vary: their bits one by one, for which one must be known to be small and neither negative."""
    if x.bounds is None or y.bounds is None or min(x.bounds[0], y.bounds[0]) < 0:
        _unknown(name)
    count = min(x.bounds[1], y.bounds[1]).bit_length()
    if count > _MOST:
        _unknown(name)
    return _sum([apply("mul", _field(x, k, k + 1), _bit(y, k)) for k in range(count)])


def _sum(parts: list[Value]) -> Value:
    """The sum as a balanced tree, so that it is no deeper than needed."""
    if len(parts) < 2:
        return parts[0] if parts else number(0)
    half = len(parts) // 2
    return apply("add", _sum(parts[:half]), _sum(parts[half:]))


def _bit(x: Value, k: int) -> Value:
    return apply("mod", apply("floordiv", x, number(1 << k)) if k else x, number(2))


def _unknown(name: str) -> Never:
    refuse(
        f"torch.{name} of two integers needs their range",
        "the language has no operations on bits; those of one integer with a constant it can compute, "
        "and of two that are not negative and of which one is bounded",
        "limit one of them: x % 1024, torch.clamp(x, 0, 1023)",
    )


@rule(1, "bitwise_not", "invert")
def _not(x: Symbol) -> Symbol:
    if x.dtype == torch.bool:
        return like(x, apply("not", x.value))
    return like(x, apply("sub", number(-1), x.value))


@rule(2, "bitwise_left_shift", "lshift", "left_shift")
def _left(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("mul", x.value, _power_of_two(y)), joined(x, y))


@rule(2, "bitwise_right_shift", "rshift", "right_shift")
def _right(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("floordiv", x.value, _power_of_two(y)), joined(x, y))


def _power_of_two(y: Symbol) -> Value:
    by = y.value.number
    return number(1 << by) if isinstance(by, int) and by >= 0 else apply("pow", number(2), y.value)
