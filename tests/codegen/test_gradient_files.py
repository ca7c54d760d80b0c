"""Files of a program with its gradients: complete in themselves, and differentiated by torch as torch would itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import einc
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, F16, F32, I64, DType
from einc.codegen.run.aot import compile_ahead
from einc.codegen.run.load import launcher
from einc.derive import Together
from einc.passes.streaming import slicing
from einc.runtime.tensors import torch_dtype
from tests.support.places import EXAMPLES

CAUSAL = EXAMPLES / "attention" / "causal.ein"

Reference = Callable[..., Any]


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def agree(text: str, reference: Reference, operands: list[Any], gradient: Any = True, level: int = 2) -> None:
    """The function of the file and the reference have equal results and gradients, given random cotangents."""
    program = einc.compile(text, level)
    given = [t.detach() if isinstance(t, torch.Tensor) else t for t in operands]
    names = [] if gradient is True else gradient
    emitted = program.gradient(*names, given=given).together.emitted
    assert emitted.source == program.source(*given, gradient=gradient)
    function = launcher(emitted.source, emitted.launcher)
    found, wanted = (r if isinstance(r, tuple) else (r,) for r in (function(*operands), reference(*operands)))
    for got, want in zip(found, wanted, strict=True):
        assert got.requires_grad == want.requires_grad
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    pairs = [(g, w, torch.randn_like(w)) for g, w in zip(found, wanted, strict=True) if w.requires_grad]
    leaves = [t for t in operands if isinstance(t, torch.Tensor) and t.requires_grad]
    cotangents = [c for _, _, c in pairs]
    gradients = torch.autograd.grad([g for g, _, _ in pairs], leaves, cotangents, allow_unused=True)
    exact = torch.autograd.grad([w for _, w, _ in pairs], leaves, cotangents, allow_unused=True)
    trained = [n for n, t in zip(program.text.operands, operands, strict=False) if t.requires_grad]
    for name, got, want in zip(trained, gradients, exact, strict=True):
        if want is None or (names and name not in names):
            assert got is None
        else:
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_attention(level: int) -> None:
    torch.manual_seed(0)
    agree(CAUSAL.read_text(), causal, [normal(1, 2, 20, 16) for _ in range(3)], level=level)


def test_only_the_operands_that_are_named() -> None:
    torch.manual_seed(0)
    agree(CAUSAL.read_text(), causal, [normal(1, 2, 20, 16) for _ in range(3)], ["K", "V"])


CASES: dict[str, tuple[str, Reference, Callable[[], list[Any]]]] = {
    "an operand of integers": (
        "def f(T[v, d], t[n]: i32, s: float):\n    X[n, d] = s * T[t[n], d]\n    return X\n",
        lambda table, t, s: s * table[t.long()],
        lambda: [normal(7, 5), torch.tensor([0, 3, 3, 6], dtype=torch.int32), 2.5],
    ),
    "a result without derivative": (
        "def f(A[i, j]):\n    M[i] = max[j](A[i, j])\n    at[i] = argmax[j](A[i, j])\n    return M, at\n",
        lambda a: (a.max(1).values, a.argmax(1)),
        lambda: [normal(6, 9)],
    ),
    "a result that is not whole": (
        "def f(A[i, j], B[j]):\n    R[i] = sum[j](A * B)\n    S[i] = exp(R)\n    return S, R\n",
        lambda a, b: ((a @ b).exp(), a @ b),
        lambda: [normal(6, 4), normal(4)],
    ),
    "complex numbers": (
        "def f(A[i, k]: c64, B[k, j]: c64):\n    C[i, j] = sum[k](A * conj(B))\n    return C\n",
        lambda a, b: a @ b.conj(),
        lambda: [normal(5, 6, dtype=torch.complex64), normal(6, 3, dtype=torch.complex64)],
    ),
    "names of the file's own": (
        "def launch(ctx[i], out[i], torch: float):\n    O[i] = exp(ctx * torch) * out\n    return O\n",
        lambda ctx, out, scale: (ctx * scale).exp() * out,
        lambda: [normal(9), normal(9), 0.5],
    ),
    "a name like a class": (
        "def Norm(X[n, c], gain[c]):\n    Norm_ahead[n, c] = rmsnorm[c](X[n, c]) * gain[c]\n    return Norm_ahead\n",
        lambda x, gain: torch.nn.functional.rms_norm(x, (8,), eps=1e-6) * gain,
        lambda: [normal(5, 8), normal(8)],
    ),
    "an operand that nothing depends on": (
        "def f(A[i], B[i]):\n    C[i] = where(A[i] > 0, 1.0, 0.0) * B[i]\n    return C\n",
        lambda a, b: (a > 0).float() * b,
        lambda: [normal(9), normal(9)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_programs(name: str) -> None:
    torch.manual_seed(1)
    text, reference, operands = CASES[name]
    agree(text, reference, operands())


def test_cotangents_of_any_strides() -> None:
    program = einc.compile("ik,kj->ij")
    a, b = normal(5, 6), normal(6, 7)
    function = launcher(program.source(a.detach(), b.detach(), gradient=True), "einsum")
    losses: list[Reference] = [torch.sum, lambda c: (c.T * torch.arange(5.0)).sum()]
    for loss in losses:
        found, exact = (torch.autograd.grad(loss(c), (a, b)) for c in (function(a, b), a @ b))
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_they_are_differentiated_once() -> None:
    program = einc.compile("def f(A[i]):\n    B[i] = A[i] ** 2\n    return B\n")
    function = launcher(program.source(gradient=True), "f")
    a = normal(4)
    with pytest.raises(RuntimeError, match="f is differentiated once"):
        torch.autograd.grad(function(a).sum(), a, create_graph=True)


def test_a_file_runs_where_einc_is_not(tmp_path: Path) -> None:
    """In a process of its own, with nothing but torch and triton, in Triton's interpreter."""
    (tmp_path / "both.py").write_text(einc.compile(CAUSAL).source(gradient=True))
    (tmp_path / "einc.py").write_text("raise ImportError('no einc here')")
    (tmp_path / "main.py").write_text(
        "import torch\nfrom both import attention\n"
        "q, k, v = (torch.randn(1, 2, 20, 16, requires_grad=True) for _ in range(3))\n"
        "wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
        "cotangent = torch.randn_like(wanted)\n"
        "found, exact = (torch.autograd.grad(o, (q, k, v), cotangent) for o in (attention(q, k, v), wanted))\n"
        "torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)\n"
        "print('fine')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_helpers_of_both_halves_are_there_once() -> None:
    source = einc.compile(CAUSAL, target="sm_90").source(gradient=True)
    names = [line.split("(")[0] for line in source.splitlines() if line.startswith(("def ", "class "))]
    assert len(names) == len(set(names))
    assert names[-2:] == ["class Attention", "def attention"]
    assert {"def attention_ahead", "def attention_gradient"} <= set(names)
    assert [line for line in source.splitlines() if line.startswith(("import", "from"))] == [
        "import math", "import torch", "import triton", "import triton.language as tl",
    ]  # fmt: skip


@pytest.mark.aot
def test_both_halves_compile_ahead() -> None:
    operands = [torch.empty(2, 4, 512, 64, dtype=torch.bfloat16, device="meta") for _ in range(3)]
    both = einc.compile(CAUSAL, target="sm_90").gradient(given=operands).together
    kernels = compile_ahead(both.emitted, TARGETS["sm_90"], both.sizes)
    assert len({k.name for k in kernels}) == len(both.emitted.kernels)
    assert {"O_kernel", "dQ_kernel", "dV_kernel"} <= {k.name for k in kernels}
    assert all("cubin" in k.stages for k in kernels)


# ---------------------------------------------------------------------------------------------------------------------
# What is sorted, or computed in slices


def integers(*shape: int, most: int, least: int = 0) -> torch.Tensor:
    return torch.randint(least, most, shape)


def inside(table: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.where(((t >= 0) & (t < len(table)))[..., None], table[t.clamp(0, len(table) - 1)], 0)


SORTED: dict[str, tuple[str, Reference, Callable[[], list[Any]], int]] = {
    "two dimensions": (
        "def f(T[v, d], t[b, n]):\n    X[b, n, d] = T[t[b, n], d] ** 2\n    return X\n",
        lambda table, t: table[t] ** 2,
        lambda: [normal(90, 5), integers(3, 41, most=90)],
        0,
    ),
    "an index that is computed, or nowhere": (
        "def f(T[v, d], t[n], s: float):\n    X[n, d] = s * T[t[n] - 3, d]\n    return X\n",
        lambda table, t, s: s * inside(table, t - 3),
        lambda: [normal(90, 5), integers(150, most=110), 2.5],
        1,
    ),
    "of each head": (
        "def f(T[h, v], start[h, n], y[n]):\n    X[h, n] = T[h, start[h, n]] * y[n]\n    return X\n",
        lambda table, t, y: table.gather(1, t) * y,
        lambda: [normal(3, 90), integers(3, 80, most=90), normal(80)],
        0,
    ),
    "of a window, whose extent another has by chance": (
        "def f(T[v], t[p], X[i], Y[j]):\n    R[i] = sum[j](X[i] * Y[j] * T[t[i - j + |j| - 1]])\n    return R\n",
        lambda table, t, x, y: x * (table[t[torch.arange(len(x))[:, None] - torch.arange(len(y)) + len(y) - 1]] @ y),
        lambda: [normal(80), integers(139, most=80), normal(70), normal(70)],
        1,
    ),
    "two indices": (
        "def f(T[v, w], t[n], u[n], y[n]):\n    X[n] = T[t[n], u[n]] * y[n]\n    return X\n",
        lambda table, t, u, y: table[t, u] * y,
        lambda: [normal(12, 13), integers(150, most=12), integers(150, most=13), normal(150)],
        1,
    ),
}


@pytest.mark.parametrize("name", SORTED)
def test_positions_are_sorted(name: str) -> None:
    """As calls of the program have it; where terms may be added in any order, nothing is."""
    torch.manual_seed(2)
    text, reference, operands, indices = SORTED[name]
    values = operands()
    agree(text, reference, values)
    given = [t.detach() if isinstance(t, torch.Tensor) else t for t in values]
    source = einc.compile(text).source(*given, gradient=True)
    assert source.count("= in_order(") == 1
    assert source.count("\ndef f_gradient_indices(") == indices
    assert "in_order" not in einc.compile(text, deterministic=False).source(*given, gradient=True)


LOGITS = """def f(X[n, d], W[v, d], t[n]):
    Z[n, v] = X[n, d] * W[v, d]
    L[n] = logsumexp[v](Z) - Z[n, t[n]]
    return L
"""
APART = LOGITS.replace("W[v, d],", "W[v, d], C[v, d],").replace("Z[n, t[n]]", "sum[d](X[n, d] * C[t[n], d])")


def losses(t: torch.Tensor, x: torch.Tensor, w: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    """Those of a program whose targets are rows of a table of their own, if it has one."""
    return (x @ w.T).logsumexp(1) - (x * (w if c is None else c)[t]).sum(1)


LARGE = {"n": 8192, "d": 4096, "v": 131072, "b": 1}


def made_for(text: str, shapes: dict[str, str], dtype: DType, by: Sequence[str] = ()) -> Together:
    """Both halves for operands of large extents, whose axes have one letter; t is of integers."""
    types = {name: I64 if name == "t" else dtype for name in shapes}
    facts = {name: Fact(tuple(LARGE[a] for a in axes), types[name]) for name, axes in shapes.items()}
    extents = {a: LARGE[a] for axes in shapes.values() for a in axes}
    return einc.compile(text, target="sm_90").gradient_for(facts, extents, by).together


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_huge_is_computed_in_slices(apart: bool, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices of 8 of a vocabulary of 200, in a file that is made for a large one. Sums are of single precision.

    Positions are sorted before that for the gradient of a table of targets, slices of which are sums over segments.
    """
    torch.manual_seed(3)
    monkeypatch.setattr(slicing, "UNIT", 4)
    shapes = {"X": "nd", "W": "vd", **({"C": "vd"} if apart else {}), "t": "n"}
    both = made_for(APART if apart else LOGITS, shapes, dtype, ["W", "C"] if apart else ())
    assert "for first in range(0, v, step):" in both.source
    assert ("= in_order(" in both.source) == apart
    of = torch_dtype(dtype)
    t = integers(80, most=200)
    operands = [normal(80, 4, dtype=of), *(normal(200, 4, dtype=of) for _ in range(2 if apart else 1))]
    found = launcher(both.source, "f")(*operands, t)
    exact = losses(t, *(x.double() for x in operands))
    leaves = operands[1:] if apart else operands
    cotangent = torch.randn_like(found)
    got, want = torch.autograd.grad(found, leaves, cotangent), torch.autograd.grad(exact, leaves, cotangent.double())
    within = 200 * torch.finfo(of).eps
    for g, e in zip(got, want, strict=True):
        assert g.dtype == of
        assert (g - e).abs().max() <= within * e.abs().max()


def test_a_file_for_open_sizes_sorts_as_well() -> None:
    torch.manual_seed(4)
    text, reference, operands, _ = SORTED["two dimensions"]
    source = einc.compile(text).source(gradient=True)
    assert source.count("= in_order(") == 1
    table, t = operands()
    leaf, exact = table.requires_grad_(), table.detach().double().requires_grad_()
    found, wanted = launcher(source, "f")(leaf, t), reference(exact, t)
    cotangent = torch.randn_like(found)
    (got,) = torch.autograd.grad(found, leaf, cotangent)
    (want,) = torch.autograd.grad(wanted, exact, cotangent.double())
    assert (got - want).abs().max() <= 200 * torch.finfo(torch.float32).eps * want.abs().max()


@pytest.mark.aot
@pytest.mark.parametrize("huge", [False, True])
def test_parts_compile_ahead(huge: bool) -> None:
    """A large embedding, and the gradient of the logits of a large vocabulary."""
    operands = {"X": "nd", "W": "vd", "t": "n"} if huge else {"T": "vd", "t": "bn"}
    both = made_for(LOGITS if huge else SORTED["two dimensions"][0], operands, BF16)
    kernels = compile_ahead(both.emitted, TARGETS["sm_90"], both.sizes)
    assert len({k.name for k in kernels}) == len(both.emitted.kernels)
