"""What made an entry: einc's own source, and the versions of what it makes source for.

A changed file of einc is told by its size and time, as Python tells whether its own compiled bytecode is stale: this
costs two milliseconds, and is right for a checkout that is being edited as well as for an installation.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from einc.cache.digests import digest

_FORMAT = 1  # of entries
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SOURCES = (".py", ".lark", ".ein")


@cache
def stamp() -> str:
    """One digest for all of it."""
    known = tuple((name, _version(name)) for name in ("einc", "torch", "triton", "numpy"))
    return digest((_FORMAT, known, sys.version, platform.machine(), sys.byteorder, source_stamp()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def source_stamp(*roots: str) -> str:
    """The names, sizes and times of einc's source files; of other folders for `roots`."""
    found = sorted(file for root in roots or (_HERE,) for file in _files(root, ""))
    return digest(tuple(found))


def _files(folder: str, within: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for e in entries:
            if e.is_dir():
                if not e.name.startswith(("__", ".")):
                    yield from _files(e.path, f"{within}{e.name}/")
            elif e.name.endswith(_SOURCES):
                found = e.stat()
                yield within + e.name, found.st_size, found.st_mtime_ns
