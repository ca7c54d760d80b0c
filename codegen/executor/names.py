"""Names of a kernel: where a frame keeps their values, which read takes a value over, which operations get a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from einc import tile
from einc.codegen.executor.frames import Frame, Node, Result
from einc.tile import Value
from einc.tile.walk import walk_values

Step = Callable[[Frame], None]


@dataclass(slots=True, eq=False)
class Name:
    """A bound name: where frames keep its value, the depth of its loop, and what is known about the value.

    `last` is true for the read after which nothing reads the name again.
    """

    slot: int
    depth: int
    node: Node
    kept: bool = False
    last: list[bool] = field(default_factory=lambda: [False])

    def next_read(self, depth: int) -> list[bool]:
        """Whether the next read is the last one: a cell that is settled once the kernel is compiled."""
        self.last[0] = False
        self.kept = self.kept or depth > self.depth
        self.last = [not self.kept]
        return self.last

    def keep(self) -> None:
        """No read so far takes the value over."""
        self.last[0] = False

    def dropped(self) -> list[bool]:
        """Whether nothing reads the name after this statement, none of whose reads takes the value over."""
        self.keep()
        self.last = [not self.kept]
        return self.last


def bind(name: Name, node: Node) -> Step:
    """Let a name hold what a node computes."""

    slot, compute, passes = name.slot, node.compute, node.passes

    def run(frame: Frame) -> None:
        value, owned = compute(frame)
        if passes and not owned:
            frame.share(value)
        frame.values[slot], frame.owned[slot] = value, owned

    return run


def drop(name: Name) -> Step:
    """Let the memory of a value go that nothing reads again, and that no read of it took over."""
    slot, last = name.slot, name.dropped()

    def run(frame: Frame) -> None:
        if last[0]:
            frame.recycle(frame.values[slot], frame.owned[slot])
            frame.values[slot] = False

    return run


@dataclass(slots=True, eq=False)
class Names:
    """The names of one kernel as it is compiled.

    `bound` are those that its statements bind. Operations that occur more than once in a body get names as well
    (`shared`, for each body), and the steps that bind these go `before` the current statement. `seen` are the reads of
    this statement, `outside` those of the values around the one being made.
    """

    bound: dict[str, Name] = field(default_factory=dict)
    slots: int = 0
    depth: int = 0
    seen: list[Name] = field(default_factory=list)
    outside: list[list[Name]] = field(default_factory=list)
    shared: list[dict[Value, Name | None]] = field(default_factory=list)
    before: list[Step] = field(default_factory=list)

    def bind(self, name: str, node: Node) -> Name:
        """A name of a statement for the value of a node."""
        self.bound[name] = made = self.unnamed(node)
        return made

    def unnamed(self, node: Node) -> Name:
        self.slots += 1
        return Name(self.slots - 1, self.depth, node)

    def used(self, name: str) -> Node:
        """The value of a name: computed again if it is inlined, else read."""
        found = self.bound[name]
        return found.node if found.node.inlined else self.read(found)

    def read(self, n: Name) -> Node:
        """A read of a bound name; the last read takes the tensor over."""
        slot, last = n.slot, n.next_read(self.depth)
        self.seen.append(n)

        def run(frame: Frame) -> Result:
            value = frame.values[slot]
            if not last[0]:
                return value, False
            frame.values[slot] = False
            return value, frame.owned[slot]

        return Node(n.node.dtype, n.node.dims, run, bounds=n.node.bounds, passes=True, view=n.node.view, at_hand=True)

    def once(self, v: Value, make: Callable[[Value], Node]) -> Node:
        """The node of a value; one that occurs more than once in a body is bound at its first occurrence."""
        known = next((bound[v] for bound in self.shared if bound.get(v)), None)
        if known is not None:
            return self.read(known)
        if not self.shared or v not in self.shared[-1]:
            return make(v)
        self.outside.append(self.seen)
        self.seen = []
        made = make(v)
        name = self.unnamed(made)
        drops = self.close()
        self.seen = self.outside.pop()
        if made.inlined:
            return made
        self.shared[-1][v] = name
        self.before += [bind(name, made), *drops]
        return self.read(name)

    def repeats(self, v: Value) -> bool:
        """Does a body that is being compiled have an operation more than once?"""
        return any(v in bodies for bodies in self.shared)

    def close(self) -> list[Step]:
        """End a statement: it takes over no value that it, or a statement around it, reads elsewhere. The steps after
        it let go what only it reads, but several times."""
        around = [n for reads in self.outside for n in reads]
        drops = []
        for n, count in Counter(self.seen).items():
            if n in around:
                n.keep()
            elif count > 1:
                drops.append(drop(n))
        self.seen = []
        return drops

    def steps(self) -> list[Step]:
        """The steps before the current statement, which are then taken."""
        steps, self.before = self.before, []
        return steps


def looks_first(body: Sequence[tile.Statement]) -> list[tile.Statement]:
    """The body with truth values computed as early as possible, so that the tiles they read can be changed in place
    after them."""
    placed: list[tile.Statement] = []
    for s in body:
        if not isinstance(s, tile.Let) or not all(t.dtype.is_bool for t in s.types):
            placed.append(s)
            continue
        needs = {v.name for v in walk_values(s.value) if isinstance(v, tile.Ref)}
        before = [n for n, p in enumerate(placed) if needs & _bound(p)]
        placed.insert(before[-1] + 1 if before else 0, s)
    return placed


def _bound(s: tile.Statement) -> set[str]:
    match s:
        case tile.Let(names=names):
            return set(names)
        case tile.Loop(carried=carried):
            return {c.name for c in carried}
        case tile.Store():
            return set()
        case _:
            assert_never(s)


def repeated(body: Iterable[tile.Statement]) -> dict[Value, Name | None]:
    """The operations that occur more than once in a body, outside its loops, none of them bound yet."""
    count = Counter(
        v
        for s in body
        for root in _roots(s)
        for v in walk_values(root)
        if isinstance(v, tile.Elem | tile.Convert) and any(isinstance(n, tile.Ref) for n in walk_values(v))
    )
    return {v: None for v, n in count.items() if n > 1}


def _roots(s: tile.Statement) -> Iterable[Value]:
    match s:
        case tile.Let(value=value):
            return (value,)
        case tile.Store(index=index, value=value, mask=mask):
            return (*index, value) if mask is None else (*index, value, mask)
        case tile.Loop(carried=carried):
            return (c.init for c in carried)
        case _:
            assert_never(s)
