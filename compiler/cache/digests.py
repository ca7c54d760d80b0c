"""Names for values: equal values have one digest, in every process.

What is a dataclass is named by its class and the fields that it is compared by; so what two programs differ in, apart
from their places in a text, is in the name. Objects of other kinds have no name, except for those built in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

_DEEPEST = 2500  # levels; two for each of an expression


class Unnamed(Exception):
    """A value that has no digest, or is nested too deeply for one."""


def digest(value: object) -> str:
    """64 hexadecimal digits. Raises `Unnamed`."""
    try:
        return _Namer().name(value).hex()
    except RecursionError:
        raise Unnamed("nested too deeply") from None


@lru_cache(maxsize=1024)
def _compared(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.compare)


class _Namer:
    """Values by identity with their digests, so that what is shared is read once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[object, bytes]] = {}
        self.depth = 0

    def name(self, value: Any) -> bytes:
        found = self.known.get(id(value))
        if found is None:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise Unnamed("nested too deeply")
            found = self.known[id(value)] = value, hashlib.blake2b(self._spelt(value), digest_size=32).digest()
            self.depth -= 1
        return found[1]

    def _spelt(self, value: Any) -> bytes:
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str, bytes):
            return f"{kind.__name__} {value!r}".encode("utf-8", "surrogatepass")
        if kind in (tuple, list):
            return b"sequence " + b"".join(self._names(value))
        if kind in (set, frozenset):
            return b"set " + b"".join(sorted(self._names(value)))
        if isinstance(value, Mapping):
            return b"mapping " + b"".join(sorted(self._names(tuple(value.items()))))
        home = f"{kind.__module__}.{kind.__qualname__} "
        if isinstance(value, Enum):
            return (home + value.name).encode()
        if is_dataclass(kind):
            return home.encode() + b"".join(self._names([getattr(value, name) for name in _compared(kind)]))
        raise Unnamed(home)

    def _names(self, values: Iterable[Any]) -> list[bytes]:
        found = []
        for v in values:
            found.append(self.name(v))
        return found
