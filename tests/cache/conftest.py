"""A cache of its own for each test, and none of what this process has made before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from einc import driver
from einc.runtime import prepared


def forget() -> None:
    """Drop what this process remembers, as a new one would."""
    prepared.forget()
    for step in (driver.parse, driver._elaborate, driver._compile):
        step.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory, which is not there yet."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("EINC_CACHE", "1")
    monkeypatch.setenv("EINC_CACHE_DIR", str(directory))
    monkeypatch.delenv("EINC_CACHE_SIZE", raising=False)
    forget()
    yield directory
    forget()
