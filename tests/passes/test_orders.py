"""In which order walks go, and whole lines of memory: what plans and tiles of gradients are on a GPU."""

from __future__ import annotations

import pytest

import einc
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.targets import TARGETS
from einc.base.types import BF16
from einc.driver import Compiled, compile_program
from einc.ein.printer import print_program
from einc.frontend import elaborate, parse
from einc.passes.adjoint.groups import by_groups

SIZES = {"b": 4, "h": 16, "g": 4, "r": 4, "i": 4096, "j": 4096, "d": 64, "e": 64}
GROUPED = """def f(Q[b, h, i, d], K[b, g, j, d], V[b, g, j, e]):
    S[b, h, i, j] = Q[b, h, i, d] * K[b, {at}, j, d]
    O[b, h, i, e] = softmax[j](where(j <= i, S, -inf)) * V[b, {at}, j, e]
    return O
"""


def compiled(text: str, **ranks: int) -> Compiled:
    facts = {name: Fact((2,) * rank, BF16) for name, rank in ranks.items()}
    return compile_program(elaborate(parse(Source("f", text)), facts), 2, TARGETS["sm_90"], SIZES)


@pytest.mark.parametrize("at", ["h // (|h| / |g|)", "h // (|h| // |g|)"])
def test_heads_of_a_group_are_two_axes(at: str) -> None:
    """However the share is divided: all of h is in range only where the division is exact."""
    program = elaborate(parse(Source("f", GROUPED.format(at=at))), {})
    assert "K[b, g, j, d]" in print_program(by_groups(program))


def test_one_head_after_another() -> None:
    """Keys that heads share have their gradients walked for each head, from the first row that a mask leaves."""
    gradient = einc.compile(GROUPED.format(at="h // (|h| // |g|)"), target="sm_90").gradient()
    c = compile_program(gradient.compiled().state.program, 2, TARGETS["sm_90"], SIZES)
    assert c.state.schedule is not None
    assert all(len(p.walked) == 1 for p in c.state.plans if "S" in "".join(p.equations))


def test_columns_are_read_by_sectors() -> None:
    """A sum over rows reads neighbours in memory, what is fetched at once, and has parts to keep the machine busy."""
    c = compiled("def f(X[i, d]):\n    T[d] = sum[i](X[i, d])\n    return T", X=2)
    assert c.state.schedule is not None
    first = c.state.schedule.kernels[0]
    block = first.choices.tile("d")
    assert block is not None
    assert block.cap * first.buffers[0].dtype.size >= 32
    assert first.choices.parts > 1
