"""What lies beyond extents is in no result: random programs, and random cascades over whole blocks.

The library is run so in `test_library`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import einc
from einc import driver, tile
from einc.base.targets import INTERPRETER
from einc.base.types import BOOL, F64
from einc.binding import bind
from einc.ein import Apply, Tensor
from einc.evaluate import evaluate
from einc.tile import Lit, Ref, Value
from einc.tile.walk import over_values, rebuild
from tests.passes import test_cascades
from tests.support import padded
from tests.support.compiled import agree, magnitude, precision, runner, tensors
from tests.support.random_cascades import Cascade, cascades
from tests.support.random_programs import Case, cases

ANY = test_cascades.ANY
LONG = dict.fromkeys("ijklmn", 1 << 16)  # hints that make axes too long to be held whole

# Extents that no block is full at, and products of two sides, whose padding meets.
ragged = partial(cases, extents=(3, 5, 7, 9))
drawn = st.one_of(ragged(most=3), ragged(most=2, product=True, kinds="fi"))
bad = st.sampled_from([math.nan, math.inf, -5e4])


def check(case: Case, level: int, sizes: Mapping[str, int], poison: float = math.nan) -> None:
    """The program compiled at a level and executed over whole blocks gives what it means."""
    given = dict(zip((p.name for p in case.program.operands), tensors(case), strict=True))
    compiled = driver.compile_program(case.program, level, INTERPRETER, sizes)
    bindings = bind(case.program, {name: tuple(x.shape) for name, x in given.items()}, case.scalars)
    meant(case, padded.run_compiled(compiled, given, bindings, poison))


def meant(case: Case, found: tuple[torch.Tensor, ...]) -> None:
    wanted = evaluate(case.program, case.operands, case.scalars)
    for name, got, value in zip(case.program.results, found, wanted, strict=True):
        agree(got, value, precision(case.program, name), magnitude(value))


@pytest.mark.parametrize("level", [0, 1, 2])
@given(case=drawn, long=st.booleans(), poison=bad)
@settings(ANY, max_examples=30)
def test_random_programs(level: int, case: Case, long: bool, poison: float) -> None:
    check(case, level, LONG if long else case.sizes, poison)


@given(case=cascades(), poison=bad)
@settings(ANY, max_examples=10)
def test_random_cascades(case: Cascade, poison: float) -> None:
    test_cascades.check(case, partial(padded.run_compiled, bad=poison))


@given(case=ragged(most=1, product=True, kinds="f"))
@settings(ANY, max_examples=15)
def test_products_in_the_interpreter(case: Case) -> None:
    given = dict(zip((p.name for p in case.program.operands), tensors(case), strict=True))
    values = given | dict(case.scalars)
    run = runner(driver.compile_program(case.program, 1, INTERPRETER, case.sizes))
    meant(case, run(*(values.get(p.name) for p in case.program.params)))


@given(case=ragged(most=3, product=True, kinds="f"))
@settings(ANY, max_examples=150)
def test_no_side_of_a_product_is_infinite(case: Case) -> None:
    """Or what the other side rounds to would decide: infinity times what is near 0 is infinite, times 0 it is NaN."""
    *before, last = case.program.equations
    (body,) = last.bodies
    assert isinstance(body, Apply)
    sides = [replace(last, outputs=(Tensor(f"side{k}", F64),), bodies=(x,)) for k, x in enumerate(body.args)]
    wide = [replace(e, dims=tuple((a,) for a in (*e.axes, *e.over)), monoid=None, over=()) for e in sides]
    program = replace(case.program, equations=(*before, *wide), results=tuple(e.name for e in wide))
    assert not any(np.isinf(x).any() for x in evaluate(program, case.operands, case.scalars))


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1, 2])
@given(case=drawn, long=st.booleans(), poison=bad)
@settings(ANY, max_examples=3000, derandomize=False)
def test_many_random_programs(level: int, case: Case, long: bool, poison: float) -> None:
    check(case, level, LONG if long else case.sizes, poison)


@pytest.mark.slow
@given(case=cascades(most=10), poison=bad)
@settings(ANY, max_examples=1000, derandomize=False)
def test_many_random_cascades(case: Cascade, poison: float) -> None:
    test_cascades.check(case, partial(padded.run_compiled, bad=poison))


# ---------------------------------------------------------------------------------------------------------------------
# Kernels that lack a mask


GRAM = """def gram(X[n, c]):
    W[n, c] = sigmoid(X[n, c])
    G[n, m] = W[n, c] * W[m, c]
    return G
"""
RETENTION = """def retention(Q[b, n, d], K[b, c, d], V[b, c, e]):
    S[b, n, c] = Q[b, n, d] * K[b, c, d]
    W[b, n, c] = sigmoid(S[b, n, c])
    O[b, n, e] = W[b, n, c] * V[b, c, e]
    return O
"""
STATISTICS = """def statistics(X[n, c], keep[n, c]: bool):
    return sum[c](exp(X[n, c])), prod[c](2 + X[n, c]), max[c](X[n, c] - 9), min[c](9 + X[n, c]), all[c](keep[n, c])
"""
SIZES = {"b": 2, "n": 19, "c": 21, "m": 19, "d": 5, "e": 6}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_product_of_padding(level: int) -> None:
    """What is computed of zeros need not be zero: 12 positions of c beyond the 20 would add a quarter each."""
    x = torch.randn(9, 20, generator=torch.Generator().manual_seed(0))
    weight = torch.sigmoid(x.double())
    found = einc.compile(GRAM, level=level)(x, backend="interpret")
    torch.testing.assert_close(found.double(), weight @ weight.mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("long", [False, True], ids=["whole", "walked"])
@pytest.mark.parametrize("text", [GRAM, RETENTION, STATISTICS], ids=["gram", "retention", "statistics"])
def test_no_mask_can_be_left_out(text: str, long: bool) -> None:
    """Each mention of what exists of an axis, taken away by itself, is missed."""
    program = driver.elaborate(driver.parse(text, "<test>"))
    seed = torch.Generator().manual_seed(0)
    operands = {p.name: torch.randn([SIZES[a] for (a,) in p.dims], generator=seed) for p in program.operands}
    operands |= {p.name: operands[p.name] > -3 for p in program.operands if p.dtype == BOOL}
    bindings = bind(program, {name: tuple(x.shape) for name, x in operands.items()})
    sizes = SIZES | ({"n": 1 << 13, "m": 1 << 13, "c": 1 << 16} if long else {})
    compiled = driver.compile_program(program, 2, INTERPRETER, sizes)
    wanted = evaluate(program, {name: x.numpy() for name, x in operands.items()})

    def is_right(schedule: tile.Schedule) -> bool:
        try:
            found = padded.run(compiled.state.program, schedule, operands, bindings)
        except AssertionError:
            return False
        pairs = zip(found, map(torch.as_tensor, wanted), strict=True)
        return all(torch.allclose(got.double(), exact.double(), rtol=1e-4, atol=1e-4) for got, exact in pairs)

    schedule = compiled.state.schedule
    assert schedule is not None
    assert is_right(schedule)
    lacking = list(lacking_masks(schedule))
    assert len(lacking) > 4
    assert [what for what, one in lacking if is_right(one)] == []


def lacking_masks(schedule: tile.Schedule) -> Iterator[tuple[str, tile.Schedule]]:
    """The schedule without one mention of an edge, for each that there is but edges of parts, which are all there."""
    for k, kernel in enumerate(schedule.kernels):
        n, seen = 0, [""]
        while n < len(seen):
            seen, made = lacking_mask(kernel, n)
            if n < len(seen) and seen[n] != "split_in":
                kernels = (*schedule.kernels[:k], made, *schedule.kernels[k + 1 :])
                yield f"{kernel.name}: {seen[n]}, {n}", replace(schedule, kernels=kernels)
            n += 1


def lacking_mask(kernel: tile.Kernel, n: int) -> tuple[list[str], tile.Kernel]:
    """Every mention of an edge, and the kernel without the n-th."""
    seen: list[str] = []

    def without(v: Value) -> Value:
        if isinstance(v, Ref) and v.name.endswith("_in"):
            seen.append(v.name)
            return Lit(True, BOOL) if len(seen) == n + 1 else v
        return rebuild(v, without)

    made = replace(kernel, body=tuple(over_values(s, without) for s in kernel.body))
    return seen, made
