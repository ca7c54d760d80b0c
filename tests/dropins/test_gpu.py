"""Attention as PyTorch calls it, on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import einc
from einc.dropins.fingerprints import fingerprint
from tests.dropins.mods import CASES
from tests.dropins.test_attention import CALLS, exact
from tests.dropins.test_flex import exact as exact_flex
from tests.dropins.test_flex import operands

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
ours: Any = einc.scaled_dot_product_attention


def without_tables(name: str) -> bool:
    """Does the case capture no tensor that would have to be on the GPU?"""
    mark = fingerprint(CASES[name].score, CASES[name].mask)
    return mark is not None and not any(t.ndim for t in mark.tensors)


@pytest.mark.parametrize("name", [n for n in CASES if without_tables(n)])
def test_flex(name: str) -> None:
    case, (q, k, v) = CASES[name], operands()
    out, lse = einc.flex_attention(q.cuda(), k.cuda(), v.cuda(), case.score, case.mask, return_lse=True)
    expected = exact_flex(q, k, v, case.score, case.mask)
    torch.testing.assert_close(out.cpu().double(), expected[0], rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(lse.cpu().double(), expected[1], rtol=5e-3, atol=5e-3)


def test_flex_reads_tables() -> None:
    q, k, v = operands(torch.bfloat16)
    bias, document = torch.randn(q.shape[1], q.shape[2]), torch.arange(q.shape[2]) // 7

    def run(device: str, call: Any) -> torch.Tensor:
        table, ids, shift = bias.to(device), document.to(device), torch.tensor(2)
        out: torch.Tensor = call(
            *(x.to(device) for x in (q, k, v)),
            lambda s, b, h, i, j: s + table[h, i - j] * shift,
            lambda b, h, i, j: (ids[i] == ids[j]) & (i >= j),
        )
        return out.cpu().double()

    wanted = run("cpu", lambda *a: exact_flex(*a)[0])
    torch.testing.assert_close(run("cuda", einc.flex_attention), wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", CALLS)
def test_sdpa(name: str) -> None:
    given, options = CALLS[name]()
    moved = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in options.items()}
    found = ours(*(x.cuda() for x in given), **moved)
    torch.testing.assert_close(found.cpu().double(), exact(given, options), rtol=5e-3, atol=5e-3)


def leaves(*tensors: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    return [t.detach().to(dtype).requires_grad_() for t in tensors]


def assert_gradients(found: Any, copies: list[torch.Tensor], wanted: Any, wide: list[torch.Tensor]) -> None:
    """Asserts that gradients are near those in f64, by their Euclidean lengths, and the same each time."""
    weights = torch.randn(wanted.shape, dtype=torch.float64, device=wanted.device)
    first, second = (torch.autograd.grad(found, copies, weights.to(found), retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))
    for x, y in zip(first, torch.autograd.grad(wanted, wide, weights), strict=True):
        assert float((x - y).norm() / y.norm()) <= 4 * torch.finfo(torch.bfloat16).eps


GRADIENTS = ["causal", "groups", "truths of keys", "bias", "bias and groups", "groups that differ"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, dtype: torch.dtype) -> None:
    """Those of an additive mask too."""
    given, options = CALLS[name]()
    mask = options.get("attn_mask")
    moved = [x.cuda().to(dtype) for x in (*given, *([] if mask is None else [mask]))]
    biased = mask is not None and mask.is_floating_point()
    if mask is not None and not biased:
        options = options | {"attn_mask": mask.cuda()}
    copies = leaves(*moved[: 4 if biased else 3], dtype=dtype)
    wide = leaves(*copies, dtype=torch.float64)
    named, exactly = (options | ({"attn_mask": c[3]} if biased else {}) for c in (copies, wide))
    assert_gradients(ours(*copies[:3], **named), copies, exact(tuple(wide[:3]), exactly), wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_tables(dtype: torch.dtype) -> None:
    """A table that is read by distance, and a number."""
    q, k, v = operands(dtype)
    copies = leaves(*(x.cuda() for x in (q, k, v, torch.randn(q.shape[1], 2 * q.shape[2]))), dtype=dtype)
    copies += [torch.tensor(0.7, device="cuda", requires_grad=True)]
    wide = leaves(*copies, dtype=torch.float64)

    def run(call: Any, q: Any, k: Any, v: Any, table: Any, factor: Any) -> Any:
        return call(q, k, v, lambda s, b, h, i, j: factor * s + table[h, i - j + 24], lambda b, h, i, j: i >= j)

    assert_gradients(run(einc.flex_attention, *copies), copies, run(lambda *a: exact_flex(*a)[0], *wide), wide)


def test_dropout_is_that_of_the_cpu() -> None:
    q, k, v = operands()

    def run(device: str) -> torch.Tensor:
        torch.manual_seed(3)
        out: torch.Tensor = ours(*(x.to(device) for x in (q, k, v)), dropout_p=0.4)
        return out.cpu()

    torch.testing.assert_close(run("cuda"), run("cpu"), rtol=5e-3, atol=5e-3)
