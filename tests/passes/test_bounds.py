"""Random predicates: nothing that they admit is outside the bounds, and what is decided holds everywhere inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einc.base.types import BOOL, F32, I32, I64, INT
from einc.ein import (
    Apply,
    AxisDecl,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    Tensor,
    axes_of,
)
from einc.ein.inference import dtype_of
from einc.evaluate import evaluate
from einc.passes.algebra.bounds import Bounds, bounds

_DTYPES = {"n": I32, "w": INT, "c": INT}
_ROWS, _COLUMNS = 23, 29
i, j = AxisValue("i"), AxisValue("j")


def call(op: str, *args: Expr) -> Expr:
    return Apply(op, args)


@st.composite
def integers(draw: Any, walked: bool, depth: int = 2) -> Expr:
    """An integer of i, of data and scalars, and of j if it is walked."""
    leaves = [i, Const(draw(st.integers(-5, 20))), Scalar("w"), Read("n", (i,)), Extent("j"), Scalar("c")]
    leaf = st.sampled_from([*leaves, *([j] * 3 if walked else [])])
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(leaf)  # type: ignore[no-any-return]  # `draw` has no type
    x = draw(integers(walked, depth - 1))
    match op := draw(
        st.sampled_from(["add", "sub", "mul", "floordiv", "abs", "max", "min", "neg", "mod", "where", ""])
    ):
        case "":
            return Cast(I64, x)
        case "abs" | "neg":
            return call(op, x)
        case "floordiv" | "mod":
            return call(op, x, draw(st.sampled_from([Const(3), Const(16), Scalar("c")])))
        case "mul":
            factor = draw(st.sampled_from([Const(2), Const(-3), Scalar("w"), Const(0), Extent("i"), Scalar("c")]))
            return call(op, *draw(st.permutations([x, factor])))
        case "where":
            return call(op, draw(predicates(0)), x, draw(integers(walked, depth - 1)))
        case _:
            return call(op, x, draw(integers(draw(st.booleans()) and walked, depth - 1)))


@st.composite
def predicates(draw: Any, depth: int = 2) -> Expr:
    """Comparisons of integers under `and`, `or`, `not` and `where`."""
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        op = draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
        return call(op, draw(integers(True)), draw(integers(draw(st.booleans()))))
    op = draw(st.sampled_from(["and", "or", "not", "where"]))
    return call(op, *(draw(predicates(depth - 1)) for _ in range({"not": 1, "where": 3}.get(op, 2))))


def known(e: Expr) -> bool:
    assert "j" not in axes_of(e)
    t = dtype_of(e, _DTYPES)
    return t.is_int or t.is_bool


def solved(p: Expr) -> Bounds:
    return bounds([p], "j", Extent("j"), known, _DTYPES)


def admitted(p: Expr, found: Bounds, w: int, c: int, seed: int) -> tuple[Any, Any]:
    """Where the predicate holds, and what is within the bounds."""
    kinds = (
        ("p", BOOL, (p,), (("i",), ("j",))),
        ("low", I64, found.lowest, (("i",),)),
        ("high", I64, found.beyond, (("i",),)),
    )
    equations = tuple(
        Equation((Tensor(f"{name}{k}", t),), dims, (e,)) for name, t, es, dims in kinds for k, e in enumerate(es)
    )
    params = (Operand("n", (("i",),), I32), Operand("y", (("j",),), F32), Param("w", INT), Param("c", INT))
    program = Program("f", params, (AxisDecl("i"), AxisDecl("j")), equations, tuple(e.name for e in equations))
    data = np.random.default_rng(seed).integers(-5, 40, _ROWS)
    holds, *limits = evaluate(program, {"n": data, "y": np.zeros(_COLUMNS)}, {"w": w, "c": c})
    inside = np.ones((_ROWS, _COLUMNS), bool)
    for k, limit in enumerate(limits):
        at = np.arange(_COLUMNS)
        inside &= at >= limit[:, None] if k < len(found.lowest) else at < limit[:, None]
    return holds, inside


@given(p=predicates(), w=st.integers(-4, 25), c=st.sampled_from([1, 2, 3, 7, 16, -3]), seed=st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_random_predicates(p: Expr, w: int, c: int, seed: int) -> None:
    found = solved(p)
    holds, inside = admitted(p, found, w, c, seed)
    assert not (holds & ~inside).any()
    if found.decided:
        assert holds[inside].all()


SOLVED: dict[str, tuple[Expr, bool, bool]] = {  # bounded below, bounded above
    "j <= i": (call("le", j, i), False, True),
    "j <= i or j < w": (call("or", call("le", j, i), call("lt", j, Scalar("w"))), False, True),
    "abs(i - j) < w": (call("lt", call("abs", call("sub", i, j)), Scalar("w")), True, True),
    "j // 16 == i // 16": (call("eq", call("floordiv", j, Const(16)), call("floordiv", i, Const(16))), True, True),
    "j // c <= i // c": (call("le", call("floordiv", j, Scalar("c")), call("floordiv", i, Scalar("c"))), False, True),
    "2 * j <= i": (call("le", call("mul", Const(2), j), i), False, True),
    "j + w <= j + i": (call("le", call("add", j, Scalar("w")), call("add", j, i)), False, True),
    "i < n[i]": (call("lt", i, Read("n", (i,))), False, True),
    "j < n[i]": (call("lt", j, Read("n", (i,))), False, True),
    "(4 * j + i) // 2 <= i": (
        call("le", call("floordiv", call("add", call("mul", Const(4), j), i), Const(2)), i),
        False,
        True,
    ),
    "(4 * j + i) // 2 == (4 * j + w) // 2": (
        call("eq", *(call("floordiv", call("add", call("mul", Const(4), j), x), Const(2)) for x in (i, Scalar("w")))),
        False,
        True,
    ),
    "(i - j) % 2 == 0": (call("eq", call("mod", call("sub", i, j), Const(2)), Const(0)), False, False),
}


@pytest.mark.parametrize("name", SOLVED)
def test_what_is_solved(name: str) -> None:
    p, low, high = SOLVED[name]
    found = solved(p)
    assert (bool(found.lowest), bool(found.beyond)) == (low, high)
    holds, inside = admitted(p, found, 5, 4, 0)
    assert not (holds & ~inside).any()
    if low or high:
        np.testing.assert_array_equal(holds, inside)


def test_equal_quotients_are_near() -> None:
    """Where the axis moves both alike, all of its positions count, or none does."""
    p = call("eq", call("floordiv", call("add", j, i), Const(5)), call("floordiv", j, Const(5)))
    found = solved(p)
    assert found.beyond
    assert not found.decided
    holds, inside = admitted(p, found, 5, 4, 0)
    assert not (holds & ~inside).any()
    assert not inside.all()
