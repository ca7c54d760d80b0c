"""What is kept on disk, told and tidied: entries by kind, how much they take, what is removed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from einc.base.errors import CallError
from einc.base.words import count
from einc.cache import contents, places

ACTIONS = ("show", "prune", "clear")
_DAY = 86400.0  # seconds
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Taken:
    """So many files of so many bytes together."""

    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.files} {'entry' if self.files == 1 else 'entries'}, {size(self.bytes)}"

    def data(self) -> dict[str, int]:
        return {"entries": self.files, "bytes": self.bytes}


def size(n: int) -> str:
    """Bytes in the largest unit of which there is one: `1.5 MiB`."""
    power = max(0, min((n.bit_length() - 1) // 10, len(_UNITS) - 1))
    if not power:
        return count(n, "byte")
    return f"{n / 1024**power:.3g} {_UNITS[power]}" if n < 1000 * 1024**power else f"{n // 1024**power} {_UNITS[power]}"


def taken(entries: Sequence[contents.Entry]) -> Taken:
    return Taken(len(entries), sum(e.size for e in entries))


def directory() -> Path:
    """The directory that is meant; raises `CallError` where a user has none, or it must not be touched."""
    found = places.named()
    if found is None:
        raise CallError("there is no directory for a cache", fact="this user has no home", hint="set EINC_CACHE_DIR")
    return found


def unused(path: Path) -> str:
    """Why nothing is read or written there, in words; nothing if it is."""
    if places.switched_off():
        return f"EINC_CACHE={os.environ['EINC_CACHE']}"
    return places.unusable(path) if path.exists() else ""


def by_kind(entries: Sequence[contents.Entry]) -> dict[str, Taken]:
    """What is kept of each kind; what writers that were interrupted have left is a kind of its own."""
    kinds = [e.kind if e.whole else "unfinished" for e in entries]
    return {k: taken([e for e, own in zip(entries, kinds, strict=True) if own == k]) for k in sorted(set(kinds))}


def shown(path: Path) -> str:
    """The directory, what is in it by kind, and where Triton keeps what it compiles."""
    entries, why = contents.contents(path), unused(path)
    lines = [f"{path}: {taken(entries)} of {size(places.limit())}" if path.exists() else f"{path}: nothing yet"]
    lines += [f"  not in use: {why}"] if why else []
    lines += [f"  {kind:12}{found}" for kind, found in by_kind(entries).items()]
    triton, files = compiled()
    if files.files:
        lines.append(
            f"{triton}: {count(files.files, 'file')} of Triton's, {size(files.bytes)}; einc removes none of them"
        )
    return "\n".join(lines)


def shown_data(path: Path) -> dict[str, object]:
    """The same as data."""
    entries = contents.contents(path)
    triton, files = compiled()
    return {
        "directory": str(path),
        "in_use": not (why := unused(path)),
        "why_not": why or None,
        **taken(entries).data(),
        "limit": places.limit(),
        "kinds": {kind: found.data() for kind, found in by_kind(entries).items()},
        "triton": {"directory": str(triton), "files": files.files, "bytes": files.bytes},
    }


def compiled() -> tuple[Path, Taken]:
    """Where Triton keeps what it compiles, by its own rules, and how much that is."""
    home = os.environ.get("TRITON_HOME") or os.path.expanduser("~")
    where = Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")
    sizes = []
    for folder, _, names in os.walk(where):
        for name in names:
            with suppress(OSError):  # Triton has just removed it
                sizes.append(os.lstat(os.path.join(folder, name)).st_size)
    return where, Taken(len(sizes), sum(sizes))


def removed(path: Path, action: str, days: float | None, to: str | None) -> list[contents.Entry]:
    """Prune or clear; returns what was removed."""
    if why := places.unusable(path) if path.exists() else "":
        raise CallError(
            f"nothing is removed from '{path}'", fact=why, hint="chmod go-w it, or name another in EINC_CACHE_DIR"
        )
    if action == "clear":
        return contents.clear(path)
    most = places.limit() if to is None else places.size(to)
    if most is None:
        raise typer.BadParameter(f"'{to}' is no size, as 512MiB is", param_hint="--to")
    return contents.prune(path, None if days is None else days * _DAY, most)
