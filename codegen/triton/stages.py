"""How many blocks of a walk are in flight, where memory is what it waits for.

    stages   -->   the fewest with which enough bytes are in flight, if these let more programs run at once

Memory is busy while a processor waits for as many bytes as arrive in the time that a load takes: programs that run at
once times blocks in flight times bytes of a block. Programs also compute while others wait, so that where there are
more of them than run at once, shared memory is better spent on another program than on another block. A kernel that
multiplies for longer than its loads take keeps its blocks in flight: it has few programs, and each has to wait.
"""

from __future__ import annotations

from einc.base.targets import Target
from einc.codegen.triton.occupancy import Extents, Occupancy

_LATENCY = 1e-6  # seconds from a load to its bytes, while memory is busy
_STREAMS = 4  # times as long as its products take a walk waits for memory, if it does little else
_TOGETHER = 4  # programs that hide each other's waits, as blocks in flight do otherwise
_THREAD = 512  # bytes of registers that a thread of such a program takes
_RESERVED = 1024  # bytes of shared memory that each program takes for the system


def stages_needed(
    occupancy: Occupancy, sizes: Extents, warps: int, most: int, target: Target, rate: float, programs: int
) -> int:
    """The stages of a walk whose tiles have these sizes, at most so many; `rate` is FLOPs a second of its dots.

    Dots of few rows read what a block leaves in shared memory at once, which takes the next but one meanwhile: Triton
    has one block fewer than stages there.
    """
    rates = target.rates
    moved, products = occupancy.streamed(sizes)
    if moved / rates.memory < _STREAMS * 2 * products / rate:
        return most

    def resident(n: int) -> int:
        room = target.shared // (occupancy.shared(sizes, n - 1, warps) + _RESERVED)
        return min(room, target.registers // (warps * target.warp * _THREAD))

    least, needed = resident(most), _LATENCY * rates.memory / rates.processors
    if programs <= least * rates.processors:
        return most
    enough = max(least + 1, _TOGETHER)
    fewer = (n for n in range(2, most) if resident(n) >= enough and resident(n) * (n - 1) * moved >= needed)
    return next(fewer, most)
