"""The chain rule through one expression: what each of its reads contributes to a gradient.

    T̄ · ∂(tanh(A) * B)      -->   A: T̄ * B * (1 - tanh(A) ** 2),   B: T̄ * tanh(A)

Contributions are found from the root down. A condition on the way, of a `where` or of a choice in a derivative, is
kept beside the contribution and not multiplied into it, so that nothing is computed where it does not hold: 0 times an
infinite derivative does not arise. Nor does it where an exponential that is infinite divides,

    f = x / (c + exp(u))      -->   u: -T̄ * f * (1 - c / (c + exp(u)))

which is 0 there, as f is. Complex numbers have gradients as in PyTorch: the cotangent times the conjugate of
the derivative, so that a step against it lowers a real loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

from einc.base.types import DType
from einc.ein import ONE, Apply, Cast, Const, Expr, Read, tensors_of
from einc.ein.guards import argument_guard, conjoin
from einc.ein.inference import dtype_of
from einc.passes.adjoint.slopes import slopes
from einc.passes.algebra.folding import call

_ONES = (ONE, Const(1.0))
_EXPONENTIALS = {"exp": ONE, "exp2": Const(math.log(2))}
_COMPLEX: dict[
    str, tuple[Callable[[Expr], Expr], ...]
] = {  # what the arguments of operations on complex numbers get of a cotangent
    "re": (lambda g: g,),
    "im": (lambda g: call("complex", Const(0.0), g),),
    "conj": (lambda g: call("conj", g),),
    "complex": (lambda g: call("re", g), lambda g: call("im", g)),
}


@dataclass(frozen=True, slots=True)
class Contribution:
    """A read, and what it adds to the gradient of its tensor where the guard holds."""

    read: Read
    value: Expr
    guard: Expr | None


Node = tuple[Expr, Expr | None]  # an expression, and the condition under which it counts


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain rule for reads of some tensors, `active`; `dtypes` are the types of all tensors and scalars."""

    active: frozenset[str]
    dtypes: Mapping[str, DType]
    types: dict[Expr, DType] = field(default_factory=dict)

    def contributions(self, body: Expr, cotangent: Expr, guard: Expr | None = None) -> Iterator[Contribution]:
        """What the reads in an expression contribute, given the cotangent of its value, which counts under a guard."""
        adjoints: dict[Node, list[Expr]] = {(body, guard): [cotangent]}
        for node in reversed(self._order((body, guard))):
            given = adjoints.pop(node, None)
            if given is None:
                continue
            e, under = node
            value = self._fitting(e, reduce(lambda x, y: call("add", x, y), given))
            if isinstance(e, Read):
                yield Contribution(e, value, under)
                continue
            for below, part in self._below(e, under, value):
                adjoints.setdefault(below, []).append(part)

    def _order(self, root: Node) -> list[Node]:
        """All that a cotangent reaches, each after what it is made of."""
        done: dict[Node, None] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            if ready:
                done[node] = None
                continue
            stack.append((node, True))
            stack += [(below, False) for below, _ in self._below(*node, ONE)]
        return list(done)

    def _varies(self, e: Expr) -> bool:
        """Does a change of an active tensor change it by a derivative?"""
        if self.active.isdisjoint(tensors_of(e)):
            return False
        t = self.type(e)
        return t.is_float or t.is_complex

    def type(self, e: Expr) -> DType:
        if e not in self.types:
            self.types[e] = dtype_of(e, self.dtypes)
        return self.types[e]

    def _fitting(self, e: Expr, cotangent: Expr) -> Expr:
        """A cotangent of a real value is real."""
        return call("re", cotangent) if self.type(cotangent).is_complex and not self.type(e).is_complex else cotangent

    def _below(self, e: Expr, under: Expr | None, cotangent: Expr) -> Iterator[tuple[Node, Expr]]:
        """The arguments that vary, each with its guard and what it gets of the cotangent."""
        match e:
            case Cast(arg=x) if self._varies(x):
                yield (x, under), cotangent
            case Apply("where", (_, *chosen)):
                for k, x in enumerate(chosen, 1):
                    if self._varies(x):
                        yield (x, argument_guard("where", e.args[:k], under)), cotangent
            case Apply(op, args) if op in _COMPLEX:
                for x, part in zip(args, _COMPLEX[op], strict=True):
                    if self._varies(x):
                        yield (x, under), part(cotangent)
            case Apply("abs", (x,)) if self.type(x).is_complex:
                if self._varies(x):
                    away = Apply("ne", (e, Const(0)))
                    yield (x, conjoin(under, away)), times(cotangent, Apply("div", (x, e)))
            case Apply("div", (x, Apply("add", (y, z)) as whole)) if (found := _exponential(y, z)) is not None:
                slope, power, rest = found
                for below, of in ((x, call("div", ONE, whole)), (rest, call("neg", call("div", e, whole)))):
                    if self._varies(below):
                        yield (below, under), times(cotangent, of)
                if self._varies(power):
                    left = call("sub", ONE, e if rest == x else call("div", rest, whole))
                    yield (power, under), times(cotangent, call("neg", times(call("mul", e, left), slope)))
            case Apply(args=args):
                for k, x in enumerate(args):
                    if self._varies(x):
                        for condition, slope in slopes(e, k):
                            yield (x, conjoin(under, condition)), times(cotangent, self._conjugate(slope))

    def _conjugate(self, slope: Expr) -> Expr:
        return call("conj", slope) if self.type(slope).is_complex else slope


def _exponential(y: Expr, z: Expr) -> tuple[Expr, Expr, Expr] | None:
    """A sum of an exponential and something else: what a derivative by the exponent has as a factor, that, the rest."""
    for e, rest in ((z, y), (y, z)):
        if isinstance(e, Apply) and e.op in _EXPONENTIALS:
            return _EXPONENTIALS[e.op], e.args[0], rest
    return None


def times(x: Expr, slope: Expr) -> Expr:
    """The product of a cotangent and a derivative, as one would write it."""
    match slope:
        case Const() if slope in _ONES:
            return x
        case _ if isinstance(x, Apply) and x.op == "neg":
            return call("neg", times(x.args[0], slope))
        case Const(value=-1):
            return call("neg", x)
        case Apply("neg", (y,)):
            return call("neg", times(x, y))
        case Apply("div", (y, z)) if y in _ONES:
            return call("div", x, z)
        case Apply("pow", (y, Const(value=1))):
            return times(x, y)
        case _:
            return slope if x in _ONES else call("mul", x, slope)
