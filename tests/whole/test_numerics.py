"""Rows that are hard on arithmetic: as exact as torch in single precision, or within 4 units in the last place.

A row is held whole or walked, by torch; a small case goes through Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import einc
from einc import driver
from einc.base.targets import TARGETS
from einc.binding import bind
from einc.runtime.execution import InTorch, Place
from tests.support.compiled import CPU, compiled, run_in_torch, runner

ULP = 2.0**-23
INF = float("inf")
WALKED = {"i": 64, "j": 1 << 20}  # hints that make j too long to be held whole

every_level = pytest.mark.parametrize("level", [1, 2])
every_way = pytest.mark.parametrize("walked", [False, True], ids=["whole", "walked"])
every_size = pytest.mark.parametrize("n", [37, 1000, 70_000])
every_schedule = pytest.mark.parametrize(
    ("level", "walked"),
    [(0, True), (1, False), (1, True), (2, False), (2, True)],
    ids=["O0", "O1-whole", "O1-walked", "O2-whole", "O2-walked"],
)


def run(body: str, level: int, walked: bool, *, backend: str = "torch", **operands: Tensor) -> Tensor:
    """The result of a function body of x[i, j] and other operands."""
    axes = {"label": "label[i]: i64"}
    signature = ", ".join(axes.get(name, f"{name}[i, j]") for name in operands)
    text = f"def f({signature}):\n    return {body}\n"
    shapes = {name: tuple(t.shape) for name, t in operands.items()}
    hints = WALKED if walked else dict(zip("ij", shapes["x"], strict=True))
    if backend == "torch":
        return launch(text, level, tuple(hints.items()), tuple(shapes.items()))(operands, {})[0]
    return runner(compiled(text, level, "interpret", None, **hints))(*operands.values())[0]


@lru_cache(maxsize=16)
def launch(
    text: str, level: int, hints: tuple[tuple[str, int], ...], shapes: tuple[tuple[str, tuple[int, ...]], ...]
) -> Callable[..., tuple[Tensor, ...]]:
    """A program on operands of these shapes, compiled as if for the extents given: the same for rows of any values."""
    made = compiled(text, level, "interpret", None, **dict(hints))
    return InTorch(made, bind(made.program, dict(shapes)), Place("torch", CPU), tiled=True).run


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape)).float()


def check(found: Tensor, wanted: Tensor, torchs: Tensor) -> None:
    """At most twice the error of torch in single precision, or 4 units in the last place of the largest result."""
    error, theirs = ((x.double() - wanted).abs().max().item() for x in (found, torchs))
    assert error <= max(2 * theirs, 4 * ULP * wanted.abs().max().item())


# ---------------------------------------------------------------------------------------------------------------------
# Sigmoids


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "torchs"), [("sigmoid", torch.sigmoid), ("silu", F.silu)])
def test_sigmoids_keep_their_digits_however_small(
    name: str, torchs: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """The error is relative, as small as that of exp allows, down to the least number of full precision."""
    info = torch.finfo(dtype)
    lowest = np.log(info.tiny) * 0.99
    x = torch.linspace(lowest, -lowest, 4001, dtype=dtype)[None]
    wide = x.numpy().astype(np.longdouble)
    wanted = (1 if name == "sigmoid" else wide) / (1 + np.exp(-wide))
    function = einc.compile(f"def f(x[i, j]):\n    return {name}(x)")
    found = function(x).numpy()
    assert (np.abs(found - wanted) <= (2 + abs(lowest)) * info.eps * np.abs(wanted)).all()
    ends = torch.tensor([[-INF, -1e4, -800.0, 0.0, 800.0, 1e4, INF]], dtype=dtype)
    for backend in ("torch", "interpret"):
        torch.testing.assert_close(function(ends, backend=backend), torchs(ends), equal_nan=True)


@pytest.mark.parametrize("name", ["sigmoid", "silu"])
def test_a_sigmoid_is_one_exponential_and_one_quotient(name: str) -> None:
    program = driver.elaborate(driver.parse(f"T[i, j] = {name}(x[i, j])"))
    source = driver.compile_program(program, 2, TARGETS["sm_90"]).source
    kernel = source.split("@triton.jit\ndef T_kernel")[1].split("\n\n\n")[0]
    assert [kernel.count(word) for word in ("tl.exp", " / ", "tl.where")] == [1, 1, 0]


# ---------------------------------------------------------------------------------------------------------------------
# Exponentials


def logits(n: int) -> Tensor:
    """Rows of logits: far from 0 on either side, on both, one that is large, most of them masked, a constant."""
    x = normal(12, n)
    x[0] += 1e4
    x[1] -= 1e4
    x[2] *= 1e4
    x[3, n // 2] = 1e30
    x[4, ::2] = -INF
    x[5, : n // 2] = -INF
    x[6, 1:] = -INF
    x[7] = 0.25
    x[8] += 1e3
    x[9] += 1e5
    x[10] -= 1e6
    return x


EXPONENTIALS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax[j](x)": lambda x: x.softmax(1),
    "logsumexp[j](x)": lambda x: x.logsumexp(1),
    "where(x == -inf, 0, log_softmax[j](x))": lambda x: x.log_softmax(1).where(x != -INF, 0),
}


@every_size
@every_schedule
@pytest.mark.parametrize("body", EXPONENTIALS)
def test_exponentials(body: str, level: int, walked: bool, n: int) -> None:
    x, reference = logits(n), EXPONENTIALS[body]
    found, wanted, torchs = run(body, level, walked, x=x), reference(x.double()), reference(x)
    for row in range(len(x)):
        check(found[row], wanted[row], torchs[row])


@every_schedule
def test_rows_without_anything(level: int, walked: bool) -> None:
    """A row that is wholly -inf has softmax 0, where torch gives NaN, and logsumexp -inf."""
    x = torch.full((2, 300), -INF)
    assert (run("softmax[j](x)", level, walked, x=x) == 0).all()
    assert (run("logsumexp[j](x)", level, walked, x=x) == -INF).all()
    assert (run("entropy[j](x)", level, walked, x=x) == 0).all()


@every_schedule
@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_row_with_an_infinite_logit(place: int, level: int, walked: bool) -> None:
    """As torch has it: inf - inf is NaN there, and the others of the row, with a sum of NaN, are NaN too."""
    x = normal(2, 300)
    x[0, place] = INF
    found = run("softmax[j](x)", level, walked, x=x)
    assert x.softmax(1)[0].isnan().all()
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


@every_schedule
def test_what_is_written_by_hand_follows_ieee(level: int, walked: bool) -> None:
    """Of a row that is wholly -inf, or has a +inf, inf - inf is NaN; a logarithm of a sum has its limits there."""
    x = normal(4, 300)
    x[0], x[1, 5], x[2, 7] = -INF, INF, -INF
    shifted = "exp(x - max[j](x))"
    for body in (f"{shifted} / sum[j]({shifted})", f"max[j](x) + log(sum[j]({shifted}))", "var[j](x)"):
        found = run(body, level, walked, x=x).reshape(4, -1)
        assert found.isnan().any(1).tolist() == [True, True, body == "var[j](x)", False]
    assert run("logsumexp[j](x)", level, walked, x=x)[:2].tolist() == [-INF, INF]
    assert run("sum[j](where(x == -inf, 0, exp(x - max[j](x))))", level, walked, x=x)[0] == 0


@every_schedule
@pytest.mark.parametrize("divisor", ["y", "max[j](y)", "y[i, 0]"])
def test_a_divisor_that_keeps_a_sum_finite(divisor: str, level: int, walked: bool) -> None:
    """Near the largest float a sum is finite where the text divides first."""
    x, y = 2e38 + 1e37 * normal(3, 300), torch.full((3, 300), 2.0**100)
    wanted = layernorm((x / y).double())
    found = run(f"layernorm[j](x / ({divisor}))", level, walked, x=x, y=y)
    assert (found - wanted).abs().max() < 1e-2


@every_way
@every_level
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 3000.0])
def test_entropy(scale: float, level: int, walked: bool) -> None:
    """Where probabilities are 0, or one of them is 1."""
    x = scale * normal(8, 3000)
    p = x.softmax(1)
    torchs = torch.special.entr(p).sum(1)
    check(run("entropy[j](x)", level, walked, x=x), torch.special.entr(x.double().softmax(1)).sum(1), torchs)


@every_size
@every_schedule
@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e3, 1e5, 1e6])
def test_cross_entropy(offset: float, level: int, walked: bool, n: int) -> None:
    x = offset + 10 * normal(8, n)
    label = torch.arange(8) * 4
    body = "max[j](x) - x[i, label[i]] + log(sum[j](exp(x - max[j](x))))"
    wanted = F.cross_entropy(x.double(), label, reduction="none")
    check(run(body, level, walked, x=x, label=label), wanted, F.cross_entropy(x, label, reduction="none"))


# ---------------------------------------------------------------------------------------------------------------------
# Norms whose squares are too large, or too small, for single precision


def scaled(p: int) -> Callable[[Tensor], Tensor]:
    def norm(x: Tensor) -> Tensor:
        largest = x.abs().amax(1)
        return largest * ((x.abs() / largest[:, None]) ** p).sum(1) ** (1 / p)

    return norm


LARGEST = "max[j](abs(x))"
NORMS = {
    f"{LARGEST} * sqrt(sum[j]((x / {LARGEST}) ** 2))": scaled(2),
    f"{LARGEST} * sqrt(sum[j](x / {LARGEST} * (x / {LARGEST})))": scaled(2),
    f"{LARGEST} * sum[j]((abs(x) / {LARGEST}) ** 3) ** 0.3333333333333333": scaled(3),
}


@every_size
@every_schedule
@pytest.mark.parametrize("body", NORMS)
def test_scaled_norms(body: str, level: int, walked: bool, n: int) -> None:
    x = normal(3, n) * torch.tensor([[1e30], [1.0], [1e-30]])
    for row in (x[k : k + 1] for k in range(len(x))):
        found = run(body, level, walked, x=row)
        check(found, NORMS[body](row.double()), NORMS[body](row))


# ---------------------------------------------------------------------------------------------------------------------
# Moments


def mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def variance(x: Tensor) -> Tensor:
    return mean((x - mean(x)) ** 2)


def layernorm(x: Tensor) -> Tensor:
    return (x - mean(x)) * (variance(x) + 1e-5).rsqrt()


def skewness(x: Tensor) -> Tensor:
    return mean((x - mean(x)) ** 3)[:, 0] / variance(x)[:, 0] ** 1.5


@dataclass(frozen=True)
class Moments:
    """What is computed of rows, by torch's own function, and by one pass after another where torch does otherwise."""

    body: str
    torchs: Callable[[Tensor], Tensor]
    passes: Callable[[Tensor], Tensor] | None = None


MOMENTS = {
    "mean": Moments("mean[j](x)", lambda x: x.mean(1)),
    "variance": Moments("var[j](x)", lambda x: x.var(1, unbiased=False), lambda x: variance(x)[:, 0]),
    "deviation": Moments("std[j](x)", lambda x: x.std(1, unbiased=False), lambda x: variance(x)[:, 0].sqrt()),
    "skewness": Moments("mean[j]((x - mean[j](x)) ** 3) / var[j](x) ** 1.5", skewness),
    "layernorm": Moments("layernorm[j](x)", lambda x: F.layer_norm(x, x.shape[1:], eps=1e-5), layernorm),
    "rmsnorm": Moments("rmsnorm[j](x)", lambda x: F.rms_norm(x, x.shape[1:], eps=1e-6)),
    "length": Moments("l2norm[j](x)", lambda x: F.normalize(x, dim=1)),
}


@pytest.mark.turns(2)
@every_size
@every_schedule
@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name: str, level: int, walked: bool, n: int) -> None:
    """Of noise on a constant: the mean in single precision is off, and moments about it are not.

    At level 0 an equation is a kernel of its own and knows of others what is in memory: it is as exact as two passes.
    """
    moments = MOMENTS[name]
    reference = moments.passes if level == 0 and moments.passes is not None else moments.torchs
    for offset in (0.0, 1e3, -1e5, 1e6):
        x = offset + normal(32 if n < 70_000 else 8, n)
        check(run(moments.body, level, walked, x=x), moments.torchs(x.double()), reference(x))


@every_size
@every_schedule
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, 1e6])
def test_cosines(offset: float, level: int, walked: bool, n: int) -> None:
    x, y = offset + normal(16, n).view(2, 8, n)
    found = run("cosine[j](x, y)", level, walked, x=x, y=y)
    check(found, F.cosine_similarity(x.double(), y.double()), F.cosine_similarity(x, y))


GROUPNORM = """
def groupnorm(X[b, (g c), t]):
    axis g = 3
    mean[b, g] = sum[c, t](X[b, (g c), t]) / (|c| * |t|)
    var[b, g] = sum[c, t]((X[b, (g c), t] - mean) ** 2) / (|c| * |t|)
    return (X[b, (g c), t] - mean[b, g]) * rsqrt(var[b, g] + 1e-5)
"""


@every_size
@every_schedule
def test_group_norm(level: int, walked: bool, n: int) -> None:
    hints = {"b": 4, "g": 3, "c": 2, "t": 1 << 20 if walked else n}
    for offset in (0.0, 1e3, -1e5, 1e6):
        x = offset + normal(4, 6, n)
        groups = layernorm(x.view(12, -1)).view(x.shape) if level == 0 else F.group_norm(x, 3)
        (found,) = launch(GROUPNORM, level, tuple(hints.items()), (("X", (4, 6, n)),))({"X": x}, {})
        check(found, F.group_norm(x.double(), 3), groups)


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
@pytest.mark.parametrize("body", ["var[j](x)", "layernorm[j](x)", "softmax[j](x)", "logsumexp[j](x)"])
def test_in_the_interpreter(body: str, level: int, walked: bool) -> None:
    moments = [m for m in MOMENTS.values() if m.body == body]
    reference = moments[0].torchs if moments else EXPONENTIALS[body]
    x = 1e5 + normal(32, 170) if moments else logits(170)
    found = run(body, level, walked, backend="interpret", x=x)
    check(found, reference(x.double()), reference(x))


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e3])
def test_kernels_agree_on_a_mean(offset: float) -> None:
    """Weights are summed in one kernel and made again in another, relative to a mean that is large beside them."""
    text = "def f(x[i, j], v[j, e]):\n    O[i, e] = softmax[j](layernorm[j](x)) * v[j, e]\n    return O\n"
    program = driver.elaborate(driver.parse(text, "numerics"))
    c = driver.compile_program(program, 2, TARGETS["sm_90"], {"i": 4096, "j": 4096, "e": 64})
    assert len(c.state.plans) == 2
    x, v = offset + 1e-2 * normal(5, 300), normal(300, 7)
    (found,) = run_in_torch(c, {"x": x, "v": v}, bind(program, {"x": tuple(x.shape), "v": tuple(v.shape)}))

    def composed(x: Tensor, v: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:]).softmax(1) @ v

    check(found, composed(x.double(), v.double()), composed(x, v))
