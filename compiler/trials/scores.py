"""What scores of attention are made of, and what masks them: as text, and as functions that FlexAttention takes.

Functions are of positions: of a batch, a head, a query and a key. They are given the tensors of the contest, so that
gradients reach what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Visible = Callable[..., Any]  # of positions b, i, j
Change = Callable[..., Any]  # of a score, and positions b, h, i, j
Make = Callable[["Sizes"], Tensor]

# ruff: noqa: ARG005 - functions of scores get every position


@dataclass(frozen=True, slots=True)
class Sizes:
    """Batches, heads, and positions, of tensors on a device."""

    b: int
    h: int
    n: int
    device: str

    def normal(self, *shape: int, scale: float = 1.0, about: float = 0.0) -> Tensor:
        """Normal numbers, the same in every run, of a scale about a number."""
        generator = None if self.device == "meta" else torch.Generator(self.device).manual_seed(1)
        return torch.randn(shape, generator=generator, device=self.device) * scale + about

    def positions(self) -> Tensor:
        return torch.arange(self.n, device=self.device)


@dataclass(frozen=True, slots=True)
class Term:
    """A change of scores: its text around that of a score, the same as a function of a score, the tensor that it reads,
    and positions. The tensor is called by a letter, is over some axes, and made for sizes."""

    name: str
    text: str
    change: Change
    letter: str = ""
    over: str = ""
    make: Make | None = None


@dataclass(frozen=True, slots=True)
class Mask:
    """Which queries see which keys: its text, and the same as a function of the tensor that it reads, and positions."""

    name: str
    text: str
    sees: Callable[..., Any]
    letter: str = ""
    over: str = ""
    make: Make | None = None
    causal: bool = False  # and nothing else


_CAP = 30.0
_BUCKET, _BUCKETS = 32, 32
_SAMPLE = 128  # queries by which pairs are counted


def _bias(axes: str) -> Term:
    def make(s: Sizes) -> Tensor:
        return s.normal(*({"b": s.b, "h": s.h}.get(a, s.n) for a in axes))

    def change(s: Any, t: Tensor, *at: Any) -> Any:
        where = dict(zip("bhij", at, strict=True))
        return s + t[tuple(where[a] for a in axes)]

    return Term(f"bias of {axes}", f"{{}} + T[{', '.join(axes)}]", change, "T", ", ".join(axes), make)


SOFTCAP = Term("softcap", f"softcap({{}}, {_CAP})", lambda s, t, b, h, i, j: _CAP * (s / _CAP).tanh())
SLOPE = Term("ALiBi", "{} - (i - j) * 0.0625", lambda s, t, b, h, i, j: s - (i - j) * 0.0625)
PAIRS = _bias("hij")
TABLE = Term(
    "relative table", "{} + T[h, i - j]", lambda s, t, b, h, i, j: s + t[h, (i - j).clamp(min=0)],
    "T", "h, r", lambda s: s.normal(s.h, s.n),
)  # fmt: skip
BUCKETS = Term(
    "buckets of 32", "{} + T[h, min((i - j) // 32, 31)]",
    lambda s, t, b, h, i, j: s + t[h, ((i - j) // _BUCKET).clamp(0, _BUCKETS - 1)],
    "T", "h, r", lambda s: s.normal(s.h, _BUCKETS),
)  # fmt: skip

TERMS = (
    SOFTCAP,
    _bias("hij"),
    _bias("ij"),
    _bias("hj"),
    _bias("bj"),
    Term(
        "slopes of heads", "{} - U[h] * (i - j)", lambda s, t, b, h, i, j: s - t[h] * (i - j),
        "U", "h", lambda s: s.normal(s.h, scale=0.01, about=0.02),
    ),
    Term(
        "decay of heads", "{} - U[h] * abs(i - j)", lambda s, t, b, h, i, j: s - t[h] * (i - j).abs(),
        "U", "h", lambda s: s.normal(s.h, scale=0.01, about=0.02),
    ),
    Term(
        "temperature of heads", "{} * W[h]", lambda s, t, b, h, i, j: s * t[h],
        "W", "h", lambda s: s.normal(s.h, scale=0.1, about=1.0),
    ),
    Term(
        "temperature of queries", "{} * W[i]", lambda s, t, b, h, i, j: s * t[i],
        "W", "i", lambda s: s.normal(s.n, scale=0.1, about=1.0),
    ),
    Term(
        "two-sided table", "{} + R[h, i - j + |j|]", lambda s, t, b, h, i, j: s + t[h, i - j + t.shape[1] // 2],
        "R", "h, r", lambda s: s.normal(s.h, 2 * s.n),
    ),
    Term(
        "buckets on both sides", "{} + R[h, min(abs(i - j) // 32, 31)]",
        lambda s, t, b, h, i, j: s + t[h, ((i - j).abs() // _BUCKET).clamp(max=_BUCKETS - 1)],
        "R", "h, r", lambda s: s.normal(s.h, _BUCKETS),
    ),
)  # fmt: skip

CAUSAL = Mask("causal", "j <= i", lambda t, b, i, j: i >= j, causal=True)


def window(length: int) -> Mask:
    """The last so many positions."""
    return Mask(
        f"window {length}", f"j <= i and i - j < {length}", lambda t, b, i, j: (i >= j) & (i - j < length)
    )  # fmt: skip


def documents(length: int) -> Mask:
    """What is earlier in documents of a length."""
    return Mask(
        f"documents of {length}", "j <= i and D[i] == D[j]", lambda t, b, i, j: (i >= j) & (t[i] == t[j]),
        "D", "n", lambda s: (s.positions() // length).int(),
    )  # fmt: skip


def around(length: int) -> Mask:
    """Less than so many positions away."""
    return Mask(f"{length} around", f"abs(i - j) < {length}", lambda t, b, i, j: (i - j).abs() < length)


def prefix(length: int) -> Mask:
    """The first so many positions, and what is earlier."""
    return Mask(f"prefix {length}", f"(j < {length} or j <= i)", lambda t, b, i, j: (j < length) | (j <= i))


def blocks(length: int) -> Mask:
    """In the same block of so many positions."""
    return Mask(f"blocks of {length}", f"i // {length} == j // {length}", lambda t, b, i, j: i // length == j // length)


WHOLE_DOCUMENTS = Mask(
    "documents of both directions", "E[b, i] == E[b, j]", lambda t, b, i, j: t[b, i] == t[b, j],
    "E", "b, n", lambda s: (s.positions() // 900).int().expand(s.b, s.n).contiguous(),
)  # fmt: skip
LENGTHS = Mask(
    "lengths", "j < L[b]", lambda t, b, i, j: j < t[b],
    "L", "b", lambda s: (s.n - torch.arange(s.b, device=s.device) * (s.n // (2 * s.b))).int(),
)  # fmt: skip
MASKS: tuple[Callable[[int], Mask], ...] = (
    lambda n: CAUSAL,
    window,
    documents,
    around,
    prefix,
    blocks,
    lambda n: WHOLE_DOCUMENTS,
    lambda n: LENGTHS,
)


@dataclass(frozen=True, slots=True)
class Form:
    """A form of attention: terms that change its scores in order, masks, and how many heads share keys and values.

    `sinks` adds a term for each head to the sum of a softmax.
    """

    terms: Sequence[Term] = ()
    masks: Sequence[Mask] = ()
    group: int = 1
    sinks: bool = False

    @property
    def causal(self) -> bool:
        return len(self.masks) == 1 and self.masks[0].causal

    @property
    def batched(self) -> bool:
        """Does what is seen differ between batches?"""
        return any("b" in m.over for m in self.masks)

    @property
    def score(self) -> str:
        """The text of a score, made from `S`."""

        def changed(text: str, term: Term) -> str:
            return term.text.format(text if text == "S" else f"({text})")

        text = reduce(changed, self.terms, "S")
        return f"where({' and '.join(m.text for m in self.masks)}, {text}, -inf)" if self.masks else text

    def _read(self) -> dict[str, tuple[str, Make]]:
        """The axes of all that is read beside, by letter, and what makes it."""
        parts: list[Term | Mask] = [*self.terms, *self.masks]
        found = {p.letter: (p.over, p.make) for p in parts if p.make is not None}
        return found | ({"Z": ("h", lambda s: s.normal(s.h))} if self.sinks else {})

    @property
    def params(self) -> str:
        """The parameters of what is read beside."""
        whole = {m.letter for m in self.masks}
        return "".join(f", {x}[{over}]{': i32' if x in whole else ''}" for x, (over, _) in self._read().items())

    def tensors(self, sizes: Sizes) -> dict[str, Tensor]:
        """What scores and masks read, by letter."""
        return {letter: make(sizes) for letter, (_, make) in self._read().items()}

    def change(self, tensors: Tensors) -> Change | None:
        """The scores' function; None if nothing changes them."""
        if not self.terms:
            return None

        def changed(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            return reduce(lambda x, term: term.change(x, tensors.get(term.letter), b, h, i, j), self.terms, s)

        return changed

    def visible(self, tensors: Tensors) -> Visible | None:
        """Which positions see each other; None if all do."""
        if not self.masks:
            return None

        def sees(b: Any, i: Any, j: Any) -> Any:
            found = [m.sees(tensors.get(m.letter), b, i, j) for m in self.masks]
            return reduce(lambda x, y: x & y, found)

        return sees

    def share(self, sizes: Sizes) -> float:
        """The part of all pairs that see each other, by a sample of queries."""
        sees = self.visible(self.tensors(Sizes(sizes.b, sizes.h, sizes.n, "cpu")))
        if sees is None:
            return 1.0
        step = max(sizes.n // _SAMPLE, 1)
        queries, keys = torch.arange(step // 2, sizes.n, step), torch.arange(sizes.n)
        batches = torch.arange(sizes.b if self.batched else 1)[:, None, None]
        return float(sees(batches, queries[:, None], keys).expand(len(batches), -1, -1).float().mean())


FORMS: dict[str, Form] = {
    "full": Form(),
    "causal": Form(masks=[CAUSAL]),
    "window 1024": Form(masks=[window(1024)]),
    "documents of 700": Form(masks=[documents(700)]),
    "softcap": Form([SOFTCAP], [CAUSAL]),
    "ALiBi": Form([SLOPE], [CAUSAL]),
    "GQA": Form(masks=[CAUSAL], group=4),
    "sinks": Form(masks=[CAUSAL], sinks=True),
    "pair bias": Form([PAIRS]),
    "relative table": Form([TABLE], [CAUSAL]),
    "buckets of 32": Form([BUCKETS], [CAUSAL]),
}
