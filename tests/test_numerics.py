"""Rows that are hard on arithmetic: as exact as torch in single precision, or within 4 units in the last place.

A row is held whole or walked, by torch; a small case goes through Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from einc import driver
from einc.binding import bind
from einc.execution import run_in_torch, runner
from einc.targets import INTERPRETER

ULP = 2.0**-23
INF = float("inf")
SIZES = {"short": 300, "long": 5000}
WALKED = {"i": 64, "j": 1 << 20}  # hints that make j too long to be held whole

every_level = pytest.mark.parametrize("level", [1, 2])
every_way = pytest.mark.parametrize("walked", [False, True], ids=["whole", "walked"])
every_size = pytest.mark.parametrize("n", [300, 5000])


def run(body: str, level: int, walked: bool, *, backend: str = "torch", **operands: Tensor) -> Tensor:
    """The result of a function body of x[i, j] and other operands."""
    axes = {"label": "label[i]: i64"}
    signature = ", ".join(axes.get(name, f"{name}[i, j]") for name in operands)
    program = driver.elaborate(driver.parse(f"def f({signature}):\n    return {body}\n", "numerics"))
    bindings = bind(program, {name: tuple(t.shape) for name, t in operands.items()})
    hints = WALKED if walked else bindings.extents
    compiled = driver.compile_program(program, level, INTERPRETER, hints)
    if backend == "torch":
        return run_in_torch(compiled, operands, bindings, None)[0]
    return runner(compiled)(*operands.values())[0]


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape)).float()


def check(found: Tensor, wanted: Tensor, torchs: Tensor, least: float = 0.0) -> None:
    """At most twice the error of torch in single precision, or 4 units in the last place of the largest result."""
    error, theirs = ((x.double() - wanted).abs().max().item() for x in (found, torchs))
    assert error <= max(2 * theirs, 4 * ULP * wanted.abs().max().item(), least)


# ---------------------------------------------------------------------------------------------------------------------
# Exponentials


def logits(n: int) -> Tensor:
    """Rows of logits: of 1e4 of either sign, of both, one that is large, most of them masked, a constant."""
    x = normal(9, n)
    x[0] += 1e4
    x[1] -= 1e4
    x[2] *= 1e4
    x[3, n // 2] = 1e30
    x[4, ::2] = -INF
    x[5, : n // 2] = -INF
    x[6, 1:] = -INF
    x[7] = 0.25
    return x


EXPONENTIALS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax[j](x)": lambda x: x.softmax(1),
    "logsumexp[j](x)": lambda x: x.logsumexp(1),
    "where(x == -inf, 0, log_softmax[j](x))": lambda x: x.log_softmax(1).where(x != -INF, 0),
}


@every_size
@every_way
@every_level
@pytest.mark.parametrize("body", EXPONENTIALS)
def test_exponentials(body: str, level: int, walked: bool, n: int) -> None:
    x, reference = logits(n), EXPONENTIALS[body]
    found, wanted, torchs = run(body, level, walked, x=x), reference(x.double()), reference(x)
    for row in range(len(x)):
        check(found[row], wanted[row], torchs[row])


@every_way
@every_level
def test_rows_without_anything(level: int, walked: bool) -> None:
    """A row that is wholly -inf has softmax 0, where torch gives NaN, and logsumexp -inf."""
    x = torch.full((2, 300), -INF)
    assert (run("softmax[j](x)", level, walked, x=x) == 0).all()
    assert (run("logsumexp[j](x)", level, walked, x=x) == -INF).all()
    assert (run("entropy[j](x)", level, walked, x=x) == 0).all()


@every_size
@every_way
@every_level
@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_row_with_an_infinite_logit(place: int, level: int, walked: bool, n: int) -> None:
    """As torch has it: inf - inf is NaN there, and the others of the row, with a sum of NaN, are NaN too."""
    x = normal(2, n)
    x[0, place] = INF
    found = run("softmax[j](x)", level, walked, x=x)
    assert x.softmax(1)[0].isnan().all()
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


@every_way
@every_level
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 3000.0])
def test_entropy(scale: float, level: int, walked: bool) -> None:
    """Where probabilities are 0, or one of them is 1."""
    x = scale * normal(8, 3000)
    p = x.softmax(1)
    torchs = torch.special.entr(p).sum(1)
    check(run("entropy[j](x)", level, walked, x=x), torch.special.entr(x.double().softmax(1)).sum(1), torchs)


@every_way
@every_level
@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
def test_cross_entropy(offset: float, level: int, walked: bool) -> None:
    x = offset + 10 * normal(8, 3000)
    label = torch.arange(8) * 7
    body = "max[j](x) - x[i, label[i]] + log(sum[j](exp(x - max[j](x))))"
    wanted = F.cross_entropy(x.double(), label, reduction="none")
    check(run(body, level, walked, x=x, label=label), wanted, F.cross_entropy(x, label, reduction="none"))


# ---------------------------------------------------------------------------------------------------------------------
# Moments


def skewness(x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return (centred**3).mean(1) / (centred**2).mean(1) ** 1.5


MOMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "var[j](x)": lambda x: x.var(1, unbiased=False),
    "mean[j]((x - mean[j](x)) ** 3) / var[j](x) ** 1.5": skewness,
    "layernorm[j](x)": lambda x: F.layer_norm(x, x.shape[1:], eps=1e-5),
    "rmsnorm[j](x)": lambda x: F.rms_norm(x, x.shape[1:], eps=1e-6),
}


@every_size
@every_way
@every_level
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e5, 1e6])
@pytest.mark.parametrize("body", MOMENTS)
def test_moments(body: str, offset: float, level: int, walked: bool, n: int) -> None:
    """Of noise on a large constant: the mean in single precision is off, and moments about it are not.

    What is left of an entry by subtracting a mean is off as the mean is: by a few roundings of it.
    """
    x, reference = offset + normal(8, n), MOMENTS[body]
    least = 2 * ULP * abs(offset) if body == "layernorm[j](x)" else 0.0
    check(run(body, level, walked, x=x), reference(x.double()), reference(x), least)


@every_way
@every_level
def test_weighted_moments(level: int, walked: bool) -> None:
    x, w = 1e6 + normal(4, 3000), normal(4, 3000).abs()
    mean = "sum[j](w * x) / sum[j](w)"
    found = run(f"sum[j](w * (x - {mean}) ** 2) / sum[j](w)", level, walked, x=x, w=w)
    weights = w.double() / w.double().sum(1, keepdim=True)
    centred = x.double() - (weights * x.double()).sum(1, keepdim=True)
    wanted = (weights * centred**2).sum(1)
    check(found, wanted, wanted)


@every_way
@every_level
def test_masked_moments(level: int, walked: bool) -> None:
    """Of what is not negative; a row without such has none."""
    x, w = 1e5 + normal(4, 3000), normal(4, 3000)
    w[2] = -1
    total, count = (f"sum[j](where(w >= 0, {term}, 0))" for term in ("x", "1.0"))
    found = run(f"sum[j](where(w >= 0, (x - {total} / {count}) ** 2, 0)) / max({count}, 1)", level, walked, x=x, w=w)
    rows = zip(x.double(), w, strict=True)
    wanted = torch.stack([v[u >= 0].var(unbiased=False) if (u >= 0).any() else v[0] * 0 for v, u in rows])
    check(found, wanted, wanted)


@every_way
@every_level
@pytest.mark.parametrize("body", ["var[j](x)", "softmax[j](x)", "logsumexp[j](x)"])
def test_in_the_interpreter(body: str, level: int, walked: bool) -> None:
    references = MOMENTS | EXPONENTIALS
    x = 1e6 + normal(3, 170) if body == "var[j](x)" else logits(170)
    found = run(body, level, walked, backend="interpret", x=x)
    check(found, references[body](x.double()), references[body](x))
