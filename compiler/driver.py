"""From text to kernels: the only place that strings the floors together.

    text --parse--> Text --elaborate(facts)--> ein.Program --passes--> tile.Schedule --emit--> Triton source

A text with kernels begins at the pass that they come after.
Everything in between is kept as a stage, to be looked at. Nothing here knows tensors, only facts about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from einc import ein
from einc.base.facts import Fact, Layout
from einc.base.recursion import make_room
from einc.base.source import Source
from einc.base.targets import Target
from einc.binding import plan
from einc.cache import find, keep
from einc.cache.digests import Unnamed, digest
from einc.cache.places import switched_off
from einc.codegen import BACKENDS, TRITON
from einc.pipeline import Backend, Context, State
from einc.pipeline.emitted import Emitted
from einc.tile.asked import EARLY, Choice
from einc.tile.blocks import fine_class, size_class

if TYPE_CHECKING:
    from einc.frontend import Text
    from einc.frontend.tiles.kernels import Kernels
    from einc.stages import Given, Stage

_FEW = 3  # equations of a program that may be a product, whose tiles depend on how evenly they fill a machine
_LEAST_SHARED = 8192  # bytes: operands of dots of the smallest tiles

Sizes = tuple[tuple[str, int], ...]  # a size class by axis, sorted: what decisions may depend on


@dataclass(frozen=True, slots=True)
class Request:
    """All that the kernels of a program depend on; `begin` are those that its text gives, if it does."""

    program: ein.Program
    backend: Backend
    level: int
    target: Target
    sizes: Sizes
    choices: tuple[Choice, ...]
    begin: Given | None
    layouts: tuple[tuple[str, Layout], ...] = ()
    extents: Sizes = ()
    deterministic: bool = True

    @property
    def context(self) -> Context:
        """What its passes are told."""
        sizes, layouts, extents = dict(self.sizes), dict(self.layouts), dict(self.extents)
        return Context(self.backend, self.level, self.target, sizes, self.choices, layouts, extents, self.deterministic)

    @property
    def key(self) -> str | None:
        """Its name among what is kept on disk; None where it has none, as that of a generator made for a test."""
        if BACKENDS.get(self.backend.name) is not self.backend:
            return None
        asked = (self.level, self.target, self.sizes, self.choices, self.begin, self.layouts, self.extents)
        parts = (self.program, self.backend.name, *asked, self.deterministic)
        try:
            return digest(parts)
        except Unnamed:
            return None


@dataclass(frozen=True, slots=True)
class Ends:
    """A program as elaborated, and after the last pass: what is kept of its stages."""

    program: ein.Program
    state: State


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program for operands of known ranks and types: every stage, and the source the last one becomes.

    `made` are the stages; if another process made them, `kept` are the ends of them, and the others are made when they
    are looked at. `key` is the name under which it is kept on disk, if it is. `fits` is the shared memory that tiles
    were found to fit, by machine.
    """

    request: Request
    verify: bool = True
    key: str | None = None
    made: tuple[Stage, ...] | None = None
    kept: Ends | None = None
    fits: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def context(self) -> Context:
        return self.request.context

    @property
    def target(self) -> Target:
        return self.request.target

    @property
    def sizes(self) -> Mapping[str, int]:
        """Extents by axis, as far as they are known."""
        return dict(self.request.sizes)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The program as elaborated, then after every pass."""
        return self.made or _run(self.request, self.verify)

    @property
    def program(self) -> ein.Program:
        """The program as elaborated: what it means."""
        return self.kept.program if self.kept is not None else self.stages[0].state.program

    @cached_property
    def state(self) -> State:
        """The program and its kernels after the last pass."""
        return self.kept.state if self.kept is not None else self.stages[-1].state

    @cached_property
    def emitted(self) -> Emitted:
        """The complete file, the name of its launcher, and what its kernels take."""
        found = None if self.key is None else find("sources", self.key, Emitted)
        if found is None:
            assert self.state.schedule is not None
            found = self.request.backend.emit(self.state.program, self.state.schedule, self.request.target)
            if self.key is not None:
                keep("sources", self.key, found)
        return found

    @property
    def source(self) -> str:
        """The complete file."""
        return self.emitted.source

    @property
    def measured_as(self) -> Request:
        """What measurements of it are of: kernels without roles are those of the generator that writes only such."""
        plain = self.request.backend.elsewhere
        if plain is None or any(s.kernel.roles is not None for s in self.emitted.kernels):
            return self.request
        return replace(self.request, backend=plain)

    def tightened(self) -> Compiled | None:
        """The same program in kernels that take less: tiles as for a target of less shared memory; None if none do."""
        if self.request.begin is not None:
            return None  # the text gives the kernels
        shared = self.request.target.shared
        while (shared := shared * 3 // 4) >= _LEAST_SHARED:
            made = self.within(shared)
            if made.source != self.source:
                return made
        return None

    def within(self, shared: int) -> Compiled:
        """The same program, as for a target of so many bytes of shared memory."""
        return _compile(replace(self.request, target=replace(self.request.target, shared=shared)), True)

    def choosing(self, choices: tuple[Choice, ...]) -> Compiled:
        """The same program with these choices in place of its own, wherever they are possible."""
        return _compile(replace(self.request, choices=choices), self.verify)

    def trying(self, choices: tuple[Choice, ...]) -> Compiled:
        """The same, kept nowhere; passes whose choices are as they were are not run again."""
        from einc.stages import resumed

        request = replace(self.request, choices=choices)
        early, own = (tuple(c for c in r.choices if c.name in EARLY) for r in (request, self.request))
        alike = early == own and request.begin is None
        stages = resumed(self.stages, request.context, self.verify) if alike else _run(request, self.verify)
        return Compiled(request, self.verify, made=stages)

    def fitted(self, machine: str) -> Compiled:
        """The same program in the tiles that were found to fit a machine, if these were not."""
        shared = self.fits.get(machine)
        if shared is None and self.key is not None:
            shared = find("fits", (self.key, machine), int)
        return self if shared is None else self.within(shared)

    def note_fit(self, machine: str, smaller: Compiled) -> None:
        """Keep what `fitted` gives."""
        self.fits[machine] = smaller.request.target.shared
        if self.key is not None:
            keep("fits", (self.key, machine), smaller.request.target.shared)

    def on(self, machine: Target) -> Compiled:
        """The same stages, as if they had been made for this machine."""
        return Compiled(replace(self.request, target=machine), self.verify, made=self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of that name; raises `einc.NameError` for any other."""
        from einc.stages import stage

        return stage(self.stages, name)

    def dump(self, stages: Iterable[str] | None = None) -> str:
        """The text after each of the stages named, or after all, each under a line with its name."""
        chosen = self.stages if stages is None else [self.stage(name) for name in stages]
        return "\n".join(f"-- {s.name}\n{s.text}" for s in chosen)


# ---------------------------------------------------------------------------------------------------------------------
# The three steps, each done once in a process, and once on a disk


@dataclass(frozen=True, eq=False)
class Script:
    """A text that is known to be right: its form, and the operands and scalars that a call gives, in order.

    Scripts are compared by identity.
    """

    source: Source
    form: str
    operands: tuple[str, ...]
    scalars: tuple[str, ...]

    @cached_property
    def parsed(self) -> Text:
        """All that it holds."""
        from einc.frontend import parse as parse_source

        return parse_source(self.source)

    @property
    def kernels(self) -> Kernels | None:
        """The kernels that stand below the program, if there are any."""
        return self.parsed.kernels if self.form == "kernels" else None


@lru_cache(maxsize=512)
def parse(text: str, name: str | None = None) -> Script:
    """The parsed text; `name` is what diagnostics call it, the kind of text where it has none.

    Raises `SyntaxError` for what is not in the language, `NameError` for names that clash.
    """
    known = find("texts", (text, name), Script)
    if known is None:
        from einc.frontend import form_of
        from einc.frontend import parse as parse_source

        found = parse_source(Source(name or f"<{form_of(text)}>", text))
        known = Script(found.source, found.form, found.operands, found.scalars)
        known.__dict__["parsed"] = found
        keep("texts", (text, name), known)
    return known


@lru_cache(maxsize=1024)
def _elaborate(text: Script, facts: tuple[tuple[str, Fact], ...] | None) -> ein.Program:
    key = (text.source.name, text.source.text, facts)
    known = find("programs", key, ein.Program)
    if known is not None:
        make_room(_depth(known))  # as its elaboration did
        return known
    from einc.ein.inference import in_range
    from einc.frontend import elaborate as elaborate_text

    program = in_range(elaborate_text(text.parsed, None if facts is None else dict(facts)))
    plan(program)  # every extent is determined, or the text is wrong
    keep("programs", key, program)
    return program


def _depth(program: ein.Program) -> int:
    """The most levels that an expression of a program has."""
    stack = [(e, 1) for eq in program.equations for e in eq.expressions()]
    deepest = 0
    while stack:
        e, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(child, depth + 1) for child in ein.children(e)]
    return deepest


def given(text: Script, program: ein.Program, backend: Backend = TRITON) -> Given | None:
    """The kernels of a text, if it has any. Raises `Error` where they cannot come after the pass that it names."""
    if text.kernels is None:
        return None
    from einc.stages import given as given_in

    return given_in(text.kernels, program, backend)


def relevant(text: Script, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """What elaboration may depend on: ranks and types of a program's operands; of a string's, extents as well."""
    if text.form in ("einsum", "expression"):
        return dict(facts)
    return {name: Fact((2,) * len(f.shape), f.dtype) for name, f in facts.items()}


def elaborate(text: Script, facts: Mapping[str, Fact] | None = None) -> ein.Program:
    """The program that a text means for such operands; without facts, for float32 operands."""
    return _elaborate(text, None if facts is None else tuple(relevant(text, facts).items()))


@lru_cache(maxsize=1024)
def _compile(request: Request, verify: bool) -> Compiled:
    key = None if switched_off() else request.key
    kept = None if key is None else find("kernels", key, Ends)
    if kept is not None:
        return Compiled(request, verify, key, kept=kept)
    made = Compiled(request, verify, key, _run(request, verify))
    if key is not None:
        keep("kernels", key, Ends(made.program, made.state))
    return made


def _run(request: Request, verify: bool) -> tuple[Stage, ...]:
    from einc.stages import run_passes

    return run_passes(request.program, request.context, verify, request.begin)


def compile_program(
    program: ein.Program,
    level: int,
    target: Target,
    extents: Mapping[str, int] | None = None,
    verify: bool = True,
    choices: tuple[Choice, ...] = (),
    begin: Given | None = None,
    backend: Backend = TRITON,
    layouts: Mapping[str, Layout] | None = None,
    deterministic: bool = True,
) -> Compiled:
    """The program compiled for a generator, from the kernels on that it begins with, if there are any.

    `extents` are hints: programs that differ in no size class share one result. `layouts` are those of operands that
    are known; where a target has several ways to memory, they decide which are taken.
    `choices` go before those of the heuristics, wherever they are possible. What need not be `deterministic` may add in
    another order in each run.
    """
    known = sorted((extents or {}).items())
    sizes = tuple((axis, size_class(n)) for axis, n in known)
    fine = tuple((axis, fine_class(n)) for axis, n in known) if layouts and len(program.equations) <= _FEW else ()
    lying = tuple(sorted((layouts or {}).items()))
    return _compile(Request(program, backend, level, target, sizes, choices, begin, lying, fine, deterministic), verify)
