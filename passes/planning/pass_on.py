"""Pass on between kernels the value made of a reduction, not the reduction itself.

    kernel P: T[i] = sum[j](f)             -->   kernel P: T[i] = sum[j](f), M[i] = T[i] / |j|
    kernel Q: V[i, j] = h(T[i] / |j|)            kernel Q: V[i, j] = h(M[i])

T is not a result, and every read of it outside P is within the same expression of T, extents and scalars. That is then
computed once, not in every block; and P's mean is more exact than one of a total that was rounded to be stored, so that
what P and Q compute with it is consistent.

And no more of a number than those that read it multiply:

    kernel P: T = f                   -->   kernel P: T: bf16 = f
    kernel Q: U = sum[k](T * W)             kernel Q: U = sum[k](T * W)      multiplied in bf16

T is no result, and whoever reads it from memory has it as one side of a contraction that rounds its sides to that type:
so every value is the same to the last bit. It takes half the room and half the time to move, and is multiplied as it
lies in memory. The gradient of a layer's outputs, which two products read, and what is between two products are such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from einc.base.types import F32, DType, settle
from einc.ein import TRUE, AxisValue, Equation, Expr, Program, Read, Tensor, axes_of, children, reads, tensors_of, walk
from einc.ein.inference import dtype_of
from einc.ein.origins import Products
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.algebra.contraction import contraction, operand_type
from einc.pipeline import Context
from einc.pipeline.plan import Plan


def pass_on(program: Program, plans: Sequence[Plan]) -> tuple[Program, tuple[Plan, ...]]:
    """The program and its plans, with kernels storing what other kernels make of a reduction, in place of it."""
    for plan in plans:
        for eq in (eq for eq in program.equations if eq.name in plan.equations):
            made = _made_of(eq, plan, program)
            if made is not None:
                return pass_on(*_passing(program, plans, plan, eq, made))
    return program, tuple(plans)


def _made_of(eq: Equation, plan: Plan, program: Program) -> Expr | None:
    """The expression that all other kernels make of a reduction; None if it is not one, or is the reduction itself."""
    if eq.monoid is None or eq.added or len(eq.outputs) > 1 or eq.name in program.results or not plan.writes(eq):
        return None
    outside = [e for other in program.equations if other.name not in plan.equations for e in other.expressions()]
    found = {made for e in outside for made in _around(eq, e)}
    made = found.pop() if len(found) == 1 else None
    single = made is not None and settle(dtype_of(made, program.dtypes())) == eq.outputs[0].dtype == F32
    return made if single and not isinstance(made, Read) else None


def _around(eq: Equation, e: Expr) -> Iterator[Expr]:
    """The largest parts of an expression that are made only of an equation's tensor at its own axes."""
    if eq.name not in tensors_of(e):
        return
    own, tensor = tuple(map(AxisValue, eq.axes)), eq.name
    plain = all(r.tensor == tensor and r.index == own and r.guard in (None, TRUE) for r in reads(e))
    if isinstance(e, Read) or (plain and set(axes_of(e)) <= set(eq.axes)):
        yield _bare(e)
        return
    for below in children(e):
        yield from _around(eq, below)


def _bare(e: Expr) -> Expr:
    """The expression without guards that always hold."""
    return bottom_up(e, lambda n: replace(n, guard=None) if isinstance(n, Read) and n.guard == TRUE else n)


def _passing(
    program: Program, plans: Sequence[Plan], plan: Plan, eq: Equation, made: Expr
) -> tuple[Program, tuple[Plan, ...]]:
    """The program and the plans with the reduction's kernel storing what other kernels make of it."""
    name = unused(f"{eq.name}_made", names(program))
    passed = Equation((Tensor(name, F32),), tuple((a,) for a in eq.axes), (made,), span=eq.span)
    read = Read(name, tuple(map(AxisValue, eq.axes)))

    def reading(e: Equation) -> Equation:
        return e.map(lambda x: bottom_up(x, lambda n: read if _bare(n) == made else n))

    equations = [e if e.name in plan.equations else reading(e) for e in program.equations]
    at = next(n for n, e in enumerate(equations) if e.name == eq.name) + 1
    own = replace(
        plan,
        equations=tuple(x for n in plan.equations for x in ((n, name) if n == eq.name else (n,))),
        stores=tuple(name if n == eq.name else n for n in plan.stores),
    )
    changed = replace(program, equations=(*equations[:at], passed, *equations[at:]))
    return changed, tuple(own if p is plan else p for p in plans)


# ---------------------------------------------------------------------------------------------------------------------
# Types


def narrowed(program: Program, plans: Sequence[Plan], context: Context) -> Program:
    """The program with the tensors that pass between kernels in the types that all their readers multiply in."""
    narrow = _Narrowing(program, plans, context)
    equations = tuple(narrow.stored(eq) for eq in program.equations)
    return replace(program, equations=equations) if equations != program.equations else program


class _Narrowing:
    """What reads each tensor of a program from memory, and the type in which it multiplies."""

    def __init__(self, program: Program, plans: Sequence[Plan], context: Context) -> None:
        self.program, self.context = program, context
        self.dtypes, self.products = program.dtypes(), Products(program)
        self.own = {name: frozenset(p.equations) for p in plans for name in p.equations}
        self.passed = {name for p in plans for name in p.stores} - set(program.results)

    def stored(self, eq: Equation) -> Equation:
        """The equation with its tensor in the type that it is read in."""
        (first, *others), own = eq.outputs, self.own[eq.name]
        if others or eq.added or first.name not in self.passed or not first.dtype.is_float:
            return eq
        readers = [e for e in self.program.equations if any(r.tensor == first.name for r in _reads(e))]
        beside = [e for e in readers if e.name in own]
        if eq.monoid is not None and beside:  # in its own kernel a reduction has the value that it is stored as
            return eq
        types = {self.type_of(e, first.name) for e in readers if e.name not in own}
        t = types.pop() if len(types) == 1 else None
        narrower = t is not None and t.is_float and t.bits < first.dtype.bits
        return replace(eq, outputs=(replace(first, dtype=t),)) if t is not None and narrower else eq

    def type_of(self, eq: Equation, name: str) -> DType | None:
        """The type in which an equation multiplies a tensor; None if it reads it otherwise."""
        if eq.monoid is None or not eq.monoid.adds or len(eq.bodies) > 1:
            return None
        found = contraction(eq, eq.body, self.context.size)
        if found is None:
            return None
        sides = [(side, term) for term in found.terms for side in (term.left, term.right)]
        alone = [term for side, term in sides if len(side) == 1 and _is_of(side[0], name)]
        if len(alone) != sum(r.tensor == name for r in _reads(eq)):
            return None
        types = {operand_type(term, self.products.product(eq), self.dtypes).held for term in alone}
        return types.pop() if len(types) == 1 else None


def _reads(eq: Equation) -> list[Read]:
    """Every read in an equation, equal ones as often as they are there."""
    return [n for e in eq.expressions() for n in walk(e) if isinstance(n, Read)]


def _is_of(e: object, name: str) -> bool:
    return isinstance(e, Read) and e.tensor == name
