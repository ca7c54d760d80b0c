"""Random contests from a seed: contractions in any layout, reductions of rows and of columns, cascades, scores.

Extents are log-uniform, so that every order of magnitude is as likely, and what would take too long is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, prod
from random import Random

from einc.trials.attention import attention, of_form
from einc.trials.contests import Contest, backward, normal
from einc.trials.layers import FUSED, ROWS, Sizes, reduced
from einc.trials.peers import compiled, direct, einsum
from einc.trials.scores import FORMS, MASKS, TERMS, Form


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most multiply-adds of a contraction, and the most elements of its operands and result; what is drawn for a
    device is of a type."""

    device: str
    dtype: str
    work: int
    elements: int


def bounds(device: str) -> Bounds:
    """What a device computes in about a millisecond, or in a tenth of a second."""
    return Bounds(device, "f32", 1 << 28, 1 << 22) if device == "cpu" else Bounds(device, "bf16", 1 << 37, 1 << 27)


_LONGEST = 1 << 14
_WIDTHS = (64, 1 << 18)
_ALIGNED = 8
_MOST_BATCH = 2
_POSITIONS = {"cpu": (64, 512), "cuda": (512, 8192)}


def contractions(count: int, seed: int, within: Bounds) -> list[Contest]:
    """Products of two tensors, beside `torch.einsum`."""
    return [_contraction(Random(f"contraction {seed} {k}"), within) for k in range(count)]


def reductions(count: int, seed: int, within: Bounds) -> list[Contest]:
    """Functions of rows and of columns, beside `torch.compile`."""
    return [_reduction(Random(f"reduction {seed} {k}"), within) for k in range(count)]


def cascades(count: int, seed: int, within: Bounds) -> list[Contest]:
    """Attention in all forms, and layers with what comes before and after their contractions."""
    return [_cascade(Random(f"cascade {seed} {k}"), within) for k in range(count)]


def scores(count: int, seed: int, within: Bounds) -> list[Contest]:
    """Attention with random scores and masks, and its gradients in every other."""
    found = [_attention(Random(f"scores {seed} {k // 2}"), within) for k in range(count)]
    return [backward(c) if k % 2 else c for k, c in enumerate(found)]


def _attention(random: Random, within: Bounds) -> Contest:
    """Up to two terms of scores, a mask in three of four, shared heads in a third, any width and layout."""
    n = _extent(random, *_POSITIONS[within.device], random.random() < 0.7)
    d = random.choice((64, 64, 128, 128, 80, 96, 256))
    many = random.choice((4, 8, 12, 16))
    b = max(min(within.work // (2 * many * n * n * d), 8), 1)
    terms, letters = [], set[str]()
    for term in random.sample(TERMS, random.choice((0, 1, 1, 2))):
        if term.letter not in letters or not term.letter:
            terms.append(term)
            letters.add(term.letter)
    masks = [random.choice(MASKS)(random.choice((64, 100, 256, 1000)))] if random.random() < 0.75 else []
    form = Form(terms, masks, group=random.choice((1, 1, 4)), sinks=random.random() < 0.1)
    name = " + ".join([t.name for t in terms] + [m.name for m in masks] + ["sinks"] * form.sinks) or "full"
    return of_form(name, form, within.device, within.dtype, (b, many, n, d), behind=random.random() < 0.4)


def _extent(random: Random, least: int, most: int, aligned: bool = False) -> int:
    """A number with a uniform logarithm; if aligned, a multiple of 8 where it is not less."""
    n = round(exp(random.uniform(log(least), log(most))))
    return n // _ALIGNED * _ALIGNED if aligned and n >= _ALIGNED else n


def _contraction(random: Random, within: Bounds) -> Contest:
    while True:
        aligned = random.random() < 0.5
        batch = {a: _extent(random, 1, 64) for a in "ab"[: random.randint(0, _MOST_BATCH)]}
        sizes = {**batch, **{a: _extent(random, 1, _LONGEST, aligned) for a in "ijk"}}
        sides = [[*random.choice((f"{x}k", f"k{x}"))] for x in "ij"]
        result = ["i", "j"]
        for axes in (*sides, result):
            for a in batch:
                axes.insert(random.randint(0, len(axes)), a)
        left, right, out = (tuple(sizes[a] for a in axes) for axes in (*sides, result))
        if prod(sizes.values()) <= within.work and prod(left) + prod(right) + prod(out) <= within.elements:
            break
    text = f"{''.join(sides[0])},{''.join(sides[1])}->{''.join(result)}"
    named = " ".join(f"{a}{n}" for a, n in sizes.items())
    return Contest(
        f"{text} {within.dtype} {named}",
        text,
        lambda: normal(within.device, within.dtype, {"A": left, "B": right}),
        {"einsum": direct(einsum(text))},
        2.0 * prod(sizes.values()),
        exact=direct(einsum(text)),
        kind="contraction",
    )


def _reduction(random: Random, within: Bounds) -> Contest:
    name = random.choice(sorted(ROWS))
    width = _extent(random, *_WIDTHS, random.random() < 0.5)
    rows = _extent(random, 1, max(within.elements // 2 // width, 1))
    along = random.choice(("rows", "columns"))
    return reduced(name, within.device, within.dtype, rows, width, along == "columns", {"compile": compiled})


def _cascade(random: Random, within: Bounds) -> Contest:
    small = within.device == "cpu"
    if random.random() < 0.5:
        while True:
            b, h, d = random.choice((1, 2, 4)), random.choice((1, 4, 8, 16, 32)), random.choice((32, 64, 96, 128, 256))
            n = _extent(random, 128, _LONGEST, random.random() < 0.5)
            if b * h * n * n * d * 2 <= within.work * (4 if small else 1):
                break
        form = random.choice(sorted(FORMS))
        return attention(form, within.device, within.dtype, (b, h, n, d), kind="attention")
    name = random.choice(sorted(FUSED))
    while True:
        sizes: Sizes = {
            "n": _extent(random, 64, 1 << 13, True), "d": _extent(random, 64, 1 << 13, True),
            "k": _extent(random, 64, 1 << 15, True), "r": random.choice((8, 16, 32, 64)),
        }  # fmt: skip
        if 2 * sizes["n"] * sizes["d"] * sizes["k"] <= within.work * 2:
            break
    return FUSED[name](within.device, within.dtype, sizes)
