"""What was made before, on disk: found again by another process, made again where it is damaged or missing.

    entry of (kind, what it depends on, versions)  -->  the value, or None

An entry is a file, `DIRECTORY/KIND/DIGEST`. Its name is a digest of all that its value depends on (`digests`) and of
the versions of what made it (`versions`), its content a checked pickle of values of this package (`entries`). Files
appear whole under their names, so that processes may write at once, and end at any time. Nothing here raises an error
for the state of the disk: what cannot be read is made again, and what cannot be written is not kept.

`EINC_CACHE_DIR` names the directory (`places`); `EINC_CACHE=0` turns the cache off.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import TypeVar

from einc.cache import entries, places, versions
from einc.cache.contents import make_room
from einc.cache.digests import Unnamed, digest

__all__ = ["find", "keep"]

T = TypeVar("T")


def find(kind: str, key: Hashable, of: type[T]) -> T | None:
    """The value that was kept under this kind and key, if it is of the type asked for; None where there is none."""
    directory = places.directory()
    if directory is None:
        return None
    try:
        name = digest((versions.stamp(), kind, key))
    except Unnamed:
        return None
    value = entries.read(directory / kind / name)
    return value if isinstance(value, of) else None


def keep(kind: str, key: Hashable, value: object) -> None:
    """Keep a value of frozen dataclasses, numbers, texts and tuples for other processes, as far as the disk allows."""
    directory = places.directory(make=True)
    if directory is None:
        return
    with suppress(Unnamed, entries.Unwritable):
        name = digest((versions.stamp(), kind, key))
        entries.write(directory / kind / name, value)
        make_room(directory, name)
