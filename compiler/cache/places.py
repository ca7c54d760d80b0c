"""Where entries are kept: a directory of the user's own, as the environment says.

| variable | |
|---|---|
| `EINC_CACHE_DIR` | the directory; without it `einc` in `XDG_CACHE_HOME`, or in `~/.cache` |
| `EINC_CACHE` | `0`, `off`, `no` or `false`: nothing is read or written |
| `EINC_CACHE_SIZE` | the most that entries may take, `512MiB` for example; 1 GiB without it |

Since source that is found here is run, a directory that others may write to is not used.
"""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache
from pathlib import Path

_OFF = frozenset(("0", "off", "no", "false"))
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_DEFAULT_SIZE = 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def named() -> Path | None:
    """The directory that the environment names, whether it is there or not; None for a user without a home."""
    if given := os.environ.get("EINC_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the rule of XDG: others are ignored
        return Path(base) / "einc"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "einc" if os.path.isabs(home) else None


def switched_off() -> bool:
    """Does the environment turn the cache off?"""
    return os.environ.get("EINC_CACHE", "").strip().lower() in _OFF


def directory(make: bool = False) -> Path | None:
    """The directory to use; None if there is none, it is turned off, or is not the user's own."""
    return None if switched_off() or (found := named()) is None or unusable(found, make) else found


def unusable(path: Path, make: bool = False) -> str:
    """Why the directory is not used, in words; nothing if it is. `make` makes it, for nobody but the user."""
    return _unusable(path) if not make or path.is_dir() else _made(path)


def _made(path: Path) -> str:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return _unusable(path)


@lru_cache(maxsize=16)
def _own(mode: int, owner: int) -> str:
    if not stat.S_ISDIR(mode):
        return "it is not a directory"
    if hasattr(os, "getuid") and owner != os.getuid():
        return "it belongs to another user"
    if hasattr(os, "getuid") and mode & _OTHERS:
        return "others may write to it"
    return ""


def _unusable(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return _own(found.st_mode, found.st_uid)


def limit() -> int:
    """The bytes that entries may take."""
    found = size(os.environ.get("EINC_CACHE_SIZE", ""))
    return _DEFAULT_SIZE if found is None else found


def size(text: str) -> int | None:
    """`512MiB`, `1.5G` or `4096` in bytes; None for what is no size."""
    found = _SIZE.fullmatch(text.strip())
    return None if found is None else int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))
