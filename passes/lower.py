"""Equations to kernels, one each, over tiles of abstract size.

    T[o...] = monoid[r...](f)   -->   kernel T: grid o..., loop r...: state = combine(state, fold(f)); store T

A sum of products that splits in two sides becomes a dot over tiles (rows, columns, inner), its batch axes one position
a program; any other reduction folds tiles (outputs, reduced); a pointwise equation has tiles (leading axes, last axis).
Several axes in one role are flattened row-major into one tile axis and decoded by // and %.

Masks, tile sizes and the way to memory are left to `mask-edges`, `choose-tiles` and `place-loads`.
"""

from __future__ import annotations

from einc import ein, tile
from einc.ein import Equation, Expr, Program
from einc.passes.builder import Builder
from einc.passes.contraction import Contraction, Term, contraction
from einc.passes.parts import split
from einc.pipeline import Context, State
from einc.types import BF16, BOOL, F32, F64, INT, DType, accumulator, compute, join, settle


def lower(state: State, context: Context) -> State:
    """One kernel an equation; tensors that are not results live between kernels."""
    program = state.program
    kernels = tuple(_kernel(program, eq, context) for eq in program.equations)
    between = tuple(
        tile.Buffer(t.name, eq.dims, t.dtype)
        for eq in program.equations
        for t in eq.outputs
        if t.name not in program.results
    )
    return State(program, tile.Schedule(kernels, between))


def _kernel(program: Program, equation: Equation, context: Context) -> tile.Kernel:
    eq = split(equation, program.dtypes())
    builder = Builder(program, eq)
    if eq.monoid is None:
        grid = _pointwise(builder, eq)
    else:
        found = _contractions(builder, eq, context)
        grid = _general(builder, eq) if found is None else _dots(builder, eq, found)
    return builder.kernel(equation, grid)


# ---------------------------------------------------------------------------------------------------------------------
# Pointwise


def _pointwise(b: Builder, eq: Equation) -> tuple[tile.TileAxis, ...]:
    axes = eq.axes
    rows = b.axis(axes[:-1], "row") if len(axes) > 1 else None
    columns = b.axis(axes[-1:], "column") if axes else None
    grid = tuple(a for a in (rows, columns) if a is not None)
    b.enter(grid)
    order = tuple(a.name for a in grid)
    values = [b.typed(body, order, wanted) for body, wanted in zip(eq.bodies, _stored(eq), strict=True)]
    _store(b, eq, values, order)
    return grid


def _stored(eq: Equation) -> tuple[DType, ...]:
    """The type each body is stored as: one an output, or the two parts of a complex output."""
    first = eq.outputs[0].dtype
    return (first.part, first.part) if first.is_complex else tuple(t.dtype for t in eq.outputs)


def _store(b: Builder, eq: Equation, values: list[tile.Value], order: tuple[str, ...]) -> None:
    index = tuple(b.composite(dim) for dim in eq.dims)
    for n, (value, dtype) in enumerate(zip(values, _stored(eq), strict=True)):
        output = eq.outputs[0 if eq.outputs[0].dtype.is_complex else n]
        part = n if output.dtype.is_complex else None
        b.emit(tile.Store(output.name, index, value, tile.TileType(dtype, order), part=part))


# ---------------------------------------------------------------------------------------------------------------------
# Reductions in general


def _general(b: Builder, eq: Equation) -> tuple[tile.TileAxis, ...]:
    assert eq.monoid is not None
    rows = b.axis(eq.axes, "row") if eq.axes else None
    inner = b.axis(eq.over, "reduced")
    grid = (rows,) if rows else ()
    b.enter(grid)
    order = tuple(a.name for a in grid)
    types = _state_types(b, eq)
    states = b.names(eq.name, eq.monoid.components)
    identity = tuple(tile.Lit(v, t) for v, t in zip(eq.monoid.identity, types, strict=True))

    with b.loop(inner) as block:
        inside = (*order, inner.name)
        domain = None if eq.domain is None else b.typed(eq.domain, inside, BOOL)
        args = []
        for body, t, unit in zip(eq.bodies, types, identity, strict=True):
            value = b.typed(body, inside, t)
            args.append(value if domain is None else tile.Elem("where", (domain, value, unit)))
        folded = b.fold(eq.monoid, inner.name, tuple(args), order, types)
        merged = b.combine(eq.monoid, tuple(tile.Ref(s) for s in states), folded)
        for name, t, unit, value in zip(states, types, identity, merged, strict=True):
            block.carry(name, tile.TileType(t, order), tile.Fill(unit), value)

    results = [tile.Ref(states[k]) for k in eq.monoid.results]
    stored = _stored(eq)
    values = [b.convert(v, t) for v, t in zip(results, stored, strict=True)]
    _store(b, eq, values, order)
    return grid


def _state_types(b: Builder, eq: Equation) -> tuple[DType, ...]:
    """Sums and products accumulate wide; an order keeps its type; a carried index is i64."""
    assert eq.monoid is not None
    found = []
    for body in eq.bodies:
        t = b.dtype(body)
        if eq.monoid.name in ("sum", "prod"):
            out = eq.outputs[0].dtype.part
            found.append(join(accumulator(settle(t)), accumulator(out)) if not t.is_bool else accumulator(t))
        else:
            found.append(BOOL if eq.monoid.name in ("any", "all") else compute(settle(t)))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------------------
# Contractions


def _contractions(b: Builder, eq: Equation, context: Context) -> tuple[Contraction, ...] | None:
    """One contraction a body, all of one shape, if every body is one and the target's dot takes the types."""
    if eq.monoid is None or eq.monoid.name != "sum":
        return None
    found: list[Contraction] = []
    for body in eq.bodies:
        c = contraction(eq, body, context.size, found[0].shape if found else None)
        if c is None:
            return None
        if any(not context.target.takes_dot(_operand_type(b, t)) for t in c.terms):
            return None
        found.append(c)
    return tuple(found)


def _dots(b: Builder, eq: Equation, found: tuple[Contraction, ...]) -> tuple[tile.TileAxis, ...]:
    shape = found[0].shape
    batch = tuple(b.axis((a,), "batch") for a in shape.batch)
    rows, columns = b.axis(shape.rows, "row"), b.axis(shape.columns, "column")
    inner = b.axis(shape.inner, "reduced")
    b.enter((*batch, rows, columns))
    order = (rows.name, columns.name)
    states = b.names(eq.name, len(found))
    with b.loop(inner) as block:
        for name, c in zip(states, found, strict=True):
            acc: tile.Value = tile.Ref(name)
            for term in c.terms:
                acc = _dot(b, term, acc, rows.name, columns.name, inner.name)
            t = accumulator(_operand_type(b, c.terms[0]))
            block.carry(name, tile.TileType(t, order), tile.Fill(tile.Lit(0, t)), acc)
    values = [
        b.convert(_scaled(b, tile.Ref(name), c.terms[0].outer, order), t)
        for name, c, t in zip(states, found, _stored(eq), strict=True)
    ]
    _store(b, eq, values, order)
    return (*batch, rows, columns)


def _dot(b: Builder, term: Term, acc: tile.Value, row: str, column: str, inner: str) -> tile.Value:
    operand = _operand_type(b, term)
    left = b.typed(_product(term.left), (row, inner), operand)
    if term.negative:
        left = tile.Elem("neg", (left,))
    right = b.typed(_product(term.right), (inner, column), operand)
    return tile.Dot(
        b.bind("left", left, (row, inner)), b.bind("right", right, (inner, column)), acc, row, column, inner
    )


def _scaled(b: Builder, value: tile.Value, outer: tuple[Expr, ...], order: tuple[str, ...]) -> tile.Value:
    for factor in outer:
        t = join(b.type_of(value), compute(settle(b.dtype(factor))))
        value = tile.Elem("mul", (b.convert(value, t), b.typed(factor, order, t)))
    return value


def _product(factors: tuple[Expr, ...]) -> Expr:
    whole = factors[0]
    for f in factors[1:]:
        whole = ein.Apply("mul", (whole, f))
    return whole


def _operand_type(b: Builder, term: Term) -> DType:
    """The common type of a dot's operands.

    A side that is read as it lies in memory, or cast, has a type of its own; a computed side takes its partner's, if
    that is a float. Two computed sides meet in f32 (f64 if either is).
    """
    left, right = _own_type(b, term.left), _own_type(b, term.right)
    if left is not None and right is not None:
        return join(left, right)
    own = left or right
    wide = [join(F32, compute(settle(b.dtype(f)))) for f in (*term.left, *term.right)]
    if F64 in wide:
        return F64
    if own is None or not own.is_float:
        return F32
    return BF16 if own.bits == 8 else own


def _own_type(b: Builder, side: tuple[Expr, ...]) -> DType | None:
    if len(side) > 1:
        return None
    match side[0]:
        case ein.Read(tensor=name):
            stored = b.program.dtypes()[name]
            return stored if name in b.given or stored != F32 else None
        case ein.Apply(op="re" | "im", args=(ein.Read(tensor=name),)):
            return b.program.dtypes()[name].part
        case ein.Cast(dtype=dtype):
            return None if dtype == INT else dtype
        case e:
            t = settle(b.dtype(e))
            return t if t.is_int or t.is_bool else None
