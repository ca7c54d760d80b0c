"""`einc tune`: what it prints, keeps and refuses; figures themselves are nobody's to assert."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import einc
from einc.cli.commands import app
from einc.runtime import prepared
from einc.trials import tuning
from einc.trials.tuning import Wanted
from einc.tuning import tables
from tests.support.places import EXAMPLES

ATTENTION = 'softmax("id,jd->ij") * "je->ie"'
SIZES = "i=96,j=96,d=16,e=8"


@pytest.fixture(autouse=True)
def by_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock by which larger boxes are faster; nothing is known before a test, nor after it."""

    def race(ways: Mapping[str, Any], _: torch.device, __: float) -> dict[str, float]:
        return {name: 1e-3 if name == "best" or "1048576" in name else 2e-3 for name in ways}

    monkeypatch.delenv("EINC_TUNE", raising=False)
    monkeypatch.setattr(prepared, "seconds_of", race)
    tables.forget()
    prepared.forget()
    yield
    tables.forget()
    prepared.forget()


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["tune", *args, "--device", "cpu"])


def test_what_is_printed() -> None:
    found = run("-e", ATTENTION, "--size", SIZES)
    assert found.exit_code == 0, found.output
    first, second = found.output.strip().splitlines()
    assert first.startswith("expression(A[i, d], B[j, d], C[j, e]) -> out[i, e] of f32, d=16, e=8, i=128, j=128, on ")
    assert second == "  1 ms, 2 times as fast as the model's choice, of 9 timed: out.box=1048576"


def test_a_file_with_types_scalars_and_gradients() -> None:
    file = str(EXAMPLES / "attention_program.ein")
    sizes = ",".join(f"{a}=32" for a in ("b", "i", "j", "h", "d") if f"{a}" in Path(file).read_text())
    found = run(file, "--size", sizes, "--gradient", "--json", "--budget", "60")
    assert found.exit_code == 0, found.output
    (row,) = json.loads(found.output)
    assert len(row["calls"]) == 2
    assert all(c["tried"] >= 1 and c["timed"] for c in row["calls"])


def test_explain_shows_it() -> None:
    run("-e", ATTENTION, "--size", SIZES)
    found = CliRunner().invoke(app, ["explain", "-e", ATTENTION, "--size", SIZES])
    assert "out.box=1048576, 2 times as fast" in found.output
    other = CliRunner().invoke(app, ["explain", "-e", ATTENTION, "--size", "i=4096"])
    assert "by measuring" not in other.output
    assert "chosen by the model: " in other.output


def test_a_table_is_written_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    for text, sizes in ((ATTENTION, SIZES), ('softmax("id,jd->ij")', "i=64,j=64,d=16"), (ATTENTION, SIZES)):
        found = run("-e", text, "--size", sizes, "--write", str(path))
        assert found.exit_code == 0, found.output
    data = json.loads(path.read_text())
    assert len(data["entries"]) == 2
    assert data["target"] == "cpu"
    assert "torch" in data
    machine, entries = tables.read(path)
    assert machine == data["machine"]
    assert len(entries) == 4  # by calls, and by sizes


def test_the_library_goes_on_where_one_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fine, wrong = einc.compile(ATTENTION), einc.compile("ij,jk->ik")
    wanted = [
        Wanted("wrong", wrong, lambda: {"A": torch.ones(3, 4), "B": torch.ones(5, 6)}),
        Wanted("fine", fine, lambda: dict(zip("ABC", map(torch.ones, ((64, 16), (64, 16), (64, 8))), strict=True))),
    ]
    monkeypatch.setattr(tuning, "library", lambda _: wanted)
    found = run("--library", "--write", str(tmp_path / "t.json"))
    assert found.exit_code == 0, found.output
    assert found.output.startswith("wrong: ")
    assert len(json.loads((tmp_path / "t.json").read_text())["entries"]) == 1
    assert run("--library", "--only", "nothing", "--write", str(tmp_path / "u.json")).exit_code == 1


def test_every_program_of_the_library_is_one() -> None:
    for device in ("cpu", "cuda"):
        names = [w.name for w in tuning.library(device)]
        assert len(set(names)) == len(names) > 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-e", ATTENTION), "a program is tuned for sizes\n  its axes are i, d, j, e\n  try: --size i=1024,d=1024,"),
        (("-e", ATTENTION, "--size", SIZES, "--mode", "fast"), "there is no way to tune called 'fast'"),
        (("-e", ATTENTION, "--size", "z=3"), "the program has no axis 'z'"),
        (("-e", "ij,jk->"), "a program is tuned for sizes"),
        (("--library", "-e", ATTENTION), "--library tunes no program"),
        ((), "give a file"),
    ],
)
def test_what_is_refused(args: tuple[str, ...], message: str) -> None:
    found = run(*args)
    assert found.exit_code in (1, 2)
    assert message in found.output.replace("│", " ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there() -> None:
    found = CliRunner().invoke(app, ["tune", "-e", ATTENTION, "--size", SIZES, "--device", "cuda"])
    assert found.exit_code == 1
    assert "there is no GPU here" in found.output
