"""A generator is a value: what it says is heeded by all passes, its own stand among them, and it writes the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from einc import tile
from einc.base.errors import IllegalIR
from einc.base.targets import INTERPRETER, TARGETS
from einc.codegen import BACKENDS, TRITON
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.evaluate import evaluate
from einc.passes import PIPELINE, pipeline
from einc.pipeline import Backend, Context, Pass, on_kernels
from einc.pipeline.emitted import Emitted
from einc.pipeline.forms import FORMS
from einc.tile.printer import print_schedule
from einc.tile.walk import values_in
from tests.support.compiled import run
from tests.support.places import ROOT

ATTENTION = """
def f(Q[i, d], K[j, d], V[j, e]):
    O[i, e] = softmax[j](where(j <= i, sum[d](Q * K), -inf)) * V[j, e]
    return O
"""
FOLDED = """
def f(A[i, d], B[j, d], X[i, j, k]):
    S[i, j] = sum[d](A[i, d] * B[j, d]) + max[k](X[i, j, k])
    return S
"""
GROUPED = """
def f(Q[h, i, d], K[g, j, d]):
    S[h, i, j] = sum[d](Q[h, i, d] * K[h // (|h| / |g|), j, d])
    return S
"""
SIZES = {"i": 64, "j": 4096, "k": 64, "d": 64, "e": 64}


def compiled(text: str, backend: Backend, level: int = 2, **sizes: int) -> Compiled:
    program = elaborate(parse(text, "<test>"))
    return compile_program(program, level, INTERPRETER, SIZES | sizes, backend=backend)


def values(c: Compiled) -> list[tile.Value]:
    assert c.state.schedule is not None
    return [v for k in c.state.schedule.kernels for v in values_in(k.body)]


def agree(c: Compiled, backend: str = "interpret", **sizes: int) -> None:
    rng = np.random.default_rng(0)
    program = c.program
    given = {p.name: rng.standard_normal([sizes[a] for (a,) in p.dims]).astype("f4") for p in program.operands}
    for found, wanted in zip(run(c, backend, given), evaluate(program, given, {}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_not_multiplied_is_folded(level: int) -> None:
    vector = replace(TRITON, name="vector", multiplies=lambda _target, _dtype: False)
    c = compiled(ATTENTION, vector, level)
    assert any(isinstance(v, tile.Dot) for v in values(compiled(ATTENTION, TRITON, level)))
    assert not any(isinstance(v, tile.Dot) for v in values(c))
    agree(c, i=20, j=50, d=8, e=5)


def test_heads_are_merged_up_to_the_rows_of_a_block() -> None:
    """Four queries of four heads fill a block of 16 rows, and half of one of 32."""
    few = replace(TRITON, block=lambda _target, _chained: 4)
    sizes = {"h": 8, "g": 2, "i": 4}
    assert "merge-axes" in {s.name for s in compiled(GROUPED, TRITON, **sizes).stages if s.changed}
    assert "merge-axes" not in {s.name for s in compiled(GROUPED, few, **sizes).stages if s.changed}


@pytest.mark.parametrize(("before", "order"), [(3, "x[i, k, j]"), (4, "x[i, j, k]"), (None, "x[i, j, k]")])
def test_what_is_folded_as_it_lies_comes_last_unless_it_may_not(before: int | None, order: str) -> None:
    c = compiled(FOLDED, replace(TRITON, folds_before=before), k=4)
    assert f"{order}: f32 = load X[i, j, k]" in c.stage("lower").full
    agree(c, i=20, j=18, k=3, d=8)


# ---------------------------------------------------------------------------------------------------------------------
# Its passes


def halved(kernel: tile.Kernel, _: Context) -> tile.Kernel:
    return replace(kernel, choices=replace(kernel.choices, warps=max(kernel.choices.warps // 2, 1)))


HALVED = Pass("halve-warps", "warps n  -->  warps n / 2", "for machines with less of them", on_kernels(halved))


def test_its_passes_stand_beside_the_shared_ones() -> None:
    backend = replace(TRITON, passes={**TRITON.passes, "order-grid": (HALVED,)})
    names = [p.name for p in pipeline(backend)]
    assert names.index("halve-warps") == names.index("order-grid") + 1
    assert [n for n in names if n != "halve-warps"] == [p.name for p in pipeline(TRITON)]
    c = compiled(ATTENTION, backend)
    assert c.stage("halve-warps").changed
    agree(c, i=20, j=50, d=8, e=5)


def test_a_pass_of_its_own_is_blamed() -> None:
    def emptied(kernel: tile.Kernel, _: Context) -> tile.Kernel:
        return replace(kernel, body=())

    broken = replace(HALVED, name="empty", run=on_kernels(emptied))
    with pytest.raises(IllegalIR, match="after 'empty'"):
        compiled(ATTENTION, replace(TRITON, passes={**TRITON.passes, "exp2": (broken,)}))


@pytest.mark.parametrize("name", BACKENDS)
def test_passes_are_named_once_and_stand_beside_passes_that_are_there(name: str) -> None:
    backend = BACKENDS[name]
    names = [p.name for p in pipeline(backend)]
    assert backend.name == name
    assert len({*names}) == len(names)
    assert backend.passes.keys() <= {p.name for p in PIPELINE}
    assert {form for p in pipeline(backend) for form in (*p.needs, *p.gives)} <= FORMS.keys()


# ---------------------------------------------------------------------------------------------------------------------
# Its file


def test_it_writes_the_file() -> None:
    plain = replace(
        TRITON, name="text", emit=lambda _, schedule, target: Emitted(print_schedule(schedule), target.name, ())
    )
    c = compiled(ATTENTION, plain)
    assert c.source.startswith("kernel O")
    assert c.emitted.launcher == "interpret"


def test_generators_do_not_share_what_is_kept() -> None:
    vector = replace(TRITON, name="vector", multiplies=lambda _target, _dtype: False)
    assert compiled(ATTENTION, vector).source != compiled(ATTENTION, TRITON).source


@pytest.mark.parametrize("room", ["passes", "frontend", "compiler/pipeline", "compiler/tile", "compiler/ein"])
def test_nobody_below_knows_a_generator(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "triton" not in text.lower(), path
        assert "vendor" not in text, path


def test_targets_are_figures_of_machines() -> None:
    assert {*TARGETS["sm_90"].__slots__} == {"name", "vendor", "arch", "warp", "shared", "rates", "registers", "cache"}
