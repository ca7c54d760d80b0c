"""Tile axes from text: `row i[16..64]`, `g_r=(g r)[?]`."""

from __future__ import annotations

from einc.base.errors import SyntaxError
from einc.frontend.tiles.cursor import Cursor
from einc.tile import WHOLE, Block, TileAxis
from einc.tile.printer import BEHIND, ROLE_WORDS, ROLES, UNBLOCKED

Sizes = dict[str, Block | None]  # what blocked axes have between brackets; None is a question mark


def tile_axis(c: Cursor, place: str, sizes: Sizes) -> TileAxis:
    """A tile axis of the grid, of the axes held whole, or of a loop; the size of its blocks is added to `sizes`."""
    role = _role(c) if _has_role(c) else ""
    named = c.name("a tile axis")
    name = named.text
    axes = group(c) if c.take("=") else (name,)
    blocked = c.take("[")
    if blocked and (size := _size(c)) != sizes.setdefault(name, size):
        fact = f"it has blocks of {sizes[name] or '?'} before"
        raise SyntaxError(f"tile axis '{name}' has blocks of two sizes", named.span, fact=fact, hint="give it one")
    usual = UNBLOCKED if place == "grid" and not blocked else ROLES[place]
    return TileAxis(name, axes, role or usual, blocked)


def _role(c: Cursor) -> str:
    word = c.next()
    if word.text not in ROLE_WORDS:
        fact = f"an axis is {', '.join(ROLE_WORDS)}"
        raise SyntaxError(f"'{word.text}' is not a role of a tile axis", word.span, fact=fact, hint="one of these")
    return word.text


def _has_role(c: Cursor) -> bool:
    """Is the next word a role, with the name of the axis behind it?"""
    return c.ahead("", "") and (c.token.text in ROLE_WORDS or not any(c.ahead("", word) for word in BEHIND))


def group(c: Cursor) -> tuple[str, ...]:
    """A dimension: `i`, `(g r)`, or `1`, which has no axes."""
    if c.take("1"):
        return ()
    if not c.take("("):
        return (c.name("an axis").text,)
    found = []
    while not c.take(")"):
        found.append(c.name("an axis, or ')'").text)
    return tuple(found)


def _size(c: Cursor) -> Block | None:
    """`16..64]`, `16..whole]`, `16]`, `?]`."""
    place = c.token.span
    if c.take("?"):
        c.expect("]")
        return None
    least = WHOLE if c.take("whole") else c.integer("the number of positions in a block")
    most = least
    if c.take(".."):
        most = WHOLE if c.take("whole") else c.integer("the most positions in a block, or 'whole'")
    c.expect("]")
    for size in (least, most):
        if size < 1 or size & (size - 1):
            raise SyntaxError(f"a block of {size} positions", place, fact="blocks are powers of two", hint="16..64")
    if most < least:
        raise SyntaxError("a block's most is less than its least", place, hint=f"{most}..{least}")
    return Block(least, most)
