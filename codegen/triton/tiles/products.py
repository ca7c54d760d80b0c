"""The tiles in which a product of two tensors takes the least time, and the parts of its walk.

    seconds = for each round of programs: steps, or bytes from memory + what a program waits for by itself
    a step  = products on the matrix units, bytes through the processor's port, their latency: the slowest of these, and
              a twentieth of the others

A processor runs as many programs at once as it has shared memory and registers for; they hide each other's waits. The
port takes a block again for every program that multiplies with it, so that large tiles ask for less; small ones fill
more of a machine. Rows of blocks that do not begin at whole lines of the cache take half as long again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from einc.base.targets import Target
from einc.pipeline import APART, ENGINE, GATHERED, Product

_PORT = 110e9  # bytes a second that a processor receives from the cache at most
_CACHE = 83e9  # the same for each, where all of them ask for as much
_ELEMENTS = 7e9  # elements a second that a processor reads one by one, which nothing hides
_SCATTERED = 2.5e9  # the same where their neighbours in memory are in no block with them
_THREADS = {4: 2, 8: 1.3}  # times as long as copy engines take threads that copy so many bytes each
_LATENCY = 0.9e-6  # seconds from a load to its first bytes, in memory
_CACHED = 0.3e-6  # the same where an earlier round has left them in the cache
_ARRIVED = 5e-7  # seconds of a step until single elements have arrived
_STEP = 5e-8  # seconds to begin a step
_UNHIDDEN = 1 / 20  # of the time that others than the slowest take
_FINISH = 1e-6  # seconds to store a tile, beside its bytes
_HIDDEN = 0.3  # of the time that a program waits for by itself, where another runs beside it
_REACHED = 0.86  # of the rate of matrix units
_MERGING = 3.5e-6  # seconds until parts are merged by a second kernel
_UNALIGNED = 1.5  # times as long as its bytes take a block whose rows do not begin at lines
_STAGES = range(8, 2, -1)  # with two, a block is asked for when the one before it is needed
_MOST_PARTS = 16  # of those that are tried
_ISSUED = 1e-8  # seconds of a copy by a thread in the code of a walk and of what comes before it, which is read once
_SINGLE = 64  # elements that a thread reads one by one at most: registers hold them on their way
_WHOLE = 128  # positions that the lengths of parts are multiples of
_LEAST_PART = 512  # positions of a walk that are worth a part
_RESERVED = 1024  # bytes of shared memory that a program takes for the system
_OWN = 48  # registers of a thread beside those of its results
_FEW = 4  # warps of a program at least: those that share a dot of Hopper
_RESULTS = 128  # results of a thread at most
_HALF_EACH = 128 * 128  # results of a program at most, where each is held twice
_GATHERING = 64  # the same where threads find the addresses of what they copy
_WARPGROUP = 64  # rows of a dot on Hopper's matrix units; fewer take the earlier ones, of half the rate
_CLOSE = 1.02  # times of tiles that are taken for equal: the fewest parts win
_LINE = 64  # rows, or columns, that are neighbours in memory and fill a line of the cache


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows, columns and inner length of a tile, the warps of a program, blocks in flight, and the parts of the walk."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int
    parts: int = 1

    def shared(self, size: int) -> int:
        """Bytes of shared memory, for elements of so many bytes."""
        return self.stages * (self.rows + self.columns) * self.inner * size + _RESERVED

    @property
    def registers(self) -> int:
        """32-bit registers of all threads."""
        threads = 32 * self.warps
        return threads * (self.rows * self.columns // threads + _OWN)


def seconds(p: Product, t: Tile, target: Target) -> float:
    """The time that a product takes in such tiles, beside that of a launch."""
    processors = target.rates.processors
    programs = max(p.batch * ceil(p.rows / t.rows) * ceil(p.columns / t.columns) * t.parts, 1)
    most = processors * max(min(target.shared // t.shared(p.size), target.registers // (4 * t.registers)), 1)
    moved = (p.rows * p.inner + p.inner * p.columns + p.rows * p.columns) * p.batch * p.size
    each = moved / target.rates.memory / programs
    total = _round(p, t, target, min(programs, most), _LATENCY, each) + _ISSUED * _issued(p, t)
    if programs > most:
        rounds, rest = divmod(programs - most, most)
        total += rounds * _round(p, t, target, most, _CACHED, each) if rounds else 0.0
        total += _round(p, t, target, rest, _CACHED, each) if rest else 0.0
    if t.parts > 1:
        total += _MERGING + 8 * t.parts * p.batch * p.rows * p.columns / target.rates.memory
    return total


def _round(p: Product, t: Tile, target: Target, programs: int, latency: float, each: float) -> float:
    """The time of so many programs that run at once; each has so many seconds of all bytes from memory."""
    rates = target.rates
    beside = ceil(programs / rates.processors)
    steps = _blocks(p, t)
    height = t.rows if t.rows >= _WARPGROUP else 2 * t.rows
    computing = 2 * height * t.columns * t.inner * rates.processors / (rates.matrix * _REACHED)
    sides = tuple(zip((t.rows, t.columns), p.access, strict=True))
    block = sum(n * _THREADS.get(access, 1) for n, access in sides) * t.inner * p.size * (1 if p.lined else _UNALIGNED)
    moving = block / min(_PORT, _CACHE * rates.processors / min(programs, rates.processors))
    ahead = min(p.access) >= min(_THREADS)  # single elements are asked for when they are needed
    waiting = (latency + moving) / (beside * max(t.stages - 1, 1))
    lengths = zip((p.rows, p.columns), sides, strict=True)
    inner = p.inner / (t.parts * steps)
    single = ((min(length, n), access) for length, (n, access) in lengths if access < min(_THREADS))
    step = sum(n * inner / (_SCATTERED if access == APART else _ELEMENTS) for n, access in single)
    step += 0 if ahead else _ARRIVED / beside
    step += _together(computing, moving, waiting, _STEP / beside)
    storing = t.rows * t.columns * (p.size if t.parts == 1 else 4) / _PORT
    alone = (_LATENCY + _FINISH) * (1 if beside == 1 else _HIDDEN)
    return _together(beside * steps * step, programs * each) + beside * storing + alone


def _issued(p: Product, t: Tile) -> float:
    """The copies of a thread in the code: for each stage those that go on meanwhile, and once single elements."""
    return sum(n * (t.stages if access >= min(_THREADS) else 1) for n, access in _copies(p, t))


def _copies(p: Product, t: Tile) -> list[tuple[float, int]]:
    """The copies of a thread for a block of each side that copy engines do not take, and the bytes of each."""
    sides = zip((t.rows, t.columns), p.access, strict=True)
    return [
        (n * t.inner * p.size / max(access, p.size) / (32 * t.warps), access) for n, access in sides if access < ENGINE
    ]


def _blocks(p: Product, t: Tile) -> int:
    """The blocks of a part of the walk."""
    if p.steps == 1:
        return max(ceil(ceil(p.inner / t.parts) / t.inner), 1)
    return ceil(p.steps * ceil(p.inner / p.steps / t.inner) / t.parts)


def _together(*times: float) -> float:
    """The time of what goes on at once."""
    slowest = max(times)
    return slowest + _UNHIDDEN * (sum(times) - slowest)


@lru_cache(maxsize=1024)
def fastest(p: Product, target: Target, parts: int | None = None) -> Tile:
    """The tiles that take the least time, in so many parts if that is given; the smallest if none fit."""
    timed = [(seconds(p, t, target), t) for t in _tiles(p, target, parts)]
    if not timed:
        return Tile(16, 16, 16, 4, _STAGES[-1], parts or 1)
    least = min(s for s, _ in timed)
    close = [(s, t) for s, t in timed if s <= least * _CLOSE]
    return min(close, key=lambda x: (x[1].parts, x[0]))[1]


def parts(p: Product, target: Target) -> int:
    """The parts of the walk with which a product takes the least time."""
    return fastest(p, target).parts


def _tiles(p: Product, target: Target, parts: int | None) -> Iterator[Tile]:
    """The tiles that fit a program, none of them larger than the product asks for."""
    for t in _shapes(p, target):
        if parts is not None and parts > 1 and t.inner > _WHOLE:
            continue
        stages = [n for n in _STAGES if replace(t, stages=n).shared(p.size) <= target.shared]
        whole = [_blocks(p, t)] if _copies(p, t) and _blocks(p, t) < _STAGES[-1] else []
        for n in dict.fromkeys((*stages[:1], *(n for n in (3, 4, 6) if n in stages), *whole)):
            yield from (replace(t, stages=n, parts=m) for m in (_splits(p, t, target) if parts is None else (parts,)))


def _shapes(p: Product, target: Target) -> Iterator[Tile]:
    gathers, least_inner = GATHERED in p.access, max(16, 64 // p.size * 2)
    is_few = p.batch * ceil(p.rows / _LINE) * ceil(p.columns / _LINE) < target.rates.processors
    small = is_few and min(p.access) < ENGINE  # threads copy less each, and as many as there are processors
    least = _LINE if (p.rows > 16 and p.across[0]) or (p.rows > _WARPGROUP // 2 and not small) else 16
    for rows in _sizes(p.rows, least, 256):
        for columns in _sizes(p.columns, _LINE if p.across[1] and p.columns >= _LINE else 16, 256):
            warps = 8 if rows * columns > _FEW * 32 * (_GATHERING if gathers else _RESULTS) else _FEW
            if not _is_held(rows, columns, warps, p.size):
                continue
            for inner in _sizes(ceil(p.inner / p.steps), least_inner, 256 if rows < _WARPGROUP else 128):
                tile = Tile(rows, columns, inner, warps, 2)
                if (
                    inner == least_inner
                    or sum(n for n, access in _copies(p, tile) if access < min(_THREADS)) <= _SINGLE
                ):
                    yield tile


def is_possible(p: Product, t: Tile) -> bool:
    """Is a tile one of those that this model is of?"""
    long = (16, 32, 64, 128, 256)
    least = max(16, 64 // p.size * 2)
    sizes = t.rows in long and t.columns in long and least <= t.inner <= long[-1] and 2 <= t.stages <= _STAGES[0]
    return sizes and t.warps in (_FEW, 2 * _FEW) and _is_held(t.rows, t.columns, t.warps, p.size)


def _is_held(rows: int, columns: int, warps: int, size: int) -> bool:
    """Do warps hold the results of a tile, and is it of a form that matrix units take?

    Sums of products of one byte are held twice, once as the units add them up.
    """
    most = _HALF_EACH if size == 1 else warps * 32 * _RESULTS
    return rows * columns <= most and not (rows < _WARPGROUP and columns > _WARPGROUP * 2)


def _sizes(extent: int, least: int, most: int) -> list[int]:
    """Powers of two from the least to the one that holds an extent, or the most."""
    whole = max(least, min(most, 1 << max(extent - 1, 0).bit_length()))
    return [n for n in (16, 32, 64, 128, 256) if least <= n <= whole] or [whole]


def _splits(p: Product, t: Tile, target: Target) -> list[int]:
    """The numbers of parts that may pay: those that leave each something to do, where processors are idle."""
    programs = p.batch * ceil(p.rows / t.rows) * ceil(p.columns / t.columns)
    most = min(_MOST_PARTS, p.inner // _LEAST_PART) if programs < target.rates.processors else 1
    return [n for n in (1, 2, 3, 4, 6, 8, 12, 16) if n == 1 or (n <= most and t.inner <= _WHOLE)]
