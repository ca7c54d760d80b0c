"""What is done to the rows of a matrix or the channels of an image: normalisations, losses, statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.library.cases import Case, Draw, Result

# ruff: noqa: N803 - matrices have capital letters everywhere

ROWS = {"n": 19, "c": 300}
TINY_ROWS = {"n": 5, "c": 41}
LONG_ROWS = {"n": 4096, "c": 1 << 17}
NORM = {"X": "n c", "gain": "c", "bias": "c"}
PROJECTED = {"X": "n c", "gain": "c", "W": "c k"}
IMAGES = {"b": 3, "c": 5, "g": 4, "p": 70}
LONG_IMAGES = {"b": 32, "c": 16, "g": 32, "p": 4096}
CLASSES = {"n": 19, "v": 300, "d": 24}
TINY_CLASSES = {"n": 5, "v": 41, "d": 8}
LONG_CLASSES = {"n": 8192, "v": 1 << 17, "d": 128}


def labels(low: int) -> Callable[[Draw], Tensor]:
    """A class for each of n, or -1 where `low` is: none."""
    return lambda draw: draw.integers("n", low, draw["v"], torch.int64)


def layernorm(X: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(X, X.shape[-1:], gain, bias, 1e-5)


def layernorm_matmul(X: Tensor, gain: Tensor, W: Tensor) -> Tensor:
    return F.layer_norm(X, X.shape[-1:], gain, None, 1e-5) @ W


def rmsnorm_matmul(X: Tensor, gain: Tensor, W: Tensor) -> Tensor:
    return F.rms_norm(X, X.shape[-1:], gain, 1e-6) @ W


def groupnorm(X: Tensor, gain: Tensor, bias: Tensor, groups: int) -> Tensor:
    return F.group_norm(X, groups, gain, bias, 1e-5)


def batchnorm(X: Tensor, mean: Tensor, var: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(X, mean, var, gain, bias, eps=1e-5)


def variance(X: Tensor) -> tuple[Tensor, Tensor]:
    return X.mean(1), X.var(1, unbiased=False)


def skewness(X: Tensor) -> Tensor:
    centred = X - X.mean(1, keepdim=True)
    return (centred**3).mean(1) / (centred**2).mean(1) ** 1.5


def entropy(X: Tensor) -> Tensor:
    P = X.softmax(1)  # noqa: N806
    return -(P * P.log()).sum(1)


def top1(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value, index = X.max(1)
    return value, index, X.softmax(1).gather(1, index[:, None])[:, 0]


def top4(X: Tensor) -> tuple[Tensor, Tensor]:
    value, index = X.sort(dim=1, descending=True, stable=True)
    return value[:, :4], index[:, :4]


def cross_entropy(X: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(X, label, ignore_index=-1), F.cross_entropy(X, label, ignore_index=-1, reduction="none")


def linear_cross_entropy(X: Tensor, W: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(X @ W.T, label, reduction="none")


def rows(name: str, reference: Callable[..., Result], **more: Any) -> Case:
    """A program of one matrix whose rows it treats each by itself."""
    return Case(f"rows/{name}", {"X": "n c"}, reference, ROWS, ("c",), TINY_ROWS, LONG_ROWS, **more)


CASES = (
    rows("softmax", lambda X: X.softmax(1)),
    rows("log_softmax", lambda X: X.log_softmax(1)),
    rows("logsumexp", lambda X: X.logsumexp(1)),
    rows("entropy", entropy),
    rows("variance", variance),
    rows("skewness", skewness),
    rows("p_norm", lambda X, p: X.norm(p, 1), scalars={"p": 3.5}),
    rows("top1", top1),
    rows("top4", top4),
    rows("cumulative_sum", lambda X: X.cumsum(1)),
    Case("rows/layernorm", NORM, layernorm, ROWS, ("c",), TINY_ROWS, LONG_ROWS),
    Case(
        "rows/layernorm_matmul",
        PROJECTED,
        layernorm_matmul,
        ROWS | {"k": 21},
        ("c",),
        TINY_ROWS | {"k": 8},
        {"n": 4096, "c": 4096, "k": 4096},
        kernels=2,
        unfused=("Y_sum_2_left",),
        wish="nothing more: what every block of columns would compute goes through registers, what is stored does not",
    ),
    Case(
        "rows/rmsnorm_matmul",
        PROJECTED,
        rmsnorm_matmul,
        ROWS | {"k": 21},
        ("c",),
        TINY_ROWS | {"k": 8},
        {"n": 4096, "c": 4096, "k": 4096},
        kernels=2,
        unfused=("Y_sum_2_left",),
        wish="nothing more: what every block of columns would compute goes through registers, what is stored does not",
    ),
    Case(
        "rows/groupnorm",
        {"X": "b (g c) p", "gain": "(g c)", "bias": "(g c)"},
        groupnorm,
        IMAGES,
        ("c", "p"),
        {"p": 9},
        LONG_IMAGES,
        {"groups": 4},
        kernels=2,  # statistics of rows of 65,536 elements in parts, then what is made of them
    ),
    Case(
        "rows/batchnorm",
        {"X": "b c p", "mean": "c", "var": lambda draw: draw.uniform("c", 0.5, 2), "gain": "c", "bias": "c"},
        batchnorm,
        IMAGES,
        (),
        {"p": 9},
        LONG_IMAGES,
    ),
    Case(
        "rows/cross_entropy",
        {"X": "n v", "label": labels(-1)},
        cross_entropy,
        CLASSES,
        ("v",),
        TINY_CLASSES,
        LONG_CLASSES,
        kernels=2,  # rows, then their average
    ),
    Case(
        "rows/linear_cross_entropy",
        {"X": "n d", "W": "v d", "label": labels(0)},
        linear_cross_entropy,
        CLASSES,
        ("v",),
        TINY_CLASSES,
        LONG_CLASSES,
    ),
)
