"""Give the warps of a kernel roles: one copies, the others multiply, and compute one block under the dots of another.

    loop j: k = load K; v = load V; s = dot(q, k); p = f(s); o = o * c + dot(p, v)
    -->  producer:  loop j: fill k; fill v
         consumers: loop j: begin s(j), o(j - 1); finish s(j); p(j) = f(s(j)); finish o(j - 1)

    loop k: a = load A; b = load B; c = c + dot(a, b)
    -->  consumers: loop k: begin c(k); finish c(k - 1)

    loop j: k = load K; v = load V; s = dot(q, k); t = dot(g, v); o = o + dot(f(s, t), k)
    -->  consumers: loop j: begin s(j), t(j); finish s(j); a = g(s(j)); finish t(j); p = h(a, t(j)); begin, finish o(j)

A dot whose sides are all loaded belongs to its own step; one with a computed side, to the step after, in which it runs
while that side of the next block is computed. That needs a dot whose result only a state takes. Where several dots are
waited for, what one of them decides is computed under the others, and all belong to their own step: registers are full
of what they give. A dot that only adds up what is loaded is finished when that of the next step has begun. Copies go by
descriptors, to slots in shared memory, as many as there is room for; rows of numbers, which go anywhere, by the lanes
of the producer. What is computed stays in registers, which decide how long a block of the walk is. Where
later blocks of rows take longer, they run first, and those of few other positions of the grid at a time, whose walks
stay in the cache. Where registers have room for that, a processor goes on from one block of the grid to the next: in
steps that are the same for all where they walk equally far; else to the first that none has begun.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einc import tile
from einc.base.facts import row_major
from einc.base.types import F32
from einc.codegen.gluon.counted import count_by_position
from einc.codegen.gluon.fit import Unfit, check_fit, walked
from einc.codegen.gluon.ledger import Ledger, sizes
from einc.codegen.gluon.name_dots import name_dots
from einc.codegen.triton.load_ahead import rows
from einc.pipeline import Context
from einc.tile import WHOLE, Block, Dot, Kernel, Load, Loop, Ref
from einc.tile.asked import counts_asked, tiles_asked
from einc.tile.blocks import power
from einc.tile.choices import descriptor
from einc.tile.roles import ROWS, WARPGROUP, Begin, Event, Finish, Keep, Make, Release, Ring, Roles, Turn, Wait
from einc.tile.walk import bindings, every_value, lets, over_values, renaming, walk_values
from einc.tile.windows import box, by_corners, by_descriptor, windows

_CONSUMERS = 2
_REGISTERS = {1: (240, 24), 2: (240, 24)}  # of consumers and the producer, by how many consumers there are
_IN_TURN = 2  # consumers that take turns, where special functions take as long as dots
_OTHER = 48  # registers of a consumer beside tiles
_BESIDE = 16  # the same where all dots of a step are finished in it
_ONWARD = 16  # more, that hold what is the same for all blocks that it goes on with
_SLOTS = (4, 3, 2)
_LANE = 4  # bytes that a lane copies at once
_RESERVED = 2048  # bytes of shared memory for barriers, and what crosses warps


def specialise_warps(kernel: Kernel, context: Context) -> Kernel:
    """The kernel with roles for its warps, and blocks and ways to memory that suit them, if it can have any."""
    try:
        return _specialised(kernel, context)
    except Unfit:
        return kernel


def why_not(kernel: Kernel, context: Context) -> str:
    """Why the warps of a kernel get no roles; empty if they do."""
    try:
        _specialised(kernel, context)
    except Unfit as reason:
        return str(reason)
    return ""


def _specialised(kernel: Kernel, context: Context) -> Kernel:
    kernel = name_dots(kernel)
    if not context.target.has_warpgroups:
        raise Unfit(f"{context.target.name} has no dots of warpgroups")
    loop, row = walked(kernel)
    kernel = _loaded_once(count_by_position(kernel, row))
    asked = tiles_asked(context.choices, kernel)
    rows = asked.get(row, Block(ROWS * _CONSUMERS, ROWS * _CONSUMERS)).cap
    if rows not in (ROWS, ROWS * _CONSUMERS):
        raise Unfit(f"consumers take {ROWS} or {ROWS * _CONSUMERS} of {row}")
    reason, steps = Unfit(""), _Steps(row)
    for blocks in sizes(kernel, loop, rows, context):
        try:
            return _with_blocks(kernel, context, rows, blocks, steps)
        except Unfit as found:
            reason = found
    raise reason


def _by_lanes(v: Load, kernel: Kernel) -> bool:
    """Can lanes copy a row of numbers as it lies in memory?"""
    stored = next(b.dtype for b in kernel.buffers if b.name == v.tensor)
    return stored == v.dtype and v.part is None and v.dtype.size == _LANE


def _loaded_once(kernel: Kernel) -> Kernel:
    """The kernel with what its loop has left in shared memory read from there behind it, and not loaded again."""
    before, _, after = parts(kernel)
    first = {s.value: s.names[0] for s in before if isinstance(s, tile.Let) and isinstance(s.value, Load)}
    again = [s for s in after if isinstance(s, tile.Let) and s.value in first]
    known = {s.names[0]: first[s.value] for s in again}  # type: ignore[index]
    rest = (over_values(s, renaming(known)) for s in after if s not in again)
    return replace(kernel, body=(*kernel.body[: len(before) + 1], *rest)) if known else kernel


class _Steps:
    """The rings and events of a kernel in blocks of several sizes: the same wherever descriptors find the same."""

    def __init__(self, row: str) -> None:
        self.row = row
        self.known: dict[tuple[object, ...], tuple[tuple[Ring, ...], tuple[Event, ...]] | Unfit] = {}

    def of(self, kernel: Kernel) -> tuple[tuple[Ring, ...], tuple[Event, ...]]:
        """Those of a kernel whose loads are placed. Raises `Unfit`."""
        boxes = by_descriptor(kernel)
        key = tuple(boxes.items())
        if key not in self.known:
            whole = by_corners(kernel, boxes)
            try:
                check_fit(whole, self.row, boxes.keys())
                self.known[key] = _Pipeline(whole, frozenset(boxes)).made()
            except Unfit as reason:
                self.known[key] = reason
        found = self.known[key]
        if isinstance(found, Unfit):
            raise found
        return found


def _with_blocks(kernel: Kernel, context: Context, rows: int, blocks: dict[str, int], steps: _Steps) -> Kernel:
    row = steps.row
    chosen = {name: Block(n, n) for name, n in (blocks | {row: rows}).items()}
    for a in kernel.whole:
        least = kernel.choices.tile(a.name)
        hint = power(prod(context.size(x) for x in a.axes))
        chosen[a.name] = Block(max(hint, 16 if least is None else least.least), WHOLE)
    sized = kernel.choosing(kernel.choices.sized(chosen))
    placed = sized.choosing(sized.choices.reached(_ways(sized, context)))
    rings, events = steps.of(placed)
    consumers = rows // ROWS
    ledger = Ledger(placed, row, consumers)
    whole = all(e.step == 0 for e in events)  # are all dots of a step finished in it?
    if consumers == _IN_TURN and not whole and ledger.waits_for_functions(context.target.rates):
        events = in_turn(events)
    taken, most = ledger.registers(whole), _REGISTERS[consumers][0] - (_BESIDE if whole else _OTHER)
    if taken > most:
        raise Unfit(f"tiles of a consumer take {taken} registers of {most}")
    room = context.target.shared - _RESERVED
    wanted = counts_asked(context.choices, kernel, "stages").get("stages")
    for depth in _SLOTS if wanted is None else (wanted,):
        deep = tuple(r if r.held else replace(r, depth=depth) for r in rings)
        if ledger.shared(deep) <= room:
            break
    else:
        raise Unfit(f"two slots of each block take {ledger.shared(deep)} bytes of {room}")
    choices = placed.choices.counted({"warps": WARPGROUP * consumers, "stages": depth})
    onward = whole or taken <= most - _ONWARD
    roles = Roles(row, consumers, _REGISTERS[consumers], deep, events, onward)
    return replace(placed.choosing(choices), roles=roles)


def _ways(kernel: Kernel, context: Context) -> dict[str, str]:
    """Descriptors for what dots read."""
    made = {s.names[0]: s.value for s in bindings(kernel) if isinstance(s.value, Load)}
    sides = [x for v in every_value(kernel) if isinstance(v, Dot) for x in (v.left, v.right)]
    read = {made[x.name].tensor for x in sides if isinstance(x, Ref) and x.name in made}
    ranks = {b.name: len(b.dims) for b in kernel.buffers}
    seen, found = windows(kernel), dict[str, str]()
    for name in sorted(read):
        layout = context.layouts.get(name, row_major(ranks[name]))
        if name not in seen:
            raise Unfit(f"no descriptor finds the blocks of {name}")
        sides_of = box(kernel, seen[name], layout.order, layout.joined)
        if ranks[name] > 5 or sides_of is None or sides_of[-1][0] is None or not layout.is_regular:
            raise Unfit(f"{name} does not lie in memory as copy engines read")
        found[name] = descriptor(layout.order)
    return found


def in_turn(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """The events of a step with the dots of one consumer begun together."""
    begun = [k for k, e in enumerate(events) if isinstance(e, Begin)]
    first, last = begun[0], begun[-1] + 1
    return (*events[:first], Turn(), *events[first:last], Turn(ends=True), *events[last:])


class _Pipeline:
    """The rings of a kernel, and the events of a step, from which dots of its loop wait for which others; `copied` are
    the tensors that descriptors load."""

    def __init__(self, kernel: Kernel, copied: frozenset[str]) -> None:
        self.copied = copied
        self.before, self.loop, self.after = parts(kernel)
        self.lets = {s.names[0]: s for s in lets(self.loop.body)}
        self.loads = {n for n, s in self.lets.items() if isinstance(s.value, Load) and s.value.tensor in self.copied}
        self.held = [
            s.names[0] for s in lets(self.before) if isinstance(s.value, Load) and s.value.tensor in self.copied
        ]
        self.dots = {n: s.value for n, s in self.lets.items() if isinstance(s.value, Dot)}
        self.late = [n for n, d in self.dots.items() if self.depends(d.left) or self.depends(d.right)]
        self.adding = [n for n in self.dots if n not in self.late and self.adds(n)]
        self.early = [n for n in self.dots if n not in (*self.late, *self.adding)]
        self.rows = [n for n, v in rows(self.loop) if v.tensor not in copied and _by_lanes(v, kernel)]

    def depends(self, v: tile.Value, on: frozenset[str] | None = None) -> bool:
        """Does a value depend on a dot of the loop, or on one of some?"""
        wanted = self.dots.keys() if on is None else on
        return any(
            x.name in wanted or (x.name in self.lets and self.depends(self.lets[x.name].value, on))
            for x in walk_values(v)
            if isinstance(x, Ref)
        )

    def adds(self, n: str) -> bool:
        """Does a dot add to a state that nothing else of a step reads or changes?"""
        state = next((c.name for c in self.loop.carried if c.after == n), None)
        others = [x for other, s in self.lets.items() if other != n for x in walk_values(s.value)]
        alone = not any(isinstance(x, Ref) and x.name in (n, state) for x in others)
        return state is not None and self.dots[n].acc == Ref(state) and alone

    def made(self) -> tuple[tuple[Ring, ...], tuple[Event, ...]]:
        """The rings, each of one slot as yet, and the events."""
        self.check()
        others = [s for s in self.after if isinstance(s, tile.Let) and isinstance(s.value, Load)]
        if other := next((s.names[0] for s in others if s.value.tensor in self.copied), None):  # type: ignore[union-attr]
            raise Unfit(f"{other} is another block of what dots read")
        readers = {n: tuple(d for d, v in self.dots.items() if Ref(n) in (v.left, v.right)) for n in self.loads}
        if other := next((n for n in self.loads if not readers[n]), None):
            raise Unfit(f"{other} is another block of what dots read")
        groups: dict[tuple[str, ...], list[str]] = {}
        for n in self.lets:
            if n in self.loads:
                groups.setdefault(readers[n], []).append(n)
        rings = [Ring(names[0], tuple(names), 1) for names in groups.values()]
        of = {r.name: group for r, group in zip(rings, groups, strict=True)}
        held = [Ring(n, (n,), 1, True) for n in self.held]
        events = tuple(self.within(of) if self.late and len(self.early) > 1 else self.ahead(of))
        waits = [(k - e.step * len(events), e.ring) for k, e in enumerate(events) if isinstance(e, Wait)]
        first = min(waits)[1]
        return (*held, *(replace(r, rows=tuple(self.rows)) if r.name == first else r for r in rings)), events

    def within(self, of: dict[str, tuple[str, ...]]) -> list[Event]:
        """The events where several dots are waited for, given which dots read each ring: all in their own step."""
        free, bound = self.others()
        alone = {d: [n for n in bound if self.depends(Ref(n), frozenset({d}))] for d in self.early}
        alone = {d: [n for n in alone[d] if not self.depends(Ref(n), frozenset({*self.early} - {d}))] for d in alone}
        early = sorted(self.early, key=lambda d: -sum(map(self.operations, alone[d])))
        found: list[Event] = []
        waited = set[str]()
        for d in early:
            found += [Wait(r) for r, dots in of.items() if d in dots and r not in waited]
            waited |= {r for r, dots in of.items() if d in dots}
            found.append(Begin(d))
        found += [Wait(r) for r in of if r not in waited]
        found += [Make(free)] if free else []
        made, there = set[str](), set[str]()
        for d in early:
            found.append(Finish(d))
            there.add(d)
            rest = frozenset({*self.early} - there)
            ready = tuple(n for n in bound if n not in made and not self.depends(Ref(n), rest))
            found += [Make(ready)] if ready else []
            made |= {*ready}
        found += [Release(r) for r, dots in of.items() if set(dots) <= {*early}]
        found += [Keep(d) for d in self.late]
        found += [Begin(d) for d in self.late]
        found += [Finish(d) for d in self.late]
        found += [Release(r) for r, dots in of.items() if not set(dots) <= {*early}]
        return found

    def operations(self, n: str) -> int:
        """How many operations a value of the body takes."""
        return sum(isinstance(v, tile.Elem) for v in walk_values(self.lets[n].value))

    def ahead(self, of: dict[str, tuple[str, ...]]) -> list[Event]:
        """The events where what is computed of a block hides under dots of the last one, given which dots read each
        ring."""
        early = [r for r, dots in of.items() if any(d in self.early for d in dots)]
        adding = [r for r, dots in of.items() if r not in early and any(d in self.adding for d in dots)]
        late = [r for r, dots in of.items() if r not in (*early, *adding)]
        last = {r: -1 if any(d in (*self.late, *self.adding) for d in dots) else 0 for r, dots in of.items()}
        found: list[Event] = [Begin(d) for d in self.early]
        found += [Wait(r) for r in adding]
        found += [Begin(d) for d in self.adding]
        found += [Wait(r, -1) for r in late]
        found += [Begin(d, -1) for d in self.late]
        free, bound = self.others()
        found += [Make(free)] if free else []
        found += [Finish(d) for d in self.early]
        found += [Release(r) for r in early if last[r] == 0]
        found += [Make(bound)] if bound else []
        found += [Wait(r, 1) for r in early]
        found += [Finish(d, -1) for d in (*self.adding, *self.late)]
        found += [Release(r, -1) for r in of if last[r] == -1]
        found += [Keep(d) for d in self.late]
        return found

    def others(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is computed in a step beside dots: what depends on none, and what does."""
        names = [n for n in self.lets if n not in self.dots and n not in self.loads]
        bound = [n for n in names if self.depends(self.lets[n].value)]
        return tuple(n for n in names if n not in bound), tuple(bound)

    def check(self) -> None:
        """Raise `Unfit` where what a late dot gives is needed before it is there."""
        if not self.late and not self.adding:
            raise Unfit("no dot reads what another one gives, or adds up by itself")
        sides = [x for n in (*self.early, *self.adding) for x in (self.dots[n].left, self.dots[n].right)]
        if any(not isinstance(x, Ref) or x.name not in {*self.loads, *self.held} for x in sides):
            raise Unfit("a side of a dot is computed from what is loaded")
        if any(self.dots[n].left_in is not None or self.dots[n].right_in is not None for n in self.adding):
            raise Unfit("a dot that adds up by itself counts only some positions")
        states = {c.after: c.name for c in self.loop.carried}
        moving = frozenset((*self.late, *(states[n] for n in self.late if n in states)))
        for n in self.late:
            if n not in states:
                raise Unfit(f"the dot {n} gives no state")
        for n, s in self.lets.items():
            inside = self.dots[n].acc if n in self.late else None
            for v in (s.value,) if inside is None else (self.dots[n].left, self.dots[n].right):
                if any(isinstance(x, Ref) and x.name in moving for x in walk_values(v)):
                    raise Unfit(f"{n} waits for what a dot adds up")
        for n, s in self.lets.items():
            own = (s.value.acc, s.value.left_in) if n in self.dots and isinstance(s.value, Dot) else (s.value,)
            if n in self.late:
                own = (*own, self.dots[n].left)
            read = {x.name for v in own if v is not None for x in walk_values(v) if isinstance(x, Ref)}
            if found := sorted(read & {*self.loads, *self.held}):
                raise Unfit(f"{n} computes with {found[0]}, which is copied for dots")
        for n in self.early:
            if self.dots[n].acc not in (tile.Fill(tile.Lit(0, F32)), tile.Lit(0, F32)):
                raise Unfit(f"the dot {n} is added to something")
        for n in self.late:
            right = self.dots[n].right
            if not isinstance(right, Ref) or right.name not in {*self.loads, *self.held}:
                raise Unfit(f"the right side of the dot {n} is computed")


def parts(kernel: Kernel) -> tuple[tuple[tile.Statement, ...], Loop, tuple[tile.Statement, ...]]:
    """What stands before the loop of a kernel, the loop, and what stands behind it."""
    at = next(k for k, s in enumerate(kernel.body) if isinstance(s, Loop))
    loop = kernel.body[at]
    assert isinstance(loop, Loop)
    return kernel.body[:at], loop, kernel.body[at + 1 :]
