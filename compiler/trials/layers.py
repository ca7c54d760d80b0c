"""Contests of layers: products of matrices, functions of rows and columns, fused products, convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from einc.trials.contests import Contest, normal
from einc.trials.peers import Peer, compiled, direct

# ruff: noqa: N803 - matrices have capital letters everywhere

Sizes = Mapping[str, int]
Function = Callable[..., Tensor]
BOTH: Mapping[str, Callable[[Function], Peer]] = {"eager": direct, "compile": compiled}
_RATE = 1e-6


def matmul(device: str, dtype: str, n: int) -> Contest:
    """A product of square matrices."""
    name = "cublas" if device == "cuda" else "torch"
    return Contest(
        f"matmul {dtype} {n}³", "ik,kj->ij", lambda: normal(device, dtype, {"A": (n, n), "B": (n, n)}),
        {name: direct(torch.matmul)}, 2.0 * n**3, exact=direct(torch.matmul), kind="matmul",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _wide(x: Tensor) -> Tensor:
    """In single precision at least, as fused kernels compute."""
    return x if x.dtype == torch.float64 else x.float()


def _normalised(x: Tensor, dim: int, centre: bool, eps: float) -> Tensor:
    w = _wide(x)
    w = w - w.mean(dim, keepdim=True) if centre else w
    return (w * torch.rsqrt(w.square().mean(dim, keepdim=True) + eps)).to(x.dtype)


def _entropy(x: Tensor, dim: int) -> Tensor:
    w = _wide(x).log_softmax(dim)
    return (-(w.exp() * w).sum(dim)).to(x.dtype)


@dataclass(frozen=True, slots=True)
class Rows:
    """A function of rows: its text over an axis r, its function of a tensor and a dimension, and whether it keeps the
    dimension; of operands of `dtype` if there is one."""

    text: str
    function: Callable[..., Tensor]
    keeps: bool = False
    dtype: str = ""


ROWS = {
    "softmax": Rows("softmax[r](X)", torch.softmax, keeps=True),
    "layernorm": Rows("layernorm[r](X)", partial(_normalised, centre=True, eps=1e-5), keeps=True),
    "rmsnorm": Rows("rmsnorm[r](X)", partial(_normalised, centre=False, eps=1e-6), keeps=True),
    "logsumexp": Rows("logsumexp[r](X)", torch.logsumexp),
    "variance": Rows("var[r](X)", lambda x, dim: _wide(x).var(dim, unbiased=False).to(x.dtype)),
    "argmax": Rows("argmax[r](X)", torch.argmax, dtype="f32"),  # of which few are equal
    "entropy": Rows("entropy[r](X)", _entropy),
}


def reduced(
    name: str, device: str, dtype: str, rows: int, width: int, across: bool = False,
    peers: Mapping[str, Callable[[Function], Peer]] = BOTH,
) -> Contest:  # fmt: skip
    """A function of rows of a width, or of columns, beside torch's."""
    one = ROWS[name]
    dtype = one.dtype or dtype
    x = "r, n" if across else "n, r"
    shape, dim = ((width, rows), 0) if across else ((rows, width), 1)
    body = one.text if one.dtype else f"{dtype}({one.text})"
    function = partial(one.function, dim=dim)
    return Contest(
        f"{name} {'columns' if across else 'rows'} {dtype}, {shape[0]}x{shape[1]}",
        f"def {name}_of(X[{x}]):\n    Y[{x if one.keeps else 'n'}] = {body}\n    return Y\n",
        lambda: normal(device, dtype, {"X": shape}),
        {called: peer(function) for called, peer in peers.items()},
        exact=direct(function), kind="reduction",
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Fused


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with a product: its text, the shapes of its operands over the sizes n, d, k and r, the axes by whose
    length weights are divided to keep results about 1, and torch's function."""

    text: str
    shapes: Mapping[str, str]
    function: Function
    flops: Callable[[Sizes], float]
    weights: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, device: str, dtype: str, sizes: Sizes, name: str = "") -> Contest:
        """The contest at some sizes."""
        shapes = {x: tuple(sizes[a] for a in axes) for x, axes in self.shapes.items()}

        def operands() -> dict[str, Tensor]:
            found = normal(device, dtype, shapes)
            for x, axis in self.weights.items():
                found[x] *= sizes[axis] ** -0.5
            if "label" in found:
                found["label"] = torch.arange(sizes["n"], device=device) * 7919 % sizes["k"]
            return found

        called = " ".join(f"{a}{sizes[a]}" for a in dict.fromkeys("".join(self.shapes.values())))
        return Contest(
            f"{name or self.text.split('(')[0].split()[-1].replace('_', ' ')} {dtype}, {called}", self.text, operands,
            {way: peer(self.function) for way, peer in BOTH.items()}, self.flops(sizes),
            exact=direct(self.function), kind="fused",
        )  # fmt: skip


def _product(s: Sizes) -> float:
    return 2.0 * s["n"] * s["d"] * s["k"]


def _rmsnorm_matmul(X: Tensor, gain: Tensor, W: Tensor) -> Tensor:
    return F.rms_norm(X, X.shape[-1:], gain, _RATE) @ W


def _swiglu(X: Tensor, G: Tensor, U: Tensor) -> Tensor:
    return F.silu(X @ G) * (X @ U)


def _gelu(X: Tensor, W: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(X @ W) + bias


def _lora(X: Tensor, W: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return X @ W + (X @ A) @ B


def _residual(X: Tensor, W: Tensor, R: Tensor) -> Tensor:
    return X @ W + R


def _cross_entropy(X: Tensor, W: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(_wide(X @ W.T), label, reduction="none").to(X.dtype)


FUSED = {
    "rmsnorm matmul": Layer(
        "def rmsnorm_matmul(X[n, d], gain[d], W[d, k]):\n"
        "    Y[n, k] = sum[d](rmsnorm[d](X, 1e-6) * gain[d] * W[d, k])\n    return Y\n",
        {"X": "nd", "gain": "d", "W": "dk"}, _rmsnorm_matmul, _product, {"W": "d"},
    ),
    "swiglu": Layer(
        "def swiglu(X[n, d], G[d, k], U[d, k]):\n    A[n, k] = X[n, d] * G[d, k]\n    B[n, k] = X[n, d] * U[d, k]\n"
        "    Y[n, k] = silu(A) * B\n    return Y\n",
        {"X": "nd", "G": "dk", "U": "dk"}, _swiglu, lambda s: 2 * _product(s), {"G": "d", "U": "d"},
    ),
    "gelu": Layer(
        "def gelu_bias(X[n, d], W[d, k], bias[k]):\n    Z[n, k] = X[n, d] * W[d, k]\n    Y[n, k] = gelu(Z) + bias[k]\n"
        "    return Y\n",
        {"X": "nd", "W": "dk", "bias": "k"}, _gelu, _product, {"W": "d"},
    ),
    "lora": Layer(
        "def lora(X[n, d], W[d, k], A[d, r], B[r, k]):\n"
        "    Y[n, k] = X[n, d] * W[d, k] + sum[r](sum[d](X[n, d] * A[d, r]) * B[r, k])\n    return Y\n",
        {"X": "nd", "W": "dk", "A": "dr", "B": "rk"}, _lora,
        lambda s: _product(s) + 2.0 * s["n"] * s["r"] * (s["d"] + s["k"]), {"W": "d", "A": "d", "B": "r"},
    ),
    "residual": Layer(
        "def residual(X[n, d], W[d, k], R[n, k]):\n    Y[n, k] = X[n, d] * W[d, k] + R[n, k]\n    return Y\n",
        {"X": "nd", "W": "dk", "R": "nk"}, _residual, _product, {"W": "d"},
    ),
    "linear cross-entropy": Layer(
        "def linear_cross_entropy(X[n, d], W[k, d], label[n]: i64):\n    Z[n, k] = X[n, d] * W[k, d]\n"
        "    L[n] = logsumexp[k](Z) - Z[n, label[n]]\n    return L\n",
        {"X": "nd", "W": "kd", "label": "n"}, _cross_entropy, _product, {"W": "d"},
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Convolutions


def convolution(device: str, dtype: str, b: int, n: int, c: int, k: int, r: int) -> Contest:
    """Images of n by n points with c channels last, and filters of r by r, without a border."""
    text = (
        "def convolution(X[b, h, w, c], W[r, s, c, k]):\n"
        "    Y[b, y, x, k] = X[b, y + r, x + s, c] * W[r, s, c, k]\n    return Y\n"
    )

    def operands() -> dict[str, Tensor]:
        found = normal(device, dtype, {"X": (b, n, n, c), "W": (r, r, c, k)})
        return {**found, "W": found["W"] * (r * r * c) ** -0.5}

    def function(X: Tensor, W: Tensor) -> Tensor:
        return F.conv2d(X.permute(0, 3, 1, 2), W.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)

    def prepared(X: Tensor, W: Tensor) -> Function:
        """With filters turned beforehand, into the order that cuDNN takes them in."""
        turned = W.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        return lambda: F.conv2d(X.permute(0, 3, 1, 2), turned).permute(0, 2, 3, 1)

    m = n - r + 1
    return Contest(
        f"convolution {dtype}, b{b} {n}x{n} c{c} k{k}, {r}x{r}", text, operands,
        {"conv2d": lambda tensors: [prepared(*tensors.values())]}, 2.0 * b * m * m * c * k * r * r,
        exact=direct(function), kind="convolution",
    )  # fmt: skip


def depthwise(device: str, dtype: str, b: int, n: int, c: int, r: int) -> Contest:
    """A causal convolution of every channel by itself."""
    text = (
        "def depthwise(X[b, n, c], W[r, c]):\n"
        "    Y[b, n, c] = sum[r](where(n >= r, X[b, n - r, c] * W[r, c], 0))\n    return Y\n"
    )

    def function(X: Tensor, W: Tensor) -> Tensor:
        taps, channels = W.shape
        return F.conv1d(F.pad(X.mT, (taps - 1, 0)), W.flip(0).T[:, None], groups=channels).mT

    return Contest(
        f"depthwise {dtype}, b{b} n{n} c{c}, {r} taps", text,
        lambda: normal(device, dtype, {"X": (b, n, c), "W": (r, c)}),
        {way: peer(function) for way, peer in BOTH.items()}, 0.0, exact=direct(function), kind="convolution",
    )  # fmt: skip
