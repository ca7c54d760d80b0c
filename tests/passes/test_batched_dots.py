"""Contractions with a batch axis in the tile: dots at every position of it, tiles that fit, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from einc import driver, tile
from einc.base.facts import Fact
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import BF16, F32, DType
from einc.codegen.run.aot import compile_ahead
from einc.evaluate import evaluate
from einc.tile.walk import values_in
from tests.support.compiled import in_small_tiles, runner
from tests.support.places import EXAMPLES

HEADS = (EXAMPLES / "attention" / "talking_heads.ein").read_text()
LONG = {"b": 4, "h": 16, "k": 16, "l": 16, "i": 4096, "j": 4096, "d": 128, "e": 128}
FEW = LONG | {"h": 8, "k": 8, "l": 8, "d": 64, "e": 64}
SMALL = {"b": 2, "h": 2, "k": 3, "l": 4, "i": 37, "j": 153, "d": 16, "e": 24}

# Scores of all heads are mixed; what they weigh is of one head, so that every role of a batch axis occurs.
MIXED = """
def f(Q[h, i, d], K[h, j, d], w[h, k], V[j, e]):
    S[h, i, j] = Q[h, i, d] * K[h, j, d]
    T[k, i, j] = S[h, i, j] * w[h, k]
    O[k, i, e] = T[k, i, j] * V[j, e]
    return O, max[j](T)
"""


def compiled(text: str, sizes: dict[str, int], dtype: DType, level: int = 2, name: str = "sm_90") -> driver.Compiled:
    form = driver.parse(text, "<test>")
    shapes = {p.name: [sizes[a] for (a,) in p.dims] for p in driver.elaborate(form, None).operands}
    facts = {name: Fact(tuple(shape), dtype) for name, shape in shapes.items()}
    return driver.compile_program(driver.elaborate(form, facts), level, TARGETS[name], sizes)


def dots(c: driver.Compiled) -> list[tile.Dot]:
    assert c.state.schedule is not None
    return [v for k in c.state.schedule.kernels for v in values_in(k.body) if isinstance(v, tile.Dot)]


def test_heads_that_talk_take_one_kernel_of_dots() -> None:
    c = compiled(HEADS, LONG, BF16)
    assert c.state.schedule is not None
    (kernel,) = c.state.schedule.kernels
    assert c.state.schedule.intermediates == ()
    assert {d.batch for d in dots(c)} == {"h", "i", "l"}
    folded = [v.axis for v in values_in(kernel.body) if isinstance(v, tile.Fold)]
    assert set(folded) == {"j"}


def test_a_short_axis_is_not_filled_up_where_a_result_extends_over_it() -> None:
    """Three heads are summed one by one; sixteen positions of them would be multiplied by a dot."""
    c = compiled(HEADS, SMALL, BF16)
    assert "h" in {d.batch for d in dots(c)}
    assert "h" not in {d.inner for d in dots(c)}


def test_operands_that_do_not_fit_in_shared_memory_stay_apart() -> None:
    for name in ("sm_80", "gfx942"):
        c = compiled(HEADS, LONG, BF16, name=name)
        assert c.state.schedule is not None
        assert len(c.state.schedule.kernels) > 1


@pytest.mark.turns(2)
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("h", [1, 3, 16])
@pytest.mark.parametrize("hint", [64, 4096])
def test_a_contraction_of_every_role(hint: int, h: int, level: int) -> None:
    program = driver.elaborate(driver.parse(MIXED, "<test>"))
    sizes = {"h": h, "k": 16, "i": 19, "j": 45, "d": 8, "e": 5}
    c = driver.compile_program(program, level, INTERPRETER, sizes | {"j": hint}, backend=in_small_tiles(16))
    rng = np.random.default_rng(h)
    given = {p.name: rng.standard_normal([sizes[a] for (a,) in p.dims]).astype("f4") for p in program.operands}
    found = runner(c)(*map(torch.from_numpy, given.values()))
    for got, wanted in zip(found, evaluate(program, given, {}), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.aot
def test_products_of_four_axes_compile() -> None:
    """Triton takes `x[:, :, None, :] * y[None, :, :, :]`, summed, for a product of matrices."""
    text = """
def f(Q[h, i, d], K[h, j, d], w[j, h, k]):
    S[h, i, j] = Q[h, i, d] * K[h, j, d]
    T[k, i, j] = S[h, i, j] * w[j, h, k]
    return T
"""
    sizes = {"h": 3, "k": 3, "i": 4096, "j": 4096, "d": 64}
    c = compiled(text, sizes, F32)
    assert "w_1[None, :, :, :] * tl.permute(s, (1, 2, 0))[:, :, None, :]" in c.source
    compile_ahead(c.emitted, TARGETS["sm_90"], sizes)


@pytest.mark.aot
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("sizes", [LONG, FEW, SMALL], ids=["long", "few heads", "small"])
def test_it_compiles_with_few_spills(sizes: dict[str, int], level: int) -> None:
    for kernel in compile_ahead(compiled(HEADS, sizes, BF16, level).emitted, TARGETS["sm_90"], sizes):
        assert kernel.shared <= TARGETS["sm_90"].shared
        assert kernel.spills <= 64
