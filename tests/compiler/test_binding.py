"""Binding: the order in which extents are found, their values at a call, and the range rule of reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einc.base.errors import AxisError, CallError, DTypeError, ShapeError
from einc.base.intervals import Interval
from einc.base.types import BOOL, FLOAT, I32, INT
from einc.binding import Bindings, FromDefault, FromDimension, FromFormula, bind, plan, value_of
from einc.ein import AxisDecl, Const, Expr, Param, Scalar
from einc.ein.guards import composite
from einc.ein.ranges import interval, is_simple, needs_check
from tests.support.nodes import add, call, mul, operand, pointwise, program, read, reduce, where

# -- the plan


def test_single_dimensions_come_first_then_composites_formulas_and_defaults() -> None:
    p = program(
        operand("Q (g r) d"),
        Param("groups", INT, call("floordiv", "|d|", 2)),
        Param("scale", FLOAT, call("rsqrt", mul("|d|", "|x|"))),
        AxisDecl("x", add("|r|", Scalar("groups"))),
        AxisDecl("g", Scalar("groups")),
        pointwise("T x", 1.0),
    )
    groups, scale = (s.default for s in p.scalars)
    assert groups is not None
    assert scale is not None
    steps = plan(p)
    assert steps[0] == FromDimension("d", "Q", 1)
    assert FromDefault("groups", groups) in steps
    assert FromDimension("r", "Q", 0, ("g",)) in steps
    order = {getattr(s, "axis", getattr(s, "name", None)): k for k, s in enumerate(steps)}
    assert order["d"] < order["groups"] < order["g"] < order["r"] < order["x"] < order["scale"]
    assert isinstance(steps[order["x"]], FromFormula)
    assert bind(p, {"Q": (6, 4)}).extents == {"d": 4, "g": 2, "r": 3, "x": 5}
    assert bind(p, {"Q": (6, 4)}, {"groups": 6}).extents == {"d": 4, "g": 6, "r": 1, "x": 7}


def test_a_composite_with_two_unknown_axes_is_not_determined() -> None:
    p = program(operand("Q (g r) d"), pointwise("T g", 1.0))
    with pytest.raises(AxisError, match="extent of axis 'g' is not determined") as error:
        plan(p)
    assert "dimension 0 of Q[(g r), d]" in str(error.value)
    assert "axis g = …" in str(error.value)


def test_formulas_that_need_each_other_are_not_determined() -> None:
    p = program(AxisDecl("x", add("|y|", 1)), AxisDecl("y", add("|x|", 1)), pointwise("T x", 1.0))
    with pytest.raises(AxisError, match=r"axis 'x' cannot be found: it needs \|y\|"):
        plan(p)


def test_a_default_that_needs_a_later_extent_is_not_determined() -> None:
    p = program(Param("n", INT, call("neg", "|x|")), AxisDecl("x", Scalar("n")), pointwise("T x", 1.0))
    with pytest.raises(AxisError, match="axis 'x' cannot be found"):
        plan(p)


# -- a call


def test_scalars_are_of_their_kind() -> None:
    p = program(
        Param("n", INT), Param("a", FLOAT), Param("b", BOOL, Const(True)), operand("X i"), pointwise("T i", 1.0)
    )  # fmt: skip
    found = bind(p, {"X": (3,)}, {"n": 3, "a": 2})
    assert found == Bindings({"i": 3}, {"n": 3, "a": 2.0, "b": True})
    assert [type(v) for v in found.scalars.values()] == [int, float, bool]
    for wrong in ({"n": True, "a": 1.0}, {"n": 1.0, "a": 1.0}, {"n": 1, "a": "1"}, {"n": 1, "a": 1.0, "b": 1}):
        with pytest.raises(DTypeError, match=r"takes an? (int|float|bool)"):
            bind(p, {"X": (3,)}, wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DTypeError, match="64 bits"):
        bind(p, {"X": (3,)}, {"n": 1 << 63, "a": 1.0})


def test_an_extent_that_is_no_integer() -> None:
    p = program(operand("X n"), AxisDecl("o", mul("|n|", 0.5)), pointwise("Y o", 1.0))
    with pytest.raises(DTypeError, match="extent of axis 'o' is not an integer") as error:
        bind(p, {"X": (4,)})
    assert "|o| = |n| * 0.5 = 2.0" in str(error.value)


def test_an_extent_of_zero_is_an_empty_axis_and_less_is_an_error() -> None:
    extent = add(call("sub", "|n|", "|r|"), 1)
    e = reduce("Y o", "sum", "r", mul(read("X", add("o", "r")), read("W", "r")))
    p = program(operand("X n"), operand("W r"), AxisDecl("o", extent), e)
    assert bind(p, {"X": (2,), "W": (3,)}).extents["o"] == 0
    with pytest.raises(ShapeError, match="axis 'o' would have extent -1"):
        bind(p, {"X": (2,), "W": (4,)})


def test_operands_must_be_there_and_known() -> None:
    p = program(operand("X i"), pointwise("T i", 1.0))
    with pytest.raises(CallError, match="operand 'X' is missing"):
        bind(p, {})
    with pytest.raises(CallError, match="no operand 'Y'"):
        bind(p, {"X": (1,), "Y": (1,)})


# -- formulas


@pytest.mark.parametrize(
    ("e", "value"),
    [
        (call("exactdiv", "|i|", 3), 4),
        (call("floordiv", call("neg", "|i|"), 5), -3),
        (call("mod", call("neg", "|i|"), 5), 3),
        (call("rsqrt", 4), 0.5),
        (call("rsqrt", 0), math.inf),
        (call("log", 0), -math.inf),
        (call("sqrt", -1), math.nan),
        (call("exp", 1e6), math.inf),
        (call("div", 1, 0), math.inf),
        (call("div", -1.0, 0), -math.inf),
        (call("pow", 2, 3), 8),
        (call("pow", 2, -1), 0),
        (call("pow", 2.0, -1), 0.5),
        (call("max", "|i|", Scalar("s")), 12),
        (call("max", math.nan, 1.0), math.nan),
        (call("round", 2.5), 2.0),
        (call("floor", -0.5), -1.0),
        (call("abs", -3), 3),
        (where(call("lt", "|i|", 5), call("exactdiv", "|i|", 5), 7), 7),
        (call("and", True, call("not", False)), True),
    ],
)
def test_formulas(e: Expr, value: float) -> None:
    found = value_of(e, Bindings({"i": 12}, {"s": 3}))
    assert found == value or (math.isnan(found) and math.isnan(value))
    assert type(found) is type(value)


def test_divisions_in_formulas_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"\|i\| / 5 is not exact"):
        value_of(call("exactdiv", "|i|", 5), Bindings({"i": 12}, {}))
    with pytest.raises(ShapeError, match="divides by zero"):
        value_of(call("mod", 1, "|i|"), Bindings({"i": 0}, {}))


# -- the range rule


def test_divisions_that_are_guarded_or_never_done_are_not_checked() -> None:
    body = read("X", call("mod", "i", "|p|"))
    p = program(operand("X i"), operand("P p"), pointwise("T i", body))
    with pytest.raises(ShapeError, match="'%' divides by zero"):
        bind(p, {"X": (4,), "P": (0,)})
    bind(p, {"X": (0,), "P": (0,)})
    guarded = where(call("gt", "|p|", 0), call("mod", "i", "|p|"), 0)
    bind(program(operand("X i"), operand("P p"), pointwise("T i", guarded)), {"X": (4,), "P": (0,)})


@pytest.mark.parametrize(
    ("index", "extent", "fits"),
    [
        (add("i", 1), 5, True),
        (add("i", 1), 4, False),
        (call("sub", "i", 1), 9, False),
        (call("sub", 3, "i"), 4, True),
        (mul("i", 2), 7, True),
        (mul("i", 2), 6, False),
        (call("floordiv", "i", 2), 2, True),
        (call("mod", add("i", 7), 3), 3, True),
        (call("mod", add("i", 7), 3), 2, False),
        (add(mul("i", "|r|"), "r"), 12, True),
        (add(mul("i", "|r|"), "r"), 11, False),
        (call("exactdiv", "|i|", 2), 3, True),
        (call("exactdiv", "|i|", 2), 2, False),
        (mul("i", "i"), 2, True),  # not simple: checked as it runs
        (read("P", "i"), 1, True),
    ],
)
def test_unguarded_simple_reads_are_checked_at_the_call(index: Expr, extent: int, fits: bool) -> None:
    p = program(
        operand("X n"), operand("P i", I32), AxisDecl("r", Const(3)), pointwise("T i r", read("X", index))
    )  # fmt: skip
    shapes = {"X": (extent,), "P": (4,)}
    if fits:
        bind(p, shapes)
    else:
        with pytest.raises(ShapeError, match="is out of range: dimension 0 of X"):
            bind(p, shapes)
    bind(p, {"X": (extent,), "P": (0,)})
    guarded = pointwise("T i r", read("X", index, guard=call("ge", "i", 0)))
    bind(program(operand("X n"), operand("P i", I32), AxisDecl("r", Const(3)), guarded), shapes)


def test_what_is_checked_as_it_runs() -> None:
    p = program(operand("X (g r) d"), operand("P j", I32), pointwise("T g r d", 1.0))
    inside, data, affine = composite("gr"), read("P", "d"), add("g", "r")
    yes = call("ge", "g", 1)
    for index, guard, expected in (
        ((inside, "d"), None, (False, False)),
        ((inside, "d"), yes, (False, False)),
        ((affine, add("d", 0)), None, (False, False)),
        ((affine, "d"), yes, (True, False)),
        ((affine, data), None, (False, True)),
        ((mul("g", "g"), "d"), None, (True, False)),
        (("g", "d"), yes, (True, False)),
    ):
        assert needs_check(p, read("X", *index, guard=guard)) == expected


# -- intervals


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        ("i", (0, 3)),
        (call("neg", "i"), (-3, 0)),
        (call("abs", call("sub", "i", 2)), (0, 2)),
        (mul("i", -2), (-6, 0)),
        (call("mod", "i", 9), (0, 3)),
        (call("mod", "i", -3), (-2, 0)),
        (call("max", "i", 2), (2, 3)),
        (call("le", "i", 3), (1, 1)),
        (call("lt", "i", 0), (0, 0)),
        (call("le", "i", 2), (0, 1)),
        (call("eq", "|i|", 4), (1, 1)),
        (call("ne", "i", 7), (1, 1)),
        (call("and", call("lt", "i", 0), read("B", "i")), (0, 0)),
        (call("or", call("ge", "i", 0), read("B", "i")), (1, 1)),
        (call("not", call("ge", "i", 1)), (0, 1)),
        (where(call("ge", "i", 0), "i", read("B", "i")), (0, 3)),
        (where(call("ge", "i", 1), "i", 9), (0, 9)),
        (read("B", "i"), None),
        (call("floordiv", 1, "i"), None),
        ("empty", None),
        (Const(0.5), None),
        (Scalar("w"), (5, 5)),
        (Scalar("s"), None),
    ],
)
def test_intervals(e: Expr | str, expected: Interval | None) -> None:
    e = call("add", e, 0) if isinstance(e, str) else e
    assert interval(e, {"i": 4, "empty": 0}, {"w": 5, "s": 0.5}) == expected


@given(st.data())
def test_intervals_of_simple_expressions_are_exact_but_for_remainders(data: st.DataObject) -> None:
    extents = {"i": data.draw(st.integers(1, 6)), "j": data.draw(st.integers(1, 6))}
    i, j = range(extents["i"]), range(extents["j"])
    a, b, d = (data.draw(st.integers(-4, 4)) for _ in range(3))
    d = d or 5
    e = call("floordiv", add(mul("i", a), mul(b, "j")), d)
    values = [(x * a + b * y) // d for x in i for y in j]
    assert is_simple(e)
    assert interval(e, extents, {}) == (min(values), max(values))
    found = interval(call("mod", add(mul("i", a), mul(b, "j")), d), extents, {})
    remainders = [(x * a + b * y) % d for x in i for y in j]
    assert found is not None
    assert found[0] <= min(remainders)
    assert max(remainders) <= found[1]
