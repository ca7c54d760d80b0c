"""The roles of a kernel's warps from text: what `einc.tile.roles` writes below the kernel's statements."""

from __future__ import annotations

from einc.base.errors import SyntaxError
from einc.frontend.tiles.cursor import Cursor
from einc.frontend.tiles.lines import Line
from einc.tile.roles import STEPS, VERBS, Event, Make, Ring, Roles, Turn


def read_roles(c: Cursor, line: Line) -> Roles:
    """`roles of blocks of i, one after another`, and the lines below. Raises `SyntaxError`."""
    for word in ("of", "blocks", "of"):
        c.expect(word)
    axis = c.name("the axis whose blocks consumers share").text
    onward = c.take(",")
    for word in ("one", "after", "another") if onward else ():
        c.expect(word)
    c.end()
    consumers, registers, rings, events = 0, (0, 0), list[Ring](), list[Event]()
    for below in line.below:
        inner = Cursor(below)
        if inner.token.kind == "number":
            consumers, registers = _warps(inner)
        elif inner.take("step"):
            events += [_event(Cursor(x)) for x in below.below]
        else:
            rings.append(_ring(inner))
        inner.end()
    if not consumers:
        raise SyntaxError("the roles have no consumers", line.span, hint="2 consumers with 240 registers, …")
    return Roles(axis, consumers, registers, tuple(rings), tuple(events), onward)


def _warps(c: Cursor) -> tuple[int, tuple[int, int]]:
    """`2 consumers with 240 registers, a producer with 24`."""
    consumers = c.integer()
    for word in ("consumers", "with"):
        c.expect(word)
    many = c.integer("the registers of a consumer's thread")
    for word in ("registers", ",", "a", "producer", "with"):
        c.expect(word)
    return consumers, (many, c.integer("the registers of a producer's thread"))


def _ring(c: Cursor) -> Ring:
    """`held q`, `ring k of k, v with l in 2 slots`."""
    held = c.take("held")
    if not held:
        c.expect("ring")
    name = c.name("the name of a ring").text
    loads = c.several(lambda: c.name("the name of a load").text) if c.take("of") else (name,)
    if held:
        return Ring(name, loads, 1, True)
    rows = c.several(lambda: c.name("the name of a row of numbers").text) if c.take("with") else ()
    c.expect("in")
    depth = c.integer("how many slots the ring has")
    c.expect("slots")
    return Ring(name, loads, depth, rows=tuple(rows))


def _event(c: Cursor) -> Event:
    """`wait v of the step before`, `make s, p`."""
    verb = c.name("what a consumer does").text
    if verb in ("take", "pass"):
        c.expect("turn")
        c.end()
        return Turn(verb == "pass")
    if verb not in (*VERBS, "make"):
        c.at = 0
        c.wrong(", ".join(f"'{v}'" for v in (*VERBS, "make", "take", "pass")))
    names = c.several(lambda: c.name("what it is about").text)
    step = _step(c)
    c.end()
    if verb == "make":
        return Make(names, step)
    if len(names) > 1:
        raise SyntaxError(f"a consumer does {verb} one thing at a time", c.line.span, hint="write a line for each")
    found: Event = VERBS[verb](names[0], step)
    return found


def _step(c: Cursor) -> int:
    """Which step an event is about."""
    for step, words in STEPS.items():
        if words and c.ahead(*words.split()):
            c.at += len(words.split())
            return step
    return 0
