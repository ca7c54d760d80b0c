"""Search for the kernels of a program, by predicted time.

Start with one kernel for each equation. Join a kernel with one, or with all, of those whose tensors it reads, or with
all that read its own, wherever that gains most, until nothing gains; then join kernels that read a tensor in the same
way. What a bound shows to gain less is not planned. A tensor that nothing outside its kernel reads is then never
written. One that is larger than any operand and any result, or that holds the scores of two sequences, is written only
where that saves more than half of the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

from einc.ein import Equation, Program, tensors_of
from einc.ein.conditions import added_at
from einc.passes.estimate.cost import Kept, Model
from einc.passes.estimate.fit import WHOLE_DOT, crosses, crowds
from einc.passes.estimate.least import least
from einc.passes.estimate.parts import parts
from einc.passes.estimate.sides import shapes_of, steps
from einc.passes.estimate.single import alone
from einc.passes.estimate.visited import share
from einc.passes.planning.compared import compared, computes_again
from einc.passes.planning.flow import Flow
from einc.passes.planning.roles import Apart, Hold, crossing, misread, planned, walkable
from einc.passes.planning.scores import large, scores
from einc.passes.streaming.prefix import prefix
from einc.passes.streaming.walks import can_split
from einc.pipeline import Context
from einc.pipeline.plan import Groups, Join, Planned
from einc.tile.asked import asked

FOR_MEMORY = 2.5  # times as long, to do without a tensor that is larger than any operand and any result
WITHIN = 1.25  # the same where walks within walks take its place
_MOST_EQUATIONS = 32  # in one kernel; larger groups are not tried


@dataclass(frozen=True, slots=True)
class Memory:
    """Results for equations and kernels, shared by the searches of programs that have them in common."""

    model: Kept = field(default_factory=Kept)
    joined: dict[tuple[tuple[Equation, ...], tuple[str, ...]], Planned | Apart] = field(default_factory=dict)
    seconds: dict[Planned, float] = field(default_factory=dict)


class Search:
    """The gains of joining kernels; results are kept in a memory."""

    def __init__(self, program: Program, context: Context, memory: Memory | None = None) -> None:
        self.program, self.context = program, context
        self.memory = memory or Memory()
        self.dtypes = program.dtypes()
        self.model = Model(program, context, self.memory.model)
        self.spared = large(program, context)
        self.compared = compared(program)

    def separate(self) -> list[Planned]:
        """A kernel for each equation."""
        return [alone(eq, self.program, self.context) for eq in self.program.equations]

    def begin(self, plans: Sequence[Planned], groups: Groups = ()) -> list[Join] | None:
        """The joins that give each group of equations a kernel; None where a group cannot share one, or where kernels
        would wait for each other."""
        flow = Flow(plans)
        found = []
        for names in groups:
            group = [p for p in plans if p.equations[0].name in names]
            if len(group) > 1:
                joined = self.joined(*self.together(group, flow))
                if isinstance(joined, Apart):
                    return None
                found.append(Join(tuple(group), joined, taken=True))
        return found if Flow(reduce(after, found, [*plans])).is_ordered else None

    def steps(self, plans: list[Planned]) -> Iterator[Join]:
        """The joins that gain most, one after the other, until nothing gains."""
        while (step := self.best(plans)) is not None:
            group, joined = step
            yield (join := Join(tuple(group), joined, taken=True))
            plans = after(plans, join)

    def left(self, plans: Sequence[Planned]) -> Iterator[Join]:
        """The joins that were not taken."""
        flow = Flow(plans)
        for group in flow.candidates():
            joined = self.joined(*self.together(group, flow))
            yield Join(tuple(group), joined.reason if isinstance(joined, Apart) else joined)

    def seconds(self, plan: Planned) -> float:
        """Those that a plan is predicted to take, with the blocks that its mask leaves."""
        known = self.memory.seconds
        if plan not in known:
            _, known[plan] = parts(self.model, plan, share(plan, self.context))
        return known[plan]

    def total(self, group: Iterable[Planned]) -> float:
        """The seconds of kernels one after the other."""
        return sum(map(self.seconds, group))

    def best(self, plans: list[Planned]) -> tuple[list[Planned], Planned] | None:
        """The kernels whose join gains most, and the joined kernel; None if nothing gains."""
        flow = Flow(plans)
        candidates = list(flow.candidates())
        return self.most(candidates, flow) or self.most(flow.siblings(), flow) or self.least_memory(candidates, flow)

    def most(self, groups: Iterable[list[Planned]], flow: Flow) -> tuple[list[Planned], Planned] | None:
        """The group whose join gains most, and the joined kernel; of equal ones the first.

        Groups are looked at in the order of what they may gain at most, up to the first that may gain less than one
        does.
        """
        unions = [(n, group, self.together(group, flow)) for n, group in enumerate(groups)]
        bounds = [(self.total(group) - least(self.model, *union), n, group, union) for n, group, union in unions]
        found: tuple[list[Planned], Planned] | None = None
        most, first = 0.0, 0
        for bound, n, group, union in sorted(bounds, key=lambda b: (-b[0], b[1])):
            if bound < most:
                break
            joined = self.joined(*union)
            if isinstance(joined, Apart):
                continue
            gain = self.total(group) - self.seconds(joined)
            if gain > most or (found is not None and gain == most and n < first):
                most, first, found = gain, n, (group, joined)
        return found

    def least_memory(self, groups: Iterable[list[Planned]], flow: Flow) -> tuple[list[Planned], Planned] | None:
        """The group that loses least of those that pass on fewer large tensors when joined, and the joined kernel."""
        found: tuple[list[Planned], Planned] | None = None
        most = FOR_MEMORY
        for group in groups:
            equations, stores = self.together(group, flow)
            spared, alone = self.passed(group) - self.passing(stores), self.total(group)
            if not spared or least(self.model, equations, stores) > most * alone:
                continue
            joined = self.joined(equations, stores)
            if isinstance(joined, Apart):
                continue
            loss = self.seconds(joined) / alone
            if loss <= min(most, self.worth(spared, [joined])):
                most, found = loss, (group, joined)
        return found

    def worth(self, spared: Collection[str], plans: Iterable[Planned]) -> float:
        """How many times as long kernels may take that spare these large tensors.

        A walk within a walk reads its operands again for every block: it may take that long for scores alone.
        """
        within = any(p.inner for p in plans) and scores(self.program, self.context).isdisjoint(spared)
        return WITHIN if within else FOR_MEMORY

    def passing(self, stores: Collection[str]) -> frozenset[str]:
        """The `large` tensors that a kernel which stores these passes on to others."""
        return self.spared.intersection(stores).difference(self.program.results)

    def passed(self, plans: Iterable[Planned]) -> frozenset[str]:
        """The large tensors that kernels pass on."""
        return frozenset(t for p in plans for t in self.passing(p.stores))

    def together(self, group: Sequence[Planned], flow: Flow) -> tuple[tuple[Equation, ...], tuple[str, ...]]:
        """The equations of several kernels, and the tensors that one kernel for all of them stores."""
        inside = {eq.name for p in group for eq in p.equations}
        own = {id(p) for p in group}
        outside = {name for p, read in zip(flow.plans, flow.reads, strict=True) if id(p) not in own for name in read}
        equations = tuple(eq for eq in self.program.equations if eq.name in inside)
        names = tuple(t.name for eq in equations for t in eq.outputs)
        return equations, tuple(n for n in names if n in outside or n in self.program.results)

    def joined(self, equations: tuple[Equation, ...], stores: tuple[str, ...]) -> Planned | Apart:
        """The cheapest plan for equations in one kernel that stores these tensors, or why they cannot be in one."""
        if len(equations) > _MOST_EQUATIONS:
            return Apart(f"{len(equations)} equations are too many for one kernel")
        known = self.memory.joined
        if (equations, stores) not in known:
            known[equations, stores] = self.shared(equations, stores)
        return known[equations, stores]

    def shared(self, equations: tuple[Equation, ...], stores: tuple[str, ...]) -> Planned | Apart:
        if any(map(added_at, equations)):
            return Apart("terms are added at their places in memory, where no kernel reads them before it is done")
        if any(t.dtype.is_complex for eq in equations for t in eq.outputs):
            return Apart("complex values are not passed on within a kernel")
        found = {eq.name: p for eq in equations if (p := prefix(eq, self.program)) is not None}
        if len({(p.walked, p.reverse) for p in found.values()}) > 1:
            return Apart("prefixes along several axes, or from both ends, do not share a walk")
        along = {p.scanned: p.walked for p in found.values()}
        if (reason := misread(equations, along) or crossing(equations, along, found)) is not None:
            return Apart(reason)
        shapes = shapes_of((eq for eq in equations if eq.name not in found), self.context)
        groups = [(p.walked,) for p in found.values()] or walkable(equations, self.context)

        def walking(axes: tuple[str, ...], hold: Hold = Hold.LACKED) -> Planned | Apart:
            plan = planned(equations, stores, axes, along, shapes, self.context, self.dtypes, hold)
            lacks = plan.overflows if isinstance(plan, Apart) else crowds(plan, shapes, self.context, self.dtypes)
            if lacks and axes:
                within = planned(equations, stores, axes, along, shapes, self.context, self.dtypes, hold, within=True)
                plan = within if isinstance(plan, Apart) or isinstance(within, Planned) else plan
            if isinstance(plan, Planned) and (passed := self.paired(plan)) is not None:
                return Apart(f"{passed[1]} would be held, and {passed[0]} over it passed on", overflows=True)
            again = computes_again(plan, self.compared) if isinstance(plan, Planned) else None
            return plan if again is None else Apart(f"{again}, which is compared with itself, would be computed again")

        made = {walked: walking(walked) for walked in groups}
        plans = [p for p in made.values() if isinstance(p, Planned)]
        wanting = {walked: p for walked, p in made.items() if self.wants_spread(p)}
        less = (Hold.BESIDE, Hold.UNSTORED)
        spread = ((walking(walked, hold), held) for walked, held in wanting.items() for hold in less)
        plans += [p for p, held in spread if isinstance(p, Planned) and p != held and self.repeats_little(p, held)]
        reasons = [f"{_walking(walked)}: {p.reason}" for walked, p in made.items() if isinstance(p, Apart)]
        return self.least(plans) if plans else Apart("; ".join(reasons))

    def paired(self, plan: Planned) -> tuple[str, str] | None:
        """A large tensor passed on to a kernel or by it, and a long axis of it held whole in the cache, or None.

        Such an axis is held to reduce what is computed along it and along a walk: it need not be in memory then.
        """
        if not self.context.target.cache:
            return None
        made = {t.name: eq.axes for eq in self.program.equations for t in eq.outputs}
        own = {t.name for eq in plan.equations for t in eq.outputs}
        read = {name for eq in plan.equations for e in eq.computed() for name in tensors_of(e)} - own
        passed = sorted(self.spared & (read | {*plan.stores} - {*self.program.results}))
        held = [a for a in plan.whole if self.context.size(a) > 2 * WHOLE_DOT]
        return next(((name, a) for name in passed for a in held if a in made[name]), None)

    def least(self, plans: Sequence[Planned]) -> Planned:
        """The best of several: by rank, then a walk.

        If all else is equal, a walk along an axis of a contraction's result suits any length, a tile only this one.
        """
        if len(plans) == 1:
            return plans[0]
        ranks = [self.rank(p) for p in plans]
        first, *others = (p for p, rank in zip(plans, ranks, strict=True) if rank == min(ranks))
        return next(filter(self.walks_scores, (first, *others)), first) if others else first

    def rank(self, plan: Planned) -> tuple[bool, bool, float]:
        """Less is better: first a walk that can be split into parts, if parts are asked for, then room for rows that
        columns are met with on vector units, then time."""
        parted = asked(self.context.choices, "parts", plan.name) is not None
        crowded = crowds(plan, {}, self.context, self.dtypes) and not shapes_of(plan.equations, self.context)
        return parted and not can_split(plan), crowded, self.seconds(plan)

    def wants_spread(self, held: Planned | Apart) -> bool:
        """Are tiles too large, or programs too few, where short axes are held whole?"""
        if isinstance(held, Apart):
            return held.overflows
        return bool(held.whole) and self.model.utilisation(held, 1) < 1

    def repeats_little(self, plan: Planned, other: Planned | Apart) -> bool:
        """Does the plan compute at most twice what another does, if there is one, or without dots less than a launch
        takes?"""
        if isinstance(other, Apart) or (self.model.is_plain(plan) and self.model.cost(plan).limit == "launch"):
            return True
        return all(a <= 2 * b for a, b in zip(self.model.computed(plan), self.model.computed(other), strict=True))

    def walks_scores(self, plan: Planned) -> bool:
        """Does the plan walk an axis, block by block or step by step, that results of a contraction, or of what reads
        its sides alike, extend over?"""
        shapes = shapes_of(plan.equations, self.context)
        others = (eq for eq in plan.equations if eq.monoid is not None and eq.name not in shapes)
        crossed = (eq.axes for eq in others if crosses(eq))
        extended = (*((*s.rows, *s.columns) for s in shapes.values()), *crossed)
        return any(set(plan.walked) & {*axes} for axes in extended) or steps(plan, self.context)


def after(plans: Iterable[Planned], join: Join) -> list[Planned]:
    """The kernels after some have been joined."""
    assert not isinstance(join.made, str)
    return [*(p for p in plans if all(p is not q for q in join.kernels)), join.made]


def _walking(axes: tuple[str, ...]) -> str:
    return f"walking {', '.join(axes)}" if axes else "walking nothing"
