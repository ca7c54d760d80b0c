"""What kernels of the gradients of attention do beside their products: no more than their mathematics asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import pytest
import torch

import einc
from einc import tile
from einc.base.targets import TARGETS
from einc.codegen.run.aot import compile_ahead
from einc.codegen.triton.tiles.occupancy import Occupancy
from einc.driver import Compiled
from einc.tile.typing import axes_of, scope
from einc.tile.walk import lets, loops, tile_axes, values_in, walk_values

TARGET = TARGETS["sm_90"]
TEXT = """def attention(Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]{more}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h // (|h| // |g|), j, d]
    A[b, h, i, j] = {scores}
    O[b, h, i, e] = {softmax} * V[b, h // (|h| // |g|), j, e]
    return O
"""
B, H, N, D = 4, 16, 4096, 128
MORE = {
    "T[i] : i32": torch.empty(N, dtype=torch.int32, device="meta"),
    "T[h]": torch.empty(H, dtype=torch.bfloat16, device="meta"),
    "T[h, i, j]": torch.empty(H, N, N, dtype=torch.bfloat16, device="meta"),
}
MASKED = {
    "causal": ("where(j <= i, S, -inf)", ""),
    "window": ("where(j <= i and i - j < 1024, S, -inf)", ""),
    "capped": ("where(j <= i, 20 * tanh(S / 20), -inf)", ""),
    "documents": ("where(T[i] == T[j], S, -inf)", "T[i] : i32"),
}


@cache
def gradients(
    scores: str, more: str = "", softmax: str = "softmax[j](A)", groups: int = H, generator: str = "auto"
) -> Compiled:
    """The gradients of an attention, as kernels for a GPU."""
    text = TEXT.format(scores=scores, more=f", {more}" if more else "", softmax=softmax)
    text = text if groups < H else text.replace("[b, g, ", "[b, h, ").replace("h // (|h| // |g|)", "h")
    q, *rest = (torch.empty(B, n, N, D, dtype=torch.bfloat16, device="meta") for n in (H, groups, groups))
    given = (q, *rest, MORE[more]) if more else (q, *rest)
    return einc.compile(text, target="sm_90", generator=generator).gradient(given=given).compiled()


def kernels(c: Compiled, stage: str = "segment-loops") -> dict[str, tile.Kernel]:
    schedule = c.stage(stage).state.schedule
    assert schedule is not None
    return {k.name: k for k in schedule.kernels}


def masked(kernel: tile.Kernel) -> Iterator[tuple[tile.Loop, tile.Full]]:
    """The loops that have an unmasked body, with it."""
    return ((loop, loop.full) for loop in loops(kernel.body) if loop.full is not None and loop.full.body)


@pytest.mark.parametrize("name", MASKED)
def test_full_blocks_take_one_operation_for_an_exponent_and_none_for_masks(name: str) -> None:
    for kernel in kernels(gradients(*MASKED[name])).values():
        bound = {n: t for s in lets(kernel.body) for n, t in zip(s.names, s.types, strict=True)}
        types = {**scope(kernel), **bound}
        for _, full in masked(kernel):
            found = list(values_in(full.body))
            assert not [v for v in found if isinstance(v, tile.Elem) and v.op == "where" and _is_masked(v)]
            powers = [v.args[0] for v in found if isinstance(v, tile.Elem) and v.op == "exp2"]
            assert powers
            assert all(isinstance(x, tile.Elem) and x.op == "sub" and _is_scaled(x.args[0], types) for x in powers)


@pytest.mark.parametrize("name", ["causal", "window", "capped"])
def test_dots_have_no_conditions_where_rows_that_count_are_an_interval(name: str) -> None:
    """Not for rows beyond the last one either: what these compute is not kept. Where warps have roles, dots count."""
    for kernel in kernels(gradients(*MASKED[name], generator="triton")).values():
        dots = [v for v in values_in(kernel.body) if isinstance(v, tile.Dot)]
        assert len(dots) >= 3
        assert not [d for d in dots if d.left_in is not None or d.right_in is not None]


def _is_masked(v: tile.Elem) -> bool:
    """Does a choice differ between positions?"""
    return any(isinstance(x, tile.Ref) for x in walk_values(v.args[0]))


def _is_scaled(v: tile.Value, names: Mapping[str, tile.TileType]) -> bool:
    """Is it a tile times what is the same at all of its positions?"""
    return isinstance(v, tile.Elem) and v.op == "mul" and not axes_of(v.args[0], names)


def test_sinks_read_the_sum_of_each_row_again() -> None:
    c = gradients("where(j <= i, S, -inf)", "T[h]", "softmax_sink[j](A, T[h])")
    totals = [e for e in c.state.program.equations if e.over and e.axes == ("h",)]
    assert totals
    assert not any("e" in e.over for e in totals)


def test_sums_of_parts_fill_their_tiles() -> None:
    """Keys and values that heads share: what is summed of both has no value in common."""
    last = kernels(gradients("where(j <= i, S, -inf)", groups=4))["dV"]
    (rows,) = [a.name for a in last.grid]
    block = last.choices.tile(rows)
    assert block is not None
    assert block.cap >= 8


def test_rooms_of_operands_are_those_that_triton_takes() -> None:
    c = gradients("S + T[h, i, j]", "T[h, i, j]", generator="triton")
    taken = {k.name.removesuffix("_kernel"): k for k in compile_ahead(c.emitted, TARGET, c.sizes)}
    for name in ("dQ", "dV"):
        kernel = kernels(c, "choose-tiles")[name]
        sizes = {n: min(b.cap, N) for n, b in kernel.choices.tiles}
        sizes = {a: min(sizes.get(a, 1), D) if a in "de" else sizes.get(a, 1) for a in tile_axes(kernel)}
        predicted = Occupancy(kernel).shared(sizes, kernel.choices.stages, kernel.choices.warps)
        assert 0.95 < predicted / taken[name].shared < 1.1
        assert taken[name].spills <= 32


def test_programs_that_read_the_same_scores_run_together() -> None:
    found = kernels(gradients("S + T[h, i, j]", "T[h, i, j]"))
    for name in ("dQ", "dV"):
        assert [a.name for a in found[name].grid][-1] == "b"
    assert kernels(gradients(*MASKED["causal"]))["dQ"].grid[0].name == "b"
