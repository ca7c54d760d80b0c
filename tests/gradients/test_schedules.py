"""What the derivatives of the library keep in memory: nothing that is larger than what the programs themselves hold."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from einc import driver, ein, tile
from einc.base.targets import TARGETS, Target, cores
from einc.binding import bind
from einc.derive import ahead, behind
from einc.ein.ranges import extent_of
from einc.explain.sizes import extents as every_extent
from einc.runtime.tensors import fact
from einc.tile.walk import each, loops, values_in
from tests.library.cases import Case
from tests.whole.test_library import CASES, LONG

MACHINES = {"sm_90": TARGETS["sm_90"], "a CPU": cores(8)}
STORED = {
    "attention/talking_heads": "heads mix before and after the softmax: a program holds the scores of all at once",
    "attention/block_list": "keys are put where a list says, and their gradients come from all over the scores",
}
SLOWER = {
    "attention/retention": "on a CPU, computing scores again where no dot takes them is more than twice as long",
}
SCORED = [c for c in CASES if c.name.startswith("attention/")]


def in_turns(cases: Sequence[Case], shift: int) -> pytest.MarkDecorator:
    """Every case on one of the machines, and on both where that is said to differ; the slow tier has all on both.

    With shifts of 0 and 1, two tests meet a case on both.
    """
    pairs = [
        pytest.param(
            case,
            machine,
            id=f"{case.name}-{machine}",
            marks=[pytest.mark.slow] * (k != (n + shift) % 2 and case.name not in (*STORED, *SLOWER)),
        )
        for n, case in enumerate(cases)
        for k, machine in enumerate(MACHINES)
    ]
    return pytest.mark.parametrize(("case", "machine"), pairs)


def derived(case: Case, machine: Target) -> tuple[driver.Compiled, driver.Compiled, dict[str, int]] | None:
    """What runs ahead and behind of a program at long sizes; None for one without gradients."""
    dtype = torch.bfloat16 if torch.bfloat16 in case.dtypes and not machine.cache else case.dtypes[0]
    with FakeTensorMode():
        operands = case.given(case.long, dtype)
    facts = {name: fact(t, name) for name, t in operands.items()}
    program = driver.elaborate(driver.parse(case.path.read_text(), case.name), facts)
    sizes = bind(program, {name: f.shape for name, f in facts.items()}, case.scalars).extents
    wanted = [n for n, f in facts.items() if f.dtype.is_float]
    first = ahead(program, wanted, 2, machine, sizes)
    second = behind(first, program.results).program
    if not second.results:
        return None
    known = every_extent(second, sizes, dict(case.scalars))
    return (
        driver.compile_program(first.program, 2, machine, sizes),
        driver.compile_program(second, 2, machine, {a: known[a] for a in known}),
        known,
    )


def held(c: driver.Compiled, sizes: dict[str, int]) -> dict[str, int]:
    """The positions of the tensors that kernels pass on in memory."""
    assert c.state.schedule is not None
    known = every_extent(c.state.program, sizes, {})
    return {b.name: math.prod(extent_of(d, known) for d in b.dims) for b in c.state.schedule.intermediates}


def most(program: ein.Program, sizes: dict[str, int]) -> int:
    """The positions of the largest operand or result."""
    shapes = program.shapes()
    names = (*(p.name for p in program.operands), *program.results)
    return max(math.prod(extent_of(d, sizes) for d in shapes[name]) for name in names)


@in_turns(CASES, 0)
def test_no_larger_tensor_is_kept(case: Case, machine: str) -> None:
    """Neither ahead, beside what the program itself keeps, nor behind; a CPU keeps no scores of mixed heads either."""
    found = derived(case, MACHINES[machine])
    if found is None:
        assert case.name in ("products/kmeans",)
        return
    first, second, sizes = found
    allowed = max(most(first.program, sizes), most(second.program, sizes), *held(first, sizes).values(), 0)
    larger = {name: n for name, n in held(second, sizes).items() if n > allowed}
    assert bool(larger) == (case.name in STORED) or (MACHINES[machine].cache and not larger), larger


@pytest.mark.parametrize("n", [1024, pytest.param(4096, marks=pytest.mark.slow)])
@in_turns(SCORED, 1)
def test_scores_of_a_single_head_are_not_stored(case: Case, n: int, machine: str) -> None:
    """Though few programs share the work."""
    known = dict(case.sizes) | dict(case.long)
    if case.name in STORED or not all(known.get(axis, 0) >= LONG for axis in "ij"):
        return
    if MACHINES[machine].cache and case.name in SLOWER:
        return
    sizes = dict.fromkeys("ijn", n) | dict.fromkeys("bh", 1)
    alone = replace(case, long={axis: sizes.get(axis, extent) for axis, extent in known.items()})
    found = derived(alone, MACHINES[machine])
    assert found is not None
    first, second, _ = found
    if any({"i", "j"} <= {a for d in p.dims for a in d} for p in first.program.operands):
        return  # pairs are what it is given
    for c in (first, second):
        assert c.state.schedule is not None
        kept = {b.name: {axis for dim in b.dims for axis in dim} for b in c.state.schedule.intermediates}
        assert not [name for name, axes in kept.items() if {"i", "j"} <= axes]


def test_a_bias_has_its_gradient_in_a_kernel_of_its_own() -> None:
    """Beside those of keys and values it would leave its kernel few rows, since that goes over a batch that it sums."""
    text = """def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, T[h, i, j]: bf16):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S + T[h, i, j]) * V[b, h, j, e]
    return O
"""
    sizes = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 64, "e": 64}
    program = driver.elaborate(driver.parse(text))
    second = behind(ahead(program, "QKVT", 2, MACHINES["sm_90"], sizes), program.results).program
    made = driver.compile_program(second, 2, MACHINES["sm_90"], every_extent(second, sizes, {}))
    assert made.state.schedule is not None
    written = [{s.tensor for s in each(k.body) if isinstance(s, tile.Store)} for k in made.state.schedule.kernels]
    assert {"dT"} in written
    assert any({"dK", "dV"} <= names for names in written)


@pytest.mark.parametrize("d", [64, 128])
def test_the_gradient_of_a_bias_walks_the_batch_and_reads_a_number_for_each_row(d: int) -> None:
    """Not all that the number is made of, in every block of columns; nor is the batch held in dots of few rows."""
    text = """def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, T[h, i, j]: bf16):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S + T[h, i, j]) * V[b, h, j, e]
    return O
"""
    sizes = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": d, "e": d}
    program = driver.elaborate(driver.parse(text))
    second = behind(ahead(program, "QKVT", 2, MACHINES["sm_90"], sizes), program.results).program
    made = driver.compile_program(second, 2, MACHINES["sm_90"], every_extent(second, sizes, {}))
    assert made.state.plans is not None
    (plan,) = (p for p in made.state.plans if "dT" in p.stores)
    assert plan.stores == ("dT",)
    assert plan.walked == ("b",)
    assert not any(eq.over == ("e",) and eq.axes == ("b", "h", "i") for eq in plan.of(made.state.program).equations)


SCORES = {
    "S + T[j]": ("T[j]",),
    "S + T[b, j]": ("T[b, j]",),
    "S + T[h, j]": ("T[h, j]",),
    "S + T[h, i]": ("T[h, i]",),
    "S + T[h]": ("T[h]",),
    "S * T[h]": ("T[h]",),
    "S * T[i]": ("T[i]",),
    "S * T[h, j]": ("T[h, j]",),
    "T[h] * tanh(S / T[h])": ("T[h]",),
    "where(j <= i, S + T[h] * (j - i), -inf)": ("T[h]",),
    "where(j <= i, S + T[h, i] - U[h, j], -inf)": ("T[h, i]", "U[h, j]"),
}


def attention(score: str, grouped: bool = False) -> str:
    """Attention with such scores, of which several heads may share keys and values."""
    more = ", ".join(f"{tensor}: bf16" for tensor in SCORES[score])
    shared, head = ("g", "h // (|h| / |g|)") if grouped else ("h", "h")
    return f"""def f(Q[b, i, h, d]: bf16, K[b, j, {shared}, d]: bf16, V[b, j, {shared}, e]: bf16, {more}):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, i, h, d] * K[b, j, {head}, d]
    P[b, h, i, j] = softmax[j]({score})
    O[b, i, h, e] = P[b, h, i, j] * V[b, j, {head}, e]
    return O
"""


@pytest.mark.parametrize("score", SCORES)
def test_what_scores_are_made_with_has_its_gradient_beside_theirs(score: str) -> None:
    """Summed along a walk that is there anyway, and over the rest from what that leaves: no more dots, and no scores in
    memory."""
    sizes = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 64, "e": 64}
    program = driver.elaborate(driver.parse(attention(score)))
    wanted = [p.name for p in program.operands]
    second = behind(ahead(program, wanted, 2, MACHINES["sm_90"], sizes), program.results).program
    schedule = driver.compile_program(second, 2, MACHINES["sm_90"], every_extent(second, sizes, {})).state.schedule
    assert schedule is not None
    assert not [b for b in schedule.intermediates if {"i", "j"} <= {axis for dim in b.dims for axis in dim}]
    dots = [
        sum(isinstance(v, tile.Dot) for loop in loops(k.body) for v in values_in(loop.body)) for k in schedule.kernels
    ]
    assert sorted(filter(None, dots)) == [3, 4]


@pytest.mark.parametrize("score", SCORES)
def test_gradients_with_grouped_heads_keep_no_scores(score: str) -> None:
    """Keys sum over the heads of a group, and what scores are made with over others: queries are walked for all."""
    sizes = {"b": 4, "h": 16, "g": 4, "i": 4096, "j": 4096, "d": 64, "e": 64}
    program = driver.elaborate(driver.parse(attention(score, grouped=True)))
    wanted = [p.name for p in program.operands]
    second = behind(ahead(program, wanted, 2, MACHINES["sm_90"], sizes), program.results).program
    schedule = driver.compile_program(second, 2, MACHINES["sm_90"], every_extent(second, sizes, {})).state.schedule
    assert schedule is not None
    assert not [b for b in schedule.intermediates if {"i", "j"} <= {axis for dim in b.dims for axis in dim}]


def test_attention_is_differentiated_in_one_walk_on_a_cpu() -> None:
    """Scores, weights and their gradients once, and what becomes of them along both of their axes: five products."""
    (case,) = (c for c in CASES if c.name == "attention/mha")
    one = replace(case, long=dict(case.long) | {"b": 1, "h": 8, "i": 2048, "j": 2048, "d": 64, "e": 64})
    found = derived(one, cores(2))
    assert found is not None
    schedule = found[1].state.schedule
    assert schedule is not None
    (kernel,) = schedule.kernels
    (walk,) = loops(kernel.body)
    assert sum(isinstance(v, tile.Dot) for v in values_in(walk.body)) == 5


WINDOW = """
import torch, einc

def memory(what):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(what)).split()[1]) << 10

n, window = 65_536, 4096
program = einc.compile('''
def attention(Q[i, d], K[j, d], V[j, e], window: int):
    S[i, j] = rsqrt(|d|) * Q[i, d] * K[j, d]
    O[i, e] = softmax[j](where(j <= i and i - j < window, S, -inf)) * V[j, e]
    return O
''')
generator = torch.Generator().manual_seed(0)
q, k, v, g = (torch.randn(n, 64, generator=generator) for _ in range(4))
operands = [x.requires_grad_() for x in (q, k, v)]

def gradients(m):
    return torch.autograd.grad(program(q[:m], k[:m], v[:m], window), operands, g[:m])

gradients(512)
before = memory("VmRSS")
dq, dk, dv = gradients(n)
assert memory("VmHWM") - before < 3 << 29, memory("VmHWM") - before
q, k, v, g = (x.detach().double() for x in (q, k, v, g))

def weights(i):
    seen = slice(max(0, i + 1 - window), i + 1)
    p = torch.softmax(k[seen] @ q[i] / 8, 0)
    ds = p * (v[seen] @ g[i] - (p @ v[seen]) @ g[i]) / 8
    return seen, p, ds

for i in (0, 30_000, n - 1):
    seen, _, ds = weights(i)
    torch.testing.assert_close(dq[i].double(), ds @ k[seen], rtol=1e-3, atol=1e-6)
last = n - 8  # few queries see it
rows = [weights(i) for i in range(last, n)]
own = [(p[last - seen.start], ds[last - seen.start], i) for i, (seen, p, ds) in enumerate(rows, last)]
torch.testing.assert_close(dv[last].double(), sum(p * g[i] for p, _, i in own), rtol=1e-3, atol=1e-6)
torch.testing.assert_close(dk[last].double(), sum(ds * q[i] for _, ds, i in own), rtol=1e-3, atol=1e-6)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nothing tells the peak of memory here")
def test_gradients_of_65536_positions_take_less_than_one_and_a_half_gigabytes() -> None:
    """The peak of a process through both halves, above what it held before."""
    done = subprocess.run([sys.executable, "-c", WINDOW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("d", "inner"), [(64, (64, 32)), (128, (32, 32))])
def test_sides_that_data_clears_leave_room_for_two_programs(d: int, inner: tuple[int, int]) -> None:
    """Where documents decide what counts, keys and queries go through registers: blocks are short beside wide heads."""
    text = """def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16, T[n]: i32):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(j <= i and T[i] == T[j], S, -inf)
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]
    return O
"""
    sizes = {"b": 4, "h": 16, "i": 4096, "j": 4096, "n": 4096, "d": d, "e": d}
    program = driver.elaborate(driver.parse(text))
    second = behind(ahead(program, "QKV", 2, MACHINES["sm_90"], sizes), program.results).program
    made = driver.compile_program(second, 2, MACHINES["sm_90"], every_extent(second, sizes, {}))
    assert made.state.schedule is not None
    chosen = {
        s.tensor: k.choices for k in made.state.schedule.kernels for s in each(k.body) if isinstance(s, tile.Store)
    }
    for name, row, walked, n in (("dQ", "i", "j", inner[0]), ("dV", "j", "i", inner[1])):
        tiles = dict(chosen[name].tiles)
        assert (tiles[row].cap, tiles[walked].cap, chosen[name].warps) == (64, n, 4)
