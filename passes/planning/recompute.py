"""Recompute a tensor in the kernel that reads it, instead of storing it in another.

    kernel P: T[i...] = f(i...), U = g(T)      -->      kernel P: T[i...] = f(i...), U = g(T)
    kernel Q: V = h(T[e...])                            kernel Q: S[e...] = f(e...), V = h(S)

S is an equation of its own, at the axes that T is read at, together with the tensors upstream of T that are no smaller;
smaller tensors, and those that are `compared`, are read. This is an alternative, taken where the kernels are predicted
to take clearly less time, or not much more without a T that is `large` (`partition`): a T along two sequences need not
be in memory only because two kernels, each along one of these, need it.

    kernel P: T[i...] = f(i...), U = g(T), V = h(T)   -->   kernel P: T[i...] = f(i...), U = g(T)
                                                            kernel Q: S[i...] = f(i...), V = h(S)

So may be one result of a kernel whose dots have few rows, since it goes over more axes than tiles have room for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from einc.ein import AxisValue, Equation, Expr, Program, Read, axes_of, reads, substitute, tensors_of
from einc.ein.rewriting import bottom_up, names, renamed, unused
from einc.passes.estimate.cost import Model
from einc.passes.estimate.units import arithmetic
from einc.passes.planning.compared import compared
from einc.passes.planning.scores import large
from einc.passes.streaming.prefix import prefix
from einc.pipeline import Context, positions
from einc.pipeline.plan import Alternative, Planned

_CLEARLY = 3 / 4  # of the time with T stored: the prediction leaves out registers for values along a walk
_NARROW = 1.5  # of the time of dots with few rows: the prediction leaves out that warpgroups do not take them


def recomputed(program: Program, plans: Sequence[Planned], context: Context) -> Iterator[Alternative]:
    """The program with a tensor computed once more in a kernel that reads it, for each that may pay.

    And with one that several kernels read computed in each of them: it is in memory until the last one does without.
    """
    again = _Recomputing(program, plans, context)
    readers: dict[str, list[Planned]] = {}
    for plan in plans:
        for name in again.movable(plan):
            readers.setdefault(name, []).append(plan)
            yield from again.alternatives(name, [plan])
    for name, several in readers.items():
        if len(several) > 1 and len(several) == len(again.readers(name)):
            yield from again.alternatives(name, several)
    for plan in plans:
        if len(plan.stores) > 1 and again.model.narrowness(plan) > 1:
            yield from again.divided(plan)


class _Recomputing:
    """The tensors of a program that kernels may compute again, and what becomes of the program then."""

    def __init__(self, program: Program, plans: Sequence[Planned], context: Context) -> None:
        self.program, self.plans, self.context = program, plans, context
        self.model = Model(program, context)
        self.maker = {t.name: eq for eq in program.equations for t in eq.outputs}
        self.plan_of = {eq.name: p for p in plans for eq in p.equations}
        self.groups = {id(p): frozenset(eq.name for eq in p.equations) for p in plans}
        self.once = compared(program)
        self.large = large(program, context)

    def reads(self, plan: Planned) -> dict[str, list[Read]]:
        own = self.groups[id(plan)]
        return _reads([eq for eq in self.program.equations if eq.name in own])

    def readers(self, name: str) -> list[Planned]:
        """The kernels that read a tensor of another."""
        return [p for p in self.plans if name in self.reads(p) and self.plan_of[self.maker[name].name] is not p]

    def movable(self, plan: Planned) -> Iterator[str]:
        """The tensors that a kernel reads from another, and may compute itself."""
        for name, at in self.reads(plan).items():
            producer = self.plan_of[self.maker[name].name] if name in self.maker else plan
            if producer is plan:
                continue
            above = _upstream(self.maker[name], self.maker, self.context)
            movable = self.once.isdisjoint(_made(above)) and all(_is_plain(eq, self.program) for eq in above)
            movable = movable and all(_is_placed(r, above) for r in at)
            if movable and (name in self.large or _may_pay(above, len(at), producer, self.model)):
                yield name

    def alternatives(self, name: str, readers: Sequence[Planned]) -> Iterator[Alternative]:
        """The program with the tensor computed in these kernels, with all of their equations, those after it, or those
        that read it."""
        above = _upstream(self.maker[name], self.maker, self.context)
        producer = self.plan_of[self.maker[name].name]
        program, made = self.program, []
        for plan in readers:
            copied, program = _again(program, self.groups[id(plan)], self.reads(plan)[name], above)
            made.append(copied)
        own = [self.groups[id(p)] for p in readers]
        left = [self.groups[id(producer)]] if set(producer.stores) <= _made(above) else []  # not needed any more
        others = [g for g in self.groups.values() if g not in own and g not in left]
        after = [_after(name, p) for p in readers]
        reading = [frozenset(eq.name for eq in p.equations if name in self.reads_of({eq.name})) for p in readers]
        for kept in dict.fromkeys((tuple(own), tuple(after), tuple(reading))):
            joined = [group | copied for group, copied in zip(kept, made, strict=True)]
            yield Alternative(program, [*others, *joined], _CLEARLY)

    def divided(self, plan: Planned) -> Iterator[Alternative]:
        """The program with one of a kernel's results in a kernel of its own, with the large tensors that it reads."""
        own = self.groups[id(plan)]
        others = [g for g in self.groups.values() if g is not own]
        for eq in (eq for eq in plan.equations if eq.name in plan.stores):
            read = {n: at for n, at in _reads([eq]).items() if n in self.maker and self.maker[n].name in own}
            apart = own - {eq.name}
            if len(read) != 1 or any(t.name in self.reads_of(apart) for t in eq.outputs):
                continue
            ((name, at),) = read.items()
            above = _upstream(self.maker[name], self.maker, self.context)
            plain = all(_is_plain(e, self.program) for e in above) and all(_is_placed(r, above) for r in at)
            if plain and self.once.isdisjoint(_made(above)):
                copied, program = _again(self.program, {eq.name}, at, above)
                yield Alternative(program, [*others, apart, copied | {eq.name}], _NARROW, divides=True)

    def reads_of(self, group: Collection[str]) -> set[str]:
        """The tensors that a group of equations reads."""
        return {n for eq in self.program.equations if eq.name in group for e in eq.expressions() for n in tensors_of(e)}


def _made(equations: Sequence[Equation]) -> set[str]:
    return {t.name for eq in equations for t in eq.outputs}


def _after(name: str, plan: Planned) -> frozenset[str]:
    """The equations of a kernel that follow from a tensor."""
    found: set[str] = set()
    for eq in plan.equations:
        if any(n == name or n in found for e in eq.expressions() for n in tensors_of(e)):
            found.update(t.name for t in eq.outputs)
    return frozenset(eq.name for eq in plan.equations if eq.name in found)


def _reads(equations: Sequence[Equation]) -> dict[str, list[Read]]:
    """The reads of each tensor in these equations, without those that decide where a walk goes."""
    bounds = {name for eq in equations if eq.within is not None for name in tensors_of(eq.within)}
    found: dict[str, list[Read]] = {}
    for r in dict.fromkeys(r for eq in equations for e in eq.computed() for r in reads(e)):
        if r.tensor not in bounds:
            found.setdefault(r.tensor, []).append(r)
    return found


def _upstream(eq: Equation, maker: Mapping[str, Equation], context: Context) -> list[Equation]:
    """The equation after those that it is computed from and that are no smaller than it."""
    least = positions(eq.axes, context)
    found: dict[str, Equation] = {}

    def visit(e: Equation) -> None:
        for source in (maker[r.tensor] for x in e.expressions() for r in reads(x) if r.tensor in maker):
            if source.name not in found and positions(source.axes, context) >= least:
                visit(source)
        found[e.name] = e

    visit(eq)
    return list(found.values())


def _is_plain(eq: Equation, program: Program) -> bool:
    """Can it be computed at other axes? It is real, and has neither composite dimensions nor prefixes."""
    is_real = not any(t.dtype.is_complex for t in eq.outputs)
    return is_real and all(len(d) == 1 for d in eq.dims) and prefix(eq, program) is None


def _is_placed(r: Read, above: Sequence[Equation]) -> bool:
    """Is the last of these equations read at distinct axes that none of the equations uses otherwise?

    And do the equations read each other only at their own axes?
    """
    if r.guard is not None or not all(isinstance(x, AxisValue) for x in r.index) or len(set(r.index)) < len(r.index):
        return False
    own = set(above[-1].axes)
    others = {a for eq in above for a in (*eq.axes, *eq.over)} - own
    bound = {a for eq in above for a in eq.over}
    at = {a for x in r.index for a in axes_of(x)}
    if r.index != tuple(map(AxisValue, above[-1].axes)) and (at & others or bound & own):
        return False
    made = {t.name: eq for eq in above for t in eq.outputs}
    inner = [x for eq in above for e in eq.expressions() for x in reads(e) if x.tensor in made]
    return all(x.guard is None and x.index == tuple(map(AxisValue, made[x.tensor].axes)) for x in inner)


def _may_pay(above: Sequence[Equation], times: int, producer: Planned, model: Model) -> bool:
    """Does computing the last of these equations that often take less than storing it, or than its kernel?"""
    rates, last = model.context.target.rates, above[-1]
    works = [model.operations(eq) for eq in above]
    dots, vector, special = (times * sum(w[k] for w in works) for k in range(3))
    computing, _ = arithmetic(rates, dots, vector, special)
    moved = 2 * positions(last.axes, model.context) * sum(t.dtype.size for t in last.outputs)
    alone = set(producer.stores) <= _made(above)
    return computing < moved / rates.memory + (model.cost(producer).seconds if alone else 0)


def _again(
    program: Program, readers: Collection[str], at: Sequence[Read], above: Sequence[Equation]
) -> tuple[set[str], Program]:
    """The names of the copied equations, and the program in which the readers read these copies of their own."""
    taken = names(program)
    made: list[Equation] = []
    places: dict[Expr, Expr] = {}
    for r in at:
        new = {t.name: unused(f"{t.name}_again", taken) for eq in above for t in eq.outputs}
        taken.update(new.values())
        axes = dict(zip(above[-1].axes, r.index, strict=True))
        made += [_moved(eq, axes, new) for eq in above]
        places[r] = replace(r, tensor=new[r.tensor])
    instead = [
        eq.map(lambda e: bottom_up(e, lambda n: places.get(n, n))) if eq.name in readers else eq
        for eq in program.equations
    ]
    first = next(n for n, (old, new) in enumerate(zip(program.equations, instead, strict=True)) if old is not new)
    return {eq.name for eq in made}, replace(program, equations=(*instead[:first], *made, *instead[first:]))


def _moved(eq: Equation, axes: dict[str, Expr], new: Mapping[str, str]) -> Equation:
    """The equation at other axes, its tensors and those that it reads under new names."""
    outputs = tuple(replace(t, name=new[t.name]) for t in eq.outputs)
    dims = tuple(axes_of(axes.get(a, AxisValue(a))) for a in eq.axes)
    return renamed(replace(eq.map(lambda e: substitute(e, axes)), outputs=outputs, dims=dims), new)
