"""Loops of one block as their bodies."""

from __future__ import annotations

from dataclasses import replace

from einc import tile
from einc.base.targets import INTERPRETER
from einc.driver import compile_program, elaborate, parse
from einc.tile.peel import peeled
from einc.tile.printer import print_kernel
from einc.tile.verifier import verify
from einc.tile.walk import loops

ATTENTION = """
def attention(Q[i, d], K[j, d], V[j, e]):
    S[i, j] = Q[i, d] * K[j, d]
    O[i, e] = softmax[j](S) * V[j, e]
    return O
"""


SIZES = {"i": 64, "j": 64, "d": 32, "e": 32}


def schedule(text: str, level: int = 2, rows: int = 64) -> tile.Schedule:
    found = compile_program(elaborate(parse(text)), level, INTERPRETER, {**SIZES, "j": rows}).state.schedule
    assert found is not None
    return found


def test_what_moves_states_is_gone() -> None:
    (kernel,) = schedule(ATTENTION).kernels
    straight = peeled(kernel)
    assert list(loops(kernel.body))
    assert not list(loops(straight.body))
    text = print_kernel(straight)
    assert "rescale" in print_kernel(kernel)
    assert "rescale" not in text
    assert "dot[i, e : j](exp, v)" in text
    assert {a.name for a in straight.whole} == {"d", "e", "j"}
    verify(replace(schedule(ATTENTION), kernels=(straight,)))


def test_bounded_loops_stay() -> None:
    text = ATTENTION.replace("softmax[j](S)", "softmax[j](where(j <= i, S, -inf))")
    kernel, *_ = schedule(text, rows=4096).kernels
    assert list(loops(peeled(kernel).body))


def test_a_kernel_without_loops_is_itself() -> None:
    (kernel,) = schedule("T[i] = exp(A[i])").kernels
    assert peeled(kernel) is kernel
