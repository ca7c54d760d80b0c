"""Kernels whose warps have roles on a GPU: what they compute, and that they come to an end."""

from __future__ import annotations

import pytest
import torch

from tests.codegen import test_gluon, test_gluon_products, test_gluon_reads
from tests.support.on_gpu import errors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="there is no Hopper GPU"
    ),
]
ROUNDING = 2.0**-7  # of bf16, in which operands, weights and results are
LONG = {"b": 2, "h": 3, "g": 3, "d": 128, "e": 128, "r": 700}


@pytest.mark.parametrize(("rows", "keys"), [(300, 457), (1024, 1024)])
@pytest.mark.parametrize("name", test_gluon.SPECIALISED)
def test_examples(name: str, rows: int, keys: int) -> None:
    text = test_gluon.example(name)
    _, taken = test_gluon.arguments(text, 1, 1)
    assert max(errors(text, {**LONG, "i": rows, "j": keys}, taken)) <= 4 * ROUNDING


@pytest.mark.parametrize("name", test_gluon_reads.READS)
def test_reads(name: str) -> None:
    assert max(errors(test_gluon_reads.program(name), {**LONG, "i": 300, "j": 457}, {})) <= 4 * ROUNDING


@pytest.mark.parametrize("name", test_gluon_products.PRODUCTS)
def test_products(name: str) -> None:
    sizes = {"b": 2, "i": 1000, "j": 776, "k": 520}
    assert max(errors(test_gluon_products.program(name), sizes, {})) <= 4 * ROUNDING


@pytest.mark.parametrize(("rows", "keys", "width"), [(300, 457, 128), (1024, 1024, 64)])
@pytest.mark.parametrize("mask", test_gluon.MASKS)
def test_gradients(mask: str, rows: int, keys: int, width: int) -> None:
    begin, end = test_gluon.MASKS[mask]
    text = test_gluon.BACKWARD.format(mask=begin, end=end)
    assert max(errors(text, {**LONG, "i": rows, "j": keys, "d": width, "e": width}, {})) <= 4 * ROUNDING


@pytest.mark.parametrize(("rows", "keys", "width"), [(300, 457, 128), (1024, 1024, 64)])
@pytest.mark.parametrize("mask", test_gluon.MASKS)
@pytest.mark.parametrize("bias", ["h, i, j", "i, j", "b, i, j"])
def test_gradients_of_a_bias(bias: str, mask: str, rows: int, keys: int, width: int) -> None:
    sizes = {**LONG, "b": 3, "i": rows, "j": keys, "d": width}
    assert max(errors(test_gluon_reads.backward(bias, mask), sizes, {})) <= 4 * ROUNDING


@pytest.mark.parametrize("read", ["Q[b, h, i, d]", "sum[d](Q[b, h, i, d] * Q[b, h, i, d])"])
def test_what_is_held_for_dots_is_computed_with(read: str) -> None:
    text = test_gluon.RESIDUAL.format(scale="", read=read)
    assert max(errors(text, {**LONG, "i": 300, "j": 457}, {})) <= 4 * ROUNDING


def test_what_walks_store_is_stored() -> None:
    assert max(errors(test_gluon.SCORES, {**LONG, "i": 300, "j": 457}, {}, roles=False)) <= 4 * ROUNDING
