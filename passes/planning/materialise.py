"""Store a computed side of a contraction, where every block of the other side would compute it again.

    Y[n, e] = sum[h](f(G[n, h], U[n, h]) * D[h, e])   -->   F[n, h] = f(G, U);  Y[n, e] = sum[h](F * D)

F is stored in the type that the contraction rounds its operands to, so that every value is the same to the last bit.
This is an alternative, taken where its kernels are predicted to take clearly less time (`partition`): the kernel that
computes G and U can then compute F of them before they leave its registers. Values that stream do not pass through
memory: f reads nothing that is computed in the contraction's own kernel.

A gated layer would otherwise write two tensors in f32, and evaluate its gate once for every block of the outputs.

    kernel P: r[i] = sum[e](f), T[i, j] = g(r)   -->   kernel Q: r[i] = sum[e](f);  kernel P: T[i, j] = g(r)

So may a reduction of rows alone be, which every block of columns would compute again: P reads a number for each row in
place of all that it is made of, if nothing else of P reads that. Other kernels may compute the number on their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from einc.base.types import DType
from einc.ein import Apply, AxisValue, Equation, Expr, Program, Read, Tensor, axes_of, reads, tensors_of
from einc.ein.rewriting import names, unused
from einc.passes.algebra.contraction import Contraction, contraction, operand_type
from einc.passes.algebra.exposure import is_exposed
from einc.passes.algebra.products import multiplied
from einc.passes.estimate.cost import Model
from einc.pipeline import Context, positions
from einc.pipeline.plan import Alternative, Planned

_CLEARLY = 0.9  # of the time that computing it takes in every block: a kernel and a tensor more should be worth it


@dataclass(frozen=True, slots=True)
class _Side:
    """A side of a contraction: its name, its factors, and whether several blocks of the other side need it."""

    name: str
    factors: tuple[Expr, ...]
    again: bool


def materialised(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with a computed side of a contraction as an equation of its own, for each that may pay."""
    model = Model(program, context)
    for plan in plans:
        for eq in (e for e in plan.equations if e.monoid is not None and e.monoid.adds):
            found = contraction(eq, eq.body, context.size)
            if found is not None and len(found.terms) == 1:
                for side in _sides(found, context):
                    if _may_pay(side, eq, plan, model):
                        yield Alternative(_outlined(program, eq, found, side, model), most=_CLEARLY)


def computed_once(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with what every block of a kernel's columns, or of its rows, computes again outside that kernel."""
    groups = {p: frozenset(eq.name for eq in p.equations) for p in plans}
    for plan in plans:
        for again in _repeated(plan, context):
            left = groups[plan] - again
            yield Alternative(program, [left if p is plan else own for p, own in groups.items()])


def _repeated(plan: Planned, context: Context) -> Iterator[frozenset[str]]:
    """The equations of a plan, reductions among them, that each block of its columns, or its rows, computes again, of
    what no other equation of it reads."""
    for group in (plan.columns, plan.rows):
        if positions(group, context) > context.block():
            again = {eq.name for eq in plan.equations if set(group).isdisjoint(eq.space)}
            own, others = ([eq for eq in plan.equations if (eq.name in again) == which] for which in (True, False))
            more = _read_by(own) - _read_by(others) - {t.name for eq in own for t in eq.outputs}
            if more and any(eq.monoid is not None for eq in own):
                yield frozenset(again)


def _read_by(equations: Sequence[Equation]) -> set[str]:
    return {name for eq in equations for e in eq.expressions() for name in tensors_of(e)}


def _sides(c: Contraction, context: Context) -> Iterator[_Side]:
    (term,) = c.terms
    yield _Side("left", term.left, positions(c.shape.columns, context) > context.block())
    yield _Side("right", term.right, positions(c.shape.rows, context) > context.block())


def _may_pay(side: _Side, eq: Equation, plan: Planned, model: Model) -> bool:
    """May storing the side pay? It reads several intermediates, or is computed again: from one, at length, or where it
    is no larger than what it is made of."""
    if len(side.factors) == 1 and isinstance(side.factors[0], Read):
        return False
    own = {t.name for e in plan.equations for t in e.outputs}
    read = {name for f in side.factors for name in tensors_of(f)}
    made = read - model.given
    if made & own or any(is_exposed(r, model.shapes) for f in side.factors for r in reads(f)):
        return False
    if any(model.dtypes[name].is_complex for name in (eq.name, *read)):
        return False
    if len(made) > 1 or not side.again:
        return len(made) > 1
    size = positions(tuple(dict.fromkeys(a for f in side.factors for a in axes_of(f))), model.context)
    sizes = [positions(tuple(a for dim in model.shapes[name] for a in dim), model.context) for name in read]
    return bool(made) or size <= max(sizes, default=0) or model.cost(plan).limit in ("vector", "special")


def _outlined(program: Program, eq: Equation, c: Contraction, side: _Side, model: Model) -> Program:
    """The program with a side of this equation's contraction as an equation of its own before it."""
    (term,) = c.terms
    whole = multiplied(side.factors)
    axes = tuple(a for a in _order(c, side) if a in axes_of(whole))
    dims = tuple((a,) for a in axes)
    name = unused(f"{eq.name}_{side.name}", names(program))
    stored = Equation((Tensor(name, _type(eq, c, model)),), dims, (whole,), span=eq.span)
    read = Read(name, tuple(AxisValue(a) for a in axes))
    left, right = ((read,), term.right) if side.name == "left" else (term.left, (read,))
    body = multiplied((*term.outer, *left, *right))
    last = replace(eq, bodies=(Apply("neg", (body,)) if term.negative else body,))
    before = [e for e in program.equations if e.name != eq.name]
    at = next(n for n, e in enumerate(program.equations) if e.name == eq.name)
    return replace(program, equations=(*before[:at], stored, last, *before[at:]))


def _order(c: Contraction, side: _Side) -> tuple[str, ...]:
    """The axes of a side in the best order to read it: the one that is contiguous in the tile last."""
    s = c.shape
    return (*s.batch, *s.rows, *s.inner) if side.name == "left" else (*s.batch, *s.inner, *s.columns)


def _type(eq: Equation, c: Contraction, model: Model) -> DType:
    return operand_type(c.terms[0], model.products.product(eq), model.dtypes).held
