"""Contractions over two inner axes: dots, though the kernel around them reads one of these axes apart."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import einc
from einc import tile
from einc.base.facts import Fact
from einc.base.targets import TARGETS, Target, cores
from einc.base.types import F32
from einc.codegen import TRITON
from einc.codegen.run.aot import compile_ahead
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.tile.walk import values_in

SIZES = {"h": 4, "n": 64, "m": 64, "e": 32, "k": 64}
ONE = """def f(P[h, n, m], V[h, m, e], W[h, e, k]):
    s[h, n] = sum[m](exp(P[h, n, m]))
    O[h, n, e] = sum[m](exp(P[h, n, m]) * V[h, m, e]) / s[h, n]
    Y[n, k] = sum[h, e](O[h, n, e] * W[h, e, k])
    return Y
"""
TWO = """def f(P[h, n, m], V[h, m, e], W[h, e, k], U[h, m, e], T[h, e, k]):
    s[h, n] = sum[m](exp(P[h, n, m]))
    O[h, n, e] = sum[m](exp(P[h, n, m]) * V[h, m, e]) / s[h, n]
    R[h, n, e] = sum[m](exp(P[h, n, m]) * U[h, m, e]) / s[h, n]
    Y[n, k] = sum[h, e](O[h, n, e] * W[h, e, k] - R[h, n, e] * T[h, e, k])
    return Y
"""
PROGRAMS = {"one product": (ONE, 2), "a difference of two": (TWO, 4)}


def compiled(text: str, target: Target, sizes: Mapping[str, int] = SIZES) -> Compiled:
    operands = elaborate(parse(text)).operands
    facts = {p.name: Fact((2,) * len(p.dims), F32) for p in operands}
    return compile_program(elaborate(parse(text), facts), 2, target, sizes)


def dots(c: Compiled) -> int:
    """The dots of all kernels; none of their folds is of a product."""
    assert c.state.schedule is not None
    values = [v for k in c.state.schedule.kernels for v in values_in(k.body)]
    folded = [a for v in values if isinstance(v, tile.Fold) for a in v.args]
    assert not any(isinstance(a, tile.Elem) and a.op == "mul" for a in folded)
    return len({v for v in values if isinstance(v, tile.Dot)})


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_a_cpu_all_is_one_kernel_of_dots(name: str) -> None:
    text, count = PROGRAMS[name]
    found = compiled(text, cores(1))
    assert found.state.schedule is not None
    assert len(found.state.schedule.kernels) == 1
    assert dots(found) == count


@pytest.mark.aot
@pytest.mark.parametrize("name", PROGRAMS)
def test_such_a_kernel_compiles_for_a_gpu(name: str) -> None:
    text, _ = PROGRAMS[name]
    sizes = {axis: min(n, 16) for axis, n in SIZES.items()}
    found = compiled(text, cores(1), sizes)
    assert found.state.schedule is not None
    emitted = TRITON.emit(found.state.program, found.state.schedule, TARGETS["sm_90"])
    assert [k.registers > 0 for k in compile_ahead(emitted, TARGETS["sm_90"], sizes)] == [True]


@pytest.mark.parametrize("backend", ["torch", "interpret"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_values(name: str, backend: str) -> None:
    text, _ = PROGRAMS[name]
    shapes = [tuple(SIZES[a] + (a in "nk") for a in "".join(dim)) for dim in ("hnm", "hme", "hek", "hme", "hek")]
    count = 3 if name == "one product" else 5
    given = [torch.randn(s, generator=torch.Generator().manual_seed(k)) for k, s in enumerate(shapes[:count])]
    found = einc.compile(text, target="cpu")(*given, backend=backend)
    torch.testing.assert_close(found, reference(*given), rtol=1e-4, atol=1e-4)


def reference(p: Tensor, v: Tensor, w: Tensor, u: Tensor | None = None, t: Tensor | None = None) -> Tensor:
    weights = torch.softmax(p.double(), -1)
    whole = torch.einsum("hnm,hme,hek->nk", weights, v.double(), w.double())
    if u is not None and t is not None:
        whole = whole - torch.einsum("hnm,hme,hek->nk", weights, u.double(), t.double())
    return whole.float()
