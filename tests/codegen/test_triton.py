"""Emitted Triton: what only it must do, and how it reads; what it computes is tested in `test_kernels`."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from einc import tile
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import F32, I32, U8
from einc.codegen import TRITON
from einc.codegen.emit.layout import WIDTH, wrapped
from einc.codegen.emit.names import Names, identifier
from einc.codegen.run.load import launcher, load
from einc.driver import compile_program, elaborate, parse
from einc.ein import AxisDecl, Const, Extent, Operand
from einc.evaluate import evaluate
from einc.tile import Block
from einc.tile.asked import choice
from tests.support import tileprograms as programs
from tests.support.backends import close, normal
from tests.support.backends import run_in_triton as run
from tests.support.compiled import in_parts, runner
from tests.support.places import GOLDEN
from tests.support.tileprograms import Scheduled

EMITTED = GOLDEN / "emitted"


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


def test_offsets_beyond_32_bits() -> None:
    """The last rows lie 2**33 elements behind the first; only they are touched."""
    try:
        store = torch.empty((1 << 33) + 64, dtype=torch.uint8)  # pages that nothing touches take no memory
    except RuntimeError:
        pytest.skip("no address space for 8 GiB")
    x = store.as_strided((2, 16), (1 << 33, 1))
    x.copy_(torch.arange(32, dtype=torch.uint8).view(2, 16))
    got = run(programs.elementwise_rows(U8), x)
    assert torch.equal(got, x.contiguous())


def test_positions_divide_without_correction_and_others_with() -> None:
    assert "floor_mod" not in _source(programs.flattened())
    assert "floor_mod" in _source(programs.elementwise("mod", I32, 2))
    assert "floor_mod" not in _source(programs.elementwise("mod", U8, 2))


@pytest.mark.parametrize("n", [-3, -1, -0.5, 0.5, 1, 2, 3, 6, 7])
def test_known_powers_take_no_logarithm(n: float) -> None:
    assert "tl.log2" not in _source(programs.power(n))


def test_scalars_come_by_position_too() -> None:
    x = normal(20, dtype=torch.float64)
    assert torch.equal(run(programs.scaled(), x, 3, True, 0.1), x * 0.1 + 3)
    assert torch.equal(run(programs.scaled(), x, 3, False), torch.full_like(x, 0.1))


# ---------------------------------------------------------------------------------------------------------------------
# The launcher


def test_extents_come_from_dimensions_products_and_formulas() -> None:
    p, schedule = programs.flattened()
    grouped = programs.program(
        "grouped",
        [Operand("Y", programs.dims("r"), F32), Operand("X", programs.dims("i (g r)"), F32)],
        p.equations,
        "R",
        [AxisDecl("n", programs.apply("sub", Extent("i"), Const(1)))],
    )
    source = TRITON.emit(grouped, schedule, INTERPRETER).source
    assert "g = exact_quotient(X.shape[1], r)" in source
    assert 'n = checked_extent("n", i - 1)' in source


def test_wrong_operands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"B is torch\.float32 of shape"):
        run(programs.matmul(), torch.ones(2, 3, 4), torch.ones(2, 5, 6))
    with pytest.raises(ValueError, match=r"A is torch\.float64"):
        run(programs.matmul(), torch.ones(2, 3, 4).double(), torch.ones(2, 4, 6))
    with pytest.raises(ValueError, match="C is"):
        run(programs.matmul(), torch.ones(2, 3, 4), torch.ones(2, 4, 6), out=torch.ones(1))


@pytest.mark.parametrize(
    "name",
    ["class", "launch", "torch", "tl", "größe", "ℝ", "x²", "maximum", "expect", "blocks", "program", "INT", "max"],
)
def test_any_name_will_do(name: str) -> None:
    """Names of programs, tensors and axes: Python's keywords, the file's own names, letters of any script."""
    p, schedule = programs.renamed(name)
    emitted = TRITON.emit(p, schedule, INTERPRETER)
    x = normal(17)
    got = launcher(emitted.source, emitted.launcher)(x)
    close(got, torch.tanh(x.double()))


def test_names_are_unique() -> None:
    names = Names(["a"])
    assert [names.fresh(n) for n in ("a", "a", "b", "a")] == ["a_2", "a_3", "b", "a_4"]
    assert identifier("for") == "for_"
    assert identifier("α", ascii_only=True) == "u03b1"


# ---------------------------------------------------------------------------------------------------------------------
# The file

FILES = {
    "matmul": programs.matmul,
    "statistics": programs.softmax_statistics,
    "argmax": lambda: programs.reduction("argmax"),
    "gather": programs.gather,
    "flattened": programs.flattened,
    "product": programs.complex_product,
    "scaled": programs.scaled,
    "centred": programs.two_kernels,
}


@pytest.mark.parametrize("name", FILES)
def test_files_read_as_expected(name: str, request: pytest.FixtureRequest) -> None:
    path = EMITTED / f"{name}.py.txt"
    source = TRITON.emit(*FILES[name](), TARGETS["sm_90"]).source
    if request.config.getoption("--bless"):
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")
    assert max(map(len, source.splitlines())) <= WIDTH + 8


ATTENTION = """
def attention(Q[b, i, d], K[b, j, d], V[b, j, e]):
    S[b, i, j] = Q[b, i, d] * K[b, j, d]
    O[b, i, e] = softmax[j](S) * V[b, j, e]
    return O
"""


def test_a_file_runs_where_einc_is_not(tmp_path: Path) -> None:
    """In a process of its own, with nothing but torch and triton, in Triton's interpreter."""
    (tmp_path / "mm.py").write_text(_source(programs.matmul()))
    (tmp_path / "best.py").write_text(_source(programs.reduction("argmax")))
    for level in (0, 2):
        compiled = compile_program(elaborate(parse(ATTENTION, "attention")), level, INTERPRETER)
        (tmp_path / f"attention{level}.py").write_text(compiled.source)
    (tmp_path / "einc.py").write_text("raise ImportError('no einc here')")
    (tmp_path / "main.py").write_text(
        "import torch\nimport attention0, attention2\nfrom mm import matmul\nfrom best import reduction\n"
        "x, y = torch.randn(2, 20, 33), torch.randn(2, 33, 18)\n"
        "torch.testing.assert_close(matmul(x, y), x @ y, rtol=1e-4, atol=1e-4)\n"
        "assert torch.equal(reduction(x[0]), x[0].argmax(1))\n"
        "q, k, v = (torch.randn(2, n, 8) for n in (20, 30, 30))\n"
        "for module in (attention0, attention2):\n"
        "    wanted = torch.softmax(q @ k.mT, -1) @ v\n"
        "    torch.testing.assert_close(module.attention(q, k, v), wanted, rtol=1e-4, atol=1e-4)\n"
        "print('fine')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_source_of_a_loaded_file_can_be_looked_at() -> None:
    p, schedule = programs.matmul()
    emitted = TRITON.emit(p, schedule, INTERPRETER)
    module = load(emitted.source, emitted.launcher)
    assert inspect.getsource(module.matmul).startswith("def matmul(A, B, *, out=None):")
    assert "dot_f32(left, right, c)" in inspect.getsource(module.C_kernel.fn)
    assert load(emitted.source, emitted.launcher) is module


def test_long_lines_are_broken_at_brackets() -> None:
    line = "x = tl.load(" + " + ".join(f"pointer + index_{n} * stride_{n}" for n in range(6)) + ", mask=inside)"
    broken = wrapped(line)
    assert max(map(len, broken)) <= WIDTH
    assert broken[0] == "x = tl.load("
    assert broken[-1] == ")"
    assert ast.dump(ast.parse("\n".join(broken))) == ast.dump(ast.parse(line))


def _source(scheduled: Scheduled) -> str:
    return TRITON.emit(*scheduled, INTERPRETER).source


def test_blocks_follow_extents_and_are_shared_between_kernels() -> None:
    source = _source(programs.two_kernels())
    assert source.count("BI = tile_size(i, 1, 16)") == 1
    p, schedule = programs.matmul(block=Block(16, tile.WHOLE), inner=Block(32, 32))
    source = TRITON.emit(p, schedule, INTERPRETER).source
    assert "BI = tile_size(i, 16)" in source
    assert "BK = 32" in source


def test_unused_names_of_the_language_are_not_emitted() -> None:
    source = _source(programs.complex_product())
    assert "def maximum" not in source
    assert "import math" not in source


WINDOW = "j <= i and i - j < 50"
CUT = {
    "softmax": (f"O[i, e] = softmax[j](where({WINDOW}, S, -inf)) * V[j, e]", 2),
    "sum": (f"O[i, e] = where({WINDOW}, S, 0) * V[j, e]", 2),
    "largest": (f"O[i] = max[j](where({WINDOW}, S, -inf))", 2),
    "first": (f"O[i] = argmax[j : {WINDOW}](S)", 3),  # of equals: in order
}


@pytest.mark.parametrize("form", CUT)
def test_blocks_that_a_mask_cuts_are_walked_in_one_loop(form: str) -> None:
    """Those before the blocks that count as a whole and those after them, where their order does not matter."""
    line, loops = CUT[form]
    names = "QKV" if "V" in line else "QK"
    signature = "Q[i, d], K[j, d], V[j, e]" if "V" in line else "Q[i, d], K[j, d]"
    program = elaborate(
        parse(f"def f({signature}):\n    S[i, j] = Q[i, d] * K[j, d]\n    {line}\n    return O\n", "cut")
    )
    choices = (*in_parts(1), choice("BI", 16), choice("BJ", 16))
    sizes = {"i": 4096, "j": 4096, "d": 16, "e": 16}
    c = compile_program(program, 2, TARGETS["sm_90"], sizes, choices=choices)
    assert c.source.count(" in tl.range(") == loops
    rng = np.random.default_rng(0)
    for queries, keys in ((150, 150), (37, 90), (100, 20), (5, 3)):
        given = {n: rng.integers(-3, 4, (queries if n == "Q" else keys, 16)).astype("f4") for n in names}
        (wanted,) = evaluate(program, given)
        (found,) = runner(c.on(INTERPRETER))(*map(torch.from_numpy, given.values()))
        np.testing.assert_allclose(found.double().numpy(), wanted.astype(float), rtol=1e-4, atol=1e-4)
