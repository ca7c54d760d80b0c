"""All entries: what there is, and what is removed when it is too much or too old."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from einc.cache.entries import remove
from einc.cache.places import limit

_UNFINISHED = 600.0  # seconds after which no process still writes a file
_SHARE = 0.75  # of the limit that is left, once it was reached
_NAME = re.compile(r"(\.?)[0-9a-f]{64}(?:\.\d+\.[0-9a-f]+)?")  # of an entry, and of one that is being written
_LOOKED = "00"  # of the names of entries: one in 256 looks whether there is room


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the cache: its kind, its bytes, the time of its last use; `whole` unless its writer was interrupted."""

    kind: str
    path: Path
    size: int
    used: float
    whole: bool


def contents(directory: Path) -> list[Entry]:
    """Every entry, those that were used last first; none where there is no directory. Other files are not looked at."""
    return sorted(_files(directory), key=lambda e: (-e.used, e.path.name))


def _files(directory: Path) -> Iterator[Entry]:
    with suppress(OSError), os.scandir(directory) as kinds:
        for kind in kinds:
            if kind.is_dir(follow_symlinks=False):
                yield from _files_of(kind)


def _files_of(kind: os.DirEntry[str]) -> Iterator[Entry]:
    with suppress(OSError), os.scandir(kind.path) as files:
        for file in files:
            name = _NAME.fullmatch(file.name)
            if name is not None:
                with suppress(OSError):  # another process has removed it
                    found = file.stat(follow_symlinks=False)
                    yield Entry(kind.name, Path(file.path), found.st_size, found.st_mtime, not name[1])


def prune(directory: Path, older: float | None = None, to: int | None = None) -> list[Entry]:
    """Remove entries that were not used for so many seconds, then those that were used longest ago, down to so many
    bytes; and what writers that were interrupted have left. Returns what was removed."""
    now, kept, gone = time.time(), 0, []
    for e in contents(directory):
        stale = older is not None and now - e.used > older
        unfinished = not e.whole and now - e.used > _UNFINISHED
        if stale or unfinished or (to is not None and kept + e.size > to):
            gone += [e] if remove(e.path) else []
        else:
            kept += e.size
    return gone


def clear(directory: Path) -> list[Entry]:
    """Remove every entry, and the folders that they were in. Returns what was removed."""
    gone = [e for e in contents(directory) if remove(e.path)]
    for kind in {e.path.parent for e in gone}:
        with suppress(OSError):
            kind.rmdir()
    return gone


def make_room(directory: Path, name: str) -> None:
    """After some of the writes, by the name of what was written, see that entries take no more than their limit."""
    if name.startswith(_LOOKED) and sum(e.size for e in contents(directory)) > limit():
        prune(directory, to=int(_SHARE * limit()))
