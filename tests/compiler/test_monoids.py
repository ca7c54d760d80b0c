"""Monoids: what is read off one holds of it, and one that no module knows is compiled as those of the language are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from einc import driver
from einc.base.targets import TARGETS
from einc.base.types import BOOL, F64, I64, DType
from einc.ein import Const, Expr, Monoid, Scalar
from einc.ein.monoids import MONOIDS
from einc.evaluate import evaluate
from einc.evaluate.elementwise import Array, Value, apply
from einc.evaluate.reductions import combine, identity
from tests.support.compiled import execute
from tests.support.nodes import add, call, mul, where

A, B, A1, B1 = (Scalar(name) for name in ("a0", "b0", "a1", "b1"))


def _farther(a: Expr, b: Expr) -> Expr:
    """Is b farther from 0 than a, or as far and positive?"""
    far, near = call("abs", b), call("abs", a)
    return call("or", call("gt", far, near), call("and", call("eq", far, near), call("gt", b, a)))


_TAKES_B = call("or", _farther(A, B), call("and", call("eq", A, B), call("gt", A1, B1)))
OWN = {
    m.name: m
    for m in (
        Monoid("largest", (0,), (where(_farther(A, B), B, A),)),
        Monoid("farthest", (0, "highest"), (where(_TAKES_B, B, A), where(_TAKES_B, B1, A1)), results=(1,)),
        Monoid("chance", (0,), (call("sub", add(A, B), mul(A, B)),)),  # that one of several happens
        Monoid("second", (0, 0), (add(A, B), add(A1, B1)), results=(1,)),
        Monoid("affine", (1, 0), (mul(B, A), add(mul(B, A1), B1)), results=(1,), commutative=False),
        Monoid("greatest", ("lowest",), (call("max", A, B),)),
    )
}
ALL = {**MONOIDS, **OWN}

RANDOM = np.random.default_rng(5)
NUMBERS = np.concatenate([RANDOM.normal(size=6), [0.0, 1.0, 1.0, -1.0, 3.0, -3.0]])
EXTREMES = np.concatenate([NUMBERS, [1e300, -1e300, np.inf, -np.inf, np.inf]])


def states(m: Monoid, count: int) -> tuple[list[list[Array]], tuple[DType, ...]]:
    """All combinations of so many states, and the types of their components."""
    if m.truths:
        values, types = [np.array([False, True])], [BOOL]
    else:
        x = NUMBERS if m.accumulates else EXTREMES
        x = np.append(x, np.nan) if m.order else x
        second = RANDOM.permutation(len(x)) if m.chooses else RANDOM.normal(size=len(x))
        values, types = [x, second][: m.components], [F64, I64 if m.chooses else F64][: m.components]
    picks = list(product(range(len(values[0])), repeat=count))
    return [[v[[p[k] for p in picks]] for v in values] for k in range(count)], tuple(types)


def same(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, np.broadcast_to(y, x.shape), rtol=1e-9, atol=1e-9)


# -- what a monoid says of itself


@pytest.mark.parametrize("name", ALL)
def test_it_is_associative_with_an_identity(name: str) -> None:
    m = ALL[name]
    (a, b, c), types = states(m, 3)
    same(combine(m, combine(m, a, b, types), c, types), combine(m, a, combine(m, b, c, types), types))
    units = identity(m, types)
    same(combine(m, a, units, types), a)
    same(combine(m, units, a, types), a)


@pytest.mark.parametrize("name", ALL)
def test_it_is_commutative_where_it_says_so(name: str) -> None:
    m = ALL[name]
    (a, b), types = states(m, 2)
    one, other = combine(m, a, b, types), combine(m, b, a, types)
    assert m.commutative == all(np.allclose(x, y, equal_nan=True) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("name", [n for n, m in ALL.items() if m.inverse is not None])
def test_its_inverse_undoes_a_combination(name: str) -> None:
    m = ALL[name]
    assert m.inverse is not None
    (a, b), types = states(m, 2)
    same(combine(replace(m, combine=(m.inverse,)), combine(m, a, b, types), b, types), a)


# -- what is read off that

PROPERTIES = {  # op, adds, order, chooses, accumulates, product, unit
    "sum": ("add", True, None, False, True, "mul", 0),
    "prod": ("mul", False, None, False, True, None, 1),
    "max": ("max", False, "max", False, False, "add", -np.inf),
    "min": ("min", False, "min", False, False, "add", np.inf),
    "any": ("or", False, None, False, False, "and", False),
    "all": ("and", False, None, False, False, "or", True),
    "argmax": (None, False, "max", True, False, None, None),
    "argmin": (None, False, "min", True, False, None, None),
    "largest": (None, False, None, False, False, None, 0),
    "farthest": (None, False, None, True, False, None, None),
    "chance": (None, False, None, False, True, None, 0),
    "second": (None, True, None, False, True, None, 0),
    "affine": (None, False, None, False, True, None, None),
    "greatest": ("max", False, "max", False, False, "add", -np.inf),
}


@pytest.mark.parametrize("name", ALL)
def test_its_properties_are_these(name: str) -> None:
    m = ALL[name]
    *found, unit = (m.op, m.adds, m.order, m.chooses, m.accumulates, m.product, m.unit)
    *wanted, value = PROPERTIES[name]
    assert found == wanted
    assert unit == (None if value is None else Const(value))


@pytest.mark.parametrize("name", ALL)
def test_its_properties_hold(name: str) -> None:
    m = ALL[name]
    (a, b), types = states(m, 2)
    found = combine(m, a, b, types)
    if m.op is not None:
        same(found, [apply(m.op, [Value(a[0], types[0]), Value(b[0], types[0])]).array])
    if m.adds:
        same(found, [x + y for x, y in zip(a, b, strict=True)])
    if m.order is not None:
        same(found[:1], [{"max": np.maximum, "min": np.minimum}[m.order](a[0], b[0])])
    parts = [[np.equal(z, v) | ((z != z) & (v != v)) for z, v in zip(found, s, strict=True)] for s in (a, b)]
    if m.chooses:
        assert np.all(np.all(parts[0], 0) | np.all(parts[1], 0))
    assert m.accumulates != np.all([x | y for x, y in zip(*parts, strict=True)])
    if m.unit is not None:
        same(identity(m, types), [np.asarray(m.unit.value)] * m.components)


@pytest.mark.parametrize("name", [n for n, m in ALL.items() if m.product is not None])
def test_its_product_distributes(name: str) -> None:
    m = ALL[name]
    (a, b, c), types = states(m, 3)
    finite = c[0].dtype == bool or np.isfinite(c[0])

    def times(x: Array) -> list[Array]:
        assert m.product is not None
        factor = np.where(finite, c[0], np.ones((), c[0].dtype))
        return [apply(m.product, [Value(factor, types[0]), Value(x, types[0])]).array]

    same(times(combine(m, a, b, types)[0]), combine(m, times(a[0]), times(b[0]), types))
    (unit,) = identity(m, types)
    same(times(np.broadcast_to(unit, a[0].shape)), [unit])


# -- a monoid that no module knows


PROGRAMS = {
    "largest": "O[i] = largest[j](x[i, j])",
    "largest under a condition": "O[i] = largest[j : j % 3 != i](x[i, j])",
    "largest of what is masked": "O[i] = largest[j](where(j < 9 + i, x[i, j], 0))",
    "largest of two axes": "O = largest[i, j](x[i, j])",
    "largest of scaled": "O[i] = largest[j](w[j] * x[i, j] / 3)",
    "largest and read": "m[i] = max[j](x)\nl[i] = largest[j](x)\nO[i] = sum[j](exp(x - m) * l)",
    "largest after a walk": "m[i] = max[j](x)\nO[i] = largest[j](x[i, j] - m[i])",
    "largest of nothing": "O[i] = largest[j : j < 0](x[i, j])",
    "prefixes": "axis k = |j|\nO[i, k] = largest[j : j <= k](x[i, j])",
    "farthest": "O[i] = farthest[j](x[i, j])",
    "farthest of scaled": "O[i] = farthest[j](x[i, j] / exp(x[i, 0]))",
    "chance": "O[i] = chance[j](x[i, j] / 8)",
    "second": "O[i] = second[j](x[i, j], w[j] * x[i, j])",
    "affine": "O[i] = affine[j](x[i, j], w[j])",
    "argmax with its value": "O[i], p[i] = argmax[j](x[i, j] / exp(x[i, 0]))",
    "greatest": "m[i] = greatest[j](x)\nO[i] = sum[j](exp(x - m) * w[j]) / sum[j](exp(x - m))",
}


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language with monoids of one's own, which is all that it takes."""
    for m in OWN.values():
        monkeypatch.setitem(MONOIDS, m.name, m)


def text_of(body: str) -> str:
    lines = [*body.splitlines(), "return O"]
    operands = "x[i, j], w[j]"
    if "y[" in body:
        operands = "x[i, j], y[j, k], w[k]"
    elif "z[" in body:
        operands = "z[i, j]: c64, w[j]"
    return f"def f({operands}):\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.usefixtures("language")
@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_monoid_of_ones_own_is_compiled(name: str, level: int, backend: str) -> None:
    program = driver.elaborate(driver.parse(text_of(PROGRAMS[name]), "<test>"))
    given = {"x": RANDOM.normal(size=(3, 37)).astype("f4"), "w": RANDOM.normal(size=37).astype("f4")}
    (found,) = execute(program, [torch.from_numpy(a) for a in given.values()], level=level, backend=backend)
    (wanted,) = evaluate(program, given)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


# -- a twin of one that the language has

TWINS = {
    "softmax": "m[i] = max[j](x)\ns[i] = sum[j](exp(x - m))\nO[i] = sum[j](exp(x - m) / s * w[j])",
    "variance": "m[i] = sum[j](x) / |j|\nO[i] = sum[j]((x - m) ** 2)",
    "mask": "O[i] = sum[j](where(j <= i, x, 0) * w[j])",
    "terms": "s[i] = sum[j](exp(x))\nO[i] = sum[j](exp(x) / s * w[j] + w[j])",
    "chain": "O[i] = sum[j, k](x[i, j] * y[j, k] * w[k])",
    "prefixes": "O[i] = sum[j : j <= 5 * i](x[i, j])",
    "extremes": "m[i] = max[j](x / 3 + 1)\nO[i] = min[j](x - m) * m",
    "product": "m[i] = max[j](abs(x))\nO[i] = prod[j](x / m)",
    "scaled": "a[i] = argmax[j](x / exp(x[i, 0]))\nO[i] = argmin[j](x[i, j] * 2) + a",
    "truths": "a[i] = any[j, k](x[i, j] > 1 and y[j, k] > 1 and w[k] > 0)\nO[i] = all[j](x < 2 or x[i, 0] > 0) and a",
    "complex": "O[i] = sum[j](z[i, j] * w[j]) * prod[j](z[i, j])",
    "empty": "O[i] = sum[j : j < 0](x) + prod[j : j < 0](x)",
}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_compiled_as_its_twin(name: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source, but for what it says the monoid is called: no pass knows one by its name."""
    body = twins = TWINS[name]
    names = {m.name[::-1]: m for m in MONOIDS.values()}
    for reversed_name, m in names.items():
        monkeypatch.setitem(MONOIDS, reversed_name, replace(m, name=reversed_name))
        twins = re.sub(rf"\b{m.name}\[", f"{reversed_name}[", twins)
    assert twins != body
    made, wanted = (
        driver.compile_program(driver.elaborate(driver.parse(text_of(b), "<test>")), level, TARGETS["sm_90"]).source
        for b in (twins, body)
    )
    assert re.sub(rf"(?<![a-z])({'|'.join(names)})(?![a-z])", lambda found: found[0][::-1], made) == wanted
