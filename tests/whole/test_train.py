"""The GPT of examples/train.py, whose every step is a program, learns as the same model does in PyTorch."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, I64
from einc.binding import bind
from einc.derive import ahead, behind
from einc.driver import compile_program, elaborate
from tests.support.places import EXAMPLES


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / "train.py"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NEAR = {torch.float32: 1e-5, torch.float64: 1e-9}  # angles, functions of positions, are f32 in both


@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_losses_are_those_of_torch(example: dict[str, Any], dtype: torch.dtype) -> None:
    """At every step within some roundings, and falling."""
    sizes = example["Sizes"](layers=1, channels=32, heads=4, groups=2, hidden=48, length=32, batch=4)
    letters, text = example["letters_of"]()
    mine, other = (
        example["train"](example[model], sizes, text, len(letters), 15, dtype).losses
        for model in ("in_einc", "in_torch")
    )
    assert len(mine) == 15
    assert max(abs(a - b) for a, b in zip(mine, other, strict=True)) <= NEAR[dtype]
    assert mine[0] > 4.5
    assert max(mine[-3:]) < mine[0] - 0.5


def test_no_logits_are_stored(example: dict[str, Any]) -> None:
    """Neither by the program nor by what gives its gradients, at sizes that matter on a GPU."""
    shapes = {"X": (8, 1024, 512), "gain": (512,), "table": (32768, 512), "following": (8, 1024)}
    types = {name: I64 if name == "following" else BF16 for name in shapes}
    program = elaborate(example["LOSS"].text, {n: Fact(shape, types[n]) for n, shape in shapes.items()})
    extents, target = bind(program, shapes).extents, TARGETS["sm_90"]
    run = ahead(program, ("X", "gain", "table"), 2, target, extents)
    for part in (program, run.program, behind(run, ("L",)).program):
        schedule = compile_program(part, 2, target, extents).state.schedule
        assert schedule is not None
        stored = [{axis for axes in buffer.dims for axis in axes} for buffer in schedule.intermediates]
        assert all("c" in axes for axes in stored if "v" in axes)  # part of the table's gradient, no logits


def test_command_line(
    example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "loss.svg"
    monkeypatch.setattr(sys, "argv", ["train.py", "--steps", "3", "--svg", str(drawn)])
    example["main"]()
    printed = capsys.readouterr().out
    rows = re.findall(r"^ +(\d+) +(\d\.\d+) +(\d\.\d+) +(\S+)$", printed, flags=re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    assert float(re.findall(r"greatest difference of two losses: (\S+)", printed)[0]) <= 1e-5
    curves = [e for e in ElementTree.parse(drawn).iter() if e.get("class") in ("wide", "thin")]
    assert [e.get("d", "").count(",") for e in curves] == [3, 3, 3]
