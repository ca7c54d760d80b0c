"""What tests of calls that torch makes have in common."""

from __future__ import annotations

from typing import Any

import pytest

import einc


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each call of a program that does not take the short way."""
    seen: list[int] = []
    run = einc.Program.run

    def counted(*args: Any, **named: Any) -> Any:
        seen.append(1)
        return run(*args, **named)

    monkeypatch.setattr(einc.Program, "run", counted)
    return seen
