"""Every program of the library has the gradients of the published operator, as torch derives them.

In double precision they are those to nine digits. In f32 and bf16 a gradient errs as torch's own does: its error is at
most three times as large. Errors are root mean squares over a gradient, in parts of that of the exact one, so that no
single position decides, and gradients of few numbers are drawn for several cotangents. Torch's own error is the larger
of two, that of the published operator and, in f32, that of the same equations computed densely; it counts as one unit
in the last place where it is less.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from tests.gradients.compare import Call, Gradients, assert_equal
from tests.library.cases import EPSILON, Case, Sizes
from tests.support.backends import in_pieces
from tests.whole.test_library import CASES, every_case

FACTOR = 3.0  # times torch's own error
FEW = 32  # numbers, of which a root mean square says little
WAYS = ("torch", "interpret")
NARROW = (torch.bfloat16,)
LEAST = 4.0  # units that torch may be off by: weights are computed again from a logarithm, rounded by as many

# Operands by which torch's operator has another derivative, or none.
APART = {
    "attention/rotary": ({"cos", "sin"}, "it computes both halves of the tables by one"),
    "attention/statistics": ({"Q", "K"}, "its gradient of a row that is wholly masked is NaN"),
    "rows/batchnorm": ({"mean", "var"}, "torch's batch norm has no gradient by its statistics"),
}
# Programs whose operators torch does not have in a type.
MISSING = {
    ("attention/int8_cache", torch.float32): "its reference mixes types",
    ("attention/int8_cache", torch.bfloat16): "its reference mixes types",
    ("products/gaussian_sum", torch.bfloat16): "torch has no cdist of bf16",
    ("products/nearest_neighbour", torch.bfloat16): "torch has no cdist of bf16",
}


def apart(case: Case) -> set[str]:
    return APART.get(case.name, (set(), ""))[0]


@lru_cache(maxsize=256)
def called(name: str, sizes: tuple[tuple[str, int], ...], dtype: torch.dtype) -> Call:
    case = next(c for c in CASES if c.name == name)
    return Call(case.path.read_text(), case.given(dict(sizes), dtype), case.scalars)


def published(case: Case, c: Call, dtype: torch.dtype, cotangents: list[Gradients]) -> list[Gradients]:
    """The gradients of torch's operator."""
    given = {n: t.to(dtype) if t.is_floating_point() else t for n, t in c.operands.items()}
    by = [n for n in c.by if n not in apart(case)]
    return c.repeatedly(lambda values: case.reference(**values, **case.scalars), given, cotangents, by)


@lru_cache(maxsize=256)
def references(
    name: str, sizes: tuple[tuple[str, int], ...], dtype: torch.dtype
) -> tuple[list[Gradients], list[Gradients], list[list[Gradients]]]:
    """Cotangents, exact gradients, and torch's own in a type, in each way; for as many as few numbers need."""
    c, case = called(name, sizes, dtype), next(c for c in CASES if c.name == name)
    fewest = min((c.operands[n].numel() for n in c.by), default=FEW)
    cotangents = c.drawn(min(-(-FEW // max(fewest, 1)), 8))
    exact = c.repeatedly(*c.dense(torch.float64), cotangents)
    own = [] if dtype in NARROW else [c.repeatedly(*c.dense(dtype), cotangents)]
    if (name, dtype) not in MISSING:
        own.append(published(case, c, dtype, cotangents))
    return cotangents, exact, own


def spread(found: list[Gradients], exact: list[Gradients], name: str) -> float:
    """The root mean square of the error, in parts of that of the exact gradient."""
    a, b = (torch.stack([g[name].double() for g in gradients]) for gradients in (found, exact))
    assert a.isfinite().all()
    most, off = b.norm().item(), (a - b).norm().item()
    return off / most if most else (0.0 if not off else float("inf"))


def check(case: Case, sizes: Sizes, dtype: torch.dtype, level: int, backend: str) -> None:
    key = case.name, tuple(sizes.items()), dtype
    cotangents, exact, own = references(*key)
    c = called(*key)
    found = c.repeatedly(c.program_at(level, backend), c.operands, cotangents)
    unit = EPSILON[dtype]
    off: dict[str, tuple[float, float]] = {}
    for n in c.by:
        assert found[0][n].dtype == c.operands[n].dtype
        known = [spread(way, exact, n) / unit for way in own if n in way[0]]
        if known:
            torchs, ours = max(LEAST, *known), spread(found, exact, n) / unit
            off |= {n: (ours, torchs)} if ours > FACTOR * torchs else {}
    assert off == {}, "in units of the last place: ours, torch's"


@every_case
def test_in_double_precision(case: Case) -> None:
    c = called(case.name, tuple(case.tiny.items()), case.floats)
    exact = c.in_torch()
    assert_equal(c.evaluated(), exact)
    assert_equal(c.halved(), exact)
    (operators,) = published(case, c, torch.float64, [c.cotangents])
    assert_equal(operators, {n: exact[n] for n in operators})


def in_fours() -> pytest.MarkDecorator:
    """Every case at level 2 in one way, and half of them at a lower level in the other; all in the slow tier."""
    lower = {n: (n // 4 % 2, WAYS[1 - n % 2]) for n in range(len(CASES)) if n % 4 in (0, 3)}
    quick = [{(2, WAYS[n % 2]), *([lower[n]] if n in lower else [])} for n in range(len(CASES))]
    return pytest.mark.parametrize(
        ("case", "level", "backend"),
        [
            pytest.param(
                case, *pair, id=f"{case.name}-{pair[0]}-{pair[1]}", marks=[pytest.mark.slow] * (pair not in now)
            )
            for case, now in zip(CASES, quick, strict=True)
            for pair in ((level, way) for level in (0, 1, 2) for way in WAYS)
        ],
    )


@in_fours()
def test_in_single_precision(case: Case, level: int, backend: str) -> None:
    check(case, case.tiny, case.floats, level, backend)


@every_case
def test_in_small_boxes(case: Case) -> None:
    """In boxes that cut every axis, of which each takes the memory of tiles that those before it have left."""
    with in_pieces(200):
        check(case, case.tiny, case.floats, 2, "torch")


@pytest.mark.turns(2)
@every_case
def test_in_bf16(case: Case) -> None:
    if torch.bfloat16 not in case.dtypes:
        pytest.skip(case.why_dtypes)
    if not called(case.name, tuple(case.tiny.items()), torch.bfloat16).cotangents:
        pytest.skip("no result is of floats")
    if (case.name, torch.bfloat16) in MISSING:
        pytest.skip(MISSING[case.name, torch.bfloat16])
    check(case, case.tiny, torch.bfloat16, 2, "torch")


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1, 2])
@every_case
def test_in_torch_at_full_size(case: Case, level: int) -> None:
    check(case, {}, case.floats, level, "torch")
