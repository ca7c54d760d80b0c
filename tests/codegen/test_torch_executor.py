"""Tile programs executed by torch: random programs against the evaluator, and what only this backend must do."""

from __future__ import annotations

import math
import operator
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import einc
from einc import tile
from einc.base.ops import COMPARISONS
from einc.base.targets import INTERPRETER
from einc.base.types import BF16, BOOL, F16, F32, I8, I32, I64, INT, U8, U16, U32, U64, DType
from einc.binding import bind
from einc.codegen.executor import boxes
from einc.codegen.executor.boxes import Dim, blocks, box
from einc.codegen.executor.frames import Affine
from einc.codegen.executor.run import executor
from einc.codegen.executor.workers import share_out
from einc.driver import compile_program
from einc.ein import Operand, Param, Program
from einc.ein.monoids import MONOIDS
from einc.evaluate import evaluate
from einc.tile import Carried, Convert, Dot, ExtentOf, Fill, Fold, Lit, Loop, Ref, Statement, TileType, Value
from tests.support import tileprograms as programs
from tests.support.backends import TORCH, close, in_pieces, normal
from tests.support.backends import run_in_torch as run
from tests.support.compiled import agree, magnitude, precision, tensors
from tests.support.random_programs import Case, cases
from tests.support.tileprograms import Scheduled, axis, dims, elem, inside, let, load, store


@pytest.fixture(params=[False, True], ids=["whole", "in pieces"])
def pieces(request: pytest.FixtureRequest) -> Iterator[None]:
    """Boxes as they are, and so small that every axis is cut."""
    with in_pieces() if request.param else nullcontext():
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Random programs


def check(case: Case, level: int) -> None:
    """The program compiled at a level and executed gives what it means."""
    program: Program = case.program
    given = dict(zip((p.name for p in program.operands), tensors(case), strict=True))
    compiled = compile_program(program, level, INTERPRETER, case.sizes)
    bindings = bind(program, {name: tuple(x.shape) for name, x in given.items()}, case.scalars)
    assert compiled.state.schedule is not None
    wanted = evaluate(program, case.operands, case.scalars)
    for changing in {frozenset(), frozenset(p.name for p in program.scalars if p.dtype.is_int)}:
        made = executor(compiled.state.program, compiled.state.schedule, bindings, torch.device("cpu"), changing)
        for _ in range(2):  # the second time boxes are made as they were the first time
            found = made.run(given, bindings.scalars, ())
            for name, got, value in zip(program.results, found, wanted, strict=True):
                agree(got, value, precision(program, name), magnitude(value))


@pytest.mark.parametrize("level", [0, 2])
@given(case=cases())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_programs(level: int, case: Case) -> None:
    check(case, level)


@given(case=cases())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_programs_in_small_boxes(case: Case) -> None:
    with in_pieces(6):
        check(case, 2)


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def shifted(index: Value, checked: bool = True) -> Scheduled:
    """R[i, r] = X[index], 0 out of range."""
    p = programs.program(
        "shifted",
        [Operand("X", dims("x"), F32), Operand("L", dims("i r"), F32)],
        [programs.equation("R", "i r", programs.at("L", "i", "r"))],
        "R",
    )
    mask = programs.conj(Ref("i_in"), Ref("r_in"), elem("ge", index, Lit(0, INT)), elem("lt", index, ExtentOf("x")))
    body: list[Statement] = [
        inside("i"),
        inside("r"),
        let("x", F32, "i r", tile.Load("X", (index,), F32, (checked,), mask)),
        store("R", "i r", Ref("x"), F32, "i r", "i r"),
    ]
    grid = [axis("i", "row", tile.Block(1, 16)), axis("r", "column", tile.Block(1, 16))]
    return p, tile.Schedule((programs.kernel(p, 0, grid, body),), ())


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("scale", [(1, 1), (2, 1), (-1, 1), (1, -3), (40, -3), (0, 1)])
def test_windows_end_where_the_tensor_does(scale: tuple[int, int]) -> None:
    """Forwards, backwards, strided, and beyond both ends: as views, padded copies and gathers."""
    x, (a, b) = normal(50), scale
    index = elem("add", elem("mul", Lit(a, INT), Ref("i")), elem("mul", Lit(b, INT), Ref("r")))
    at = torch.arange(30)[:, None] * a + torch.arange(9) * b
    for shift in (-12, 0, 7, 45):
        where = at + shift
        wanted = torch.where((where >= 0) & (where < 50), x[where.clamp(0, 49)], 0.0)
        got = run(shifted(elem("add", index, Lit(shift, INT))), x, torch.zeros(30, 9))
        assert torch.equal(got, wanted)


def test_what_lies_beyond_a_view_is_never_read() -> None:
    x = torch.full((60,), math.nan)
    x[20:40] = 1.0
    got = run(shifted(elem("sub", Ref("i"), Ref("r"))), x[20:40], torch.zeros(30, 9))
    assert not got.isnan().any()


# ---------------------------------------------------------------------------------------------------------------------
# Constants


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("known", ["", "x", "y", "x y"])
def test_numbers_compare_whichever_are_known(op: str, known: str) -> None:
    for sides in product((-math.inf, -1.0, 0.0, 1.0, math.inf, math.nan), repeat=2):
        found = run(comparison(op, sides, known), *(torch.full((4,), side) for side in sides))
        assert found.tolist() == [getattr(operator, op)(*sides)] * 4, sides


def comparison(op: str, sides: tuple[float, ...], known: str) -> Scheduled:
    """R[i] = X[i] op Y[i], where the `known` sides are literals."""
    program, schedule = programs.elementwise(op, F32, 2, BOOL)
    literals = {name: Lit(side, F32) for name, side in zip("xy", sides, strict=True) if name in known}
    args = [literals.get(name, Ref(name)) for name in "xy"]
    (kernel,) = schedule.kernels
    *body, stored = kernel.body
    assert isinstance(stored, tile.Store)
    body.append(replace(stored, value=elem("where", elem(op, *args), Lit(True, BOOL), Lit(False, BOOL))))
    return program, replace(schedule, kernels=(replace(kernel, body=tuple(body)),))


# ---------------------------------------------------------------------------------------------------------------------
# Integers


def test_matmul_of_unsigned_bytes_is_exact() -> None:
    x = torch.full((1, 16, 3000), 127, dtype=torch.uint8)
    assert torch.equal(run(programs.matmul(U8, I32), x, x.mT), x.int() @ x.int().mT)


@pytest.mark.parametrize("dtype", [I8, I32, I64, U8, U16, U32, U64], ids=str)
@pytest.mark.parametrize("op", ["floordiv", "mod"])
def test_integers_divided_by_0_are_0(op: str, dtype: DType) -> None:
    x = torch.arange(-9 if dtype.kind == "i" else 0, 10).to(TORCH[dtype.name])
    assert not any(run(programs.elementwise(op, dtype, 2), x, torch.zeros_like(x)).tolist())


# ---------------------------------------------------------------------------------------------------------------------
# Streamed attention


def attention(dtype: DType = F32, mask: str = "", bounded: bool = False) -> Scheduled:
    """O[b, h, i, e]: scores, their running maximum and sum, and the weighted sum, in one walk over j.

    `mask` is `causal` (j <= i) or `lengths` (j < n[b]), by a mask or by the bounds of the loop.
    """
    operands: list[Operand | Param] = [
        Operand("Q", dims("b h i d"), dtype),
        Operand("K", dims("b h j d"), dtype),
        Operand("V", dims("b h j e"), dtype),
        Operand("n", dims("b"), I32),
    ]
    e = programs.equation("O", "b h i e", programs.at("V", *"bhie"), "sum", "j", dtype)
    p = programs.program("attention", operands, [e], "O")
    lowest, zero = Lit("lowest", F32), Lit(0, F32)
    keep: dict[str, Value] = {
        "": Ref("j_in"),
        "causal": programs.conj(Ref("j_in"), elem("le", Ref("j"), Ref("i"))),
        "lengths": programs.conj(Ref("j_in"), elem("lt", Convert(I32, Ref("j")), Ref("length"))),
    }
    last: dict[str, Value] = {
        "causal": elem(
            "add", Fold(MONOIDS["max"], "i", (elem("where", Ref("i_in"), Ref("i"), Lit(0, INT)),)), Lit(1, INT)
        ),
        "lengths": Convert(INT, Ref("length")),
    }
    visible = Ref("j_in") if bounded and mask == "lengths" else keep[mask]
    row, tile_ = TileType(F32, ("i",)), TileType(F32, ("i", "e"))
    score = elem("mul", Dot(Ref("q"), Ref("k"), Fill(zero), "i", "j", "d"), Lit(0.25, F32))
    loop = Loop(
        axis("j", "reduced", tile.Block(16, 32)),
        (
            Carried("m", row, Fill(lowest), "m_next"),
            Carried("l", row, Fill(zero), "l_next"),
            Carried("o", tile_, Fill(zero), "o_next"),
        ),
        (
            inside("j"),
            let("k", dtype, "d j", load("K", "b h j d", dtype, "d j")),
            let("s", F32, "i j", elem("where", visible, score, lowest)),
            let("top", F32, "i", Fold(MONOIDS["max"], "j", (Ref("s"),))),
            let("m_next", F32, "i", elem("max", Ref("m"), Ref("top"))),
            let("shift", F32, "i", elem("where", elem("eq", Ref("m_next"), lowest), zero, Ref("m_next"))),
            let("w", F32, "i j", elem("exp", elem("sub", Ref("s"), Ref("shift")))),
            let("kept", F32, "i", elem("exp", elem("sub", Ref("m"), Ref("shift")))),
            let("more", F32, "i", Fold(MONOIDS["sum"], "j", (Ref("w"),))),
            let("l_next", F32, "i", elem("add", elem("mul", Ref("l"), Ref("kept")), Ref("more"))),
            let("v", dtype, "j e", load("V", "b h j e", dtype, "j e")),
            let("p", dtype, "i j", Ref("w") if dtype == F32 else Convert(dtype, Ref("w"))),
            let("o_next", F32, "i e", Dot(Ref("p"), Ref("v"), elem("mul", Ref("o"), Ref("kept")), "i", "e", "j")),
        ),
        stop=last[mask] if bounded else None,
    )
    found: Value = elem("where", elem("eq", Ref("l"), zero), zero, elem("div", Ref("o"), Ref("l")))
    body: list[Statement] = [
        inside("i"),
        inside("d"),
        inside("e"),
        let("length", I32, "", load("n", "b", I32)),
        let("q", dtype, "i d", load("Q", "b h i d", dtype, "i d")),
        loop,
        store("O", "b h i e", found if dtype == F32 else Convert(dtype, found), dtype, "i e", "i e"),
    ]
    grid = [axis("b", "batch", None), axis("h", "batch", None), axis("i", "row", tile.Block(16, 32))]
    whole = tuple(axis(a, "whole", tile.Block(16, tile.WHOLE)) for a in "de")
    return p, tile.Schedule((programs.kernel(p, 0, grid, body, whole=whole),), ())


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    scores = (q.double() @ k.double().mT * 0.25).masked_fill(~visible, -math.inf)
    return torch.softmax(scores, -1).nan_to_num() @ v.double()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("bounded", [False, True], ids=["masked", "bounded"])
@pytest.mark.parametrize("mask", ["", "causal", "lengths"])
def test_streamed_attention(mask: str, bounded: bool) -> None:
    if bounded and not mask:
        return
    q, k, v = (normal(3, 2, n, 16, seed=s) for s, n in enumerate((37, 50, 50)))
    lengths = torch.tensor([50, 0, 13], dtype=torch.int32)
    visible = {
        "": torch.ones(1, dtype=torch.bool),
        "causal": torch.ones(37, 50).tril().bool(),
        "lengths": (torch.arange(50) < lengths[:, None])[:, None, None, :],
    }[mask]
    close(run(attention(mask=mask, bounded=bounded), q, k, v, lengths), reference(q, k, v, visible))


@pytest.mark.parametrize(("dtype", "tolerance"), [(F16, 2e-3), (BF16, 2e-2)])
def test_streamed_attention_in_narrow_floats(dtype: DType, tolerance: float) -> None:
    q, k, v = (normal(1, 2, 40, 16, dtype=TORCH[dtype.name], seed=s) for s in range(3))
    got = run(attention(dtype), q, k, v, torch.zeros(1, dtype=torch.int32))
    assert got.dtype == q.dtype
    close(got, reference(q, k, v, torch.ones(1, dtype=torch.bool)), tolerance)


def test_operands_in_other_layouts_are_read_in_place() -> None:
    """Heads after positions, as models have them, and a batch of operands that share memory."""
    q, k, v = (normal(2, 40, 3, 16, seed=s).transpose(1, 2) for s in range(3))
    k = k[:, :1].expand(2, 3, 40, 16)
    got = run(attention(), q, k, v, torch.zeros(2, dtype=torch.int32))
    close(got, reference(q, k, v, torch.ones(1, dtype=torch.bool)))


def test_gradients_flow_through() -> None:
    q, k, v = (normal(1, 2, 20, 16, seed=s).requires_grad_() for s in range(3))
    got = run(attention(mask="causal"), q, k, v, torch.zeros(1, dtype=torch.int32))
    twins = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted = reference(twins[0], twins[1], twins[2], torch.ones(20, 20).tril().bool())
    weight = normal(*got.shape, seed=9)
    found = torch.autograd.grad(got, (q, k, v), weight)
    for x, y in zip(found, torch.autograd.grad(wanted, twins, weight.double()), strict=True):
        close(x, y)


def test_calls_from_several_threads_do_not_meet() -> None:
    q, k, v = (normal(4, 4, 300, 16, seed=s) for s in range(3))
    n, scheduled, threads = torch.zeros(4, dtype=torch.int32), attention(), torch.get_num_threads()
    alone = run(scheduled, q, k, v, n)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: run(scheduled, q, k, v, n), range(8)):
            close(got, alone)
    assert torch.get_num_threads() == threads


def test_what_fails_in_a_worker_fails_the_call_and_leaves_nothing_behind() -> None:
    threads = torch.get_num_threads()

    def worker() -> Callable[[int], None]:
        def do(task: int) -> None:
            if task == 7:
                raise ValueError("seven")

        return do

    for _ in range(3):
        with pytest.raises(ValueError, match="seven"):
            share_out(range(100), worker)
        assert torch.get_num_threads() == threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_has_workers_of_its_own() -> None:
    done: list[int] = []
    share_out(range(8), lambda: lambda _: None)
    child = os.fork()
    if not child:
        share_out(range(8), lambda: done.append)
        os._exit(0 if sorted(done) == list(range(8)) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_it_runs_in_inference_mode_and_without_gradients() -> None:
    q, k, v = (normal(4, 4, 300, 16, seed=s).requires_grad_() for s in range(3))
    n = torch.zeros(4, dtype=torch.int32)
    with torch.no_grad():
        alone = run(attention(), q, k, v, n)
    assert not alone.requires_grad
    with torch.inference_mode():
        close(run(attention(), q, k, v, n), alone)


LONG = """
import sys, torch, einc

def memory(what):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(what)).split()[1]) << 10

n, window = 65_536, int(sys.argv[1])
program = einc.compile('''
def attention(Q[i, d], K[j, d], V[j, e], window: int):
    S[i, j] = rsqrt(|d|) * Q[i, d] * K[j, d]
    O[i, e] = softmax[j](where(j <= i and i - j < window, S, -inf)) * V[j, e]
    return O
''')
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(n, 64, generator=generator) for _ in range(3))
program(q[:512], k[:512], v[:512], window)
before = memory("VmRSS")
got = program(q, k, v, window)
assert memory("VmHWM") - before < 1 << 30, memory("VmHWM") - before
for i in (0, 1, 30_000, n - 1):
    seen = slice(max(0, i + 1 - window), i + 1)
    wanted = torch.softmax(k[seen].double() @ q[i].double() / 8, 0) @ v[seen].double()
    torch.testing.assert_close(got[i].double(), wanted, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nothing tells the peak of memory here")
@pytest.mark.parametrize("window", [1024, pytest.param(65_536, marks=pytest.mark.slow)])
def test_65536_positions_take_less_than_a_gigabyte(window: int) -> None:
    """The peak of a process while it runs, above what it held before."""
    done = subprocess.run([sys.executable, "-c", LONG, str(window)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Boxes and positions


def test_a_walked_axis_is_cut_before_rows_and_rows_before_heads() -> None:
    roles = [("h", 8, "batch"), ("i", 4096, "row"), ("d", 64, "whole"), ("j", 4096, "reduced")]
    shape = [Dim(name, name, extent, kind) for name, extent, kind in roles]
    sizes = box(shape, [frozenset((0, 1, 3)), frozenset((0, 1, 2))], True, False, (0, 1), 2)
    assert math.prod((sizes[0], sizes[1], sizes[3])) <= 2 * boxes.LARGEST
    assert sizes[3] < 4096
    assert sizes[2] == 64


@given(
    st.integers(-50, 50),
    st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=3),
    st.integers(1, 12),
)
def test_affine_forms_divide_as_integers_do(const: int, parts: list[tuple[int, int, int]], n: int) -> None:
    form = Affine(const)
    for dim, (factor, _, _) in enumerate(parts):
        form = form.plus(Affine(0, ((dim, factor),) if factor else ()))
    lo, hi = [start for _, start, _ in parts], [start + size for _, start, size in parts]
    places = list(product(*(range(a, b) for a, b in zip(lo, hi, strict=True))))

    def at(a: Affine, place: tuple[int, ...]) -> int:
        return a.const + sum(factor * place[dim] for dim, factor in a.coefs)

    values = [at(form, p) for p in places]
    assert form.bounds(lo, hi) == (min(values), max(values))
    divided = form.divided(n, lo, hi)
    if divided is not None:
        assert [(at(divided[0], p), at(divided[1], p)) for p in places] == [divmod(v, n) for v in values]


def test_blocks_cover_spans_once() -> None:
    found = [(i, j) for a, b in blocks([2, 3], [range(5), range(1, 8)]) for i in a for j in b]
    assert sorted(found) == list(product(range(5), range(1, 8)))


@pytest.mark.parametrize("wild", [(), (math.inf,), (math.nan,), (math.inf, math.nan)])
def test_powers_beside_references_that_are_not_finite(wild: tuple[float, ...]) -> None:
    """Rows with -inf, of nothing else, and with what makes their maxima infinite or NaN: 0 stays where -inf was."""
    x = normal(8, 64)
    x[:, ::3] = -math.inf
    x[1] = -math.inf
    for row, value in enumerate(wild, start=2):
        x[row, 5] = value
    program = einc.compile("""
def f(X[i, j]):
    M[i] = max[j](X)
    E[i, j] = where(X[i, j] == -inf, 0, exp(X[i, j] - M[i]))
    return E
""")
    highest = x.amax(1, keepdim=True)
    close(program(x), torch.where(x == -math.inf, 0.0, (x - highest).exp()))
