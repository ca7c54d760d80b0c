"""Room for recursion: stages that walk an expression level by level need stack frames for each of its levels."""

from __future__ import annotations

import sys

_FRAMES = 40  # stack frames that a stage may use for each level
_SHALLOW = 20  # levels for which Python's default limit is enough


def make_room(depth: int) -> None:
    """Let Python recurse deeply enough for an expression of this depth; the limit is never lowered."""
    if depth > _SHALLOW:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + _FRAMES * depth))
