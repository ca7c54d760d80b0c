"""Loops that are written as one.

    for r: for t: s = f(s)   -->   for k in |r| * blocks of t: r, t = k // blocks, k % blocks; s = f(s)

What Triton has in flight at the end of the inner loop then is of its next run.
"""

from __future__ import annotations

from einc import tile


def nested(s: tile.Loop) -> tuple[tile.Loop, tile.Loop] | None:
    """A loop that takes a position at a time and the only other in it, which goes on from its states; None if it is no
    such nest."""
    within = [x for x in s.body if not isinstance(x, tile.Let)]
    if s.axis.blocked or s.reverse or len(within) != 1 or s.body[-1] is not within[0]:
        return None
    inner = within[0]
    if not isinstance(inner, tile.Loop) or not inner.axis.blocked or inner.bounds or inner.reverse:
        return None
    passed = [(tile.Ref(c.name), c.after) for c in s.carried]
    return (s, inner) if [(c.init, c.name) for c in inner.carried] == passed else None
