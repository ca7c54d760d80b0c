"""One entry: a file with a value, written at once and checked when it is read.

    magic, checksum, pickle

A pickle is read within a millisecond, where text would be parsed for as long as compiling takes. It holds dataclasses
of this package as calls of their classes, which compute again whatever they do not keep (hashes of texts differ between
processes), and nothing else is called when it is read. The checksum covers the name of the entry too.

Files are written under another name, `.DIGEST.PROCESS.RANDOM`, and renamed when they are complete.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import secrets
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_MAGIC = b"einc\x00\x01\r\n"
_CHECKSUM = 32  # bytes
_LARGEST = 1 << 28  # bytes; nothing that is written comes near
_USED_AGAIN = 3600.0  # seconds after which another use is noted
_OUR_OWN = "einc."


class Unwritable(Exception):
    """A value that cannot be kept: the disk refuses, or it holds what is not this package's."""


def read(path: Path) -> Any:
    """The value of an entry; None for one that is missing. One that is damaged is removed, and None as well.

    The time of the file is that of its last use.
    """
    try:
        data = _content(path)
    except OSError:
        return None
    start = len(_MAGIC) + _CHECKSUM
    if data[:start] == _MAGIC + _checksum(path, data[start:]):
        with suppress(Exception):  # whatever classes say to values that they do not know
            return _Reader(io.BytesIO(data[start:])).load()
    remove(path)
    return None


def write(path: Path, value: object) -> None:
    """Write an entry, in place of one that is there. Raises `Unwritable`."""
    data = io.BytesIO()
    try:
        _Writer(data, pickle.HIGHEST_PROTOCOL).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise Unwritable(str(error)) from None
    content = data.getvalue()
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _prepare(path)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_MAGIC + _checksum(path, content) + content)
        os.replace(part, path)
    except OSError as error:
        remove(part)
        raise Unwritable(str(error)) from None
    except BaseException:
        remove(part)
        raise


def remove(path: Path) -> bool:
    """Remove an entry, or whatever has its name; False if it stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _prepare(path: Path) -> None:
    """Make the folder of an entry, and see that no other folder has its name."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.is_dir():
        remove(path)


def _content(path: Path) -> bytes:
    """The bytes of a regular file; a device or a pipe in its place is not waited for."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return b""
        if time.time() - found.st_mtime > _USED_AGAIN:
            with suppress(OSError):
                os.utime(path)
        return file.read()


def _checksum(path: Path, content: bytes) -> bytes:
    name = f"{path.parent.name}/{path.name}\n"
    return hashlib.blake2b(name.encode() + content, digest_size=_CHECKSUM).digest()


@lru_cache(maxsize=1024)
def _given(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.init)


@lru_cache(maxsize=1024)
def _by_name(kind: type) -> bool:
    """Does the class take some of its fields by name only?"""
    return any(f.kw_only for f in fields(kind))


def made(kind: type, *values: Any) -> Any:
    """A dataclass of these values, in the order of its fields."""
    return kind(**dict(zip(_given(kind), values, strict=True)))


_PLAIN = {("builtins", "complex"): complex, (made.__module__, made.__name__): made}


class _Writer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """A dataclass as the call that makes it."""
        kind = type(value)
        if is_dataclass(kind) and kind.__module__.startswith(_OUR_OWN):
            values = tuple(getattr(value, name) for name in _given(kind))
            return (made, (kind, *values)) if _by_name(kind) else (kind, values)
        if isinstance(value, type) or kind is complex or value is made:
            return NotImplemented
        raise pickle.PicklingError(f"a {kind.__module__}.{kind.__qualname__} is not kept")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A dataclass of this package; nothing else is called by an entry, whoever wrote it."""
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        found = getattr(importlib.import_module(module), name) if module.startswith(_OUR_OWN) else None
        if isinstance(found, type) and is_dataclass(found):
            return found
        raise pickle.UnpicklingError(f"{module}.{name}")
