"""Blocks in flight: as many as memory needs where a walk waits for it, and the rest of shared memory for programs."""

from __future__ import annotations

import pytest

from einc.base.targets import TARGETS
from einc.codegen.run.aot import compile_ahead
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.tile.asked import choice

TARGET = TARGETS["sm_90"]
DECODING = """def decode(Q[b, (g r), i, d]: bf16, K[b, g, j, d]: bf16, V[b, g, j, e]: bf16):
    S[b, g, r, i, j] = Q[b, (g r), i, d] * K[b, g, j, d]
    O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
    return O
"""
PRODUCT = """def product(A[i, d]: bf16, B[d, j]: bf16):
    C[i, j] = A[i, d] * B[d, j]
    return C
"""
SIZES = {"b": 64, "g": 8, "r": 4, "i": 1, "j": 2048, "d": 128, "e": 128}


def compiled(text: str, sizes: dict[str, int], **choices: int) -> Compiled:
    asked = tuple(choice(name, n) for name, n in choices.items())
    return compile_program(elaborate(parse(text, "<test>")), 2, TARGET, sizes, choices=asked)


def stages(c: Compiled) -> int:
    assert c.state.schedule is not None
    return c.state.schedule.kernels[0].choices.stages


@pytest.mark.parametrize(
    ("text", "other", "wanted"),
    [
        (DECODING, {}, 2),
        (DECODING, {"i": 4}, 2),  # a tile of 16 rows, as for one query
        (DECODING, {"b": 256}, 2),
        (DECODING, {"b": 32}, 3),  # all programs run at once
        (DECODING, {"b": 1, "j": 65536}, 3),  # and so do the parts
        (DECODING, {"d": 64, "e": 64}, 3),  # registers keep out more programs, not shared memory
        (DECODING, {"i": 16}, 3),  # 64 rows are multiplied from shared memory
        (DECODING, {"i": 2048}, 3),
        (PRODUCT, {"i": 16, "j": 1 << 17, "d": 4096}, 3),
        (PRODUCT, {"i": 4096, "j": 4096, "d": 4096}, 4),  # as many as fit beside the largest tile
    ],
)
def test_stages(text: str, other: dict[str, int], wanted: int) -> None:
    assert stages(compiled(text, SIZES | other)) == wanted


def test_what_is_asked_for_stays() -> None:
    assert stages(compiled(DECODING, SIZES, stages=4)) == 4


def test_a_stage_less_lets_all_programs_run_at_once() -> None:
    """By what the compiled kernels take of a multiprocessor, which has 1 KiB of shared memory for each program."""

    def at_once(c: Compiled) -> int:
        (kernel,) = compile_ahead(c.emitted, TARGET, SIZES)
        threads = 32 * kernel.warps
        return min(TARGET.shared // (kernel.shared + 1024), TARGET.registers // 4 // (threads * kernel.registers))

    programs = SIZES["b"] * SIZES["g"]
    assert at_once(compiled(DECODING, SIZES, stages=3)) * TARGET.rates.processors < programs
    assert at_once(compiled(DECODING, SIZES)) * TARGET.rates.processors >= programs
