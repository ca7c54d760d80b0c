"""An einsum string into the one equation that it is: a sum, over the axes not in the output, of a product of reads.

    "ij,jk"   -->   out[i, k] = sum[j](A[i, j] * B[j, k])

Nothing summed leaves a pointwise equation; of booleans the sum is `any` and the product `and`. Operands are read in
the type that NumPy's promotion gives all of them together, which is also the type of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from einc import ein
from einc.binding import Fact
from einc.errors import CallError
from einc.frontend.extents import find_extents
from einc.frontend.layout import Layout, broadcast, lay_out, members, operand_name
from einc.frontend.termparser import parse_terms
from einc.frontend.terms import Group, Subscripts, choose
from einc.guards import composite
from einc.source import Source
from einc.types import BOOL, F32, DType, numpy_join

_LONGEST_CHAIN = 32  # factors that are multiplied one after the other; more are multiplied as a tree
_RESERVED = frozenset({"and", "axis", "def", "false", "fn", "inf", "not", "or", "return", "true"})


def elaborate_einsum(
    subscripts: Subscripts | str,
    facts: Sequence[Fact] | None = None,
    sizes: Mapping[str, int] | None = None,
    *,
    dtype: DType | None = None,
    sum_dots: bool = False,
) -> ein.Program:
    """The program of an einsum string for operands of these shapes and types; without facts, of f32 operands.

    The program holds for all extents that differ from 1 where these do. `sizes` gives extents by axis name, `dtype` the
    type to compute in. `sum_dots` sums over ellipses that the output leaves out, as PyTorch does, where NumPy refuses.
    """
    if isinstance(subscripts, str):
        source = Source("<einsum>", subscripts)
        subscripts = parse_terms(subscripts, source.whole())
    layout = arrange(subscripts, None if facts is None else [f.shape for f in facts], sizes or {}, sum_dots=sum_dots)
    dtypes = [F32] * len(layout.inputs) if facts is None else [f.dtype for f in facts]
    return build(layout, dtypes, sizes or {}, dtype)


def arrange(
    subscripts: Subscripts,
    shapes: Sequence[tuple[int, ...]] | None,
    sizes: Mapping[str, int],
    *,
    sum_dots: bool = False,
) -> Layout:
    """Choose the reading of a string, name its ellipses, check all extents, and mark the dims that broadcast."""
    if shapes is None:
        return lay_out(choose(subscripts), None, sizes, sum_dots=sum_dots)
    _check_count(subscripts, len(shapes))
    layout = lay_out(choose(subscripts, [len(s) for s in shapes]), shapes, sizes, sum_dots=sum_dots)
    return broadcast(layout, shapes, find_extents(layout, shapes, sizes))


def _check_count(subscripts: Subscripts, operands: int) -> None:
    terms = len(subscripts.inputs)
    if operands == terms:
        return
    given = f"{operands} operand{'s were' if operands != 1 else ' was'}"
    spare = subscripts.inputs[operands].span if operands < terms else subscripts.span
    raise CallError(
        f"the string has {terms} term{'s' * (terms != 1)}, but {given} given",
        spare,
        fact="each operand has one term, and ',' stands between them",
        hint="pass one operand a term" if operands < terms else "add a term for each operand, or leave the rest out",
    )


# ---------------------------------------------------------------------------------------------------------------------
# The equation


def build(layout: Layout, dtypes: Sequence[DType], sizes: Mapping[str, int], dtype: DType | None = None) -> ein.Program:
    """The program of a layout over operands of these types."""
    result = dtype or reduce(numpy_join, dtypes)
    legal = _legal_names(layout)

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
    monoid = ein.MONOIDS["any" if result == BOOL else "sum"] if over else None
    body = _product(factors, "and" if result == BOOL else "mul")
    return ein.Program(
        "einsum",
        tuple(operands),
        _axes(layout, sizes, legal),
        (ein.Equation((ein.Tensor("out", result),), out, (body,), monoid, over, None, layout.span),),
        ("out",),
        layout.span,
    )


def _legal_names(layout: Layout) -> dict[str, str]:
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
