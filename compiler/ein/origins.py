"""The types of values as the reader of a program sees them, and the type that each contraction multiplies in.

A value has the type of the operand it is read from, or of the contraction it is, or of the values that it reduces, and
else PyTorch's promotion of its parts; numbers, positions and extents give way. Intermediates are kept in wider types.

A contraction multiplies in one type:

    operand * operand            their join
    operand * computed           the operand's
    computed * computed          the narrowest float type, of 16 bits or more, of the operands that they are made of

A cast that the text writes counts as an operand. 8-bit floats multiply as such only where both sides are operands of
that type; beside a computed side they become bf16, which holds all of their values.

A contraction of f32 multiplies in the `precision` of its program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

from einc.base.ops import LINEAR, OPS, Rule, result_type
from einc.base.types import BF16, BOOL, F32, FLOAT, I64, DType, join, settle
from einc.ein import Apply, Cast, Equation, Expr, Monoid, Program, Read, Scalar, axes_of
from einc.ein.components import parts_of
from einc.ein.dealing import MOST_FACTORS, dealings, factors_of, terms_of
from einc.ein.inference import default_dtypes, dtype_of, is_place, reduced_type

Source = tuple[str, DType]  # an operand, or a cast as it is written, with its type


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: its type, which may be weak; the operand or cast that it is, None if it is computed;
    and all operands and casts of floats that it is made of, directly or not."""

    type: DType
    own: Source | None = None
    sources: frozenset[Source] = frozenset()

    @property
    def own_type(self) -> DType | None:
        """The float type that it multiplies in unchanged."""
        return None if self.own is None or not _is_real(self.own[1]) else self.own[1]


@dataclass(frozen=True, slots=True)
class Multiplying:
    """The type that a contraction multiplies in, and what decided it."""

    dtype: DType
    rule: Literal["operands", "operand", "computed"]
    sources: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.sources) or "numbers alone"
        t = str(self.dtype) if self.dtype == self.dtype.held else f"{self.dtype} in place of {self.dtype.held}"
        match self.rule:
            case "operands":
                return f"{t}, of the operands {names}"
            case "operand":
                return f"{t}, of the operand {names}; the other side is converted to it"
            case "computed":
                return f"{t}, the narrowest of the operands that its computed sides are made of: {names}"


Origins = Mapping[str, Origin]


def given(name: str, dtype: DType) -> Origin:
    """The origin of an operand."""
    source = (name, dtype)
    return Origin(dtype, source, frozenset((source,)) if _is_real(dtype) else frozenset())


def origin(e: Expr, known: Origins, seen: dict[Expr, Origin] | None = None) -> Origin:
    """The origin of an expression, given those of tensors and scalars by name; `seen` keeps those of operations."""
    match e:
        case Scalar(name) | Read(tensor=name):
            return known[name]
        case Cast(dtype=dtype):
            return given(f"{dtype}(…)", dtype)
        case Apply():
            seen = {} if seen is None else seen
            if e not in seen:
                seen[e] = _operation(e, known, seen)
            return seen[e]
        case _:
            return Origin(dtype_of(e, {}))


def _operation(e: Apply, known: Origins, seen: dict[Expr, Origin]) -> Origin:
    parts = [origin(a, known, seen) for a in e.args]
    dtype = _result(e.op, tuple(p.type for p in parts))
    if e.op not in LINEAR:
        return Origin(dtype, None, _union(parts))
    (below,) = parts
    own = None if below.own is None else (below.own[0], _result(e.op, (below.own[1],)))
    return Origin(dtype, own, below.sources)


def _result(op: str, types: tuple[DType, ...]) -> DType:
    """The type of an operation; functions and quotients of stored integers are f32."""
    found = result_type(op, types)
    strong = any((t.is_int and t.bits) or t.is_bool for t in types)
    return F32 if found == FLOAT and strong and OPS[op].rule is Rule.FLOATING and FLOAT not in types else found


def _union(parts: Sequence[Origin]) -> frozenset[Source]:
    return frozenset[Source]().union(*(p.sources for p in parts))


def _is_real(t: DType) -> bool:
    return t.is_float or t.is_complex


# ---------------------------------------------------------------------------------------------------------------------
# Contractions


def multiplying(
    monoid: Monoid | None,
    over: tuple[str, ...],
    axes: tuple[str, ...],
    body: Expr,
    known: Origins,
    seen: dict[Expr, Origin] | None = None,
) -> Multiplying | None:
    """The type that a sum of products of floats multiplies in; None for any other equation."""
    if monoid is None or not monoid.adds:
        return None
    found: list[Multiplying] = []
    for _, term in (t for part in parts_of(body) for t in terms_of(part)):
        meetings = list(_meetings(term, over, axes, known, {} if seen is None else seen))
        if not meetings:
            return None
        found += meetings
    if not found:
        return None
    first = found[0]
    joined = reduce(join, (m.dtype for m in found))
    return next((m for m in found if m.dtype == joined), replace(first, dtype=joined))


def _meetings(
    term: Expr, over: tuple[str, ...], axes: tuple[str, ...], known: Origins, seen: dict[Expr, Origin]
) -> Iterator[Multiplying]:
    """How the two sides of a product meet, for each way of dealing its factors; without one, each factor is a side."""
    factors = tuple(f for f in factors_of(term) if not set(over).isdisjoint(axes_of(f)))
    if not len(factors) >= 2:
        return
    origins = {f: origin(f, known, seen) for f in factors}
    if not any(_is_real(o.type) for o in origins.values()):
        return
    dealt = dealings(axes, over, factors) if len(factors) <= MOST_FACTORS else ()
    for _, left, right in dealt:
        yield meeting([_side([origins[f] for f in side]) for side in (left, right)])
    if not dealt:
        yield meeting(list(origins.values()))


def _side(factors: Sequence[Origin]) -> Origin:
    if len(factors) == 1:
        return factors[0]
    return Origin(reduce(join, (f.type for f in factors)), None, _union(factors))


def meeting(sides: Sequence[Origin]) -> Multiplying:
    """The type in which sides multiply, at least one of which is of floats."""
    owned = [(s.own[0], t) for s in sides if s.own is not None and (t := s.own_type) is not None]
    if not owned:
        return _narrowest(_union(sides))
    t = reduce(join, (t for _, t in owned)).part
    names = tuple(dict.fromkeys(name for name, _ in owned))
    if len(owned) == len(sides):
        return Multiplying(t, "operands", names)
    return Multiplying(BF16 if t.bits == 8 else t, "operand", names)


def _narrowest(sources: frozenset[Source]) -> Multiplying:
    wide = [(name, t.part) for name, t in sorted(sources, key=lambda s: s[0]) if t.part.bits >= 16]
    if not wide:
        return Multiplying(BF16 if sources else F32, "computed", tuple(sorted(name for name, _ in sources)))
    least = min(t.bits for _, t in wide)
    narrow = [(name, t) for name, t in wide if t.bits == least]
    return Multiplying(reduce(join, (t for _, t in narrow)), "computed", tuple(name for name, _ in narrow))


# ---------------------------------------------------------------------------------------------------------------------
# Equations


def value_origins(
    monoid: Monoid | None, over: tuple[str, ...], axes: tuple[str, ...], bodies: Sequence[Expr], known: Origins
) -> tuple[Origin, ...]:
    """The origins of an equation's values, one for each output, before storing them in any type."""
    return _made(monoid, over, axes, bodies, known)[0]


def _made(
    monoid: Monoid | None, over: tuple[str, ...], axes: tuple[str, ...], bodies: Sequence[Expr], known: Origins
) -> tuple[tuple[Origin, ...], Multiplying | None]:
    """The same, and how the equation multiplies."""
    seen: dict[Expr, Origin] = {}
    made = [origin(b, known, seen) for b in bodies]
    if monoid is None:
        return tuple(made), None
    product = multiplying(monoid, over, axes, bodies[0], known, seen)
    types = [_reduced(monoid, k, made[min(k, len(made) - 1)].type, product) for k in monoid.results]
    return tuple(Origin(t, None, _union(made)) for t in types), product


def _reduced(monoid: Monoid, component: int, body: DType, product: Multiplying | None) -> DType:
    if monoid.truths:
        return BOOL
    if is_place(monoid, component, body):
        return I64
    if _is_real(body):
        return product.dtype if product is not None and body.is_float else settle(body)
    return reduced_type(monoid, component, body)


def parameters(program: Program) -> dict[str, Origin]:
    """The origins of a program's parameters."""
    operands = {p.name for p in program.operands}
    return {p.name: given(p.name, p.dtype) if p.name in operands else Origin(p.dtype) for p in program.params}


def learn(e: Equation, known: dict[str, Origin], dtypes: Mapping[str, DType], results: Sequence[str]) -> DType | None:
    """Note the origins of an equation's outputs, and return the type that it multiplies in.

    A result is read in the type it is returned in. An output stored in a type other than its default was cast to it.
    """
    made, product = _made(e.monoid, e.over, e.axes, e.bodies, known)
    returned = any(t.name in results for t in e.outputs)
    for k, (t, o) in enumerate(zip(e.outputs, made, strict=True)):
        usual = t.dtype == settle(o.type) or (not returned and t.dtype == default_dtypes(e.monoid, e.bodies, dtypes)[k])
        known[t.name] = o if usual else given(f"{t.name}: {t.dtype}", t.dtype)
    return None if product is None else product.dtype


def tensors(program: Program) -> Origins:
    """The origins of a program's parameters and tensors; any other name is one of a float that is computed."""
    known, dtypes = _Anything(parameters(program)), program.dtypes()
    for e in program.equations:
        learn(e, known, dtypes, program.results)
    return known


def contractions(program: Program) -> Iterator[tuple[str, Multiplying]]:
    """The contractions of floats, by name: the type that each multiplies in, and why."""
    known, dtypes = parameters(program), program.dtypes()
    for e in program.equations:
        found = multiplying(e.monoid, e.over, e.axes, e.body, known)
        learn(e, known, dtypes, program.results)
        if found is not None:
            yield e.name, replace(found, dtype=_precise(found.dtype, program))


def multiplied(program: Program) -> frozenset[str]:
    """The operands of floats that sides of matrix products are made of, where no declaration or cast decides a type."""
    known, dtypes = parameters(program), program.dtypes()
    found: set[str] = set()
    for e in program.equations:
        if e.monoid is not None and e.monoid.adds:
            for _, term in (t for part in parts_of(e.body) for t in terms_of(part)):
                factors = tuple(f for f in factors_of(term) if not set(e.over).isdisjoint(axes_of(f)))
                if 2 <= len(factors) <= MOST_FACTORS and any(dealings(e.axes, e.over, factors)):
                    found |= {name for f in factors for name, _ in origin(f, known).sources}
        learn(e, known, dtypes, program.results)
    return frozenset(found & {p.name for p in program.operands})


class Products:
    """The types that the contractions of a program multiply in: those already settled, else by the rule."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: Origins | None = None

    def product(self, e: Equation) -> DType | None:
        """The type that an equation multiplies floats in; tensors that are not the program's count as computed."""
        if e.product is not None or e.monoid is None or not e.monoid.adds:
            return e.product
        if self._known is None:
            self._known = tensors(self._program)
        found = multiplying(e.monoid, e.over, e.axes, e.body, self._known)
        return None if found is None else _precise(found.dtype, self._program)


class _Anything(dict[str, Origin]):
    """Origins by name; a name that only a kernel knows is a float computed there."""

    def __missing__(self, _name: str) -> Origin:
        return Origin(F32)


def fixed(program: Program) -> Program:
    """The program with the type of each contraction settled, however passes change its sides."""
    known, dtypes, equations = parameters(program), program.dtypes(), []
    for e in program.equations:
        product = learn(e, known, dtypes, program.results)
        if product is not None and e.product is None:
            e = replace(e, product=_precise(product, program))
        equations.append(e)
    return replace(program, equations=tuple(equations))


def _precise(t: DType, program: Program) -> DType:
    """The type that a contraction of this type multiplies in, as precisely as its program asks."""
    return program.precision if t == F32 else t
