"""Walks visit what their reductions need: the tiles are counted, and the results are those of the whole."""

from __future__ import annotations

import numpy as np

from einc import driver
from einc.targets import TARGETS
from einc.visits import EMPTY, MIXED, Visits, domain_picture, visits

ATTENTION = 'softmax(where({}, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
SIZES = {"b": 2, "h": 4, "i": 4096, "j": 4096, "d": 64}


def attention(mask: str, level: int = 2) -> driver.Compiled:
    """Attention with a mask, compiled for an H100."""
    program = driver.elaborate(driver.parse(ATTENTION.format(mask), "<test>"))
    return driver.compile_program(program, level, TARGETS["sm_90"], SIZES)


def seen(c: driver.Compiled, **extents: int) -> Visits:
    """What the last kernel visits of the axis that it walks."""
    assert c.state.schedule is not None
    found = visits(c.state.program, c.state.schedule, SIZES | extents)
    return next(iter(found[c.state.schedule.kernels[-1].name].values()))


def test_without_optimisation_everything_is_visited() -> None:
    assert seen(attention("j <= i", level=1)).share == 1


def test_causal_attention_visits_half() -> None:
    rows = SIZES["i"] / 128
    assert 1 / 2 < seen(attention("j <= i")).share <= 1 / 2 + 1 / rows


def test_a_picture_of_the_tiles() -> None:
    c = attention("j <= i")
    assert c.state.schedule is not None
    picture = domain_picture(c.state.schedule.kernels[0], SIZES | {"i": 512, "j": 512})["j"]
    rows, columns = picture.shape
    wanted = np.where(np.arange(columns)[None] * (rows / columns) < np.arange(rows)[:, None] + 1, MIXED, EMPTY)
    np.testing.assert_array_equal(picture, wanted)
