"""An einsum string into its one equation: a product of reads, summed over the axes that are not in the output.

    "ij,jk"   -->   out[i, k] = sum[j](A[i, j] * B[j, k])

With no axis to sum, the equation is pointwise; for booleans the sum is `any` and the product `and`. Operands are read
in the type that NumPy's promotion gives for all of them together, which is also the type of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from einc import ein
from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.types import BOOL, F32, DType, numpy_result
from einc.base.words import count
from einc.ein.guards import composite
from einc.ein.monoids import MONOIDS
from einc.frontend.strings.extents import find_extents, plain_extents
from einc.frontend.strings.layout import Layout, Shape, broadcast, lay_out, members, operand_name
from einc.frontend.strings.termparser import parse_terms
from einc.frontend.strings.terms import Group, Subscripts, choose

_LONGEST_CHAIN = 32  # factors that are multiplied one after the other; more are multiplied as a tree
_RESERVED = frozenset({"and", "axis", "def", "false", "fn", "inf", "not", "or", "return", "true"})


@dataclass(frozen=True, slots=True)
class Reading:
    """How a string is read: `named` prefers names to letters; `sum_dots` sums over an ellipsis that the output leaves
    out, as PyTorch does and NumPy does not; `dtype` is the type to compute in, instead of the promoted one."""

    named: bool = False
    sum_dots: bool = False
    dtype: DType | None = None


NUMPY = Reading()


def elaborate_einsum(
    subscripts: Subscripts | str,
    facts: Sequence[Fact] | None = None,
    sizes: Mapping[str, int] | None = None,
    reading: Reading = NUMPY,
) -> ein.Program:
    """The program of an einsum string for operands of these ranks and types; without facts, for f32 operands.

    It holds for all extents that are 1 where these are 1; composite dims are left for the call to check. `sizes` gives
    extents by axis name.
    """
    subscripts, sizes = _parsed(subscripts), sizes or {}
    if facts is None:
        layout = lay_out(choose(subscripts), None, sizes, sum_dots=reading.sum_dots)
        return build(layout, [F32] * len(layout.inputs), sizes, reading.dtype)
    shapes = [f.shape for f in facts]
    layout = _laid_out(subscripts, shapes, sizes, reading)
    layout = broadcast(layout, shapes, plain_extents(layout, shapes, sizes))
    return build(layout, [f.dtype for f in facts], sizes, reading.dtype)


def bind_einsum(
    subscripts: Subscripts | str, facts: Sequence[Fact], sizes: Mapping[str, int], reading: Reading = NUMPY
) -> tuple[ein.Program, dict[str, int]]:
    """The program for operands of exactly these shapes, everything checked, and the extent of each of its axes."""
    subscripts, shapes = _parsed(subscripts), [f.shape for f in facts]
    layout = _laid_out(subscripts, shapes, sizes, reading)
    extents = find_extents(layout, shapes, sizes)
    program = build(broadcast(layout, shapes, extents), [f.dtype for f in facts], sizes, reading.dtype)
    legal = legal_names(layout)
    return program, {legal[axis]: extent for axis, extent in extents.items()}


def _parsed(subscripts: Subscripts | str) -> Subscripts:
    if isinstance(subscripts, Subscripts):
        return subscripts
    return parse_terms(subscripts, Source("<einsum>", subscripts).whole())


def _laid_out(subscripts: Subscripts, shapes: Sequence[Shape], sizes: Mapping[str, int], reading: Reading) -> Layout:
    _check_count(subscripts, len(shapes))
    chosen = choose(subscripts, [len(s) for s in shapes], named=reading.named)
    return lay_out(chosen, shapes, sizes, sum_dots=reading.sum_dots)


def _check_count(subscripts: Subscripts, operands: int) -> None:
    terms = len(subscripts.inputs)
    if operands == terms:
        return
    given = f"{operands} operand{'s were' if operands != 1 else ' was'}"
    spare = subscripts.inputs[operands].span if operands < terms else subscripts.span
    raise CallError(
        f"the string has {count(terms, 'term')}, but {given} given",
        spare,
        fact="each operand has one term, and ',' stands between them",
        hint="pass one operand a term" if operands < terms else "add a term for each operand, or leave the rest out",
    )


# ---------------------------------------------------------------------------------------------------------------------
# The equation


def build(layout: Layout, dtypes: Sequence[DType], sizes: Mapping[str, int], dtype: DType | None = None) -> ein.Program:
    """The program of a layout over operands of these types."""
    result = dtype or numpy_result(dtypes)
    legal = legal_names(layout)

    def dims(groups: Sequence[Group]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(legal[a.name] for a in members(g)) for g in groups)

    operands, factors = [], []
    for k, (groups, own) in enumerate(zip(layout.inputs, dtypes, strict=True)):
        place = groups[0].span.to(groups[-1].span) if groups else layout.span
        operand = ein.Operand(operand_name(k), dims(groups), own, place)
        operands.append(operand)
        read = ein.Read(operand.name, tuple(composite(d) for d in operand.dims), None, place)
        factors.append(_converted(read, own, result))
    out = dims(layout.output)
    kept = {axis for dim in out for axis in dim}
    over = tuple(dict.fromkeys(a for o in operands for d in o.dims for a in d if a not in kept))
    monoid = MONOIDS["any" if result == BOOL else "sum"] if over else None
    body = _product(factors, "and" if result == BOOL else "mul")
    return ein.Program(
        "einsum",
        tuple(operands),
        _axes(layout, sizes, legal),
        (ein.Equation((ein.Tensor("out", result),), out, (body,), monoid, over, None, layout.span),),
        ("out",),
        layout.span,
    )


def legal_names(layout: Layout) -> dict[str, str]:
    """Each axis by a name that is no word of the language."""
    names = {a.name for a in layout.axes()}
    legal = {}
    for name in names:
        new = name
        while new in _RESERVED or (new != name and new in names):
            new += "_"
        legal[name] = new
    return legal


def _axes(layout: Layout, sizes: Mapping[str, int], legal: Mapping[str, str]) -> tuple[ein.AxisDecl, ...]:
    """Axes that are a dim of their own take its extent; of the others, those that the caller gave take that."""
    alone = {a.name for dims in layout.inputs for g in dims if len(g.parts) == 1 for a in members(g)}
    used = {a.name for dims in (*layout.inputs, layout.output) for g in dims for a in members(g)}
    return tuple(
        ein.AxisDecl(
            legal[a.name], ein.Const(sizes[a.name]) if a.name in sizes and a.name not in alone else None, a.span
        )
        for a in layout.axes()
        if a.name in used
    )


def _converted(read: ein.Read, own: DType, wanted: DType) -> ein.Expr:
    """The value read, in the type computed in; a complex number gives its real part, a truth value is what is not 0."""
    if own == wanted:
        return read
    if wanted == BOOL:
        return ein.Apply("ne", (read, ein.ZERO))
    if own.is_complex and not wanted.is_complex:
        return ein.Cast(wanted, ein.Apply("re", (read,)))
    return ein.Cast(wanted, read)


def _product(factors: Sequence[ein.Expr], op: str) -> ein.Expr:
    if len(factors) > _LONGEST_CHAIN:
        half = len(factors) // 2
        return ein.Apply(op, (_product(factors[:half], op), _product(factors[half:], op)))
    return reduce(lambda a, b: ein.Apply(op, (a, b)), factors)
