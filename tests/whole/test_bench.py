"""`einc bench`: what it prints and keeps; figures themselves are nobody's to assert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from einc.cli.commands import app
from einc.trials import bench, contests, scoreboard
from einc.trials.bench import Row, Time
from einc.trials.contests import Contest
from einc.trials.machine import facts, target
from einc.trials.peers import direct

CPU = torch.device("cpu")
FACTS = {"device": "a machine", "date": "2000-01-01", "torch": "2"}


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["bench", *args])


def contest(text: str = "ij,jk->ik", f: Any = torch.matmul) -> Contest:
    return Contest("product", text, lambda: {"A": torch.ones(3, 4), "B": torch.ones(4, 5)}, {"torch": direct(f)}, 120.0)


def measured(*given: Contest) -> list[Row]:
    return list(bench.bench(given, CPU, 0.0))


@pytest.mark.parametrize("table", [contests.for_cpu, lambda **o: contests.for_gpu("cpu", **o)], ids=["cpu", "gpu"])
def test_every_row_of_the_standard_tables_agrees_with_its_peers(table: Any) -> None:
    for row in measured(*table(quick=True, shrink=256)):
        assert not row.error
        assert row.seconds > 0
        assert row.predicted is not None
        for t in row.times:
            assert t.peer == "cudnn" or (not t.error and t.ratio > 0), t


def test_a_program_of_ones_own() -> None:
    found = run("-e", "ij,jk->ik", "--size", "i=8,j=8,k=8", "--against", "eager,cublas", "--device", "cpu", "--quick")
    assert found.exit_code == 0, found.output
    heading, first, second = found.output.strip().splitlines()
    assert heading.split()[:3] == ["program", "einc", "peer"]
    assert first.startswith("ij,jk->ik i=8")
    assert "cublas" in second


def test_attention_is_compared_in_whatever_layout_it_is() -> None:
    text = 'softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
    sizes = "b=1,i=8,j=8,h=2,d=16"
    found = run("-e", text, "--size", sizes, "--against", "sdpa", "--against", "flex", "--json", "--quick")
    (row,) = json.loads(found.output)["rows"]
    assert [t["peer"] for t in row["times"]] == ["sdpa", "flex"]
    assert all(not t["error"] and t["ratio"] > 0 for t in row["times"])


def test_what_computes_something_else_is_not_timed() -> None:
    found = run("-e", "i,i->i", "--size", "i=8", "--against", "sdpa", "--quick", "--device", "cpu")
    assert found.exit_code == 0
    assert "failed" in found.output
    assert "three operands" in found.output
    (row,) = measured(contest(f=lambda a, b: 2 * (a @ b)))
    assert "differ" in row.times[0].error
    assert row.seconds > 0


def test_a_row_that_fails_does_not_end_the_table() -> None:
    bad, good = measured(contest("ij,kj->ik"), contest())
    assert "ShapeError" in bad.error
    assert not good.error
    assert bad.error in scoreboard.lines(bad)


def test_wrong_usage() -> None:
    assert run("-e", "ij->i", "--against", "magic").exit_code == 2
    assert "no device" in run("--device", "abacus").stderr


def test_rows_hold_rates() -> None:
    row = Row("x", seconds=1e-3, flops=2e9, bytes=10**9)
    assert row.tflops == pytest.approx(2)
    assert row.gbps == pytest.approx(1000)
    assert row.data()["tflops"] == row.tflops


def test_sections_replace_their_own(tmp_path: Path) -> None:
    row = Row("x", 1e-3, times=(Time("p", 2e-3, 2.0), Time("q", error="E: no | of it")))
    file = tmp_path / "BENCHMARKS.md"
    scoreboard.save(file, scoreboard.section(FACTS, [row], "einc bench"))
    scoreboard.save(file, scoreboard.section(FACTS | {"device": "another"}, [row], "einc bench"))
    scoreboard.save(file, scoreboard.section(FACTS, [Row("new", 1.0)], "einc bench"))
    text = file.read_text()
    assert text.startswith("# Benchmarks")
    assert text.count("\n## ") == 2
    assert text.index("## a machine") < text.index("## another")
    assert "| new | 1 s |" in text
    assert "| x | 1 ms | p | 2 ms | 2.00 |" in text
    assert "- x: q: E: no | of it" in text


def test_a_table_says_how_it_was_made_but_not_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "BENCHMARKS.md"
    words = ["-e", "ij,jk->ik", "--size", "i=8,j=8,k=8", "--device", "cpu", "--quick", "--write", str(file)]
    monkeypatch.setattr("sys.argv", ["einc", "bench", *words])
    assert run(*words).exit_code == 0
    assert "`einc bench -e ij,jk->ik --size i=8,j=8,k=8 --device cpu --quick --write BENCHMARKS.md`" in file.read_text()
    assert str(tmp_path) not in file.read_text()


def test_the_machine_is_known() -> None:
    assert {"device", "date", "torch"} <= set(facts(CPU))
    rates = target(CPU).rates
    assert min(rates.matrix, rates.vector, rates.special, rates.memory) > 0
