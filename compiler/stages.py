"""A program through the passes: what it is after each of them.

    ein.Program, Context  --passes-->  a stage for each pass; the last one has the kernels

A text with kernels begins at the pass that they come after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from einc import ein, tile
from einc.base import errors
from einc.base.errors import nearest
from einc.codegen import TRITON
from einc.ein.origins import fixed
from einc.ein.printer import print_program
from einc.passes import pipeline
from einc.passes.equations.split_complex import split_complex
from einc.pipeline import Backend, Context, Pass, State, forms
from einc.pipeline.plan import Plan
from einc.tile.faults import Fault
from einc.tile.printer import print_schedule

if TYPE_CHECKING:
    from einc.frontend.tiles.kernels import Kernels

ELABORATED = "elaborate"  # the name of the stage before the first pass


@dataclass(frozen=True, slots=True)
class Stage:
    """The program after a pass: `name` is the pass's, `changed` whether it did anything."""

    name: str
    state: State
    changed: bool

    @property
    def text(self) -> str:
        """The equations, or the kernels once there are any; `(unchanged)` where the pass did nothing."""
        return self.brief if self.changed else "(unchanged)\n"

    @property
    def brief(self) -> str:
        """The same, whether changed or not; plans of kernels stand under the equations as comments."""
        if self.state.schedule is not None:
            return print_schedule(self.state.schedule)
        return print_program(self.state.program) + "".join(map(_print_plan, self.state.plans))

    @property
    def full(self) -> str:
        """Text that compiles again: the equations, and below them the kernels once there are any."""
        if self.state.schedule is None:
            return self.brief
        return f"{print_program(self.state.program)}\nkernels after {self.name}\n{self.brief}\n"


def stage(stages: Sequence[Stage], name: str) -> Stage:
    """The stage of that name; raises `einc.NameError` for any other."""
    found = next((s for s in stages if s.name == name), None)
    if found is not None:
        return found
    known = [s.name for s in stages]
    raise errors.NameError(
        f"there is no stage '{name}'",
        fact=f"stages: {', '.join(known)}",
        hint=nearest(name, known) or "one of these",
    )


def _print_plan(p: Plan) -> str:
    parts = [f"# kernel {', '.join(p.stores)}: computes {', '.join(p.equations)}"]
    for verb, axes in (
        ("one position of", p.batch),
        ("blocks of", (*p.rows, *p.columns)),
        ("walks", p.walked),
        ("within it walks", tuple(a for group in p.inner for a in group)),
        ("holds all of", p.whole),
    ):
        parts += [f"{verb} {', '.join(axes)}"] if axes else []
    parts += [f"in {p.splits} parts, which a second kernel merges"] if p.splits > 1 else []
    return "; ".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class Given:
    """Kernels that a text has, and the pass that they come after."""

    schedule: tile.Schedule
    after: str


def passes(level: int, after: str | None = None, backend: Backend = TRITON) -> tuple[Pass, ...]:
    """The passes that run at an optimisation level, in order; those that come after one, where it is named."""
    table = pipeline(backend)
    done = 0 if after is None else 1 + next(k for k, p in enumerate(table) if p.name == after)
    return tuple(p for p in table[done:] if p.level <= level)


def _first_with_kernels(table: tuple[Pass, ...]) -> int:
    return next(k for k, p in enumerate(table) if "lowered" in p.gives)


def given(kernels: Kernels, program: ein.Program, backend: Backend = TRITON) -> Given:
    """The kernels that a text has of its program. Raises `Error` where they cannot come after the pass it names."""
    from einc.frontend.tiles.check import as_error

    table = pipeline(backend)
    names, first = [p.name for p in table], _first_with_kernels(table)
    after = kernels.after or names[-1]
    if after not in names[first:]:
        raise errors.NameError(
            f"no kernels come after '{after}'",
            kernels.place,
            fact=f"they come after {', '.join(names[first:])}",
            hint=nearest(after, names[first:]) or "one of these",
        )
    try:
        for p in table[first : names.index(after) + 1]:
            for name in p.gives:
                forms.FORMS[name].check(State(program, kernels.schedule))
    except Fault as fault:
        raise as_error(fault, kernels) from None
    return Given(kernels.schedule, after)


def run_passes(
    program: ein.Program, context: Context, verify: bool = True, begin: Given | None = None
) -> tuple[Stage, ...]:
    """Every stage of a program, from the kernels on that it begins with, if there are any.

    `verify` checks what every pass leaves, before the next one sees it.
    """
    state = State(fixed(program)) if begin is None else State(split_complex(fixed(program)), begin.schedule)
    stages = [Stage(ELABORATED if begin is None else begin.after, state, True)]
    table = pipeline(context.backend)
    left = passes(context.level, None if begin is None else begin.after, context.backend)
    lowered = table[_first_with_kernels(table) :]  # a text's equations are as written
    coming = {p.name for p in left}
    held = [name for p in lowered if p.level <= context.level and p.name not in coming for name in p.gives]
    if verify and left:
        forms.admit(left[0], state)
    return _onwards(stages, left, context, held if verify else None)


def planned(program: ein.Program, context: Context) -> State:
    """The program with the plans that its kernels are lowered from, which say what they pass on."""
    state = State(fixed(program))
    table = passes(context.level, None, context.backend)
    forms.admit(table[0], state)
    return _onwards([Stage(ELABORATED, state, True)], table[: _first_with_kernels(table)], context, [])[-1].state


def resumed(stages: Sequence[Stage], context: Context, verify: bool = True) -> tuple[Stage, ...]:
    """Every stage of a program with other choices than those that it has been through the passes with, where these
    decide nothing before kernels are lowered: up to there its stages are as they were."""
    table = passes(context.level, None, context.backend)
    first = _first_with_kernels(table)
    done = list(stages[: first + 1])
    for before, after in pairwise(done):
        context = _knowing(context, before.state, after.state)
    held = [name for p in table[:first] for name in p.gives]
    return _onwards(done, table[first:], context, held if verify else None)


def _onwards(stages: list[Stage], left: Sequence[Pass], context: Context, held: list[str] | None) -> tuple[Stage, ...]:
    """The stages, and those of the passes that are left; `held` forms hold, and are checked if there is a list."""
    state = stages[-1].state
    for p in left:
        after = p.run(state, context)
        if held is not None:
            forms.check(p, state, after, held)
            held += p.gives
        stages.append(Stage(p.name, after, after != state))
        context = _knowing(context, state, after)
        state = after
    return tuple(stages)


def _knowing(context: Context, before: State, after: State) -> Context:
    """The context with hints for the axes that a pass has added."""
    return context.knowing(after.program.axes[len(before.program.axes) :])
