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
of what they give. A dot that only adds up what is loaded is finished when that of the next step has begun. A walk of
single positions may add up what is computed from several dots. Copies go by descriptors, to slots in shared memory, as
many as there is room for, tiles that are computed with among them; rows of numbers, which go anywhere, by the lanes of
the producer. What is computed stays in registers, which decide how long a block of the walk is. Where
later blocks of rows take longer, they run first, and those of few other positions of the grid at a time, whose walks
stay in the cache. Where registers have room for that, a processor goes on from one block of the grid to the next: in
steps that are the same for all where they walk equally far; else to the first that none has begun.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import prod

from einc import tile
from einc.base.facts import row_major
from einc.codegen.gluon.roles.counted import count_by_position
from einc.codegen.gluon.roles.fit import Unfit, along, beside_dots, beside_loop, check_fit, parts, walked
from einc.codegen.gluon.roles.ledger import Ledger, sizes
from einc.codegen.gluon.roles.name_dots import name_dots
from einc.codegen.gluon.roles.pipeline import Pipeline
from einc.pipeline import Context
from einc.tile import WHOLE, Block, Kernel, Load, Ref
from einc.tile.asked import counts_asked, tiles_asked
from einc.tile.blocks import power
from einc.tile.choices import descriptor
from einc.tile.live import is_walked
from einc.tile.masks import conjunction, conjuncts
from einc.tile.roles import ROWS, WARPGROUP, Begin, Event, Ring, Roles, Turn
from einc.tile.typing import multiplied
from einc.tile.walk import bindings, loops, over_values, renaming
from einc.tile.windows import box, by_corners, by_descriptor, windows

_CONSUMERS = 2
_REGISTERS = {1: (240, 24), 2: (240, 24)}  # of consumers and the producer, by how many consumers there are
_IN_TURN = 2  # consumers that take turns, where special functions take as long as dots
_OTHER = 48  # registers of a consumer beside tiles
_BESIDE = 16  # the same where all dots of a step are finished in it
_ONWARD = 16  # more, that hold what is the same for all blocks that it goes on with
_SLOTS = (4, 3, 2)
_RANK = 5  # dimensions of a tensor that copy engines read
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


def _loaded_once(kernel: Kernel) -> Kernel:
    """The kernel with what its loop has left in shared memory read from there behind it, and not loaded again."""
    before, _, after = parts(kernel)
    first = {s.value: s.names[0] for s in before if isinstance(s, tile.Let) and isinstance(s.value, Load)}
    again = [s for s in after if isinstance(s, tile.Let) and s.value in first]
    known = {s.names[0]: first[s.value] for s in again}  # type: ignore[index]
    rest = (over_values(s, renaming(known)) for s in after if s not in again)
    return replace(kernel, body=(*kernel.body[: len(before) + 1], *rest)) if known else kernel


def _loaded_where_walked(kernel: Kernel, copied: AbstractSet[str]) -> Kernel:
    """The kernel with tiles of tensors that are `copied` masked no more by whether its loop, which alone reads them,
    takes any step: nothing is copied else."""
    before, loop, after = parts(kernel)
    walked, beside = is_walked(loop), beside_loop(kernel)

    def unmasked(s: tile.Statement) -> tile.Statement:
        if not isinstance(s, tile.Let) or not isinstance(s.value, Load):
            return s
        if s.names[0] in beside or s.value.tensor not in copied:
            return s
        mask = conjunction([x for x in conjuncts(s.value.mask) if x != walked])
        return replace(s, value=replace(s.value, mask=mask))

    return replace(kernel, body=(*map(unmasked, before), loop, *after))


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
                self.known[key] = Pipeline(whole, frozenset(boxes)).made()
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
    ways = _ways(_loaded_where_walked(sized, {b.name for b in sized.buffers}), context)
    placed = _loaded_where_walked(sized, ways.keys()).choosing(sized.choices.reached(ways))
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
    (loop,), beside = loops(kernel.body), beside_dots(kernel)
    slots = _SLOTS if loop.axis.blocked else (*_SLOTS, 1)
    for depth in slots if wanted is None else (wanted,):
        deep = tuple(r if r.held or beside.issuperset(r.loads) else replace(r, depth=depth) for r in rings)
        if ledger.shared(deep) <= room:
            break
    else:
        few = "one slot" if depth == 1 else f"{depth} slots"
        raise Unfit(f"{few} of each block take {ledger.shared(deep)} bytes of {room}")
    choices = placed.choices.counted({"warps": WARPGROUP * consumers, "stages": depth})
    onward = whole or taken <= most - _ONWARD
    roles = Roles(row, consumers, _REGISTERS[consumers], deep, events, onward)
    return replace(placed.choosing(choices), roles=roles)


def _ways(kernel: Kernel, context: Context) -> dict[str, str]:
    """Descriptors for what dots read, and for tiles that steps compute with, where these can have any."""
    loads = {s.names[0]: (s.value, {*s.types[0].axes}) for s in bindings(kernel) if isinstance(s.value, Load)}
    sides = [x.name for d, _ in multiplied(kernel) for x in (d.left, d.right) if isinstance(x, Ref)]
    read = {loads[n][0].tensor for n in sides if n in loads}
    _, row = walked(kernel)
    tiles = [v for n in beside_dots(kernel) & loads.keys() for v, axes in (loads[n],) if axes == {row, along(kernel)}]
    stored, ranks = {b.name: b.dtype for b in kernel.buffers}, {b.name: len(b.dims) for b in kernel.buffers}
    beside = {v.tensor for v in tiles if v.dtype.is_float and v.dtype == stored[v.tensor]}
    seen, found = windows(kernel), dict[str, str]()
    for name in sorted(read | beside):
        layout = context.layouts.get(name, row_major(ranks[name]))
        sides_of = box(kernel, seen[name], layout.order, layout.joined) if name in seen else None
        ends = sides_of is not None and sides_of[-1][0] is not None
        if ends and ranks[name] <= _RANK and layout.is_regular:
            found[name] = descriptor(layout.order)
        elif name in read and name not in seen:
            raise Unfit(f"no descriptor finds the blocks of {name}")
        elif name in read:
            raise Unfit(f"{name} does not lie in memory as copy engines read")
    return found


def in_turn(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """The events of a step with the dots of one consumer begun together."""
    begun = [k for k, e in enumerate(events) if isinstance(e, Begin)]
    first, last = begun[0], begun[-1] + 1
    return (*events[:first], Turn(), *events[first:last], Turn(ends=True), *events[last:])
