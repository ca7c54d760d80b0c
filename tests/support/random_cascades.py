"""Random cascades in the language's own text: chains of reductions, maps and masks along one or two shared axes.

A program reads `x[i, j]` and others of its kind, defines links one after another, each over what exists so far, and
returns those that nothing reads, and a few others. Along with every value goes what may be done with it: how large it
is at most, how far a computation in f32 may be off, whether it is exact, and so may be ranked, and whether it is
finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from tests.support.draws import Draws

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]

EXTENTS = {"i": (3, 2, 1, 4, 0), "j": (5, 1, 2, 17, 130, 300, 0), "k": (2, 1, 3, 0), "e": (2, 1, 3), "d": (2, 1, 3)}
OPERANDS = {
    "x": "i j", "y": "i j", "z": "j", "w": "j e", "u": "i", "X": "i j k", "Z": "j k", "q": "i d", "p": "j d",
    "length": "i", "doc": "j", "mine": "i", "keep": "i j", "bit": "j",
}  # fmt: skip
MOST_ERROR = 2.0**12  # of a value, in units of 2**-23


@dataclass(frozen=True)
class Value:
    """Text over some axes; `most` bounds its size, `error` its error in f32, in units of 2**-23."""

    text: str
    axes: frozenset[str]
    most: float
    error: float = 0.0
    exact: bool = False
    finite: bool = True


EVERYWHERE = Value("true", frozenset(), 1)


@dataclass(frozen=True)
class Cascade:
    """A program's text, values for its operands, the extents of its axes, and the error allowed in each result."""

    text: str
    operands: dict[str, Array]
    sizes: dict[str, int]
    errors: tuple[float, ...]
    seed: int


@dataclass
class Drawing(Draws):
    """A cascade in the making."""

    sizes: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    fields: list[Value] = field(default_factory=list)  # along the reduced axes
    facts: list[Value] = field(default_factory=list)  # along none of them
    weights: list[Value] = field(default_factory=list)  # of softmaxes
    bits: list[Value] = field(default_factory=list)  # truth values
    indices: list[Value] = field(default_factory=list)  # positions along j
    results: list[tuple[str, Value]] = field(default_factory=list)
    over: tuple[str, ...] = ("j",)

    def operand(self, name: str) -> Value:
        self.used.add(name)
        axes = OPERANDS[name].split()
        most = {"length": 300.0, "doc": 3.0, "mine": 3.0}.get(name, 2.0)
        return Value(f"{name}[{', '.join(axes)}]", frozenset(axes), most, exact=True)

    @property
    def terms(self) -> int:
        return max(prod(self.sizes[a] for a in self.over), 1)

    # -- values along the reduced axes

    def leaf(self) -> Value:
        names = ["x", "y", "z", "X", "Z"] if self.over == ("j", "k") else ["x", "y", "z"]
        fresh = [self.operand] if not self.fields or self.chance(2) else []
        return self.operand(self.pick(names)) if fresh else self.pick(self.fields)

    def fact(self) -> Value:
        """A value that does not vary along the reduced axes."""
        known = [f for f in self.facts if f.finite]
        return self.pick(known) if known and not self.chance(5) else self.operand("u")

    def body(self, depth: int) -> Value:
        """Something to reduce."""
        if depth == 0:
            return self.leaf()
        a = self.body(depth - 1)
        forms = [
            "centred",
            "centred",
            "square",
            "cube",
            "product",
            "scaled",
            "factor",
            "sum",
            "map",
            "masked",
            "closed",
        ]
        match self.pick(forms):
            case "centred":
                return added(a, self.fact(), "-")
            case "square":
                return power(added(a, self.fact(), "-"), 2)
            case "cube":
                return power(added(a, self.fact(), "-"), 3)
            case "product":
                return times(a, self.leaf())
            case "scaled":
                return over(a, self.positive())
            case "factor":
                return times(a, self.fact())
            case "sum":
                return added(a, self.body(depth - 1), self.pick("+-"))
            case "map":
                return mapped(a, self.pick(["abs", "tanh", "sigmoid", "cos"]))
            case "masked":
                p = self.mask(1)
                other = self.fact() if self.chance(3) else Value("0", frozenset(), 0, exact=True)
                return where(p, a, other)
            case _:
                b = self.fact()
                return replace(added(a, b, "-"), text=f"max({a.text}, {b.text})", exact=False)

    def bounded(self, least: float, depth: int = 2) -> Value:
        """A body that is not too large, nor too inexact."""
        value = self.body(self.draw(st.integers(0, depth)))
        if value.most > least:
            value = times(value, Value(f"{least / value.most:.4g}", frozenset(), least / value.most))
        return value if value.error <= MOST_ERROR and "j" in value.axes else self.operand("x")

    def positive(self) -> Value:
        """1 + abs(a fact): at least 1."""
        a = self.fact()
        return Value(f"(1 + abs({a.text}))", a.axes, 1 + a.most, a.error + 1 + a.most)

    # -- masks

    def mask(self, depth: int) -> Value:
        if depth and self.chance(3):
            a, b = self.mask(depth - 1), self.mask(depth - 1)
            return Value(f"({a.text} {self.pick(['and', 'or'])} {b.text})", a.axes | b.axes, 1)
        if depth and self.chance(4):
            a = self.mask(depth - 1)
            return Value(f"not ({a.text})", a.axes, 1)
        n, m = self.pick([0, 1, 3, 40, 200]), self.pick([1, 2, 70])
        affine = [
            f"j <= {m} * i + {n}", f"j < {m} * i - {n}", f"{m} * i - j < {n}", f"2 * j <= i + {n}", f"j % 3 == {n % 3}",
            f"j >= {n}", f"|j| - j > {n}", f"j == {n}",
        ]  # fmt: skip
        match self.pick(["affine", "affine", "length", "doc", "keep", "bit", "sign", "known", "index", "weight"]):
            case "length":
                return self.comparison("j < ", self.operand("length"))
            case "doc":
                return self.comparison(f"{self.operand('doc').text} == ", self.operand("mine"))
            case "keep":
                return self.operand("keep")
            case "bit":
                return self.operand("bit")
            case "sign":
                return self.comparison("0.25 < ", self.operand(self.pick(["x", "z"])))
            case "known" if self.bits:
                return self.pick(self.bits)
            case "weight" if plain := [w for w in self.weights if w.axes <= set("ij")]:
                p = self.pick(plain)
                return Value(f"{p.text} {self.pick(['>', '!=', '=='])} 0", p.axes, 1)
            case "index" if self.indices:
                return self.comparison(f"j {self.pick(['<=', '!=', '=='])} ", self.pick(self.indices))
            case _:
                text = self.pick(affine)
                return Value(text, frozenset("ij" if "i" in text else "j"), 1)

    def comparison(self, left: str, right: Value) -> Value:
        return Value(left + right.text, right.axes | {"j"}, 1)

    # -- links

    def define(self, name: str, value: Value, axes: Sequence[str], dtype: str = "") -> Value:
        """The value under a name, along these axes."""
        left = f"{name}[{', '.join(axes)}]"
        self.lines.append(f"{left}{dtype} = {value.text}")
        known = replace(value, text=left, axes=frozenset(axes))
        self.results.append((name, known))
        return known

    def outer(self, value: Value) -> list[str]:
        return [a for a in "ije" if a in value.axes - set(self.over)]

    def inner(self, value: Value) -> list[str]:
        return [a for a in "ijke" if a in value.axes | set(self.over) and (a != "k" or "k" in self.over)]

    def reduced(self, name: str, op: str, value: Value, known: Value, extra: Value | None = None) -> Value:
        """`name = op[over : mask](value)`."""
        p = extra if extra is not None else self.mask(1) if self.chance(4) else None
        if p is None and not set(self.over) <= value.axes:
            p = EVERYWHERE
        axes = value.axes | (p.axes if p else frozenset())
        along = [a for a in "ie" if a in axes]
        inside = f"{', '.join(self.over)} : {p.text}" if p else ", ".join(self.over)
        return self.define(name, replace(known, text=f"{op}[{inside}]({value.text})"), along)

    def link(self, name: str) -> None:
        forms = {
            "total": 3, "mean": 3, "variance": 2, "largest": 2, "softmax": 3, "contract": 2, "ranked": 1, "logic": 1,
            "count": 1, "product": 1, "map": 2, "statistic": 2, "entropy": 1,
        }  # fmt: skip
        getattr(self, self.pick([f for f, n in forms.items() for _ in range(n)]))(name)

    def total(self, name: str) -> None:
        value = self.bounded(8)
        n = self.terms
        scaled = times(value, Value(f"{1 / n:.4g}", frozenset(), 1 / n))
        self.facts.append(self.reduced(name, "sum", scaled, summed(scaled, n)))

    def mean(self, name: str) -> None:
        value = self.bounded(8)
        extent = " / ".join(f"|{a}|" for a in self.over)
        total = self.reduced(f"{name}_sum", "sum", value, summed(value, self.terms), EVERYWHERE)
        average = Value(f"{total.text} / {extent}", total.axes, value.most, total.error / self.terms + value.most)
        if prod(self.sizes[a] for a in self.over) == 0:
            average = replace(
                average, text=f"where({' and '.join(f'|{a}| > 0' for a in self.over)}, {average.text}, 0)"
            )
        self.facts.append(self.define(name, average, [a for a in "ie" if a in total.axes]))

    def variance(self, name: str) -> None:
        self.mean(f"{name}_mean")
        mean = self.facts[-1]
        value = power(added(self.bounded(4, 1), mean, "-"), self.pick([2, 2, 3]))
        self.facts.append(self.reduced(name, "sum", times(value, reciprocal(self.terms)), scaled_sum(value)))

    def largest(self, name: str) -> None:
        value = self.bounded(8)
        if self.chance(2):
            value = where(self.mask(1), value, Value("-inf", frozenset(), 0))
        known = self.reduced(name, self.pick(["max", "min", "max"]), value, replace(value, finite=False))
        text = f"where(abs({known.text}) < inf, {known.text}, 0)"
        self.facts.append(replace(known, text=text, finite=True))

    def score(self) -> Value:
        """What a softmax is taken of: plain, computed by a contraction, masked or not."""
        value = self.bounded(8)
        if "k" not in self.over and self.chance(3):
            q, p = self.operand("q"), self.operand("p")
            most = q.most * p.most * self.sizes["d"]
            value = Value(f"sum[d]({q.text} * {p.text})", frozenset("ij"), most, 3 * most)
        return value

    def softmax(self, name: str) -> None:
        """A maximum, weights and their sum, by hand or by the prelude; the weights are there for what follows."""
        score = self.score()
        most = max(score.most, 1.0)
        if not self.chance(3):
            score = where(self.mask(1), score, Value("-inf", frozenset(), 0))
        s = self.define(f"{name}_s", score, self.inner(score))
        self.results.pop()
        rough = 2 * s.error + 4 * most
        if self.chance(2):
            weight = Value(f"softmax[{', '.join(self.over)}]({s.text})", s.axes, 1, rough * 2)
            self.weights.append(self.define(name, weight, self.inner(weight)))
            self.fields.append(self.weights[-1])
            return
        m = self.reduced(f"{name}_max", "max", s, replace(s, finite=False), EVERYWHERE)
        e = Value(f"where({s.text} == -inf, 0, exp({s.text} - {m.text}))", s.axes, 1, rough)
        n = self.terms
        total = self.reduced(f"{name}_sum", "sum", e, summed(e, n), EVERYWHERE)
        weight = Value(f"where({total.text} == 0, 0, {e.text} / {total.text})", s.axes, 1, rough * 2 + total.error / n)
        self.fields.append(weight)
        self.weights.append(weight)
        if self.chance(2):
            logarithm = Value(f"log(max({total.text}, 1))", total.axes, np.log(n) + 1, total.error + 8)
            self.facts.append(self.define(f"{name}_log", logarithm, [a for a in "ie" if a in total.axes]))

    def entropy(self, name: str) -> None:
        """That of weights, if there are any."""
        if not self.weights:
            self.softmax(name)
            return
        p = self.pick(self.weights)
        form = self.pick(["where({0} > 0, {0} * log({0}), 0)", "where({0} == 0, 0, {0} * log2({0}))"])
        value = Value(form.format(p.text), p.axes, 1, 4 * p.error + 4)
        self.facts.append(self.reduced(name, "sum", value, summed(value, self.terms)))

    def contract(self, name: str) -> None:
        value = self.bounded(4)
        if self.sizes["e"]:
            value = times(value, self.operand("w"))
        self.facts.append(self.reduced(name, "sum", times(value, reciprocal(self.terms)), scaled_sum(value)))

    def statistic(self, name: str) -> None:
        """A function of facts."""
        a, b = self.fact(), self.positive()
        value = self.pick([over(a, b), mapped(a, "tanh"), Value(f"rsqrt({b.text})", b.axes, 1, b.error + 2)])
        self.facts.append(self.define(name, value, [a for a in "ie" if a in value.axes]))

    def map(self, name: str) -> None:
        value = self.bounded(8)
        if value.error <= MOST_ERROR:
            self.fields.append(self.define(name, value, self.inner(value)))

    def ranked(self, name: str) -> None:
        """argmax of exact values: which is largest does not depend on rounding; equal ones, on order."""
        if not self.sizes["j"]:  # of which there is no greatest
            self.map(name)
            return
        value = self.operand(self.pick(["x", "z"]))
        if self.chance(2):
            value = where(self.mask(0), value, Value("-9", frozenset(), 9, exact=True))
        along = [a for a in "ie" if a in value.axes]
        text = f"{self.pick(['argmax', 'argmin'])}[j]({value.text})"
        self.indices.append(self.define(name, replace(value, text=text, most=300, exact=True), along))

    def logic(self, name: str) -> None:
        p = self.mask(1)
        op = self.pick(["any", "all"])
        over = "j" if "j" in p.axes else f"j : {EVERYWHERE.text}"
        found = self.define(name, replace(p, text=f"{op}[{over}]({p.text})"), [a for a in "i" if a in p.axes])
        self.bits.append(found)

    def count(self, name: str) -> None:
        p = self.mask(1)
        over = "j" if "j" in p.axes else f"j : {EVERYWHERE.text}"
        text = f"sum[{over}](where({p.text}, 1, 0))"
        found = self.define(name, Value(text, p.axes, 300, exact=True), [a for a in "i" if a in p.axes])
        self.facts.append(Value(f"({found.text} / (1 + {found.text}))", found.axes, 1, 2))

    def product(self, name: str) -> None:
        """Factors near 1, or relative to a fact."""
        value = self.bounded(1)
        factor = Value(f"(1 + 0.002 * {value.text})", value.axes, 1, value.error * 0.002 + 2)
        if self.chance(2):
            factor = over(factor, self.positive())
        error = (factor.error + 2) * self.terms * 2
        self.facts.append(self.reduced(name, "prod", factor, Value("", factor.axes, 2, error)))

    # -- the whole

    def cascade(self, links: int) -> Cascade:
        for axis, extents in EXTENTS.items():
            self.sizes[axis] = self.pick(extents)
        if self.chance(4):
            self.over = ("j", "k")
        for n in range(links):
            self.link(f"T{n}")
        body = "".join(f"    {line}\n" for line in self.lines)
        unread = [r for r in self.results if body.count(f"{r[0]}[") == 1]
        chosen = [r for r in self.results if r in unread or self.chance(6)]
        names = sorted(self.used | self.binding())
        params = ", ".join(f"{name}[{', '.join(OPERANDS[name].split())}]{self.kind(name)}" for name in names)
        text = f"def cascade({params}):\n{body}    return {', '.join(name for name, _ in chosen)}\n"
        seed = self.draw(st.integers(0, 1 << 16))
        values = np.random.default_rng(seed)
        operands = {name: self.array(name, values) for name in names}
        return Cascade(text, operands, self.sizes, tuple(v.error + v.most for _, v in chosen), seed)

    def binding(self) -> set[str]:
        """Operands that see to it that every axis has an extent."""
        text = "\n".join(self.lines)
        return {"x"} | ({"Z"} if "k" in self.over else set()) | ({"w"} if " e]" in text else set())

    @staticmethod
    def kind(name: str) -> str:
        return {"keep": ": bool", "bit": ": bool", "length": ": i32", "doc": ": i32", "mine": ": i32"}.get(name, "")

    def array(self, name: str, values: np.random.Generator) -> Array:
        shape = tuple(self.sizes[a] for a in OPERANDS[name].split())
        match self.kind(name):
            case ": bool":
                return values.integers(0, 2, shape).astype(bool)
            case ": i32":
                limit = self.sizes["j"] + 2 if name == "length" else 3
                return values.integers(0, limit, shape).astype(np.int32)
        return np.asarray(values.integers(-8, 9, shape) / 4, np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# What operations do to sizes and errors


def added(a: Value, b: Value, op: str) -> Value:
    most = a.most + b.most
    return Value(f"({a.text} {op} {b.text})", a.axes | b.axes, most, a.error + b.error + most)


def times(a: Value, b: Value) -> Value:
    most = a.most * b.most
    return Value(f"({a.text} * {b.text})", a.axes | b.axes, most, a.error * b.most + b.error * a.most + most)


def over(a: Value, b: Value) -> Value:
    """Divided by what is at least 1."""
    return Value(f"({a.text} / {b.text})", a.axes | b.axes, a.most, a.error + b.error * a.most + a.most)


def power(a: Value, n: int) -> Value:
    most = a.most**n
    return Value(f"{a.text} ** {n}", a.axes, most, n * a.error * a.most ** (n - 1) + n * most)


def mapped(a: Value, op: str) -> Value:
    most = a.most if op == "abs" else 1.0
    return Value(f"{op}({a.text})", a.axes, most, a.error + 2 * most)


def where(p: Value, a: Value, b: Value) -> Value:
    text = f"where({p.text}, {a.text}, {b.text})"
    return Value(text, p.axes | a.axes | b.axes, max(a.most, b.most), max(a.error, b.error))


def reciprocal(n: int) -> Value:
    return Value(f"{1 / n:.4g}", frozenset(), 1 / n)


def summed(a: Value, n: int) -> Value:
    """A sum of n of them; errors of rounding are those of a sum in blocks."""
    return Value("", a.axes, n * a.most, n * a.error + 8 * n * a.most)


def scaled_sum(a: Value) -> Value:
    return Value("", a.axes, a.most, a.error + 8 * a.most)


@st.composite
def cascades(draw: Callable[[st.SearchStrategy[Any]], Any], *, least: int = 2, most: int = 6) -> Cascade:
    """A cascade of up to `most` links."""
    return Drawing(draw).cascade(draw(st.integers(least, most)))
