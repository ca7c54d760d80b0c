"""Contractions and what is built around them: gates, routers, distances, low ranks, semirings, tensor networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.library.cases import Case, Draw

# ruff: noqa: N803, N806 - matrices have capital letters everywhere

POINTS = {"X": "i d", "Y": "j d"}
LAYER = {"n": 37, "d": 40, "h": 53, "e": 21}
TINY_LAYER = {"n": 7, "d": 16, "h": 9, "e": 8}
LONG_LAYER = {"n": 8192, "d": 4096, "h": 16384, "e": 4096}
SQUARE = {"i": 37, "j": 53, "k": 130}
TINY_SQUARE = {"i": 7, "j": 9, "k": 21}
LONG_SQUARE = {"i": 2048, "j": 2048, "k": 2048}
CHAIN = {"A": "b i j", "B": "b j k", "C": "b k l", "D": "b l m"}
TRAIN = {"i": 5, "j": 4, "k": 6, "l": 3, "p": 7, "q": 5, "r": 4}


def swiglu(X: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(X @ gate) * (X @ up)


def swiglu_mlp(X: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return swiglu(X, gate, up) @ down


def router(X: Tensor, W: Tensor) -> tuple[Tensor, ...]:
    value, index = (X @ W.T).topk(2)
    share = value.softmax(1)
    return index[:, 0], index[:, 1], share[:, 0], share[:, 1]


def gaussian_sum(X: Tensor, Y: Tensor, V: Tensor, width: float) -> Tensor:
    return torch.exp(-(torch.cdist(X, Y) ** 2) / (2 * width**2)) @ V


def depthwise(X: Tensor, W: Tensor) -> Tensor:
    taps, channels = W.shape
    return F.conv1d(F.pad(X.mT, (taps - 1, 0)), W.flip(0).T[:, None], groups=channels).mT


def grouped_matmul(X: Tensor, W: Tensor, expert: Tensor) -> Tensor:
    return torch.stack([x @ W[e] for x, e in zip(X, expert.tolist(), strict=True)])


def tensor_train(A: Tensor, B: Tensor, C: Tensor, D: Tensor, at: Tensor) -> Tensor:
    return torch.einsum("ip,pjq,qkr,rl->ijkl", A, B, C, D)[tuple(at.T)]


def tensor_train_norm(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return (torch.einsum("ip,pjq,qk->ijk", A, B, C) ** 2).sum()


def experts(draw: Draw) -> Tensor:
    """An expert for each of n, in order."""
    return draw.integers("n", 0, draw["e"]).sort().values


def positions(draw: Draw) -> Tensor:
    """A position along each axis of a tensor train."""
    return torch.stack([draw.integers("n", 0, draw[axis], torch.int64) for axis in "ijkl"], 1)


def contrastive(A: Tensor, B: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    S, n = scale * A @ B.T, torch.arange(len(A), device=A.device)
    return F.cross_entropy(S, n, reduction="none"), F.cross_entropy(S.T, n, reduction="none")


CASES = (
    Case(
        "products/cosine_similarity",
        POINTS,
        lambda X, Y: F.cosine_similarity(X[:, None], Y[None], -1),
        {"i": 37, "j": 53, "d": 40},
        ("d",),
        {"i": 7, "j": 9, "d": 8},
        {"i": 4096, "j": 4096, "d": 128},
    ),
    Case(
        "products/kmeans",
        {"X": "n d", "C": "k d"},
        lambda X, C: torch.cdist(X, C).argmin(1),
        {"n": 67, "k": 130, "d": 20},
        ("d",),
        {"n": 7, "k": 9, "d": 8},
        {"n": 1 << 20, "k": 4096, "d": 64},
        kernels=2,
    ),
    Case(
        "products/nearest_neighbour",
        POINTS,
        lambda X, Y: torch.cdist(X, Y).min(1).values,
        {"i": 67, "j": 130, "d": 5},
        ("d",),
        {"i": 7, "j": 9},
        {"i": 1 << 16, "j": 1 << 16, "d": 8},
    ),
    Case(
        "products/gaussian_sum",
        POINTS | {"V": "j e"},
        gaussian_sum,
        {"i": 37, "j": 130, "d": 3, "e": 5},
        ("j",),
        {"i": 7, "j": 21},
        {"i": 1 << 16, "j": 1 << 16, "d": 4, "e": 16},
        {"width": 1.5},
    ),
    Case(
        "products/swiglu",
        {"X": "n d", "gate": "d h", "up": "d h"},
        swiglu,
        LAYER,
        ("d",),
        TINY_LAYER,
        LONG_LAYER,
    ),
    Case(
        "products/swiglu_mlp",
        {"X": "n d", "gate": "d h", "up": "d h", "down": "h e"},
        swiglu_mlp,
        LAYER,
        ("d", "h"),
        TINY_LAYER,
        LONG_LAYER,
        kernels=2,
        unfused=("Y_left",),
        wish="nothing more: the gated product is stored once; a single kernel would hold a row of it",
    ),
    Case(
        "products/moe_router",
        {"X": "n d", "W": "e d"},
        router,
        {"n": 37, "d": 40, "e": 8},
        ("d",),
        {"n": 7, "d": 16},
        {"n": 8192, "d": 4096, "e": 64},
    ),
    Case(
        "products/matmul_chain",
        CHAIN,
        lambda A, B, C, D: A @ B @ C @ D,
        {"b": 2, "i": 37, "j": 21, "k": 30, "l": 19, "m": 40},
        ("j", "k", "l"),
        {"i": 7, "j": 5, "k": 9, "l": 4, "m": 6},
        {"b": 8, "i": 1024, "j": 64, "k": 1024, "l": 64, "m": 1024},
    ),
    Case(
        "products/grouped_matmul",
        {"X": "n d", "W": "e d k", "expert": experts},
        grouped_matmul,
        {"n": 37, "e": 4, "d": 40, "k": 24},
        ("d",),
        {"n": 7, "d": 16, "k": 8},
        {"n": 8192, "e": 8, "d": 1024, "k": 1024},
    ),
    Case(
        "products/lora",
        {"X": "n d", "W": "d k", "A": "d r", "B": "r k"},
        lambda X, W, A, B, scale: X @ W + scale * (X @ A) @ B,
        {"n": 37, "d": 40, "k": 24, "r": 6},
        ("d", "r"),
        {"n": 7, "d": 16, "k": 8},
        {"n": 8192, "d": 4096, "k": 4096, "r": 16},
        {"scale": 0.5},
        kernels=2,  # the narrow product once, and not for every block of columns
    ),
    Case(
        "products/maxplus",
        {"A": "i k", "B": "k j"},
        lambda A, B: (A[:, :, None] + B).amax(1),
        SQUARE,
        (),
        TINY_SQUARE,
        LONG_SQUARE,
    ),
    Case(
        "products/logmatmul",
        {"A": "i k", "B": "k j"},
        lambda A, B: (A[:, :, None] + B).logsumexp(1),
        SQUARE,
        ("k",),
        TINY_SQUARE,
        LONG_SQUARE,
    ),
    Case(
        "products/depthwise",
        {"X": "b n c", "W": "r c"},
        depthwise,
        {"b": 2, "n": 37, "c": 21, "r": 4},
        ("r",),
        {"n": 9, "c": 5},
        {"b": 8, "n": 4096, "c": 1024},
    ),
    Case(
        "products/bilinear",
        {"X": "n i", "W": "k i j", "Y": "n j"},
        lambda X, W, Y: F.bilinear(X, Y, W),
        {"n": 37, "i": 21, "j": 19, "k": 8},
        ("i", "j"),
        {"n": 7, "i": 5, "j": 6},
        {"n": 4096, "i": 128, "j": 128, "k": 128},
    ),
    Case(
        "products/contrastive",
        {"A": "i d", "B": "j d"},
        contrastive,
        {"i": 67, "j": 67, "d": 20},
        ("j",),
        {"i": 9, "j": 9, "d": 8},
        {"i": 16384, "j": 16384, "d": 128},
        {"scale": 0.3},
        kernels=2,
        wish="nothing more: each direction computes the scores that it reduces",
    ),
    Case(
        "products/gram",
        {"X": "n c"},
        lambda X: torch.cov(X.T, correction=0),
        {"n": 130, "c": 21},
        ("n",),
        {"n": 30, "c": 7},
        {"n": 1 << 20, "c": 128},
    ),
    Case(
        "products/outer",
        {"x": "i", "y": "j"},
        lambda x, y: torch.outer(x, y),
        {"i": 37, "j": 53},
        (),
        {"i": 7, "j": 9},
        {"i": 4096, "j": 4096},
    ),
    Case(
        "products/kronecker",
        {"A": "i j", "B": "k l"},
        lambda A, B: torch.kron(A, B),
        {"i": 5, "j": 7, "k": 6, "l": 3},
        (),
        {"i": 2, "j": 3},
        {"i": 64, "j": 64, "k": 64, "l": 64},
    ),
    Case(
        "products/tensor_train",
        {"A": "i p", "B": "p j q", "C": "q k r", "D": "r l", "at": positions},
        tensor_train,
        TRAIN | {"n": 37},
        ("p", "q", "r"),
        {"n": 5},
        {"n": 1 << 16, "i": 32, "j": 32, "k": 32, "l": 32, "p": 16, "q": 16, "r": 16},
    ),
    Case(
        "products/tensor_train_norm",
        {"A": "i p", "B": "p j q", "C": "q k"},
        tensor_train_norm,
        TRAIN,
        ("i", "j", "k", "p", "q"),
        {},
        {"i": 64, "j": 64, "k": 64, "p": 128, "q": 128},
        kernels=3,
    ),
)
