"""What `explain` says of a program, as data and as text, is what was compiled, and holds for every program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import einc
from einc import driver
from einc.present.report import report
from einc.present.terminal import as_text, explanation
from einc.trials.request import Request
from einc.trials.running import story_for
from tests.passes.test_streaming import CASCADES, LONG, OPEN
from tests.support.explaining import ATTENTION, LAYERNORM, MATMUL, data, told, told_of
from tests.support.places import EXAMPLES, ROOT
from tests.support.random_programs import Case, cases

PROGRAMS = sorted(EXAMPLES.rglob("*.ein"))
TRAINED = ("cumulative_sum", "differential", "embedding", "layernorm", "rmsnorm_matmul", "swiglu_mlp", "top4")
SIZES = {"b": 2, "h": 8, "i": 4096, "j": 4096, "d": 64}


def cascade(body: str, sizes: dict[str, int] = LONG) -> Any:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    text = f"def f(x[i, j], w[j, e]):\n{lines}"
    axes = {a.name for a in driver.elaborate(einc.compile(text).text).axes}
    return data(told(text, {a: n for a, n in sizes.items() if a in axes}))


def only_kernel(found: Any) -> Any:
    (kernel,) = found["kernels"]
    return kernel


# ---------------------------------------------------------------------------------------------------------------------
# What is carried


@pytest.mark.parametrize("name", CASCADES)
def test_accumulators(name: str) -> None:
    body, count = CASCADES[name]
    found = cascade(body)
    kernel = only_kernel(found)
    assert len(list(kernel["accumulators"].values())[-1]) == count
    assert kernel["streamed"] == ["j"]
    assert found["sweeps"] == {"j": 1}
    assert found["not_closed"] == []


@pytest.mark.parametrize("name", CASCADES)
def test_accumulators_do_not_depend_on_how_long_the_axis_is(name: str) -> None:
    body, count = CASCADES[name]
    found = cascade(body, {"i": 64, "j": 256, "e": 32})
    carried = [kernel["accumulators"] for kernel in found["kernels"]]
    assert max(len(accumulators) for maps in carried for accumulators in maps.values()) == count


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("j", [512, 1 << 20])
def test_what_is_not_closed_says_so(name: str, j: int) -> None:
    found = cascade(OPEN[name], {"i": 64, "j": j})
    (open_,) = found["not_closed"]
    assert open_["reduction"] == "O"
    assert "neither shifts, scales nor expands" in open_["reason"]
    part = {
        "relu": "max(x − m_sum/|j|, 0)",
        "sigmoid": "1 / (e^{m_sum/|j| − x} + 1)",
        "gaussian": "e^{−(x − m_sum/|j|)²}",
    }
    assert open_["part"] == part[name]


def test_moments_move_by_the_binomial_formula() -> None:
    carried = only_kernel(cascade(CASCADES["skewness"][0]))["accumulators"]["O"]
    assert [a["body"] for a in carried] == ["(x − μ)³", "(x − μ)²", "x − μ", "1"]
    assert carried[0]["moves"] == {"O": "1", "O_1": "3·(μ − μ′)", "O_2": "3·(μ − μ′)²", "O_3": "(μ − μ′)³"}
    assert carried[3]["moves"] == {}


def test_attention() -> None:
    found = data(told(ATTENTION, SIZES))
    kernel = only_kernel(found)
    assert kernel["grid"] == ["b", "h", "i"]
    assert kernel["streamed"] == ["j"]
    assert {name: len(a) for name, a in kernel["accumulators"].items()} == dict.fromkeys(kernel["accumulators"], 1)
    assert [(s["dtype"], s["axes"]) for s in kernel["state"]] == [("f32", ["i"]), ("f32", ["i"]), ("f32", ["i", "d"])]
    assert kernel["state_bytes_per_row"] == 4 * (1 + 1 + 64)
    assert found["sweeps"] == {"j": 1}
    assert found["intermediates"] == []
    assert found["bytes"] == 4 * 4 * 2 * 8 * 4096 * 64
    assert 4 * 2 * 8 * 4096**2 * 64 < found["flops"] < 4.5 * 2 * 8 * 4096**2 * 64
    below = found["levels"][0]
    assert [t["axes"] for t in below["intermediates"] if t["name"] == "AB"] == [["b", "h", "i", "j"]]
    assert below["sweeps"]["j"] == 3
    assert below["predicted_us"] > found["predicted_us"]
    assert [f["level"] for f in found["levels"]] == [0, 1, 2]


def test_the_level_that_was_asked_for_stands_at_the_top() -> None:
    for level in (0, 1, 2):
        found = data(told(ATTENTION, SIZES, level))
        shown = found["levels"][level]
        assert {key: found[key] for key in shown if key != "not_closed"} == {
            k: v for k, v in shown.items() if k != "not_closed"
        }


def test_decisions_give_both_times() -> None:
    joined, *_ = data(told(ATTENTION, SIZES))["decisions"]
    assert joined["joined"]
    assert joined["together_us"] < joined["apart_us"]


def test_causal_visits_half_of_the_blocks() -> None:
    text = 'softmax(where(j <= i, "bihd,bjhd->bhij", -inf)) * "bjhd->bihd"'
    tiles = only_kernel(data(told(text, SIZES)))["tiles"]["j"]
    assert tiles["visited"] == tiles["full"] + tiles["mixed"]
    assert 0.5 <= tiles["visited"] / tiles["total"] < 0.6


# ---------------------------------------------------------------------------------------------------------------------
# Whatever the program


@pytest.mark.turns(2)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_examples(path: Path) -> None:
    program = einc.compile(path)
    scalars: dict[str, Any] = {p.name: 2 for p in driver.elaborate(program.text).scalars if p.default is None}
    found = story_for(program, Request({}, {}, scalars))
    json.dumps(data(found))
    text = as_text(explanation(found))
    assert max(map(len, text.splitlines())) <= 100


@settings(max_examples=50, deadline=None)
@given(cases())
def test_random_programs(case: Case) -> None:
    found = told_of(case.program, case.sizes, case.scalars)
    assert data(found)["levels"][2]["kernels"]
    assert as_text(explanation(found))


def test_without_operands() -> None:
    for text in (MATMUL, ATTENTION, LAYERNORM):
        program = einc.compile(text)
        assert "kernels" in json.loads(program.explain(format="json"))
        assert "predicted" in program.explain()


def test_values_that_bounds_read() -> None:
    text = "def f(x[b, j], n[b]: i64):\n    O[b] = sum[j](where(j < n[b], x, 0))\n    return O"
    x, n = np.ones((4, 1 << 16), "f4"), np.array([0, 1, 1 << 15, 1 << 16])
    (kernel,) = json.loads(einc.compile(text, splits=1).explain(x, n, format="json"))["kernels"]
    assert kernel["flops"] > 0


def test_readme_quotes_what_is_printed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(r"<!-- explain of `([^`]*)` -->\n```text\n(.*?)```", readme, re.DOTALL)
    assert quoted
    for text, shown in quoted:
        assert shown in report(told(text, {"i": 4096, "j": 8192, "e": 64}))


def test_decisions_count_the_blocks_that_are_visited() -> None:
    text = (EXAMPLES / "attention" / "causal.ein").read_text()
    sizes = SIZES | {"d": 128, "e": 128}
    s = told(text, sizes)
    (decision,) = s.level.decisions
    assert decision.together is not None
    assert 0.95 < 1e6 * decision.together / s.level.predicted_us <= 1  # but for what masks cost in blocks that they cut
    (whole,) = told(text, sizes, level=1).level.decisions
    assert whole.together is not None
    assert decision.together < 0.7 * whole.together


def test_bounds_need_only_the_operands_that_they_read() -> None:
    text = (EXAMPLES / "attention" / "documents.ein").read_text()
    n = 65536
    q, document = np.broadcast_to(np.float32(0), (1, 1, n, 64)), np.arange(n, dtype="i4")[None] // (n // 8)
    program = einc.compile(text)
    given = dict(zip("QKV", (q, q, q), strict=True)) | {"document": document}
    tiles = json.loads(program.explain(**given, format="json"))["kernels"][-1]["tiles"]["j"]
    assert tiles["visited"] < tiles["total"] / 8


def test_gradients_say_what_is_saved() -> None:
    operands = [torch.empty(1, 16, 512, 64, dtype=torch.bfloat16, device="meta") for _ in range(3)]
    backward = einc.compile(EXAMPLES / "attention" / "causal.ein").gradient(given=operands)
    told = json.loads(backward.explain(format="json"))["saving"]
    assert {t["name"] for t in told if t["saved"]} == set(backward.saved)
    assert {t["name"]: t["bytes"] for t in told}["O"] == 16 * 512 * 64 * 2
    again = [t for t in told if not t["saved"]]
    assert [t["bytes"] for t in again if t["name"] == "S"] == [16 * 512 * 512 * 4]
    assert not {t["name"] for t in again} & set(backward.text.operands)
    text, page = backward.explain(), backward.explain(format="html")
    for t in told:
        assert t["reason"] in " ".join(text.split())
        assert f"<td>{t['reason']}</td>" in page
    assert "saving" not in json.loads(backward.ahead.explain(format="json"))


@pytest.mark.parametrize("path", [p for p in PROGRAMS if p.stem in TRAINED], ids=lambda p: p.stem)
def test_gradients_of_examples_account_for_all_that_they_read(path: Path) -> None:
    """Every operand that the program did not have, and no cotangent, is told of as saved."""
    backward = einc.compile(path).gradient()
    told = {t.name: t for t in backward.story().saving}
    assert [name for name in backward.saved if not (name in told and told[name].saved)] == []
    assert all(t.reason and t.bytes > 0 for t in told.values())
