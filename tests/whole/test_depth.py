"""Work grows with the length of a text: what is done at a level of an expression is done there once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
import torch

import einc
from einc.base.facts import Fact
from einc.base.types import BY_NAME
from einc.binding import bind
from einc.codegen.executor.run import executor

MOST = 5_000_000  # calls: what doubles at each level comes to more at a depth of 20


def nested(before: str, inside: str, after: str = ")") -> Callable[[int], str]:
    """Operations in one another; `{k}` is their number."""
    return lambda n: "".join(before.format(k=k) for k in range(n)) + inside + after * n


def chained(sign: str, term: str) -> Callable[[int], str]:
    return lambda n: sign.join(term.format(k=k + 1) for k in range(n))


def masked(condition: Callable[[int], str]) -> Callable[[int], str]:
    """A sum of the positions where a condition holds, whose bounds are solved for."""
    return lambda n: f"sum[j](where({condition(n)}, x[j], 0)) * x[i]"


DEEP: dict[str, Callable[[int], str]] = {
    "positions added": chained(" + ", "i // {k}"),
    "positions added from the right": nested("({k} * i - ", "i"),
    "integers added": chained(" + ", "x[i] * {k}"),
    "remainders": nested("(3 + {k}) % (2 + ", "i"),
    "truths added": chained(" + ", "(x[i] < {k})"),
    "comparisons": lambda n: "where(" * n + "x[i] < 3" + "".join(f", {k}, i) < {k}" for k in range(n)) + " and i > 1",
    "choices": nested("where(x[i] < {k}, {k}, ", "x[i]"),
    "choices of extents": nested("where(|i| < {k}, {k}, ", "|i|"),
    "conditions": lambda n: nested("where(", "x[i] < 3", ", x[i] < 5, i < 2)")(n) + " and x[i] > 1",
    "casts": nested("i64(i32({k} + ", "i", "))"),
    "conjunctions": chained(" and ", "x[i] < {k}"),
    "alternatives": nested("(i > {k} or x[i] < {k} and ", "x[i] > 1"),
    "extremes": nested("max(min({k}, i), ", "i"),
    "functions": nested("exp(1 - ", "x[i]"),
    "bounds": masked(chained(" and ", "j < i + {k}")),
    "bounds of one of several": masked(chained(" or ", "j < i + {k}")),
    "bounds that are chosen": masked(nested("where(i < {k}, j < {k}, ", "j > 2")),
    "bounds by denial": masked(nested("not (j < i + {k} and ", "j < 3")),
    "bounds by distances": masked(lambda n: nested("abs(", "j - i", " - 2)")(n) + " < 3"),
}  # fmt: skip


@pytest.mark.turns(2)
@pytest.mark.parametrize("dtype", ["i32", "f32"])
@pytest.mark.parametrize("name", DEEP)
def test_depth_costs_no_more_than_length(name: str, dtype: str) -> None:
    """Twice the depth is a few times the work; doing a part twice at every level would be a thousand times."""
    compiled(f"T[i] = x[i] + {dtype}(1)", dtype)  # what a first program needs
    shallow, deep = (work(partial(compiled, f"T[i] = {DEEP[name](n)}", dtype)) for n in (10, 20))
    assert deep < 9 * shallow


def compiled(text: str, dtype: str) -> None:
    """From a text to the source, and to what torch runs."""
    program = einc.compile(f"def f(x[i], y[j]):\n    {text.replace('x[j]', 'y[j]')}\n    return T\n")
    facts = {name: Fact((8,), BY_NAME[dtype]) for name in "xy"}
    found = program.compiled_for(facts, {"i": 8, "j": 8})
    assert found.source
    assert found.state.schedule is not None
    bindings = bind(found.program, {name: f.shape for name, f in facts.items()})
    executor(found.state.program, found.state.schedule, bindings, torch.device("cpu"))


def work(f: Callable[[], None]) -> int:
    """The calls of Python functions that it makes, which are at most `MOST`."""
    made = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal made
        made += event == "call"
        assert made < MOST

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        f()
    finally:
        sys.setprofile(before)
    return made
