"""The cases of ONNX's operator Attention (opsets 23 and 24) can be written over einc's attention.

The operator is `softmax(softcap(scale * Q Kᵀ) + bias) V`, where the bias is a mask, or the diagonal that is counted
from the end of what precedes the queries, or the length of each sequence, or all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import einc

Array = Any
B, H, L, S, E, W, P = 2, 6, 4, 6, 8, 10, 3
LENGTHS = np.array([S, S - 2])


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def truths(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).random(shape) < 0.7


def four(x: Array, heads: int | None) -> Array:
    """(batch, length, heads × width) as (batch, heads, length, width)."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def reference(
    q: Array, k: Array, v: Array, mask: Array = None, past: Any = None, lengths: Array = None, **o: Any
) -> Array:
    """The operator in f64, written out: its result, and what `qk_matmul_output_mode` 0 to 3 give."""
    flat = q.ndim == 3
    heads = o.get("q_num_heads"), o.get("kv_num_heads"), o.get("kv_num_heads")
    q, k, v = (four(x, n).astype(np.float64) for x, n in zip((q, k, v), heads, strict=True))
    if past is not None:
        k, v = (np.concatenate((old, new), axis=2) for old, new in zip(past, (k, v), strict=True))
    k, v = (x.repeat(q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    raw = o.get("scale", q.shape[-1] ** -0.5) * q @ k.swapaxes(-1, -2)
    score = o["softcap"] * np.tanh(raw / o["softcap"]) if o.get("softcap") else raw
    i, j = np.ogrid[: q.shape[2], : k.shape[2]]
    bias = np.zeros((q.shape[0], 1, q.shape[2], k.shape[2]))
    if mask is not None:
        added = np.where(mask, 0, -np.inf) if mask.dtype == bool else mask
        bias = bias + np.pad(
            added, [(0, 0)] * (mask.ndim - 1) + [(0, k.shape[2] - mask.shape[-1])], constant_values=-np.inf
        )
    if o.get("is_causal"):
        before = 0 if past is None else past[0].shape[2]
        frontier = (
            np.array(before) if lengths is None or past is not None else lengths[:, None, None, None] - q.shape[2]
        )
        bias = bias + np.where(j <= i + frontier, 0, -np.inf)
    if lengths is not None:
        bias = bias + np.where(j < lengths[:, None, None, None], 0, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(score + bias - (score + bias).max(-1, keepdims=True))
    out = np.nan_to_num(e / e.sum(-1, keepdims=True)) @ v
    return out.swapaxes(1, 2).reshape(q.shape[0], q.shape[2], -1) if flat else out


def written(
    q: Array, k: Array, v: Array, mask: Array = None, past: Any = None, lengths: Array = None, **o: Any
) -> Array:
    """The same over `einc.flex_attention`: what limits a row is its mask, what changes a score its function."""
    flat = q.ndim == 3
    heads = o.get("q_num_heads"), o.get("kv_num_heads"), o.get("kv_num_heads")
    q, k, v = (torch.as_tensor(four(x, n)) for x, n in zip((q, k, v), heads, strict=True))
    before = 0
    if past is not None:
        before = past[0].shape[2]
        k, v = (torch.cat((torch.as_tensor(old), new), dim=2) for old, new in zip(past, (k, v), strict=True))
    cap, length = o.get("softcap"), None if lengths is None else torch.as_tensor(lengths)
    table = None if mask is None else torch.as_tensor(mask.reshape((1,) * (4 - mask.ndim) + mask.shape))
    rows = q.shape[2]

    def given(b: Any, h: Any, i: Any, j: Any) -> Any:
        assert table is not None
        at = [x if n > 1 else 0 for x, n in zip((b, h, i), table.shape, strict=False)]
        return table[at[0], at[1], at[2], j]

    def score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        s = cap * torch.tanh(s / cap) if cap else s
        return s if table is None or table.dtype == torch.bool else s + given(b, h, i, j)

    def seen(b: Any, h: Any, i: Any, j: Any) -> Any:
        keep = j.new_ones((), dtype=torch.bool)
        if table is not None:
            keep = keep & (j < table.shape[-1])
            keep = keep & given(b, h, i, j) if table.dtype == torch.bool else keep
        if o.get("is_causal"):
            keep = keep & (j <= i + (before if length is None or past is not None else length[b] - rows))
        return keep if length is None else keep & (j < length[b])

    out = einc.flex_attention(q, k, v, score, seen, scale=o.get("scale"), enable_gqa=True)
    return out.transpose(1, 2).flatten(2).numpy() if flat else out.numpy()


Case = tuple[tuple[Array, ...], dict[str, Any]]
FOUR = normal(B, H, L, E), normal(B, H, S, E), normal(B, H, S, W)
GROUPS = normal(B, H, L, E), normal(B, 2, S, E), normal(B, 2, S, W)
THREE = normal(B, L, H * E), normal(B, S, H * E), normal(B, S, H * W)
THREE_GROUPS = normal(B, L, H * E), normal(B, S, 2 * E), normal(B, S, 2 * W)
HEADS, GROUP_HEADS = {"q_num_heads": H, "kv_num_heads": H}, {"q_num_heads": H, "kv_num_heads": 2}
PAST, GROUP_PAST = (normal(B, H, P, E), normal(B, H, P, W)), (normal(B, 2, P, E), normal(B, 2, P, W))

CASES: dict[str, Case] = {
    "4d": (FOUR, {}),
    "4d scaled": (FOUR, {"scale": 1e-2}),
    "4d causal": (FOUR, {"is_causal": 1}),
    "4d softcap": (FOUR, {"softcap": 2.0}),
    "4d gqa": (GROUPS, {}),
    "4d gqa causal softcap": (GROUPS, {"is_causal": 1, "softcap": 3.0}),
    "4d mask": (FOUR, {"mask": normal(L, S)}),
    "4d bool mask": (FOUR, {"mask": truths(L, S)}),
    "4d mask of three dimensions": (FOUR, {"mask": normal(1, L, S)}),
    "4d mask of heads": (FOUR, {"mask": truths(B, H, L, S)}),
    "4d mask causal": (FOUR, {"mask": normal(B, 1, L, S), "is_causal": 1}),
    "4d bool mask causal softcap": (FOUR, {"mask": truths(1, H, L, S), "is_causal": 1, "softcap": 2.0}),
    "4d mask too short": (FOUR, {"mask": normal(L, S - 2)}),
    "4d bool mask too short": (FOUR, {"mask": truths(B, 1, L, S - 2)}),
    "4d past": (FOUR, {"past": PAST, "mask": normal(L, P + S)}),
    "4d past causal": (FOUR, {"past": PAST, "is_causal": 1}),
    "4d gqa past bool mask": (GROUPS, {"past": GROUP_PAST, "mask": truths(L, P + S)}),
    "4d lengths": (FOUR, {"lengths": LENGTHS}),
    "4d lengths causal": (GROUPS, {"lengths": LENGTHS, "is_causal": 1}),
    "4d lengths bool mask": (FOUR, {"lengths": LENGTHS, "mask": truths(B, H, L, S)}),
    "3d": (THREE, HEADS),
    "3d causal scaled": (THREE, HEADS | {"is_causal": 1, "scale": 0.1}),
    "3d gqa softcap": (THREE_GROUPS, GROUP_HEADS | {"softcap": 2.0}),
    "3d gqa mask": (THREE_GROUPS, GROUP_HEADS | {"mask": truths(L, S)}),
    "3d past causal": (THREE, HEADS | {"past": PAST, "is_causal": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    operands, options = CASES[name]
    found = written(*operands, **options)
    wanted = reference(*operands, **options)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


OVER_SDPA = [n for n, (_, o) in CASES.items() if not o.keys() & {"softcap", "past", "lengths", "q_num_heads"}
             and not ("mask" in o and ("is_causal" in o or o["mask"].shape[-1] < S))]  # fmt: skip


@pytest.mark.parametrize("name", OVER_SDPA)
def test_most_are_one_call_of_sdpa(name: str) -> None:
    operands, options = CASES[name]
    mask = options.get("mask")
    q, k, v = map(torch.as_tensor, operands)
    found = einc.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask is None else torch.as_tensor(mask),
        is_causal=bool(options.get("is_causal")),
        scale=options.get("scale"),
        enable_gqa=True,
    )
    np.testing.assert_allclose(found.numpy(), reference(*operands, **options), rtol=1e-5, atol=1e-5)


STEPS: dict[int, Callable[[Array, Array], Array]] = {
    0: lambda raw, _: raw,
    1: lambda raw, _: 2 * np.tanh(raw / 2),
    2: lambda raw, bias: 2 * np.tanh(raw / 2) + bias,
    3: lambda raw, bias: (lambda e: e / e.sum(-1, keepdims=True))(np.exp(2 * np.tanh(raw / 2) + bias)),
}


@pytest.mark.parametrize("mode", STEPS)
def test_scores_are_one_more_result(mode: int) -> None:
    """`qk_matmul_output_mode`: a program returns any of its steps."""
    step = ("S", "C", "A", "softmax[j](A)")[mode]
    program = einc.compile(f"""
        def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], M[i, j], cap: float, scale: float = rsqrt(|d|)):
            S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
            C[b, h, i, j] = softcap(S, cap)
            A[b, h, i, j] = C + M[i, j]
            X[b, h, i, j] = {step}
            O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
            return O, X
    """)
    q, k, v = FOUR
    bias = normal(L, S)
    out, shown = program(q, k, v, bias, 2.0)
    raw = E**-0.5 * q.astype(np.float64) @ k.swapaxes(-1, -2)
    np.testing.assert_allclose(shown, STEPS[mode](raw, bias), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out, reference(q, k, v, bias, softcap=2.0), rtol=1e-5, atol=1e-5)
