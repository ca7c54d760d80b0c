"""The tiles that the model of products ranks first: they fit, they fill, and they were measured to be the fastest."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest

from einc.base.targets import TARGETS
from einc.codegen.triton.tiles.products import Tile, fastest, parts, seconds
from einc.pipeline import APART, Product

SM_90 = TARGETS["sm_90"]
PRODUCTS = [
    Product(1, m, n, k, 2, lined)
    for m, n, k, lined in [
        (1, 4096, 4096, True), (16, 1000, 4096, True), (128, 4096, 4096, True), (777, 1000, 4096, True),
        (777, 4096, 4096, True), (4096, 4096, 4096, True), (3000, 3000, 3000, False), (8, 8, 8, True),
        (100000, 16, 64, True), (64, 64, 100000, True),
    ]
]  # fmt: skip


@pytest.mark.parametrize("p", PRODUCTS, ids=str)
def test_tiles_fit_a_program(p: Product) -> None:
    t = fastest(p, SM_90)
    assert t.shared(p.size) <= SM_90.shared
    assert 4 * t.registers <= SM_90.registers
    assert t.rows <= max(16, 2 * p.rows)
    assert t.columns <= max(16, 2 * p.columns)
    assert p.inner >= t.parts


@pytest.mark.parametrize("p", [p for p in PRODUCTS if p.rows * p.columns >= 1 << 19], ids=str)
def test_tiles_leave_few_processors_idle(p: Product) -> None:
    t = fastest(p, SM_90)
    programs = ceil(p.rows / t.rows) * ceil(p.columns / t.columns) * t.parts
    rounds = programs / SM_90.rates.processors
    assert rounds / ceil(rounds) >= 0.7


# Rows, columns and inner length of tiles, warps, stages, in microseconds on one H200, with cold caches.
MEASURED = {
    (4096, 4096, 4096, True): {(128, 256, 64, 8, 3): 186, (128, 128, 64, 4, 4): 219, (256, 128, 64, 8, 3): 205},
    (3000, 3000, 3000, False): {(128, 256, 64, 8, 4): 117, (128, 128, 64, 8, 6): 146, (128, 128, 64, 4, 3): 140},
    (777, 1000, 4096, True): {(64, 128, 64, 4, 8): 20.1, (64, 64, 64, 4, 6): 25.5, (128, 128, 64, 8, 6): 26.8},
    (128, 4096, 4096, True): {(64, 64, 128, 4, 6): 18.2, (128, 32, 128, 4, 5): 21.1, (64, 32, 128, 4, 8): 25.2},
    (777, 4096, 4096, True): {(128, 256, 64, 8, 4): 47.0, (64, 256, 64, 4, 5): 51.3, (128, 128, 64, 8, 6): 58.5},
    (512, 6144, 4096, True): {(128, 256, 64, 8, 4): 46.7, (128, 128, 64, 8, 6): 50.5, (64, 256, 64, 4, 5): 53.0},
    (1024, 1024, 1024, True): {(64, 128, 64, 4, 8): 9.9, (128, 64, 64, 4, 8): 10.6, (64, 64, 128, 4, 6): 12.0},
}  # fmt: skip


@pytest.mark.parametrize(("product", "times"), MEASURED.items(), ids=lambda x: str(x) if isinstance(x, tuple) else "")
def test_the_fastest_of_measured_tiles_is_ranked_first(
    product: tuple[int, int, int, bool], times: dict[tuple[int, ...], float]
) -> None:
    rows, columns, inner, lined = product
    p = Product(1, rows, columns, inner, 2, lined)
    predicted = {t: seconds(p, Tile(*t), SM_90) for t in times}
    first = min(predicted, key=lambda t: predicted[t])
    assert times[first] <= 1.05 * min(times.values())


def test_walks_are_divided_where_little_else_is_there_to_do() -> None:
    assert parts(Product(1, 64, 64, 100_000, 2), SM_90) > 4
    assert parts(Product(1, 4096, 4096, 4096, 2), SM_90) == 1
    assert parts(Product(64, 64, 64, 100_000, 2), SM_90) < parts(Product(1, 64, 64, 100_000, 2), SM_90)


def test_what_is_read_one_by_one_takes_longer() -> None:
    p = PRODUCTS[5]
    lined, narrow, apart = (replace(p, access=(n, 16)) for n in (16, p.size, APART))
    times = [seconds(x, fastest(x, SM_90), SM_90) for x in (lined, narrow, apart)]
    assert times[2] > times[1] > 2 * times[0]


def test_sums_that_are_held_twice_take_smaller_tiles() -> None:
    """Of 2048 by 2048 sums of 16384 products of one byte, tiles of 128 by 256 spilled, and took longer."""
    narrow, wide = (fastest(Product(1, 2048, 2048, 16384, size), SM_90) for size in (1, 2))
    assert narrow.rows * narrow.columns <= 128 * 128 < wide.rows * wide.columns


@pytest.mark.parametrize("extents", [(0, 64, 64, 64), (1, 0, 64, 64), (1, 64, 0, 64), (1, 64, 64, 0)])
def test_products_without_positions_have_tiles(extents: tuple[int, int, int, int]) -> None:
    p = Product(*extents, 2)
    assert seconds(p, fastest(p, SM_90), SM_90) > 0


def test_few_programs_of_threads_copy_little_before_they_begin() -> None:
    """Eight stages of 64 rows are thousands of instructions before a walk of 230 positions begins."""
    p = Product(1, 354, 3, 230, 2, False, (4, 2), (False, True))
    t = fastest(p, SM_90)
    assert (t.rows, t.columns) == (16, 16)
    assert t.rows * t.inner // 2 // (32 * t.warps) * t.stages <= 64
    engines = fastest(replace(p, access=(16, 16)), SM_90)
    assert engines.rows == 64


def test_single_elements_stay_in_registers_on_their_way() -> None:
    """Tiles of 64 by 256 would have 320 elements a thread on their way at once."""
    p = Product(114, 47, 8887, 82, 2, False, (APART, APART))
    t = fastest(p, SM_90)
    assert (t.rows + t.columns) * t.inner // (32 * t.warps) <= 160
