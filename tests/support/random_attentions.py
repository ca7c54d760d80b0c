"""Random attentions: their text, what they are called with, and the same in plain torch, which can differentiate it.

Along with every part of the text goes a function of tensors over b, h, i, j that computes it, and shares nothing with
the compiler. Drawn are layouts, grouped and shared heads, scores of one or two contractions, what is added to scores
and what they are multiplied by, masks of positions and of data, several kinds of weights, and further results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.draws import Draws

T = TypeVar("T")

TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "f64": torch.float64}
NOTHING = -math.inf


@dataclass(frozen=True)
class Extents:
    """What lengths and widths are drawn from, and how many scores there are at most."""

    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    distances: tuple[int, ...]  # of masks
    most: int


SMALL = Extents((33, 1, 2, 16, 64, 70, 128, 130), (16, 8, 32, 5, 1, 64), (1, 2, 3), (1, 3, 17, 64), 1 << 16)
LARGE = Extents(
    (512, 128, 256, 500, 777, 1000, 1024, 1025, 1536, 2048),
    (64, 128, 32, 80, 96, 40, 256),
    (1, 2, 3),
    (17, 5, 64, 100, 128, 200),
    1 << 25,
)


@dataclass(frozen=True)
class Given:
    """An operand: its shape and type, and the numbers that it is of.

    These are normal, near 1, or integers below a limit, in order or not; or truth values.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str = "normal"
    limit: int = 0

    def tensor(self, generator: torch.Generator) -> Tensor:
        match self.kind:
            case "near 1":
                return (torch.rand(self.shape, generator=generator) + 0.5).to(TYPES[self.dtype])
            case "integers":
                return torch.randint(0, self.limit, self.shape, generator=generator, dtype=torch.int32)
            case "in order":
                return torch.randint(0, self.limit, self.shape, generator=generator, dtype=torch.int32).sort(-1).values
            case "truth":
                return torch.rand(self.shape, generator=generator) < 0.7
        return torch.randn(self.shape, generator=generator, dtype=torch.float64).to(TYPES[self.dtype])


class Rounded(torch.autograd.Function):
    """A tensor rounded to a type, if it is said to be, and its gradient as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, ahead: bool) -> Tensor:
        ctx.dtype = dtype
        return x.to(dtype).to(x.dtype) if ahead else x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None, None]:
        return g[0].to(ctx.dtype).to(g[0].dtype), None, None


@dataclass(frozen=True)
class Places:
    """Tensors, and the positions of b, h, i and j: what parts of an attention are functions of.

    A softmax whose sum is `fixed` has gradients of the size of what cancels in those of a softmax. What matrix units
    multiply, ahead and behind, is `rounded` to a type.
    """

    tensors: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    fixed: bool = False
    rounded: torch.dtype | None = None

    def at(self, axis: str) -> Tensor:
        device = next(iter(self.tensors.values())).device
        n = "bhij".index(axis)
        return torch.arange(self.sizes[axis], device=device).reshape([-1 if k == n else 1 for k in range(4)])

    def over(self, name: str, axes: str) -> Tensor:
        """An operand of some of these axes, in any order, over all of them."""
        there = [axes.index(a) for a in "bhij" if a in axes]
        return self.tensors[name].permute(there)[tuple(slice(None) if a in axes else None for a in "bhij")]

    def multiplied(self, x: Tensor, *, ahead: bool = True) -> Tensor:
        """What is multiplied by a matrix, or whose gradient alone is."""
        if self.rounded is None:
            return x
        found: Tensor = Rounded.apply(x, self.rounded, ahead)  # type: ignore[no-untyped-call]  # torch leaves it so
        return found

    def softmax(self, x: Tensor, *more: Tensor) -> Tensor:
        """Along the keys, with further terms in the denominator; 0 on a row of nothing."""
        top = x.amax(-1, keepdim=True)
        for m in more:
            top = torch.maximum(top, m)
        top = top.detach()
        top = torch.where(top == NOTHING, 0, top)
        e = torch.exp(x - top)
        z = e.sum(-1, keepdim=True)
        for m in more:
            z = z + torch.exp(m - top)
        z = z.detach() if self.fixed else z
        return torch.where(z == 0, 0, e / torch.where(z == 0, 1, z))


def logsumexp(x: Tensor) -> Tensor:
    """Along the keys; -inf, with no gradient, on a row of nothing."""
    some = (x > NOTHING).any(-1, keepdim=True)
    return torch.where(some, torch.where(some, x, 0).logsumexp(-1, keepdim=True), NOTHING)[..., 0]


Computed = Callable[[Places], Tensor]


@dataclass(frozen=True)
class Part:
    """Text, and what it computes, over b, h, i, j."""

    text: str
    value: Computed = field(repr=False)


@dataclass(frozen=True)
class Attention:
    """A program's text, what its operands are, the extents of its axes, and the type of its queries."""

    text: str
    operands: dict[str, Given]
    sizes: dict[str, int]
    dtype: str
    computed: tuple[Computed, ...] = field(repr=False)
    places: Mapping[str, int] = field(repr=False)
    seed: int

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return {n: g.tensor(generator) for n, g in self.operands.items()}

    def reference(
        self, tensors: Mapping[str, Tensor], *, fixed: bool = False, rounded: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """The results in plain torch, in the type of the floats that are given, which may require gradients."""
        return tuple(f(Places(tensors, self.places, fixed, rounded)) for f in self.computed)

    @property
    def floats(self) -> list[str]:
        return [n for n, g in self.operands.items() if g.dtype in TYPES]


# ---------------------------------------------------------------------------------------------------------------------
# Drawing


@dataclass
class Drawing(Draws):
    """An attention in the making."""

    extents: Extents
    dtype: str
    sizes: dict[str, int] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)  # the dimensions of each operand, as in the signature
    operands: dict[str, Given] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    heads: str = "h"  # the dimension of query heads
    kept: str = "h"  # that of the heads of keys and values, if they have any
    read: str = "h"  # the head of keys for a head of queries

    # -- draws

    def some(self, options: Sequence[T], most: int) -> list[T]:
        """Several of these, all different."""
        count = self.draw(st.sampled_from([0, 1, *range(1, most + 1)]))
        return [*self.draw(st.permutations(list(options)))][:count]

    # -- operands

    def operand(self, name: str, dims: Sequence[str], dtype: str = "", kind: str = "normal", limit: int = 0) -> str:
        """An operand of these dimensions, which may be composite; its name."""
        dtype = dtype or self.dtype
        shape = [math.prod(self.sizes[a] for a in d.strip("()").split()) for d in dims]
        self.operands[name] = Given(tuple(shape), dtype, kind, limit)
        self.params[name] = f"{name}[{', '.join(dims)}]: {dtype}"
        return name

    def beside(self, name: str, axes: str, kind: str = "normal") -> Part:
        """A float operand of some axes of the scores, of the type of the queries or of f32."""
        self.operand(name, self.dims(axes), self.pick([self.dtype, self.dtype, "f32"]), kind)
        return Part(self.at(name, axes), lambda p: p.over(name, axes))

    def integers(self, name: str, axes: str, limit: int, kind: str = "integers") -> Part:
        self.operand(name, self.dims(axes), "i32", kind, limit)
        return Part(self.at(name, axes), lambda p: p.over(name, axes))

    def dims(self, axes: str) -> list[str]:
        return [self.heads if a == "h" else a for a in axes]

    def at(self, name: str, axes: str) -> str:
        return f"{name}[{', '.join(self.dims(axes))}]"

    # -- the heads

    def layout(self) -> None:
        e = self.extents
        group, queries = self.pick(e.groups), self.pick(["one", "one", "one", "grouped", "composite", "shared"])
        many = self.pick([2, 4, 3]) if queries in ("grouped", "composite") else 1
        n = self.pick(e.lengths)
        keys = self.pick(e.lengths) if self.chance(3) else n
        b = self.pick([1, 2])
        while b * group * many * n * keys > e.most:
            n, keys = (n // 2, keys) if n > keys else (min(n, keys // 2), keys // 2)
        d = self.pick(e.widths)
        self.sizes = {"b": b, "h": group * many, "i": n, "j": keys, "d": d}
        self.sizes["e"] = self.pick(e.widths) if self.chance(5) else d
        match queries:
            case "grouped":
                self.sizes["g"] = group
                self.kept, self.read = "g", "h // (|h| / |g|)"
            case "composite":
                self.sizes |= {"g": group, "r": many}
                self.heads, self.kept, self.read = "(g r)", "g", "g"
            case "shared":
                self.kept = ""

    def matrix(self, name: str, head: str, rows: str, width: str) -> tuple[str, Computed]:
        """An operand of a row for each position and head, as it is read for a head of queries; and that, over
        b, h, and both."""
        order = self.pick(["bh", "bi"])
        axes = ["b", *([head] if head else []), rows] if order == "bh" else ["b", rows, *([head] if head else [])]
        self.operand(name, [*axes, width])
        read = [self.read if a == "g" else a for a in axes]
        count = self.sizes["h"]

        def value(p: Places) -> Tensor:
            x = p.tensors[name]
            if not head:
                return x[:, None]
            x = x if order == "bh" else x.transpose(1, 2)
            return x.repeat_interleave(count // x.shape[1], 1)

        return f"{name}[{', '.join([*read, width])}]", value

    # -- scores

    def product(self, name: str, queries: str, keys: str) -> Part:
        """Scores of queries and keys: one contraction, or two; plain, or of rows that are made to be of one length."""
        (q, of_q), (k, of_k) = self.matrix(queries, self.heads, "i", "d"), self.matrix(keys, self.kept, "j", "d")
        if self.chance(6):
            q, k = self.normalised(queries, q), self.normalised(keys, k)
            of_q, of_k = unit(of_q), unit(of_k)
        scale = self.pick(["rsqrt(|d|)", "0.125"])
        factor = math.sqrt(1 / self.sizes["d"]) if scale != "0.125" else 0.125
        text = f"{scale} * {q} * {k}"
        also: list[tuple[Computed, Computed]] = []
        if self.chance(6):
            self.sizes.setdefault("c", self.pick([16, 32, 64]))
            u, of_u = self.matrix(f"{queries}c", self.heads, "i", "c")
            w, of_w = self.matrix(f"{keys}c", "", "j", "c")
            text += f" + {scale} * {u} * {w}"
            also = [(of_u, of_w)]
        self.lines.append(f"{self.at(name, 'bhij')} = {text}")

        def value(p: Places) -> Tensor:
            found = of_q(p) @ of_k(p).transpose(2, 3)
            for a, b in also:
                found = found + a(p) @ b(p).transpose(2, 3)
            return p.multiplied(found, ahead=False) * factor

        return Part(self.at(name, "bhij"), value)

    def normalised(self, name: str, read: str) -> str:
        """The rows of an operand over their root mean square, in the operand's type or not rounded to it."""
        own = self.params[name].partition(":")[0][len(name) :]
        self.lines.append(f"{name}n{own} = rmsnorm[d]({name}{own})")
        return f"{name}n{read[len(name) :]}"

    def modified(self, score: Part) -> Part:
        kinds = ["bias_hij", "bias_bj", "bias_hj", "bias_ij", "bias_bij", "bias_bhij", "slope", "table", "clipped"]
        kinds += ["softcap", "heat_h", "heat_bi", "heat_j", "heat_bhi", "square", "forget", "decay"]
        for n, kind in enumerate(self.some(kinds, 3)):
            score = self.modification(kind, score)
            if len(score.text) > 60 or self.chance(3):
                score = self.defined(f"S{n}", score)
        return score

    def defined(self, name: str, part: Part) -> Part:
        self.lines.append(f"{self.at(name, 'bhij')} = {part.text}")
        return Part(self.at(name, "bhij"), part.value)

    def modification(self, kind: str, score: Part) -> Part:
        s, x = score.text, score.value
        name, _, axes = kind.partition("_")
        match name:
            case "bias":
                t = self.beside(kind, axes)
                return Part(f"({s} + {t.text})", lambda p: x(p) + t.value(p))
            case "heat":
                t = self.beside(kind, axes, "near 1")
                return Part(f"({s} * {t.text})", lambda p: x(p) * t.value(p))
            case "slope":
                t = self.beside("slope", "h", "near 1")
                return Part(f"({s} + 0.02 * {t.text} * (j - i))", lambda p: x(p) + 0.02 * t.value(p) * across(p))
            case "decay":
                t = self.beside("fall", "h", "near 1")
                return Part(f"({s} - 0.1 * {t.text} * abs(i - j))", lambda p: x(p) - 0.1 * t.value(p) * across(p).abs())
            case "table":
                self.sizes["t"] = self.sizes["i"] + self.sizes["j"]
                self.operand("table", [self.heads, "t"], self.pick([self.dtype, "f32"]))
                return Part(f"({s} + table[{self.heads}, j - i + |i|])", lambda p: x(p) + by_distance(p, p.sizes["i"]))
            case "clipped":
                most = self.pick(self.extents.distances)
                self.sizes["n"] = 2 * most + 1
                self.operand("near", [self.heads, "n"], self.pick([self.dtype, "f32"]))
                text = f"({s} + near[{self.heads}, max(min(j - i, {most}), -{most}) + {most}])"
                return Part(text, lambda p: x(p) + by_distance(p, most, "near", most))
            case "softcap":
                return Part(f"softcap({s}, 3.0)", lambda p: 3 * torch.tanh(x(p) / 3))
            case "square":
                named = self.defined("SQ", score)
                return Part(f"({named.text} + 0.1 * {named.text} ** 2)", lambda p: x(p) + 0.1 * x(p) ** 2)
            case "forget" if self.sizes["i"] == self.sizes["j"]:
                self.operand("gates", ["b", self.heads, "i"])
                self.lines.append(f"{self.at('F', 'bhi')} = cumsum[i](-softplus(-gates[b, {self.heads}, i]))")
                return Part(f"({s} + {self.at('F', 'bhi')} - {self.at('F', 'bhj')})", lambda p: x(p) + forgotten(p))
        return score

    # -- masks

    def masks(self) -> list[Part]:
        kinds = [
            "causal", "causal", "window", "sided", "documents", "prefix", "prefixes", "dilated", "lengths", "rows",
            "blocks", "windows", "padding", "first", "other", "below",
        ]  # fmt: skip
        found = [self.mask(kind) for kind in dict.fromkeys(self.some(kinds, 2))]
        return [part for part in found if part is not None]

    def mask(self, kind: str) -> Part | None:
        n, m = self.pick(self.extents.distances), self.pick(self.extents.distances)
        extent = self.sizes["j"]
        below = extent - self.sizes["i"]
        match kind:
            case "causal":
                return Part("j <= i", lambda p: p.at("j") <= p.at("i"))
            case "below":
                return Part("j - (|j| - |i|) <= i", lambda p: p.at("j") - below <= p.at("i"))
            case "window":
                return Part(f"i - j < {n}", lambda p: -across(p) < n)
            case "sided":
                return Part(f"i - j < {n} and j - i < {m}", lambda p: (-across(p) < n) & (across(p) < m))
            case "windows":
                w = self.integers("window", "h", n + 1)
                return Part(f"i - j <= {w.text}", lambda p: -across(p) <= w.value(p))
            case "documents":
                ours = self.integers("mine", "bi", 4, "in order")
                if self.sizes["i"] == extent:
                    return Part(f"mine[b, j] == {ours.text}", lambda p: p.over("mine", "bj") == ours.value(p))
                theirs = self.integers("other", "bj", 4, "in order")
                return Part(f"{theirs.text} == {ours.text}", lambda p: theirs.value(p) == ours.value(p))
            case "prefix":
                return Part(f"(j < {n} or j <= i)", lambda p: (p.at("j") < n) | (p.at("j") <= p.at("i")))
            case "prefixes":
                f = self.integers("prefix", "b", extent + 1)
                return Part(f"(j < {f.text} or j <= i)", lambda p: (p.at("j") < f.value(p)) | (p.at("j") <= p.at("i")))
            case "dilated":
                if self.chance(2):
                    return Part("(i + j) % 2 == 0", lambda p: (p.at("i") + p.at("j")) % 2 == 0)
                return Part("(i - j) % 3 == 0", lambda p: across(p) % 3 == 0)
            case "lengths":
                most = self.integers("length", "b", extent + 2)
                return Part(f"j < {most.text}", lambda p: p.at("j") < most.value(p))
            case "rows":
                rows = self.integers("rows", "b", self.sizes["i"] + 2)
                return Part(f"i < {rows.text}", lambda p: p.at("i") < rows.value(p))
            case "blocks":
                return Part(f"i // {n} == j // {n}", lambda p: p.at("i") // n == p.at("j") // n)
            case "padding":
                self.operand("there", ["b", "j"], "bool", "truth")
                return Part("there[b, j]", lambda p: p.over("there", "bj"))
            case "first":
                return Part(f"(j < 4 or i - j < {n})", lambda p: (p.at("j") < 4) | (-across(p) < n))
        return Part("i != j", lambda p: p.at("i") != p.at("j"))

    def masked(self, name: str, score: Part, masks: Sequence[Part], nothing: str) -> Part:
        """Scores where all masks hold: in one choice, or in one for each."""
        if not masks:
            return score
        fill = float(nothing)

        def value(p: Places) -> Tensor:
            holds = masks[0].value(p)
            for m in masks[1:]:
                holds = holds & m.value(p)
            return torch.where(holds, score.value(p), fill)

        text = f"where({' and '.join(m.text for m in masks)}, {score.text}, {nothing})"
        if len(masks) == 2 and self.chance(4):
            text = f"where({masks[0].text}, where({masks[1].text}, {score.text}, {nothing}), {nothing})"
        part = Part(text, value)
        return self.defined(name, part) if self.chance(2) else part

    # -- the whole

    def weights(self, score: Part, masks: Sequence[Part]) -> tuple[Part, Part | None]:
        """What values are multiplied by, over b, h, i, j, and the scores of a softmax."""
        form = self.pick(["softmax"] * 5 + ["sink", "softmax1", "difference", "sigmoid", "relu", "linear"])
        if form in ("sigmoid", "relu", "linear"):
            x = score.value
            text, value = {
                "sigmoid": (f"sigmoid({score.text} - 3.0)", lambda p: torch.sigmoid(x(p) - 3)),
                "relu": (f"relu({score.text}) ** 2", lambda p: torch.relu(x(p)) ** 2),
                "linear": (score.text, x),
            }[form]
            return self.masked("A", Part(text, value), masks, "0"), None
        a = self.masked("A", score, masks, "-inf")
        x = a.value
        match form:
            case "sink":
                sink = self.beside("sink", self.pick(["h", "h", "bh"]))
                return Part(f"softmax_sink[j]({a.text}, {sink.text})", lambda p: p.softmax(x(p), sink.value(p))), a
            case "softmax1":
                return Part(f"softmax1[j]({a.text})", lambda p: p.softmax(x(p), torch.zeros(1).to(x(p)))), a
            case "difference":
                other = self.masked("B", self.product("R", "Q2", "K2"), masks, "-inf")
                mix = self.beside("mix", "h", "near 1")
                text = f"(softmax[j]({a.text}) - {mix.text} * softmax[j]({other.text}))"
                return Part(text, lambda p: p.softmax(x(p)) - mix.value(p) * p.softmax(other.value(p))), a
        return Part(f"softmax[j]({a.text})", lambda p: p.softmax(x(p))), a

    def attention(self) -> Attention:
        self.layout()
        score = self.modified(self.product("S", "Q", "K"))
        weights, scores = self.weights(score, self.masks())
        if self.sizes["e"] == self.sizes["d"] and self.chance(8):
            del self.sizes["e"]
            width = "d"
            v, of_v = self.again("K")
        else:
            width = "e"
            v, of_v = self.matrix("V", self.kept, "j", "e")
        order = self.pick(["bh", "bi"])
        out = [*(["b", self.heads, "i"] if order == "bh" else ["b", "i", self.heads]), width]
        if self.chance(3):
            weights = self.defined("P", weights)
        text, gate = f"{weights.text} * {v}", self.chance(8)
        if gate:
            self.operand("gate", out)
            text = f"sigmoid(gate[{', '.join(out)}]) * {text}"
        self.lines.append(f"O[{', '.join(out)}] = {text}")
        results = ["O"]

        def attended(p: Places) -> Tensor:
            o = p.multiplied(p.multiplied(weights.value(p)) @ of_v(p))
            o = o if order == "bh" else o.transpose(1, 2)
            return torch.sigmoid(p.tensors["gate"]) * o if gate else o

        computed = [attended]
        if scores is not None and self.chance(4):
            kept = scores
            kind = ": f32" if self.dtype != "f64" else ""
            self.lines.append(f"{self.at('L', 'bhi')}{kind} = logsumexp[j]({kept.text})")
            results.append("L")
            computed.append(lambda p: logsumexp(kept.value(p)))
        params = ", ".join(self.params.values())
        text = f"def attention({params}):\n" + "".join(f"    {x}\n" for x in self.lines)
        places = dict(self.sizes)
        if self.heads != "h":
            del self.sizes["h"]
        seed = self.draw(st.integers(0, 1 << 16))
        text = f"{text}    return {', '.join(results)}\n"
        return Attention(text, self.operands, self.sizes, self.dtype, tuple(computed), places, seed)

    def again(self, name: str) -> tuple[str, Computed]:
        """Keys that are values as well."""
        own = self.params[name].partition("[")[2].partition("]")[0].split(", ")
        read = [self.read if a == "g" else a for a in own]
        count, apart, last = self.sizes["h"], bool(self.kept), own.index("j") == 2

        def value(p: Places) -> Tensor:
            x = p.tensors[name]
            if not apart:
                return x[:, None]
            x = x if last else x.transpose(1, 2)
            return x.repeat_interleave(count // x.shape[1], 1)

        return f"{name}[{', '.join(read)}]", value


def across(p: Places) -> Tensor:
    """j - i."""
    return p.at("j") - p.at("i")


def by_distance(p: Places, shift: int, name: str = "table", most: int | None = None) -> Tensor:
    """A table of each head, at every distance, which is cut off beyond the greatest."""
    t = across(p)[0, 0] if most is None else across(p)[0, 0].clamp(-most, most)
    return p.tensors[name][:, t + shift][None]


def forgotten(p: Places) -> Tensor:
    """The logarithms of gates, added up from a key to a query."""
    total = torch.nn.functional.logsigmoid(p.tensors["gates"]).cumsum(-1)
    return total[..., :, None] - total[..., None, :]


def unit(f: Computed) -> Computed:
    """Rows over their root mean square."""
    return lambda p: p.multiplied(f(p) * torch.rsqrt((f(p) ** 2).mean(-1, keepdim=True) + 1e-6))


@st.composite
def attentions(
    draw: Callable[[st.SearchStrategy[Any]], Any], *, extents: Extents = SMALL, dtypes: Sequence[str] = ("f32", "f64")
) -> Attention:
    """An attention with extents of these kinds, whose queries are of one of these types."""
    return Drawing(draw, extents, draw(st.sampled_from(list(dtypes)))).attention()
