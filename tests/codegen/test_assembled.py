"""What the assembler makes of kernels: that it takes them, and that registers hold their values.

Gradients of grouped heads walk the heads of a group, and the queries of each, in one loop, or multiply at all heads.
"""

from __future__ import annotations

import pytest

import einc
from einc import tile
from einc.base.targets import TARGETS
from einc.cli.emission import compiled_ahead
from einc.codegen.run.aot import compile_ahead
from einc.driver import compile_program, elaborate, parse
from einc.tile.typing import multiplied
from einc.tile.walk import bindings
from einc.trials.request import Request
from einc.trials.running import gradient_for

TEXT = """def f(Q[b, h, i, d]: {dtype}, K[b, g, j, d]: {dtype}, V[b, g, j, e]: {dtype}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]
    P[b, h, i, j] = {weights}
    O[b, h, i, e] = P[b, h, i, j] * V[b, h // (|h| / |g|), j, e]
    return O
"""
SOFTMAX, WINDOW = "softmax[j](S)", "where(i - j < 128 and j - i < 128, sigmoid(S), 0)"


@pytest.mark.aot
@pytest.mark.parametrize(
    ("dtype", "weights", "sizes"),
    [
        ("bf16", SOFTMAX, {"b": 1, "h": 4, "g": 2, "i": 500, "j": 1024, "d": 80, "e": 80}),
        ("f32", SOFTMAX, {"b": 1, "h": 4, "g": 1, "i": 512, "j": 777, "d": 64, "e": 64}),
        ("f32", WINDOW, {"b": 2, "h": 2, "g": 1, "i": 128, "j": 256, "d": 128, "e": 128}),
    ],
)
def test_gradients_of_few_heads_compile(dtype: str, weights: str, sizes: dict[str, int]) -> None:
    """What their inner loop reads ahead is of its next block, which it has not; its dots have an inner length."""
    program = einc.compile(TEXT.format(dtype=dtype, weights=weights), target="sm_90", generator="auto")
    whole = gradient_for(program, Request(sizes), []).together
    assert "for step in tl.range(" in whole.source
    assert all(kernel.stages["ptx"] for kernel in compiled_ahead(whole))


FEW = """def f(Q[b, h, i, d]: f16, K[b, h, j, d]: f16, V[b, h, j, e]: f16, T[b, j]: f16):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](where(j <= i, S[b, h, i, j] + T[b, j], -inf)) * V[b, h, j, e]
    return O
"""


@pytest.mark.aot
def test_registers_hold_what_dots_at_every_head_multiply() -> None:
    """With larger tiles, whose results alone have room, all of a thread's values are in memory."""
    program = einc.compile(FEW, target="sm_90", generator="auto")
    sizes = {"b": 2, "h": 1, "i": 512, "j": 777, "d": 128, "e": 128}
    whole = gradient_for(program, Request(sizes), []).together
    assert all(kernel.spills < 100 for kernel in compiled_ahead(whole))


@pytest.mark.aot
@pytest.mark.parametrize("sizes", [{"i": 400, "j": 304, "b": 384}, {"i": 4000, "j": 3040, "b": 3840}])
def test_exact_products_with_a_computed_right_side_spill_nothing(sizes: dict[str, int]) -> None:
    total = "sum[i](D[i, j] * (X[b, i] - M[b]))"
    program = elaborate(parse(f"def f(D[i, j]: f32, X[b, i]: f32, M[b]: f32):\n    O[j, b] = {total}\n    return O\n"))
    emitted = compile_program(program, 2, TARGETS["sm_90"], sizes).emitted
    assert all(kernel.spills == 0 for kernel in compile_ahead(emitted, TARGETS["sm_90"], sizes))


@pytest.mark.aot
@pytest.mark.parametrize("d", [192, 256])
@pytest.mark.parametrize("weights", ["softmax[j](S)", "softmax[j](where(j <= i, S * T[i], -inf))"])
def test_gradients_of_wide_heads_have_rows_for_groups_of_warps(d: int, weights: str) -> None:
    """Those of keys and those of values are apart: registers have no room for both with as many rows."""
    text = (
        "def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, T[i]: bf16):\n"
        "    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]\n"
        f"    O[b, h, i, e] = {weights} * V[b, h, j, e]\n    return O\n"
    )
    sizes = {"b": 4, "h": 8, "i": 1024, "j": 1024, "d": d, "e": d}
    whole = gradient_for(einc.compile(text, target="sm_90"), Request(sizes), ["Q", "K", "V"]).together
    kernels = compiled_ahead(whole)
    assert len(kernels) == 4
    for kernel in kernels:
        assert "wgmma" in kernel.stages["ptx"]
        assert "mma.sync" not in kernel.stages["ptx"]
        assert kernel.spills < 64


ONE_BLOCK = """def f(
    Q[b, h, i, d]: bf16, K[b, j, h, d]: bf16, heat[h]: bf16, bias[b, i, j]: bf16, length[b]: i32, mix[h]: bf16,
    R[b, h, i, d]: bf16, L[b, j, h, d]: bf16, T[b, i, h, c]: bf16, M[b, j, c]: bf16, V[b, h, j, e]: bf16
):
    S[b, h, i, j] = 0.125 * Q[b, h, i, d] * K[b, j, h, d] * heat[h] + bias[b, i, j]
    U[b, h, i, j] = 0.125 * R[b, h, i, d] * L[b, j, h, d] + 0.125 * T[b, i, h, c] * M[b, j, c]
    A[b, h, i, j] = where(j < length[b] and (i - j) % 3 == 0, S, -inf)
    B[b, h, i, j] = where(j < length[b] and (i - j) % 3 == 0, U, -inf)
    O[b, h, i, e] = (softmax[j](A) - mix[h] * softmax[j](B)) * V[b, h, j, e]
    return O
"""


def test_columns_of_computed_sides_have_whole_swizzled_rows_where_they_are_walked() -> None:
    """The assembler may mistake the address of narrower ones: gradients by R and T were, where keys are one block."""
    sizes = {"b": 1, "h": 1, "i": 128, "j": 128, "d": 64, "c": 64, "e": 64}
    whole = gradient_for(einc.compile(ONE_BLOCK, target="sm_90"), Request(sizes), []).together
    kernels = [s.kernel for s in whole.emitted.kernels]
    checked = 0
    for kernel in kernels:
        loaded = {n for s in bindings(kernel) if isinstance(s.value, tile.Load) for n in s.names}
        computed = [
            d for d, _ in multiplied(kernel) if not {getattr(x, "name", "") for x in (d.left, d.right)} <= loaded
        ]
        for dot in computed if len(multiplied(kernel)) > 1 else ():
            block = kernel.choices.tile(dot.column)
            assert block is not None
            assert block.least >= 64
            checked += 1
    assert checked


@pytest.mark.parametrize(("batch", "stages"), [(1, 1), (3, 2), (4, 2), (16, 3)])
def test_walks_of_few_steps_have_stages_for_half_of_them(batch: int, stages: int) -> None:
    text = """def f(Q[b, i, d]: bf16, K[b, j, d]: bf16, dO[b, i, d]: bf16, V[b, j, d]: bf16):
    T[i, j] = sum[b](exp(sum[d](Q[b, i, d] * K[b, j, d])) * sum[d](dO[b, i, d] * V[b, j, d]))
    return T
"""
    sizes = {"b": batch, "i": 4096, "j": 4096, "d": 64}
    done = compile_program(elaborate(parse(text)), 2, TARGETS["sm_90"], sizes)
    assert [s.kernel.choices.stages for s in done.emitted.kernels] == [stages]


@pytest.mark.aot
def test_sums_of_parts_exchange_nothing() -> None:
    """Warps have rows of their own, beside each other, and threads all parts of what they add up."""
    text = """def f(A[r, b, j, d]: f32, B[r, b, j, e]: f32):
    X[b, j, d]: bf16 = sum[r](A[r, b, j, d])
    Y[b, j, e]: bf16 = sum[r](B[r, b, j, e])
    return X, Y
"""
    sizes = {"r": 4, "b": 16, "j": 4096, "d": 128, "e": 128}
    done = compile_program(elaborate(parse(text)), 2, TARGETS["sm_90"], sizes)
    for kernel in compile_ahead(done.emitted, TARGETS["sm_90"], sizes):
        assert "tt.reduce" in kernel.stages["ttgir"]
        assert "shfl.sync" not in kernel.stages["ptx"]
