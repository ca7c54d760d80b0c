"""einops' notation, by its documented examples: named and composite axes, extents by keyword, the string last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import einc

pytestmark = pytest.mark.usefixtures("on_cpu")

einsum = einc.einsum


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(sum(shape)).random(shape)


@pytest.mark.parametrize(
    ("text", "shapes", "letters"),
    [
        ("b c h w, b w -> b h", [(2, 3, 5, 7), (2, 7)], "bchw,bw->bh"),
        ("batch1 in1 out1, batch1 in1 -> batch1 out1", [(2, 3, 5), (2, 3)], "bio,bi->bo"),
        ("time batch, batch channel -> time channel", [(7, 2), (2, 3)], "tb,bc->tc"),
        ("a b c, d b a, a a -> c d", [(3, 2, 5), (4, 2, 3), (3, 3)], "abc,dba,aa->cd"),
        ("row col, col -> row", [(3, 4), (4,)], "rc,c->r"),
        ("b h i d, b h j d -> b h i j", [(2, 3, 4, 5), (2, 3, 6, 5)], "bhid,bhjd->bhij"),
        ("... in1, in1 out1 -> ... out1", [(2, 3, 4), (4, 5)], "...i,io->...o"),
        ("batch ..., batch -> ...", [(2, 3, 4), (2,)], "b...,b->..."),
        ("ab abc, abc a ab -> a", [(2, 3), (3, 5, 2)], "xy,ywx->w"),
    ],
)
def test_einsum(text: str, shapes: list[tuple[int, ...]], letters: str) -> None:
    values = [ones(*s) for s in shapes]
    wanted = np.einsum(letters, *values)
    assert_allclose(einsum(text, *values), wanted)
    assert_allclose(einsum(*values, text), wanted)
    got = einsum(*map(torch.from_numpy, values), text)
    assert_allclose(got.numpy(), wanted)


def test_one_named_axis() -> None:
    v = ones(5)
    assert_allclose(einsum(v, v, "batch, batch -> batch"), v * v)
    assert_allclose(einsum("(batch), (batch) ->", v, v), v @ v)
    with pytest.raises(ValueError, match="parentheses"):
        einsum("batch ->", v)


def test_rearrange() -> None:
    x = np.arange(2 * 6 * 4 * 3.0).reshape(2, 6, 4, 3)
    assert_array_equal(einsum("b h w c -> b c h w", x), x.transpose(0, 3, 1, 2))
    assert_array_equal(einsum("b h w c -> (b h) w c", x), x.reshape(12, 4, 3))
    assert_array_equal(einsum("b h w c -> h (b w) c", x), x.transpose(1, 0, 2, 3).reshape(6, 8, 3))
    assert_array_equal(einsum("b h w c -> b (c h w)", x), x.transpose(0, 3, 1, 2).reshape(2, 72))
    blocks = x.reshape(2, 3, 2, 2, 2, 3)
    wanted = blocks.transpose(0, 2, 4, 1, 3, 5).reshape(8, 3, 2, 3)
    assert_array_equal(einsum("b (h h1) (w w1) c -> (b h1 w1) h w c", x, h1=2, w1=2), wanted)
    wanted = blocks.transpose(0, 1, 3, 5, 2, 4).reshape(2, 3, 2, 12)
    assert_array_equal(einsum("b (h h1) (w w1) c -> b h w (c h1 w1)", x, h1=2, w1=2), wanted)
    assert_array_equal(einsum("b h w c -> b 1 h w 1 c ()", x), x[:, None, :, :, None, :, None])
    assert_array_equal(einsum("b ... -> b (...)", x), x.reshape(2, -1))
    assert einsum("b (h h1) w c -> b h h1 w c", x, h1=2).base is x.base


def test_reduce() -> None:
    x = ones(2, 6, 4, 3)
    assert_allclose(einsum("b h w c -> b c", x), x.sum((1, 2)))
    assert_allclose(einsum("b (h h2) (w w2) c -> h w2", x, h2=2, w2=2), x.reshape(2, 3, 2, 2, 2, 3).sum((0, 2, 3, 5)))
    assert_allclose(einsum("b (h h2) w c -> b h w c", x, h=2), x.reshape(2, 2, 3, 4, 3).sum(2))
    assert_allclose(einsum("b h w c -> b 1 1 c", x), x.sum((1, 2), keepdims=True))
    assert_allclose(einsum("... c -> ...", x), x.sum(-1))


def test_repeat() -> None:
    x = ones(2, 3)
    assert_array_equal(einsum("h w -> h w c", x, c=4), np.repeat(x[:, :, None], 4, 2))
    assert_array_equal(einsum("h w -> (h r) w", x, r=2), np.repeat(x, 2, 0))
    assert_array_equal(einsum("h w -> h (r w)", x, r=2), np.tile(x, (1, 2)))


def test_grouped_heads() -> None:
    q, k = ones(2, 6, 4, 5), ones(2, 3, 7, 5)
    wanted = np.einsum("bgrqd,bgkd->bgrqk", q.reshape(2, 3, 2, 4, 5), k).reshape(2, 6, 4, 7)
    assert_allclose(einsum("b (g r) q d, b g k d -> b (g r) q k", q, k), wanted)


@pytest.mark.parametrize(
    ("text", "shapes", "sizes"),
    [
        ("a b c -> a b", [(2, 3)], {}),
        ("a b, b c, c -> a", [(2, 3), (3, 4)], {}),
        ("a b -> a c", [(2, 3)], {}),
        ("a b 2 -> a b", [(2, 3, 2)], {}),
        ("(a b) c -> a b c", [(6, 2)], {}),
        ("(a b) c -> a b c", [(6, 2)], {"a": 4}),
        ("(a b) c -> a b c", [(6, 2)], {"a": 0}),
        ("a b -> a b", [(2, 3)], {"c": 2}),
        ("a b -> a b c", [(2, 3)], {"c": 1 << 62}),
        ("a b -> a b c", [(2, 3)], {"c": 2.0}),
        ("a b -> a b", [(2, 3)], {"a": 3}),
        ("a (b (c d)) -> a", [(2, 3)], {}),
        ("a (b -> a", [(2, 3)], {}),
        ("a b) -> a", [(2, 3)], {}),
        ("a 1 -> a", [(2, 3)], {}),
    ],
)
def test_refused(text: str, shapes: list[tuple[int, ...]], sizes: dict[str, Any]) -> None:
    with pytest.raises(einc.Error):
        einsum(text, *(ones(*s) for s in shapes), **sizes)
