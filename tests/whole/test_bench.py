"""`einc bench`: its method, what it is tried on, what it prints; figures themselves are nobody's to assert."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from einc.cli.commands import app
from einc.runtime.timing import HostClock, Race, Spread, Turn, race, sets_of_buffers, spread
from einc.trials import bench, calibration, draws, scoreboard, suites
from einc.trials.ahead import compile_ahead
from einc.trials.attention import attention, decoding, of_form
from einc.trials.bench import Effort, Prediction, Row, Time, rotating
from einc.trials.contests import Contest, backward
from einc.trials.layers import FUSED, ROWS, convolution, depthwise, matmul, reduced
from einc.trials.machine import clock_rate, facts, target
from einc.trials.peers import direct, flex
from einc.trials.scores import FORMS, MASKS, TERMS, Form

CPU = torch.device("cpu")
FACTS = {"device": "a machine", "date": "2000-01-01", "torch": "2"}
ONCE = Effort(0.0)


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["bench", *args])


def contest(text: str = "ij,jk->ik", f: Any = torch.matmul) -> Contest:
    return Contest("product", text, lambda: {"A": torch.ones(3, 4), "B": torch.ones(4, 5)}, {"torch": direct(f)}, 120.0)


def measured(*given: Contest) -> list[Row]:
    return list(bench.bench(given, CPU, ONCE))


# ---------------------------------------------------------------------------------------------------------------------
# Turns


@dataclass
class Drifting:
    """A clock of its own: ways take what `seconds` says, and everything slows down as turns go by."""

    seconds: dict[str, float]
    drift: float = 0.0
    turns: list[tuple[str, int, int]] = field(default_factory=list)
    ran: list[tuple[str, int]] = field(default_factory=list)

    def way(self, name: str) -> Callable[[int], object]:
        return lambda k: self.ran.append((name, k))

    def turn(self, way: Callable[[int], object], first: int, runs: int, ahead: float) -> Turn:
        del ahead
        for k in range(first, first + runs):
            way(k)
        name = self.ran[-1][0]
        self.turns.append((name, first, runs))
        taken = self.seconds[name] + self.drift * len(self.turns)
        return Turn(taken, 2 * taken)


def raced(clock: Drifting, budget: float = 0.0, rounds: int | None = None) -> Race:
    return race({name: clock.way(name) for name in clock.seconds}, clock, budget, rounds)


def test_contestants_take_turns_in_one_order_and_then_the_other() -> None:
    clock = Drifting({"a": 1.0, "b": 2.0, "c": 3.0})
    found = raced(clock)
    order = "".join(name for name, _, _ in clock.turns)
    assert order == "abc" + 7 * "abccba"  # once to see how long they take
    assert {name: len(turns) for name, turns in found.turns.items()} == {"a": 7, "b": 7, "c": 7}
    assert [clock.ran.index((name, 0)) for name in "abc"] == [0, 1, 2]  # nobody is timed cold


def test_a_drift_falls_on_all_alike() -> None:
    found = raced(Drifting({"a": 1.0, "b": 1.0}, drift=0.01))
    ratio = found.ratio("b", "a")
    assert ratio.median == pytest.approx(1.0, abs=1e-12)
    assert ratio.high - ratio.low == pytest.approx(0.0, abs=1e-12)
    assert len({t.device for t in found.turns["a"]}) == 7


def test_each_run_is_on_the_next_set_of_buffers() -> None:
    clock = Drifting({"a": 1e-4, "b": 1e-3})
    raced(clock, budget=0.1, rounds=7)
    timed = clock.turns[2:]
    assert all(first == before + runs for (_, first, _), (_, before, runs) in zip(timed[1:], timed, strict=False))
    runs = {name: n for name, _, n in timed}
    assert runs["a"] > runs["b"] >= 1  # as long as each other, whatever a run takes


def test_rounds_are_as_many_as_the_budget_allows() -> None:
    for budget, least, most in ((0.0, 7, 7), (60.0, 14, 15), (1e9, 31, 31)):
        count = len(raced(Drifting({"a": 1.0}), budget).turns["a"])
        assert least <= count <= most
    assert len(raced(Drifting({"a": 1.0}), 0.0, rounds=9).turns["a"]) == 9


def test_host_and_device_are_apart() -> None:
    found = raced(Drifting({"a": 1.5}))
    assert (found.device("a"), found.host("a"), found.least("a")) == (1.5, 3.0, 1.5)
    ticks = iter(range(100))
    assert HostClock(lambda: float(next(ticks))).turn(lambda _: None, 0, 4, 0.0) == Turn(0.25, 0.25)


def test_a_median_and_its_interval() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([5.0, 1.0, 7.0, 3.0, 2.0, 6.0, 4.0]) == Spread(4.0, 1.0, 7.0)
    for n in range(6, 32):
        found = spread([float(x) for x in range(n)])
        at = round(found.low)
        outside = [2 * sum(comb(n, i) for i in range(k)) / 2**n for k in (at + 1, at + 2)]
        assert found.high == n - 1 - at
        assert outside[0] <= 0.05 < outside[1]  # sure enough, and no narrower pair is


def test_ratios_are_taken_by_rounds() -> None:
    a = [Turn(1.0, 0.0), Turn(10.0, 0.0), Turn(2.0, 0.0)]
    b = [Turn(2.0, 0.0), Turn(20.0, 0.0), Turn(2.0, 0.0)]
    assert Race({"a": a, "b": b}).ratio("b", "a") == Spread(2.0, 1.0, 2.0)


def test_sets_of_buffers_are_three_times_the_cache() -> None:
    assert sets_of_buffers(10, 100) == 30
    assert sets_of_buffers(7, 100) == 43
    assert sets_of_buffers(1000, 100) == 1
    assert sets_of_buffers(1, 1 << 40) == sets_of_buffers(0, 1 << 40) == 64


def test_sets_of_buffers_are_used_in_turn_and_results_kept_apart() -> None:
    made: list[torch.Tensor] = []

    def way(k: int) -> torch.Tensor:
        made.append(torch.full((), float(k)))
        return made[-1]

    run = rotating([partial(way, k) for k in range(3)])
    found = [run(k) for k in range(7)]
    assert [float(t) for t in made] == [0, 1, 2, 0, 1, 2, 0]
    assert len({id(t) for t in found[-3:]}) == 3


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def test_a_row_has_all_that_was_measured() -> None:
    (row,) = measured(replace(contest(), exact=direct(torch.matmul), kind="k", suite="s"))
    assert (row.kind, row.suite, row.rounds) == ("k", "s", 7)
    assert row.seconds >= row.least > 0
    assert row.exact == 0
    assert row.sets == 64
    (t,) = row.times
    assert (t.peer, t.exact, t.error) == ("torch", 0, "")
    assert row.noise.low <= row.noise.median <= row.noise.high
    assert row.best == t
    assert row.model is not None


def test_errors_are_against_double_precision() -> None:
    x = torch.tensor([1.0, 1e-4, -1.0])
    narrow = Contest(
        "s", "i->", lambda: {"A": x}, {"half": direct(lambda a: a.half().sum().float())}, exact=direct(torch.sum)
    )
    (row,) = measured(narrow)
    assert row.exact is not None
    assert row.exact < 1e-3


def test_a_row_is_timed_without_room_for_double_precision() -> None:
    def large(*_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    (row,) = measured(replace(contest(), exact=direct(large)))
    assert (row.error, row.exact) == ("", None)
    assert [(t.peer, t.exact, t.error) for t in row.times] == [("torch", None, "")]


def test_what_computes_something_else_is_not_timed() -> None:
    found = run("-e", "i,i->i", "--size", "i=8", "--against", "sdpa", "--quick", "--device", "cpu")
    assert found.exit_code == 0
    assert "failed" in found.output
    assert "three operands" in found.output
    (row,) = measured(contest(f=lambda a, b: 2 * (a @ b)))
    assert "differ" in row.times[0].error
    assert row.best is None
    assert row.seconds > 0


def test_a_row_that_fails_does_not_end_the_table() -> None:
    bad, good = measured(contest("ij,kj->ik"), contest())
    assert "ShapeError" in bad.error
    assert not good.error
    assert bad.error in scoreboard.lines(bad)


def test_what_is_not_reached_in_time_is_said() -> None:
    ticks = iter((0.0, 1.0, 2.0, 3.0))
    given = [replace(contest(), suite=name) for name in ("x", "y", "x")]
    rows = list(bench.bench(given, CPU, Effort(0.0, 2.0), now=lambda: next(ticks)))
    assert len(rows) == 1
    assert scoreboard.missing(given, rows) == [
        "1 rows of y were not reached in time", "1 rows of x were not reached in time"
    ]  # fmt: skip
    assert scoreboard.missing(given, [rows[0]] * 3) == []


def test_rows_hold_rates() -> None:
    row = Row("x", seconds=1e-3, flops=2e9, bytes=10**9)
    assert row.tflops == pytest.approx(2)
    assert row.gbps == pytest.approx(1000)
    assert row.data()["tflops"] == row.tflops


# ---------------------------------------------------------------------------------------------------------------------
# Contests


def name_of(form: Form) -> str:
    return " ".join([*(t.name for t in form.terms), *(m.name for m in form.masks)])


SIZES = {"n": 24, "d": 40, "k": 56, "r": 8}
SMALL = [
    matmul("cpu", "f32", 12),
    decoding("cpu", "f32", 2, 8, 2, 50, 16),
    *(attention(name, "cpu", "f32", (2, 4, 40, 16)) for name in FORMS),
    *(reduced(name, "cpu", "f32", 5, 70, across) for name in ROWS for across in (False, True)),
    *(make("cpu", "f32", SIZES) for make in FUSED.values()),
    convolution("cpu", "f32", 2, 9, 3, 4, 3),
    depthwise("cpu", "f32", 2, 20, 6, 3),
    *(backward(attention(name, "cpu", "f32", (1, 4, 24, 16))) for name in ("causal", "sinks", "relative table")),
    backward(reduced("layernorm", "cpu", "f32", 5, 70)),
    backward(FUSED["linear cross-entropy"]("cpu", "f32", SIZES)),
]


@pytest.mark.turns(2)
@pytest.mark.parametrize("one", SMALL, ids=lambda c: c.name)
def test_contests_agree_with_their_peers(one: Contest) -> None:
    peers = {name: peer for name, peer in one.peers.items() if name != "compile"}
    (row,) = measured(replace(one, peers=peers))
    assert not row.error
    assert row.exact is not None
    assert row.exact < 1e-5
    assert [t.error for t in row.times] == [""] * len(peers)
    assert (row.predicted is None) == one.gradient


@pytest.mark.turns(2)
@pytest.mark.parametrize("name", FORMS)
def test_forms_of_attention_mean_the_same_to_flex_attention(name: str) -> None:
    assert "flex" in attention(name, "cuda", "bf16", (1, 4, 128, 16)).peers
    agrees_with_flex(FORMS[name])


@pytest.mark.turns(2)
@pytest.mark.parametrize("form", [*(Form([t]) for t in TERMS), *(Form(masks=[m(30)]) for m in MASKS)], ids=name_of)
def test_terms_and_masks_mean_the_same_to_flex_attention(form: Form) -> None:
    agrees_with_flex(form)


def agrees_with_flex(form: Form) -> None:
    one = of_form("", form, "cpu", "f32", (2, 4, 128, 16))
    (row,) = measured(replace(one, peers={"flex": flex(form)}))
    assert [t.error for t in row.times] == [""]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_suites_take_turns(device: str) -> None:
    found = suites.chosen([], device, quick=True)
    names = [c.suite for c in found]
    assert names[: len(suites.SUITES)] == list(suites.SUITES)
    assert names == 2 * list(suites.SUITES)
    assert [c.name for c in suites.chosen(["rows"], device, only="softmax")] == [
        c.name for c in suites.SUITES["rows"](device) if "softmax" in c.name
    ]
    assert len({c.name for c in suites.chosen([], device)}) == len(suites.chosen([], device))


def test_draws_are_the_same_for_a_seed_and_within_bounds() -> None:
    within = draws.bounds("cuda")
    for draw in (draws.contractions, draws.reductions, draws.cascades, draws.scores):
        names = [[c.name for c in draw(20, seed, within)] for seed in (0, 0, 1)]
        assert names[0] == names[1] != names[2]
    found = draws.contractions(300, 0, within)
    assert all(c.flops is not None and 2 <= c.flops <= 2 * within.work for c in found)
    texts = {c.text for c in found}
    sides = {tuple("".join(x for x in side if x in "ijk") for side in t.split("->")[0].split(",")) for t in texts}
    assert sides == {(a, b) for a in ("ik", "ki") for b in ("jk", "kj")}
    places = {side.index("a") for t in texts for side in t.replace("->", ",").split(",") if "a" in side}
    assert places == {0, 1, 2, 3}
    lengths = [[int(w[1:]) for w in c.name.split()[2:] if w[0] in "ijk" and int(w[1:]) >= 8] for c in found]
    aligned = sum(all(n % 8 == 0 for n in several) for several in lengths) / len(lengths)
    assert 0.3 < aligned < 0.7
    widths = sorted(c.name.split(", ")[1] for c in draws.reductions(100, 0, within))
    assert len(widths) == 100


@pytest.mark.parametrize("one", [
    *draws.contractions(8, 3, draws.Bounds("cpu", "f32", 1 << 14, 1 << 12)),
    *draws.reductions(8, 3, draws.Bounds("cpu", "f32", 1 << 14, 1 << 12)),
    *draws.scores(24, 3, draws.Bounds("cpu", "f32", 1 << 14, 1 << 12)),
], ids=lambda c: c.name)  # fmt: skip
def test_drawn_contests_agree_with_their_peers(one: Contest) -> None:
    (row,) = measured(replace(one, peers={name: peer for name, peer in one.peers.items() if name != "compile"}))
    assert not row.error
    assert row.exact is not None
    assert row.exact < 1e-5
    assert all(not t.error for t in row.times)


def test_what_is_compiled_ahead_has_its_prediction() -> None:
    make = partial(suites.chosen, ["matmul"], "cpu", 0, True, "256")
    (found,) = compile_ahead(make, 1, 1, 300.0).items()
    assert found[0] == 0
    assert isinstance(found[1], Prediction)
    assert found[1].kernels == 1


def _failing() -> list[Contest]:
    """A contest that fails, and one that ends its process, among others."""
    return [contest(), contest("ij,kj->ik"), replace(contest(), operands=partial(os._exit, 1)), contest()]


def test_what_fails_ahead_ends_neither_the_others_nor_the_table() -> None:
    found = compile_ahead(_failing, 4, 1, 300.0)
    assert [type(x) for x in found.values()] == [Prediction, str, str, Prediction]
    assert found[2] == "the process that ran it died"
    rows = list(bench.bench(_failing(), CPU, ONCE, found))
    assert [row.error == "" for row in rows] == [True, False, False, True]


# ---------------------------------------------------------------------------------------------------------------------
# The model


def test_predictions_are_compared_by_kind() -> None:
    rows = [Row(f"r{k}", least=1.0, predicted=p, kind="a", limit="memory") for k, p in enumerate((0.5, 0.8, 1.0, 1.3))]
    rows += [Row("s", least=2.0, predicted=9.0, kind="b"), Row("t", error="E: no"), Row("u", least=1.0)]
    found = {a.kind: (a.rows, a.close, a.median) for a in calibration.accuracy(rows)}
    assert found == {"a": (4, 0.75, 0.9), "b": (1, 0.0, 4.5), "all": (5, 0.6, 1.0)}
    assert [r.name for r in calibration.worst(rows, 2)] == ["s", "r0"]
    text = calibration.report(rows, 2)
    assert "a                  4       75%    0.90" in text
    assert text.index("s  ") < text.index("r0  ")
    assert "t: E: no" in text


def test_calibration_compares_every_kind_in_turns() -> None:
    found = calibration.contests("cpu", 0, 5)
    assert {"contraction", "reduction", "matmul", "fused"} <= {c.kind for c in found[:8]}
    assert not any(c.peers for c in found)


# ---------------------------------------------------------------------------------------------------------------------
# Tables

TABLE = [
    Row(
        "x", 1e-3, 2e9, 10**6, 9e-4, "memory", 1, suite="first", host=2e-5, exact=1.5e-3, clock=1.98e9,
        times=(Time("p", 2e-3, 1e-5, Spread(2.0, 1.9, 2.1), 0.0, 1e-3), Time("q", error="E: no | of it")),
        noise=Spread(1.0, 0.99, 1.01),
    ),
    Row("y", 2e-3, 0.0, 10**6, suite="first", times=(Time("p", 1e-3, ratio=Spread(0.5, 0.4, 0.6)),), clock=1.7e9),
    Row("z", error="E: not | at all", suite="second"),
]  # fmt: skip
WRITTEN = """## a machine

2000-01-01; torch 2, clock 1700 to 1980 MHz. `einc bench`

### first

2 rows against their fastest peers: median 1.25, worst 0.50 (y), 0% below 0.5, 50% below 0.8, 50% below 0.95.

| program | einc | host | error | peer | its time | its error | ratio | 95% | TFLOP/s | GB/s | predicted | limit |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|
| x | 1 ms | 20 µs | 1.5e-03 | p | 2 ms | 1.0e-03 | 2.00 | 1.90–2.10 | 2 | 1 | 900 µs | memory |
|  |  |  |  | q | failed |  |  |  |  |  |  |  |
|  |  |  |  | itself |  |  | 1.00 | 0.99–1.01 |  |  |  |  |
| y | 2 ms | 0 µs |  | p | 1 ms |  | 0.50 | 0.40–0.60 |  | 0.5 |  |  |
|  |  |  |  | itself |  |  | 1.00 | 1.00–1.00 |  |  |  |  |

- x: q: E: no | of it

### second

| program | einc | host | error | peer | its time | its error | ratio | 95% | TFLOP/s | GB/s | predicted | limit |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|
| z | E: not / at all | | | | | | | | | | | |

- 3 rows of random were not reached in time
"""


def test_the_written_table() -> None:
    assert scoreboard.section(FACTS, TABLE, "einc bench", ["3 rows of random were not reached in time"]) == WRITTEN


def test_of_many_rows_the_worst_are_written() -> None:
    many = [
        Row(f"r{k}", 1.0, suite="random", times=(Time("p", 1.0, ratio=Spread(k / 50, 0, 3)),)) for k in range(1, 101)
    ]
    text = scoreboard.section(FACTS, many, "einc bench")
    assert "The 10 worst of 100:" in text
    assert "100 rows against their fastest peers: median 1.01, worst 0.02 (r1), 24% below 0.5, 39% below 0.8" in text
    assert "| r10 |" in text
    assert "| r11 |" not in text


def test_sections_replace_their_own(tmp_path: Path) -> None:
    file = tmp_path / "BENCHMARKS.md"
    scoreboard.save(file, scoreboard.section(FACTS, TABLE, "einc bench"))
    scoreboard.save(file, scoreboard.section(FACTS | {"device": "another"}, TABLE[:1], "einc bench"))
    scoreboard.save(file, scoreboard.section(FACTS, [Row("new", 1.0)], "einc bench"))
    text = file.read_text()
    assert text.startswith("# Benchmarks")
    assert text.count("\n## ") == 2
    assert text.index("## a machine") < text.index("## another")
    assert "| new | 1 s |" in text
    assert "| y |" not in text


def test_plots_show_every_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    from einc.base.errors import CallError
    from einc.present import curves

    panels = scoreboard.panels(TABLE)
    assert {suite: {peer: len(p) for peer, p in s.items()} for suite, s in panels.items()} == {"first": {"p": 2}}
    root = ET.fromstring(curves.svg(panels, "a < b"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}circle")) == 3  # and one of the legend
    assert root.findtext(f"{space}title") == "a < b"
    assert ET.fromstring(curves.svg({}, "nothing")) is not None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CallError, match="drawn by matplotlib"):
        curves.png(panels, "a")


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_a_program_of_ones_own() -> None:
    found = run("-e", "ij,jk->ik", "--size", "i=8,j=8,k=8", "--against", "eager,cublas", "--device", "cpu", "--quick")
    assert found.exit_code == 0, found.output
    heading, first, second, itself = found.output.strip().splitlines()
    assert heading.split()[:5] == ["program", "einc", "host", "error", "peer"]
    assert first.startswith("ij,jk->ik i=8")
    assert "cublas" in second
    assert "itself" in itself


def test_attention_is_compared_in_whatever_layout_it_is() -> None:
    text = 'softmax(where(j <= i, "bihd,bjhd->bhij" / sqrt(|d|), -inf)) * "bjhd->bihd"'
    sizes = "b=1,i=8,j=8,h=2,d=16"
    found = run("-e", text, "--size", sizes, "--against", "sdpa", "--against", "flex", "--json", "--quick")
    (row,) = json.loads(found.output)["rows"]
    assert [t["peer"] for t in row["times"]] == ["sdpa", "flex"]
    assert all(not t["error"] and t["ratio"]["median"] > 0 for t in row["times"])
    assert row["exact"] < 1e-5


def test_suites_and_the_model_by_command(tmp_path: Path) -> None:
    plot = tmp_path / "ratios.svg"
    found = run("--suite", "matmul", "--only", "256", "--device", "cpu", "--quick", "--json", "--plot", str(plot))
    assert found.exit_code == 0, found.output
    data = json.loads(found.output)
    assert [r["name"] for r in data["rows"]] == ["matmul f32 256³"]
    assert "matmul" in data["summaries"]
    assert plot.read_text().startswith("<svg")
    empty = run("--calibrate", "--device", "cpu", "--budget", "0", "--quick")
    assert empty.exit_code == 0
    assert "were not reached in time" in empty.output
    assert "predicted over measured" in empty.output


def test_wrong_usage() -> None:
    assert run("-e", "ij->i", "--against", "magic").exit_code == 2
    assert run("--suite", "magic").exit_code == 2
    assert "no device" in run("--device", "abacus").stderr
    assert ".svg or .png" in run("--plot", "x.gif").stderr


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
    rate = clock_rate(CPU)
    assert rate is None or rate > 1e8
