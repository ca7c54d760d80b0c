"""Files of a program with its gradients: complete in themselves, and differentiated by torch as torch would itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import einc
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, F32, I64
from einc.codegen.run.aot import compile_ahead
from einc.codegen.run.load import launcher
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
# What a file says of itself


def said(text: str, facts: dict[str, Fact], sizes: dict[str, int], deterministic: bool = True) -> str:
    """The docstring of the function that torch differentiates, on one line."""
    program = einc.compile(text, target="sm_90", deterministic=deterministic)
    source = program.gradient_for(facts, sizes, ()).together.source
    return " ".join(source[source.rindex('"""', 0, source.rindex('"""')) :].split())


def test_a_file_says_what_it_computes_at_once() -> None:
    """The gradient of the logits of a large vocabulary, for which calls go over slices."""
    text = "def f(X[n, d], W[v, d], t[n]):\n    Z[n, v] = X[n, d] * W[v, d]\n    L[n] = logsumexp[v](Z)\n    return L"
    large, small = {"n": 8192, "d": 4096, "v": 131072}, {"n": 64, "d": 32, "v": 512}
    for sizes in (large, small):
        shapes = {"X": ("n", "d"), "W": ("v", "d"), "t": ("n",)}
        types = {"X": BF16, "W": BF16, "t": I64}
        facts = {name: Fact(tuple(sizes[a] for a in axes), types[name]) for name, axes in shapes.items()}
        found = said(text, facts, sizes)
        assert ("Gradients are computed at once: kernels pass on about" in found) == (sizes is large)
        assert ("slices along v" in found) == (sizes is large)


def test_a_file_says_what_it_compares() -> None:
    """It cannot sort, but it can add in any order."""
    text = "def f(table[v, d], token[n]):\n    T[n, d] = table[token[n], d]\n    return T"
    facts, sizes = {"table": Fact((4096, 8), F32), "token": Fact((512,), I64)}, {"v": 4096, "d": 8, "n": 512}
    assert "compares each of about 4096 places with each of about 512 positions" in said(text, facts, sizes)
    assert "compares" not in said(text, facts, sizes, deterministic=False)
