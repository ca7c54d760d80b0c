"""The standard tables: programs with operands, and functions of PyTorch that compute the same.

Each peer must give the same values before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from einc.api import Program
from einc.ein.arithmetic import ScalarValue
from einc.runtime.tensors import is_torch
from einc.trials.peers import PEERS, Peer, Tensors, Visible, direct, flex, naive, sdpa
from einc.trials.request import Request
from einc.trials.running import meaning

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Contest:
    """A program on operands, against peers by name. `operands` makes the operands when its turn comes.

    `flops` are those that every implementation must do, without masked positions; 0 if only bytes matter, None to take
    those of the cost model.
    """

    name: str
    text: str
    operands: Callable[[], dict[str, torch.Tensor]]
    peers: Mapping[str, Peer]
    flops: float | None = 0.0
    scalars: Mapping[str, ScalarValue] = field(default_factory=dict)
    level: int = 2


_SHORT = 40  # the most characters of a text that serves as a name


def standard(device: str, quick: bool = False) -> list[Contest]:
    """The table for a kind of device; `quick` leaves out contests that resemble others."""
    return for_gpu(device, quick) if device == "cuda" else for_cpu(quick)


def for_cpu(quick: bool = False, shrink: int = 1) -> list[Contest]:
    """The table of a processor; `shrink` divides extents."""
    n = 4096 // shrink
    rows, width = max(4096 // shrink, 2), max(4096 // shrink, 2)
    forms = _forms(n, max(n // 16, 1), n)
    found = [_attention(forms[k], "cpu", "f32", (1, 8, n, 64), ("sdpa", "naive")) for k in ("full", "causal", "window")]
    found += _rowwise("cpu", "f32", rows, width)[: 1 if quick else 3]
    found += [_matmul("cpu", "f32", max(size // shrink, 1)) for size in ((1024,) if quick else (512, 2048))]
    return found


def for_gpu(device: str, quick: bool = False, shrink: int = 1) -> list[Contest]:
    """The table of a GPU."""
    n = 4096 // shrink
    forms = _forms(n, max(1024 // shrink, 1), max(700 // shrink, 1))
    found = [_matmul(device, "bf16", size // shrink) for size in (4096, 8192)]
    for width in (128, 64):
        kept = forms if not quick else ("full", "causal", "softcap") if width == 128 else ("full", "causal")
        peers = ("sdpa", "cudnn", "flex")
        found += [_attention(forms[name], device, "bf16", (4, 16, n, width), peers) for name in kept]
    found.append(_decoding(device, 8, 32, 8, 32768 // shrink, 128))
    return found + _rowwise(device, "bf16", 8192 // shrink, 4096 // shrink)


def of_program(program: Program, request: Request, device: torch.device, names: Sequence[str], level: int) -> Contest:
    """A program of the user's on the operands that a request asks for."""
    found = meaning(program, request)

    def operands() -> dict[str, torch.Tensor]:
        import torch

        given: dict[str, Any] = request.operands(found)
        return {name: (t if is_torch(t) else torch.from_numpy(t)).to(device) for name, t in given.items()}

    text = program.text.source.text.strip()
    sizes = ", ".join(f"{axis}={n}" for axis, n in request.extents(found).items())
    peers = {name: PEERS[name](text) for name in names}
    called = text if len(text) < _SHORT and "\n" not in text else found.name
    return Contest(f"{called} {sizes}", text, operands, peers, None, request.scalars, level)


# ---------------------------------------------------------------------------------------------------------------------
# Operands


def _torch_dtype(name: str) -> torch.dtype:
    from einc.base.types import BY_NAME
    from einc.runtime.tensors import torch_dtype

    return torch_dtype(BY_NAME[name])


def _normal(device: str, dtype: str, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Normal numbers, the same in every run."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    own = _torch_dtype(dtype)
    return {name: torch.randn(s, generator=generator, device=device, dtype=own) for name, s in shapes.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Attention

_ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e]{params}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = {score}
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O
"""
_CAP = 30.0


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of attention: its score, which positions see each other, and their share of all pairs.

    `change` is the function it applies to a score; `documents` is the length of a document.
    """

    name: str
    score: str = "S"
    params: str = ""
    visible: Callable[[Tensors], Visible] | None = None
    share: float = 1.0
    causal: bool = False
    change: Callable[[Any], Any] | None = None
    window: int = 0
    documents: int = 0


def _forms(n: int, window: int, document: int) -> dict[str, _Form]:
    """The forms for n positions, with a window and documents of these lengths."""

    def before(_: Tensors) -> Visible:
        return lambda i, j: i >= j

    def within(_: Tensors) -> Visible:
        return lambda i, j: (i >= j) & (i - j < window)

    def together(tensors: Tensors) -> Visible:
        doc = tensors["doc"]
        return lambda i, j: (i >= j) & (doc[i] == doc[j])

    half = (n + 1) / (2 * n)
    seen = sum(min(i + 1, window) for i in range(n)) / n**2
    pairs = sum(m * (m + 1) / 2 for m in (min(document, n - k) for k in range(0, n, document))) / n**2
    causal = "where(j <= i, {}, -inf)"
    return {
        "full": _Form("full"),
        "causal": _Form("causal", causal.format("S"), "", before, half, causal=True),
        "window": _Form(
            f"window {window}", "where(j <= i and i - j < window, S, -inf)", ", window: int", within, seen,
            window=window,
        ),
        "documents": _Form(
            f"documents of {document}", "where(j <= i and doc[i] == doc[j], S, -inf)", ", doc[n]: i32", together, pairs,
            documents=document,
        ),
        "softcap": _Form(
            f"causal, softcap {_CAP:g}", causal.format(f"softcap(S, {_CAP})"), "", before, half,
            change=lambda s: _CAP * (s / _CAP).tanh(),
        ),
    }  # fmt: skip


def _attention(
    form: _Form, device: str, dtype: str, sizes: tuple[int, int, int, int], peers: tuple[str, ...]
) -> Contest:
    b, h, n, d = sizes

    def operands() -> dict[str, torch.Tensor]:
        import torch

        found = _normal(device, dtype, Q=sizes, K=sizes, V=sizes)
        if form.documents:
            found["doc"] = (torch.arange(n, device=device) // form.documents).int()
        return found

    masked = None if form.causal else form.visible
    known: dict[str, Peer] = {"naive": naive(form.visible), "flex": flex(form.visible, form.change)}
    if form.change is None:
        known["sdpa"] = sdpa(form.causal, visible=masked)
        if masked is None:
            known["cudnn"] = sdpa(form.causal, backend="CUDNN_ATTENTION")
    return Contest(
        f"attention {dtype} {form.name}, b{b} h{h} n{n} d{d}",
        _ATTENTION.format(params=form.params, score=form.score),
        operands,
        {name: known[name] for name in peers if name in known},
        4.0 * b * h * n * n * d * form.share,
        {"window": form.window} if form.window else {},
    )


def _decoding(device: str, b: int, heads: int, groups: int, n: int, d: int) -> Contest:
    text = """
def decode(Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e]):
    S[b, g, r, i, j] = rsqrt(|d|) * Q[b, (g r), i, d] * K[b, g, j, d]
    O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
    return O
"""
    held = (b, groups, n, d)
    return Contest(
        f"decoding bf16, b{b} h{heads}/{groups} n{n} d{d}",
        text,
        lambda: _normal(device, "bf16", Q=(b, heads, 1, d), K=held, V=held),
        {"sdpa": sdpa(), "flex": flex()},
    )


# ---------------------------------------------------------------------------------------------------------------------
# Products and rows


def _matmul(device: str, dtype: str, n: int) -> Contest:
    import torch

    name = "cublas" if device == "cuda" else "torch"
    shapes = {"A": (n, n), "B": (n, n)}
    return Contest(
        f"matmul {dtype} {n}³",
        "ik,kj->ij",
        lambda: _normal(device, dtype, **shapes),
        {name: direct(torch.matmul)},
        2.0 * n**3,
    )


def _rowwise(device: str, dtype: str, rows: int, width: int) -> list[Contest]:
    from torch.nn import functional

    def contest(name: str, f: Callable[..., torch.Tensor]) -> Contest:
        text = f"def rows(X[i, j]):\n    Y[i, j] = {dtype}({name}[j](X))\n    return Y\n"
        shape = (rows, width)
        return Contest(
            f"{name} rows {dtype}, {rows}x{width}", text, lambda: _normal(device, dtype, X=shape), {"torch": direct(f)}
        )

    return [
        contest("softmax", lambda x: functional.softmax(x, -1)),
        contest("layernorm", lambda x: functional.layer_norm(x, (width,))),
        contest("rmsnorm", lambda x: functional.rms_norm(x, (width,), eps=1e-6)),
    ]
