"""References that only shift: tensors whose value no result depends on, so that their derivative is 0.

    m[i] = max[j](x);  e = exp(x - m);  p = e / sum[j](e)

If m moves by t, x - m moves by -t, e and its sum are multiplied by exp(-t), and p stays. What m does to a value is its
**motion**: added terms `shift * t`, or a factor `exp(rate * t)`; both are rational multiples. The motion of every value
that reads m is derived from those of its parts, and m is a shift if all that leaves the program is unmoved. Nothing
depends on what m is: the maximum of a softmax, a running one, or a guess.

Every position of m moves by a t of its own. So only values at the same position move alike, and what is reduced along
an axis of m moves in some other way: a softmax over i of the maxima m[i] is not what it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from einc.base.ops import COMPARISONS
from einc.ein import Apply, Cast, Const, Equation, Expr, Program, Read, tensors_of, walk
from einc.ein.guards import composite
from einc.ein.rewriting import names

_INFINITIES = (math.inf, -math.inf)
_RATES = {"exp": 1.0, "exp2": math.log(2)}


@dataclass(frozen=True, slots=True)
class Motion:
    """x --> x + shift * t, or x --> x * exp(rate * t); unmoved where both are 0."""

    shift: Fraction = Fraction(0)
    rate: Fraction = Fraction(0)


STILL = Motion()


class Known(dict[str, Motion | None]):
    """How tensors move, None in some other way; `axes` are those that t varies along, `dims` are all shapes."""

    def __init__(self, program: Program, name: str) -> None:
        super().__init__(dict.fromkeys(names(program), STILL))
        self[name] = Motion(shift=Fraction(1))
        self.dims = program.shapes()
        self.axes = frozenset(a for dim in self.dims[name] for a in dim)

    def read(self, r: Read) -> Motion | None:
        """The motion of a read: that of the tensor, at its own position along what t varies along."""
        found = self[r.tensor]
        if found == STILL:
            return found
        pairs = zip(r.index, self.dims[r.tensor], strict=True)
        return found if all(at == composite(dim) or self.axes.isdisjoint(dim) for at, dim in pairs) else None


def shifts(program: Program) -> frozenset[str]:
    """The tensors computed by a maximum or minimum, of all along an axis or of two, that no result depends on."""
    return frozenset(
        e.name for e in program.equations if _picks(e) and e.name not in program.results and _is_shift(e.name, program)
    )


def _picks(e: Equation) -> bool:
    """Is it a greatest or least value?"""
    if e.monoid is not None:
        return e.monoid.extreme is not None
    return any(isinstance(x, Apply) and x.op in ("max", "min") for body in e.bodies for x in walk(body))


def _is_shift(name: str, program: Program) -> bool:
    known = Known(program, name)
    for e in program.equations:
        if e.name == name or all(known[t] == STILL for x in e.expressions() for t in tensors_of(x)):
            continue
        moved = _equation(e, known)
        known |= {t.name: moved for t in e.outputs}
        if moved is None and any(t.name in program.results for t in e.outputs):
            return False
    return all(known[r] == STILL for r in program.results)


def _equation(e: Equation, known: Known) -> Motion | None:
    """The motion of an equation's values."""
    if e.domain is not None and _motion(e.domain, known) != STILL:
        return None
    parts = {_motion(b, known) for b in e.bodies}
    if len(parts) > 1 or None in parts:
        return None
    (body,) = parts
    assert body is not None
    if e.monoid is None or body == STILL:
        return body
    if not known.axes.isdisjoint(e.over):
        return None
    if e.monoid.adds:
        return body if body.shift == 0 else None
    return body if e.monoid.extreme else None


def _motion(e: Expr, known: Known) -> Motion | None:
    """The motion of an expression, None where it has none of these."""
    match e:
        case Read(index=index, guard=guard):
            still = all(_motion(x, known) == STILL for x in (*index, *([] if guard is None else [guard])))
            moved = known.read(e) if still else None
            return None if moved is None or (guard is not None and moved.shift) else moved
        case Cast(arg=x):
            return _motion(x, known)
        case Apply(op, args):
            return _operation(e, op, args, known)
        case _:
            return STILL


def _operation(e: Apply, op: str, args: tuple[Expr, ...], known: Known) -> Motion | None:
    moved = [_motion(a, known) for a in args]
    if all(m == STILL for m in moved):
        return STILL
    if op == "where":
        return _chosen(args, moved)
    if op in COMPARISONS:
        return STILL if _is_told(args, moved) else None
    motions = [m for m in moved if m is not None]
    if len(motions) < len(moved):
        return None
    match op, motions:
        case (("add" | "sub"), [x, y]) if x.rate == y.rate == 0:
            return Motion(shift=x.shift + y.shift if op == "add" else x.shift - y.shift)
        case (("add" | "sub"), [x, y]) if x == y:
            return x
        case (("mul" | "div"), [x, y]) if x.shift == y.shift == 0:
            return Motion(rate=x.rate + y.rate if op == "mul" else x.rate - y.rate)
        case "neg", [x]:
            return Motion(-x.shift, x.rate)
        case (("exp" | "exp2"), [x]) if x.rate == 0:
            return Motion(rate=x.shift * Fraction(_RATES[op]))
        case "log", [x] if x.shift == 0:
            return Motion(shift=x.rate)
        case (("max" | "min"), [x, y]) if x == y:
            return x
        case "abs", [x] if x.shift == 0:
            return x
    return _scaled(e, motions)


def _scaled(e: Apply, moved: list[Motion]) -> Motion | None:
    """A shifted value times a number."""
    match e, moved:
        case Apply("mul", (Const(value=float() | int() as c), _)), [_, Motion(shift=s, rate=r)] if r == 0:
            return Motion(shift=s * Fraction(c))
        case Apply("mul" | "div" as op, (_, Const(value=float() | int() as c))), [Motion(shift=s, rate=r), _] if r == 0:
            return Motion(shift=s * Fraction(c) if op == "mul" else s / Fraction(c))
        case Apply("pow", (_, Const(value=int() as n))), [Motion(shift=s, rate=r), _] if s == 0:
            return Motion(rate=r * n)
    return None


def _chosen(args: tuple[Expr, ...], moved: list[Motion | None]) -> Motion | None:
    """A choice by a condition that does not move; 0 has any rate, and infinities any shift."""
    if moved[0] != STILL:
        return None
    found = {m for a, m in zip(args[1:], moved[1:], strict=True) if not _moves_along(a, moved[1:])}
    return found.pop() if len(found) == 1 else None


def _moves_along(e: Expr, others: list[Motion | None]) -> bool:
    """Is it a number that stays the same whichever way the others move?"""
    if not isinstance(e, Const):
        return False
    if e.value == 0:
        return all(m is not None and m.shift == 0 for m in others)
    return e.value in _INFINITIES


def _is_told(args: tuple[Expr, ...], moved: list[Motion | None]) -> bool:
    """Does a comparison stay as it is: with 0 or an infinity, which motion keeps, or of two that move alike?"""
    if None in moved:
        return False
    if moved[0] == moved[1]:
        return True
    for e, m in zip(args, reversed(moved), strict=True):
        if isinstance(e, Const) and m is not None and ((e.value == 0 and m.shift == 0) or e.value in _INFINITIES):
            return True
    return False
