"""Frozen dataclasses of options as values of JSON: each field says how it is written and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def _same(value: Any) -> Any:
    return value


def writable(write: Callable[[Any], Any] = _same, read: Callable[[Any], Any] = _same) -> dict[str, Any]:
    """The metadata of a field that is written: what makes a value of JSON of it, and what reads that."""
    return {"write": write, "read": read}


def written(options: Any) -> dict[str, Any]:
    """The values of fields that are `writable`, by name."""
    ways = {f.name: f.metadata["write"] for f in fields(options) if "write" in f.metadata}
    return {name: write(getattr(options, name)) for name, write in ways.items()}


def read(made: type[T], values: Mapping[str, Any]) -> T:
    """The options that were written; all others have their defaults."""
    ways = {f.name: f.metadata["read"] for f in fields(made) if "read" in f.metadata}  # type: ignore[arg-type]  # one
    return made(**{name: ways[name](value) for name, value in values.items()})
