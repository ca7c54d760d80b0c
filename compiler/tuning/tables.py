"""Tables of what was measured: one on disk for this user, and those that come with the package.

    machine, key  -->  Entry

A table of the package is a file, `measured/NAME.json`, for one machine: readable, in the order of what it holds, made
by `einc tune --library --write`. It is read when the first program is compiled for such a machine. What this user
measured goes before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from einc import cache
from einc.base.errors import CallError
from einc.base.files import read_text
from einc.cache import places
from einc.tuning.entries import Entry, entry
from einc.tuning.keys import Key

_KIND = "tuned"
_SHIPPED = Path(__file__).with_name("measured")

_own: dict[tuple[str, str], Entry] = {}  # of this process, whether the disk keeps them or not


def find(machine: str, key: Key) -> Entry | None:
    """What was measured of a call; None if nothing was."""
    return _found(machine, key.call)


def find_alike(machine: str, key: Key) -> Entry | None:
    """What was measured of a program for such sizes, whatever operands lay like in memory."""
    return _found(machine, key.call) or _found(machine, key.sizes)


def _found(machine: str, name: str) -> Entry | None:
    known = _own.get((machine, name)) or cache.find(_KIND, (machine, name), Entry)
    return known or shipped(machine).get(name)


def keep(machine: str, key: Key, found: Entry) -> None:
    """Keep what was measured, for this process and, as far as the disk allows, for others of this user."""
    for name in (key.call, key.sizes):
        _own[machine, name] = found
        cache.keep(_KIND, (machine, name), found)


def targeted(target: str) -> list[str]:
    """The machines of the package's tables that are of a target."""
    return [name for path in sorted(_SHIPPED.glob("*.json")) for name, of in [_head(path)] if of == target]


def _head(path: Path) -> tuple[str, str]:
    data = json.loads(read_text(path))
    return str(data["machine"]), str(data.get("target", ""))


def is_empty(machine: str = "") -> bool:
    """Has this user measured nothing, as far as can be told at once, and the package nothing on a machine?"""
    where = places.directory()
    return not _own and (where is None or not (where / _KIND).is_dir()) and not (machine and shipped(machine))


def forget() -> None:
    """Drop what this process knows."""
    _own.clear()
    shipped.cache_clear()


@lru_cache(maxsize=16)
def shipped(machine: str) -> Mapping[str, Entry]:
    """The table of the package for a machine, by calls and by sizes; empty where there is none."""
    path = file_of(machine)
    return read(path)[1] if path.is_file() else {}


def file_of(machine: str) -> Path:
    """The file in the package for a machine."""
    return _SHIPPED / f"{re.sub('[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"


def read(path: Path) -> tuple[str, dict[str, Entry]]:
    """The machine of a table, and its entries by calls and by sizes. Raises `CallError` for what is no table."""
    try:
        data = json.loads(read_text(path))
        rows = [(str(row["call"]), str(row["sizes"]), entry(row)) for row in data["entries"]]
        by_sizes = {sizes: e for _, sizes, e in reversed(rows)}
        return str(data["machine"]), by_sizes | {call: e for call, _, e in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CallError(
            f"'{path}' is no table of measurements", fact=f"{type(error).__name__}: {error}"[:120], hint="make it again"
        ) from None


def text(machine: str, target: str, facts: Mapping[str, str], rows: Mapping[Key, Entry], before: str = "") -> str:
    """A table as the text of a file, with those rows of the one before that it does not replace."""
    old: list[dict[str, Any]] = json.loads(before)["entries"] if before else []
    new = [{"call": k.call, "sizes": k.sizes, **e.data()} for k, e in rows.items()]
    replaced = {row["call"] for row in new}
    every = sorted([*(row for row in old if row["call"] not in replaced), *new], key=lambda r: (r["of"], r["call"]))
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in every)
    head = {"machine": machine, "target": target, **{k: v for k, v in facts.items() if k != "device"}}
    return json.dumps(head, ensure_ascii=False)[:-1] + ', "entries": [\n' + lines + "\n]}\n"
