"""Intervals hold every value of an operation on values between the ends, and comparisons of each table agree."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from einc.base.intervals import Interval, applied, compared
from einc.base.ops import COMPARISONS, DENIED, MIRRORED

MEANINGS: dict[str, Callable[[int, int], int]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "max": max, "min": min,
    "floordiv": operator.floordiv, "mod": operator.mod,
}  # fmt: skip
EXACT = set(MEANINGS) - {"floordiv", "mod"}


def intervals() -> Iterator[Interval]:
    return ((low, high) for low in range(-3, 4) for high in range(low, 4))


def between(ends: Interval) -> range:
    return range(ends[0], ends[1] + 1)


@pytest.mark.parametrize("op", MEANINGS)
def test_intervals_hold_every_value(op: str) -> None:
    for a, b in product(intervals(), intervals()):
        found = applied(op, (a, b))
        if found is None:
            assert op in ("floordiv", "mod")
            assert 0 in between(b)
            continue
        values = [int(MEANINGS[op](x, y)) for x, y in product(between(a), between(b))]
        assert found[0] <= min(values)
        assert max(values) <= found[1]
        assert op not in EXACT or found == (min(values), max(values))


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_mirror_and_deny(op: str) -> None:
    for a, b in product(range(-2, 3), repeat=2):
        holds = MEANINGS[op](a, b)
        assert MEANINGS[MIRRORED[op]](b, a) == holds
        assert MEANINGS[DENIED[op]](a, b) != holds
        assert compared(op, (a - b, a - b)) == (holds, holds)
