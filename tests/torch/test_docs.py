"""What docs/pytorch.md shows runs, piece by piece."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

from tests.support.places import ROOT

PAGE = ROOT / "docs" / "pytorch.md"
PIECES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
LONGEST = 8  # lines of a piece


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_piece_runs(piece: str) -> None:
    assert "einc" in piece
    assert len(piece.splitlines()) <= LONGEST
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(piece, str(PAGE), "exec"), names)
