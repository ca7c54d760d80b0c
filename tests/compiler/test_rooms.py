"""Rooms that one can survey: few modules each, none of them long."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("compiler", "frontend", "passes", "codegen")
MODULES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]

MOST_MODULES = 15  # of a room, beside what makes it a package
MOST_LINES = 350  # of a module


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_hold_few_modules(package: str) -> None:
    rooms = Counter(str(p.parent.relative_to(ROOT)) for p in MODULES if p.name != "__init__.py")
    found = {room: n for room, n in rooms.items() if room.split("/")[0] == package}
    assert found, f"{package} has no modules"
    assert {room: n for room, n in found.items() if n > MOST_MODULES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short(package: str) -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in MODULES}
    found = {module: n for module, n in lengths.items() if module.split("/")[0] == package}
    assert {module: n for module, n in found.items() if n > MOST_LINES} == {}
