"""A second process finds what the first one made: it parses, elaborates, transforms and emits nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import einc
from einc import driver
from einc.base.errors import RoomError
from einc.base.source import Source
from einc.base.targets import TARGETS
from einc.cache import contents, versions
from einc.codegen import BACKENDS, TRITON
from einc.driver import Compiled, Request, compile_program, elaborate, parse
from einc.tile.asked import choice
from tests.cache.conftest import forget
from tests.support.random_cascades import Cascade, cascades

CAUSAL = """
def attention(Q[b, i, d], K[b, j, d], V[b, j, e], scale: float = rsqrt(|d|)):
    S[b, i, j] = scale * Q[b, i, d] * K[b, j, d]
    A[b, i, j] = where(j <= i, S, -inf)
    O[b, i, e] = softmax[j](A) * V[b, j, e]
    return O
"""
STRING = 'softmax("id,jd->ij") * "je->ie"'
MAKING = ("lark", "einc.frontend", "einc.stages", "einc.passes", "einc.codegen.triton.file")
SCRIPT = f"""
import json, os, sys
import torch
import einc
torch.manual_seed(0)
x = torch.randn(2, 40, 16)
shape = torch.empty(2, 256, 64, dtype=torch.bfloat16, device="meta")
program = einc.compile({CAUSAL!r})
results = [program(x, x, x), einc.compile({STRING!r})(x[0], x[0], x[0])]
source = einc.compile({CAUSAL!r}, target="sm_90").source(shape, shape, shape)
program.prepare(shape, shape, shape, target="sm_90")
made = [name for name in {MAKING!r} if name in sys.modules]
results.append(einc.einsum("bik,bjk->bij", x, x))
passes = "einc.passes" in sys.modules
print(json.dumps([made, passes, [r.tolist() for r in results], source]))
"""


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.aot
def test_a_second_process_makes_nothing(tmp_path: Path) -> None:
    def process(seed: int) -> tuple[list[str], bool, list[Any], str]:
        kept = {
            "EINC_CACHE": "1",
            "EINC_CACHE_DIR": str(tmp_path / "einc"),
            "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True, text=True, check=False, env={**os.environ, **kept, "PYTHONHASHSEED": str(seed)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: tuple[list[str], bool, list[Any], str] = tuple(json.loads(done.stdout))
        return found

    made, passes, results, source = process(1)
    assert (made, passes) == (list(MAKING), True)
    before = files(tmp_path)
    assert any(name.endswith(".cubin") for name in before)
    made, passes, results_again, source_again = process(2)
    assert (made, passes) == ([], False)
    assert results_again == results
    assert source_again == source
    assert files(tmp_path) == before


# ---------------------------------------------------------------------------------------------------------------------
# The same, counted in one process that has forgotten everything


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, in order: parsed, elaborated, run through the passes."""
    import einc.frontend
    import einc.stages

    found: list[str] = []
    counted: tuple[tuple[Any, str], ...] = (
        (einc.frontend, "parse"),
        (einc.frontend, "elaborate"),
        (einc.stages, "run_passes"),
    )
    for module, name in counted:
        step: Callable[..., Any] = getattr(module, name)

        def noted(*args: Any, _step: Callable[..., Any] = step, _name: str = name, **kwargs: Any) -> Any:
            found.append(_name)
            return _step(*args, **kwargs)

        monkeypatch.setattr(module, name, noted)
    return found


@pytest.mark.usefixtures("cache")
def test_each_step_is_done_once(steps: list[str]) -> None:
    x = torch.randn(2, 5, 4)
    expected = einc.compile(CAUSAL)(x, x, x)
    assert steps == ["parse", "elaborate", "elaborate", "run_passes"]
    for _ in range(2):
        forget()
        assert torch.equal(einc.compile(CAUSAL)(x, x, x), expected)
    assert len(steps) == 4


@pytest.mark.usefixtures("cache")
def test_stages_are_made_when_they_are_looked_at(steps: list[str]) -> None:
    first = compile_program(elaborate(parse(CAUSAL)), 2, TARGETS["sm_90"])
    dumped, source, program = first.dump(), first.source, first.program
    forget()
    steps.clear()
    again = compile_program(elaborate(parse(CAUSAL)), 2, TARGETS["sm_90"])
    assert (again.source, again.program, again.state) == (source, program, first.state)
    assert again.emitted == first.emitted
    assert steps == []
    assert again.dump() == dumped
    assert steps == ["run_passes"]


@pytest.mark.usefixtures("cache")
def test_a_program_with_kernels_is_found(steps: list[str]) -> None:
    text = einc.compile(CAUSAL, target="sm_90").dump("lower")
    forget()
    x = torch.randn(2, 5, 4)
    expected = einc.compile(text)(x, x, x)
    forget()
    steps.clear()
    assert torch.equal(einc.compile(text)(x, x, x), expected)
    assert "run_passes" not in steps


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cascades(), st.sampled_from(sorted(TARGETS)), st.integers(0, 2))
@pytest.mark.usefixtures("cache")
def test_random_programs_are_found_as_they_were_made(steps: list[str], case: Cascade, target: str, level: int) -> None:
    ends = []
    for _ in range(2):
        forget()
        steps.clear()
        made = compile_program(elaborate(parse(case.text)), level, TARGETS[target], case.sizes)
        ends.append((made.program, made.state, made.emitted, made.program.params))
    assert ends[0] == ends[1]
    assert hash(ends[0][0]) == hash(ends[1][0])
    assert steps == []


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "text",
    [
        "O[i] = " + " + ".join(["x[i]"] * 250),
        f"O[i] = {'sin(' * 250}x[i]{')' * 250}",
        f"fn f(x) = {'sin(' * 30}x{')' * 30}\nO[i] = {'f(' * 30}x[i]{')' * 30}",
    ],
    ids=["sum", "nested", "inlined"],
)
def test_deep_expressions_are_found(text: str, steps: list[str]) -> None:
    before, x = sys.getrecursionlimit(), torch.ones(3)
    expected = einc.compile(text)(x)
    forget()
    steps.clear()
    try:
        sys.setrecursionlimit(1000)  # Python's own, as in a new process
        assert torch.equal(einc.compile(text)(x), expected)
    finally:
        sys.setrecursionlimit(max(before, sys.getrecursionlimit()))
    assert steps == []


@pytest.mark.usefixtures("cache")
def test_wrong_texts_and_calls_are_wrong_again() -> None:
    x = torch.randn(2, 5, 4)
    for _ in range(2):
        with pytest.raises(einc.SyntaxError, match=r"<program>:1:"):
            einc.compile("O[i] = A[i")
        with pytest.raises(einc.Error) as caught:
            einc.compile(CAUSAL, name="mine.ein")(x, x[:, :, :3], x)
        assert "mine.ein:2:" in str(caught.value)
        forget()


def test_damaged_entries_are_made_again(cache: Path, steps: list[str]) -> None:
    x = torch.randn(2, 5, 4)
    expected = einc.compile(CAUSAL)(x, x, x)
    steps.clear()
    for e in contents.contents(cache):
        e.path.write_bytes(e.path.read_bytes()[:-3])
    forget()
    assert torch.equal(einc.compile(CAUSAL)(x, x, x), expected)
    assert steps == ["parse", "elaborate", "elaborate", "run_passes"]
    forget()
    assert torch.equal(einc.compile(CAUSAL)(x, x, x), expected)
    assert len(steps) == 4


# ---------------------------------------------------------------------------------------------------------------------
# What keys cover


def request() -> Request:
    program = elaborate(parse(CAUSAL))
    return Request(program, TRITON, 2, TARGETS["sm_90"], (("i", 64),), (), None)


def test_keys_cover_all_that_kernels_depend_on() -> None:
    r = request()
    lowered = driver.given(parse(einc.compile(CAUSAL).dump("lower")), r.program)
    changed = [
        replace(r, program=elaborate(parse(CAUSAL.replace("<=", "<")))),
        replace(r, program=elaborate(parse(CAUSAL.replace("Q[b, i, d],", "Q[b, i, d]: f16,")))),
        replace(r, level=1),
        replace(r, target=TARGETS["sm_80"]),
        replace(r, target=replace(r.target, shared=65536)),
        replace(r, sizes=(("i", 128),)),
        replace(r, sizes=()),
        replace(r, choices=(choice("BI", 64),)),
        replace(r, choices=(choice("O.BI", 64),)),
        replace(r, begin=lowered),
    ]
    keys = [c.key for c in (r, *changed)]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert request().key == r.key


def test_places_in_a_text_are_no_part_of_a_key() -> None:
    assert replace(request(), program=elaborate(parse("\n" + CAUSAL, "elsewhere"))).key == request().key


def test_what_a_test_has_made_of_a_generator_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(TRITON, multiplies=lambda _target, _dtype: False)
    assert replace(request(), backend=other).key is None
    monkeypatch.setitem(BACKENDS, "other", other := replace(other, name="other"))
    assert replace(request(), backend=other).key not in (None, request().key)


@pytest.mark.usefixtures("cache")
def test_another_version_makes_its_own(monkeypatch: pytest.MonkeyPatch, steps: list[str]) -> None:
    compile_program(elaborate(parse(CAUSAL)), 2, TARGETS["sm_90"])
    monkeypatch.setattr("einc.cache.versions.stamp", lambda: "another")
    forget()
    steps.clear()
    compile_program(elaborate(parse(CAUSAL)), 2, TARGETS["sm_90"])
    assert steps == ["parse", "elaborate", "run_passes"]


@pytest.mark.parametrize("name", ["einc", "torch", "triton"])
def test_versions_cover_what_einc_stands_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(versions, "_version", lambda package: "0" if package == name else "1")
    found = versions.stamp.__wrapped__()
    monkeypatch.setattr(versions, "_version", lambda _: "1")
    assert versions.stamp.__wrapped__() != found


def test_the_name_of_a_text_is_in_its_places() -> None:
    assert parse(CAUSAL, "a.ein").source == Source("a.ein", CAUSAL)


# ---------------------------------------------------------------------------------------------------------------------
# What fits a machine


@pytest.mark.usefixtures("cache")
def test_smaller_tiles_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.compiled import runner

    def compiled() -> Compiled:
        return compile_program(elaborate(parse("ij,jk->ik")), 2, TARGETS["sm_90"], {"i": 300, "j": 300, "k": 300})

    tried: list[str] = []

    def launcher(source: str, name: str) -> Any:
        def launch(*args: torch.Tensor, **_: Any) -> torch.Tensor:
            tried.append(source)
            if len(set(tried)) < 3:
                raise RoomError(f"kernel '{name}' needs more shared memory than this GPU has")
            return args[0] @ args[1]

        return launch

    monkeypatch.setattr("einc.codegen.run.load.launcher", launcher)
    a = torch.ones(3, 3)
    runner(compiled())(a, a)
    assert len(tried) == 3
    forget()
    runner(compiled())(a, a)
    assert tried[3:] == [tried[2]]
