"""Room for recursion: stages that walk expressions level by level need frames for every level of the deepest."""

from __future__ import annotations

import sys

_FRAMES = 40  # that a stage may use for each level
_SHALLOW = 20  # levels that Python's own limit is enough for


def make_room(depth: int) -> None:
    """Let Python recurse deeply enough for an expression of this depth; the limit is never lowered."""
    if depth > _SHALLOW:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + _FRAMES * depth))
