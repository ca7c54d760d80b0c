"""Random programs of sizes that fill tiles: maps, folds, contractions, softmaxes, norms, running sums, in turn.

Each equation is over some of a few axes, and reads what exists so far and new operands, along axes in any order, at the
position before, by an index that is data, and where masks hold. What they are compared with is `tests.support.dense`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.draws import Draws
from tests.support.random_attentions import Given

T = TypeVar("T")


@dataclass(frozen=True)
class Extents:
    """What extents are drawn from, and how many positions an equation, an operand and a result have at most."""

    extents: tuple[int, ...]
    positions: int
    stored: int


SMALL = Extents((16, 1, 2, 3, 5, 17, 32, 64, 100, 130, 300), 1 << 17, 1 << 15)
LARGE = Extents(
    (64, 16, 1, 2, 3, 5, 17, 48, 100, 128, 256, 500, 512, 777, 1000, 1024, 1025, 2048, 3001, 4096), 1 << 26, 1 << 24
)
NAMES = "ABCDEFG"


@dataclass(frozen=True)
class Value:
    """Text, and the axes that it has."""

    text: str
    axes: frozenset[str]


@dataclass(frozen=True)
class Tensors:
    """A program's text, what its operands are, the extents of its axes, and the type of its floats.

    A program is `ranked` where rounding may decide which of several computed values is the greatest: its gradients
    then have no one value. The dimensions of an operand lie in memory in the order of `lying`.
    """

    text: str
    operands: dict[str, Given]
    lying: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    dtype: str
    ranked: bool
    seed: int

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for name, g in self.operands.items():
            order = self.lying[name]
            x = g.tensor(generator)
            found[name] = x.permute(order).contiguous().permute([order.index(k) for k in range(len(order))])
        return found

    @property
    def floats(self) -> list[str]:
        return [n for n, g in self.operands.items() if g.dtype == self.dtype]


@dataclass
class Drawing(Draws):
    """A program in the making."""

    extents: Extents
    dtype: str
    sizes: dict[str, int] = field(default_factory=dict)
    operands: dict[str, list[str]] = field(default_factory=dict)
    indices: dict[str, tuple[str, str]] = field(default_factory=dict)  # along an axis, and of which one
    known: dict[str, list[str]] = field(default_factory=dict)  # what equations define
    lines: list[str] = field(default_factory=list)
    ranked: bool = False

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return [*self.draw(st.permutations(list(options)))]

    def several(self, axes: Sequence[str]) -> list[str]:
        """Most of these axes, and at least one."""
        return [a for a in axes if not self.chance(4)] or [self.pick(axes)]

    def count(self, axes: Sequence[str]) -> int:
        return prod(self.sizes[a] for a in axes)

    def fits(self, axes: Sequence[str]) -> bool:
        return self.count(axes) <= self.extents.stored

    # -- values

    def operand(self, axes: Sequence[str]) -> Value:
        """A new operand along these axes, if it is not too large, or along one of them."""
        name = NAMES[len(self.operands)]
        self.operands[name] = self.shuffled(axes if self.fits(axes) else [self.pick(axes)])
        return self.whole(name)

    def whole(self, name: str) -> Value:
        axes = self.operands[name] if name in self.operands else self.known[name]
        return Value(f"{name}[{', '.join(axes)}]", frozenset(axes))

    def read(self, name: str) -> Value:
        """An operand or a value at its own axes, at the position before, or by an index."""
        axes = self.operands[name] if name in self.operands else self.known[name]
        if not axes:
            return self.whole(name)
        a = self.pick(axes)
        if self.chance(10):
            before = ", ".join(f"{x} - 1" if x == a else x for x in axes)
            return Value(f"where({a} >= 1, {name}[{before}], 0)", frozenset(axes))
        by = [x for x in self.sizes if x not in axes]
        if name in self.operands and by and len(self.indices) < 2 and self.chance(8):
            return self.gathered(name, a, self.pick(by))
        return self.whole(name)

    def gathered(self, name: str, a: str, x: str) -> Value:
        """An operand whose positions along `a` are data, along another axis."""
        index = f"at{len(self.indices)}"
        self.indices[index] = (x, a)
        axes = self.operands[name]
        return Value(
            f"{name}[{', '.join(f'{index}[{x}]' if y == a else y for y in axes)}]", frozenset({*axes, x} - {a})
        )

    def leaf(self, axes: Sequence[str]) -> Value:
        there = [n for n, own in [*self.known.items(), *self.operands.items()] if set(own) <= set(axes)]
        if there and not self.chance(3):
            value = self.read(self.pick(there))
            if value.axes <= set(axes):
                return value
        if len(self.operands) < len(NAMES) - 1:
            return self.operand(self.several(axes))
        return Value("0.5", frozenset())

    def mask(self, axes: Sequence[str]) -> Value:
        if len(axes) == 1:
            return Value(f"{axes[0]} % 3 != 0", frozenset(axes))
        a, b = self.shuffled(axes)[:2]
        forms = [f"{a} <= {b}", f"{a} - {b} < 5", f"{a} != {b}", f"({a} + {b}) % 2 == 0", f"abs({a} - {b}) < 40"]
        return Value(self.pick(forms), frozenset({a, b}))

    def expression(self, axes: Sequence[str], depth: int) -> Value:
        if not depth:
            return self.leaf(axes)
        form = self.pick(["leaf", "mul", "mul", "add", "sub", "tanh", "sigmoid", "where", "square"])
        if form == "leaf":
            return self.leaf(axes)
        x = self.expression(axes, depth - 1)
        if form in ("tanh", "sigmoid"):
            return Value(f"{form}({x.text})", x.axes)
        if form == "square":
            return Value(f"({x.text}) ** 2", x.axes)
        if form == "where":
            p = self.mask(axes)
            return Value(f"where({p.text}, {x.text}, 0)", x.axes | p.axes)
        y = self.expression(axes, depth - 1)
        op = {"mul": "*", "add": "+", "sub": "-"}[form]
        return Value(f"({x.text} {op} {y.text})", x.axes | y.axes)

    def covering(self, axes: Sequence[str], depth: int) -> Value:
        """An expression that has all of the axes; what no other part has is that of a factor."""
        value = self.expression(axes, depth)
        missing = [a for a in axes if a not in value.axes]
        if not missing:
            return value
        if len(self.operands) < len(NAMES) and self.fits(missing):
            factor = self.operand(missing)
            return Value(f"({value.text}) * {factor.text}", value.axes | factor.axes)
        text = " * ".join(f"(0.5 * ({a} % 3) - 0.25)" for a in missing)
        return Value(f"({value.text}) * {text}", value.axes | set(missing))

    # -- equations

    def define(self, name: str, axes: Sequence[str], text: str) -> None:
        own = self.shuffled(axes)
        self.lines.append(f"{name}[{', '.join(own)}] = {text}")
        self.known[name] = own

    def equation(self, name: str) -> None:
        axes = self.several(list(self.sizes))
        kinds = ["fold", "fold", "fold", "contraction", "contraction", "map", "softmax", "norm", "running"]
        kind = self.pick(kinds if self.fits(axes) else kinds[:5])
        getattr(self, kind)(name, axes)

    def map(self, name: str, axes: Sequence[str]) -> None:
        self.define(name, axes, self.covering(axes, 2).text)

    def over(self, axes: Sequence[str]) -> list[str]:
        """What is reduced: so much that the rest is not too large."""
        order = self.shuffled(axes)
        n = 2 if len(axes) > 1 and self.chance(4) else 1
        while not self.fits(order[n:]):
            n += 1
        return order[:n]

    def fold(self, name: str, axes: Sequence[str]) -> None:
        over = self.over(axes)
        rest = [a for a in axes if a not in over]
        kinds = ["sum", "sum", "mean", "logsumexp", "var", "norm", "largest", "rank", "prod"]
        kind = self.pick(kinds)
        along = ", ".join(over)
        if kind == "largest":  # of what is as exact in every type: which one it is does not depend on rounding
            x = self.operand(axes) if len(self.operands) < len(NAMES) else None
            if x is not None and x.axes == frozenset(axes):
                self.define(name, rest, f"{self.pick(['max', 'min'])}[{along}]({x.text})")
                return
            kind = "sum"
        value = self.covering(axes, self.pick([0, 1, 2]))
        match kind:
            case "sum":
                text = f"{self.count(over) ** -0.5:.6f} * sum[{along}]({value.text})"
            case "rank":
                self.ranked = True
                text = f"{self.pick(['max', 'min'])}[{along}]({value.text})"
            case "prod":
                text = f"prod[{along}](1 + {0.5 * self.count(over) ** -0.5:.6f} * tanh({value.text}))"
            case "norm":
                text = f"sqrt(1 + mean[{along}](({value.text}) ** 2))"
            case _:
                text = f"{kind}[{along}]({value.text})"
        self.define(name, rest, text)

    def contraction(self, name: str, axes: Sequence[str]) -> None:
        over = self.over(axes)
        rest = [a for a in axes if a not in over]
        left = [*over, *(a for a in rest if self.chance(2))]
        right = [*over, *(a for a in rest if a not in left or self.chance(4))]
        factors = []
        for own in (left, right):
            new = len(self.operands) < len(NAMES) - 1 and self.fits(own) and not self.chance(3)
            factors.append(self.operand(own) if new else self.covering(own, 0))
        text = f"{self.count(over) ** -0.5:.6f} * sum[{', '.join(over)}]({factors[0].text} * {factors[1].text})"
        self.define(name, rest, text)

    def softmax(self, name: str, axes: Sequence[str]) -> None:
        value = self.covering(axes, self.pick([0, 1, 2]))
        over = self.pick(axes)
        if self.chance(3):
            p = self.mask(axes)
            value = Value(f"where({p.text}, {value.text}, -inf)", value.axes)
        self.define(name, axes, f"{self.pick(['softmax', 'softmax', 'softmax1'])}[{over}]({value.text})")

    def norm(self, name: str, axes: Sequence[str]) -> None:
        value = self.covering(axes, self.pick([0, 1, 2]))
        kind = self.pick(["layernorm", "rmsnorm"])
        self.define(name, axes, f"{kind}[{self.pick(axes)}]({value.text}, 0.1)")

    def running(self, name: str, axes: Sequence[str]) -> None:
        """Along an axis, of which the positions before each one are as many again."""
        over = [a for a in axes if self.count(axes) * self.sizes[a] <= self.extents.positions]
        if not over:
            self.norm(name, axes)
            return
        a, value = self.pick(over), self.covering(axes, self.pick([0, 1, 2]))
        kind = self.pick(["cumsum", "cumsum", "suffix_sum"])
        self.define(name, axes, f"{self.sizes[a] ** -0.5:.6f} * {kind}[{a}]({value.text})")

    # -- the whole

    def program(self) -> Tensors:
        axes = self.shuffled("ijkbhd")[: self.pick([2, 3, 3, 4])]
        self.sizes = {a: self.pick(self.extents.extents) for a in axes}
        while prod(self.sizes.values()) > self.extents.positions:
            most = max(self.sizes, key=lambda a: self.sizes[a])
            self.sizes[most] //= 2
        for n in range(self.pick([1, 1, 2, 2, 3, 4])):
            self.equation(f"T{n}")
        body = "".join(f"    {line}\n" for line in self.lines)
        self.operands = {n: own for n, own in self.operands.items() if f"{n}[" in body}
        self.indices = {n: own for n, own in self.indices.items() if f"{n}[" in body}
        results = [n for n in self.known if body.count(f"{n}[") == 1 or self.chance(4)]
        params = [f"{n}[{', '.join(own)}]: {self.dtype}" for n, own in self.operands.items()]
        params += [f"{n}[{own}]: i32" for n, (own, _) in self.indices.items()]
        there = {a for own in self.operands.values() for a in own} | {a for a, _ in self.indices.values()}
        body = "".join(f"    axis {a} = {n}\n" for a, n in self.sizes.items() if a not in there) + body
        given = {n: Given(tuple(self.sizes[a] for a in own), self.dtype) for n, own in self.operands.items()}
        lying = {n: tuple(range(len(own))) for n, own in self.operands.items()}
        if self.chance(3):
            lying = {n: tuple(self.shuffled(own)) for n, own in lying.items()}
        for index, (along, of) in self.indices.items():
            given[index] = Given((self.sizes[along],), "i32", "integers", self.sizes[of])
            lying[index] = (0,)
        text = f"def f({', '.join(params)}):\n{body}    return {', '.join(results)}\n"
        sizes = {a: n for a, n in self.sizes.items() if a in there}
        return Tensors(text, given, lying, sizes, self.dtype, self.ranked, self.draw(st.integers(0, 1 << 16)))


@st.composite
def programs(
    draw: Callable[[st.SearchStrategy[Any]], Any], *, extents: Extents = SMALL, dtypes: Sequence[str] = ("f32", "f64")
) -> Tensors:
    """A program with extents of these kinds, whose operands are of one of these types."""
    return Drawing(draw, extents, draw(st.sampled_from(list(dtypes)))).program()
