"""From text to kernels: the only place that strings the floors together.

    text --parse--> Text --elaborate(facts)--> ein.Program --passes--> tile.Schedule --emit--> Triton source

A text with kernels begins at the pass that they come after.
Everything in between is kept as a stage, to be looked at. Nothing here knows tensors, only facts about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from einc import ein, tile
from einc.base import errors
from einc.base.errors import nearest
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.targets import Target
from einc.binding import plan
from einc.codegen import TRITON
from einc.ein.origins import fixed
from einc.ein.printer import print_program
from einc.frontend import Text, form_of
from einc.frontend import elaborate as elaborate_text
from einc.frontend import parse as parse_source
from einc.passes import pipeline
from einc.passes.equations.split_complex import split_complex
from einc.pipeline import Backend, Context, Pass, State, forms
from einc.pipeline.emitted import Emitted
from einc.pipeline.plan import Plan
from einc.tile.asked import Choice
from einc.tile.blocks import size_class
from einc.tile.faults import Fault
from einc.tile.printer import print_schedule

ELABORATED = "elaborate"  # the name of the stage before the first pass
_LEAST_SHARED = 8192  # bytes: operands of dots of the smallest tiles

Sizes = tuple[tuple[str, int], ...]  # a size class by axis, sorted: what decisions may depend on


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


def _print_plan(p: Plan) -> str:
    parts = [f"# kernel {', '.join(p.stores)}: computes {', '.join(p.equations)}"]
    for verb, axes in (
        ("one position of", p.batch),
        ("blocks of", (*p.rows, *p.columns)),
        ("walks", p.walked),
        ("holds all of", p.whole),
    ):
        parts += [f"{verb} {', '.join(axes)}"] if axes else []
    parts += [f"in {p.splits} parts, which a second kernel merges"] if p.splits > 1 else []
    return "; ".join(parts) + "\n"


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program for operands of known ranks and types: every stage, and the source the last one becomes."""

    context: Context
    stages: tuple[Stage, ...]

    @property
    def program(self) -> ein.Program:
        """The program as elaborated: what it means."""
        return self.stages[0].state.program

    @property
    def state(self) -> State:
        """The program and its kernels after the last pass."""
        return self.stages[-1].state

    @cached_property
    def emitted(self) -> Emitted:
        """The complete file, the name of its launcher, and what its kernels take."""
        assert self.state.schedule is not None
        return self.context.backend.emit(self.state.program, self.state.schedule, self.context.target)

    @property
    def source(self) -> str:
        """The complete file."""
        return self.emitted.source

    def tightened(self) -> Compiled | None:
        """The same program in kernels that take less: tiles as for a target of less shared memory; None if none do."""
        c = self.context
        if self.stages[0].name != ELABORATED:
            return None  # the text gives the kernels
        shared = c.target.shared
        while (shared := shared * 3 // 4) >= _LEAST_SHARED:
            target = replace(c.target, shared=shared)
            sizes = tuple(sorted(c.sizes.items()))
            made = _compile(self.program, c.backend, c.level, target, sizes, True, c.choices, None)
            if made.source != self.source:
                return made
        return None

    def stage(self, name: str) -> Stage:
        """The stage of that name; raises `einc.NameError` for any other."""
        found = next((s for s in self.stages if s.name == name), None)
        if found is not None:
            return found
        known = [s.name for s in self.stages]
        raise errors.NameError(
            f"there is no stage '{name}'",
            fact=f"stages: {', '.join(known)}",
            hint=nearest(name, known) or "one of these",
        )

    def dump(self, stages: Iterable[str] | None = None) -> str:
        """The text after each of the stages named, or after all, each under a line with its name."""
        chosen = self.stages if stages is None else [self.stage(name) for name in stages]
        return "\n".join(f"-- {s.name}\n{s.text}" for s in chosen)


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


def given(text: Text, program: ein.Program, backend: Backend = TRITON) -> Given | None:
    """The kernels of a text, if it has any. Raises `Error` where they cannot come after the pass that it names."""
    if text.kernels is None:
        return None
    from einc.frontend.tiles.check import as_error

    table = pipeline(backend)
    names, first = [p.name for p in table], _first_with_kernels(table)
    after, kernels = text.kernels.after or names[-1], text.kernels
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


@lru_cache(maxsize=512)
def parse(text: str, name: str | None = None) -> Text:
    """The parsed text; `name` is what diagnostics call it, the kind of text where it has none."""
    return parse_source(Source(name or f"<{form_of(text)}>", text))


@lru_cache(maxsize=1024)
def _elaborate(text: Text, facts: tuple[tuple[str, Fact], ...] | None) -> ein.Program:
    program = elaborate_text(text, None if facts is None else dict(facts))
    plan(program)  # every extent is determined, or the text is wrong
    return program


def relevant(text: Text, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """What elaboration may depend on: ranks and types of a program's operands; of a string's, extents as well."""
    if text.form in ("einsum", "expression"):
        return dict(facts)
    return {name: Fact((2,) * len(f.shape), f.dtype) for name, f in facts.items()}


def elaborate(text: Text, facts: Mapping[str, Fact] | None = None) -> ein.Program:
    """The program that a text means for such operands; without facts, for float32 operands."""
    return _elaborate(text, None if facts is None else tuple(relevant(text, facts).items()))


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
    held = [name for p in lowered if p.level <= context.level and p not in left for name in p.gives]
    if verify and left:
        forms.admit(left[0], state)
    for p in left:
        after = p.run(state, context)
        if verify:
            forms.check(p, state, after, held)
            held += p.gives
        stages.append(Stage(p.name, after, after != state))
        if len(after.program.axes) > len(state.program.axes):
            context = context.knowing(after.program.axes[len(state.program.axes) :])
        state = after
    return tuple(stages)


@lru_cache(maxsize=1024)
def _compile(
    program: ein.Program,
    backend: Backend,
    level: int,
    target: Target,
    sizes: Sizes,
    verify: bool,
    choices: tuple[Choice, ...],
    begin: Given | None,
) -> Compiled:
    context = Context(backend, level, target, dict(sizes), choices)
    return Compiled(context, run_passes(program, context, verify, begin))


def compile_program(
    program: ein.Program,
    level: int,
    target: Target,
    extents: Mapping[str, int] | None = None,
    verify: bool = True,
    choices: tuple[Choice, ...] = (),
    begin: Given | None = None,
    backend: Backend = TRITON,
) -> Compiled:
    """The program compiled for a generator, from the kernels on that it begins with, if there are any.

    `extents` are hints: programs that differ in no size class share one result.
    `choices` go before those of the heuristics, wherever they are possible.
    """
    sizes = tuple(sorted((axis, size_class(n)) for axis, n in (extents or {}).items()))
    return _compile(program, backend, level, target, sizes, verify, choices, begin)
