"""Kernels whose warps have roles: their text, their protocol on threads, and what they assemble to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import einc
from einc import driver
from einc.base.errors import IllegalIR
from einc.base.facts import Fact
from einc.base.source import Source
from einc.base.targets import target
from einc.base.types import BF16, F16, F32, DType
from einc.codegen import AUTO, GLUON, TRITON
from einc.codegen.gluon.roles import pays
from einc.codegen.gluon.roles.specialise_warps import why_not
from einc.codegen.run.aot import compile_ahead
from einc.driver import Compiled, compile_program, elaborate
from einc.evaluate import evaluate
from einc.frontend.tiles.kernels import read_kernels
from einc.pipeline import Backend
from einc.tile.asked import Choice, choice
from einc.tile.printer import print_schedule
from einc.tile.roles import Begin, Event, Finish, Release, Wait, subject
from einc.tile.verifier import verify
from einc.trials.request import Request
from einc.trials.running import gradient_for
from tests.support import warps
from tests.support.compiled import in_parts
from tests.support.places import EXAMPLES
from tests.support.sass import disassembled, loops

SIZES = {"b": 1, "h": 1, "d": 64, "e": 64, "c": 64}
MANY = {**SIZES, "b": 4, "h": 16}  # heads, so that their programs fill a machine
SPECIALISED = (
    "alibi", "causal", "causal_cache", "chunked", "dilated", "global_local", "mha", "relu", "retention",
    "row_maximum", "sigmoid", "sink_logits", "sink_tokens", "sliding_window", "softcap", "softmax1",
)  # fmt: skip
SCALARS = {"window": 70, "dilation": 2, "radius": 20, "globals": 5, "chunk": 50}
LENGTHS = [(200, 300), (128, 256), (257, 70)]


def compiled(text: str, sizes: Mapping[str, int], dtype: DType = BF16, name: str = "sm_90") -> Compiled:
    script = driver.parse(text)
    operands = elaborate(script).operands
    types = {p.name: dtype if p.dtype.is_float else p.dtype for p in operands}
    program = elaborate(script, {p.name: Fact((2,) * len(p.dims), types[p.name]) for p in operands})
    known = {a.name: sizes.get(a.name, 128) for a in program.axes}
    return compile_program(program, 2, target(name), known, choices=in_parts(1), backend=GLUON)


def example(name: str) -> str:
    return (EXAMPLES / "attention" / f"{name}.ein").read_text()


def arguments(text: str, rows: int, keys: int) -> tuple[list[torch.Tensor], dict[str, int]]:
    """Operands in doubles, and the scalars that have no default."""
    program = elaborate(driver.parse(text))
    sizes = {**SIZES, "i": rows, "j": keys}
    shapes = {p.name: [sizes.get(dim[0], rows) for dim in p.dims] for p in program.operands}
    taken = {p.name: SCALARS[p.name] for p in program.scalars if p.default is None}
    make = {1: torch.rand}  # what heads have is a decay, or a sink
    return [make.get(len(shape), torch.randn)(shape, dtype=torch.float64) for shape in shapes.values()], taken


@pytest.mark.parametrize("name", SPECIALISED)
def test_threads_compute_what_the_program_means(name: str) -> None:
    """With other numbers of rows and keys in each program than in the one before."""
    text, (rows, keys) = example(name), LENGTHS[SPECIALISED.index(name) % len(LENGTHS)]
    operands, scalars = arguments(text, rows, keys)
    made = compiled(text, {**MANY, "i": rows, "j": 1024})
    assert made.state.schedule is not None
    assert all(k.roles is not None for k in made.state.schedule.kernels)
    exact = elaborate(driver.parse(text))
    meant = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, scalars)
    results = [torch.full(x.shape, np.nan, dtype=torch.float64) for x in meant]
    warps.run(made.source, made.emitted.launcher, operands, results, *scalars.values())
    for found, wanted in zip(results, meant, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["causal", "sliding_window", "chunked"])
def test_what_no_row_counts_may_be_anything(name: str) -> None:
    text, rows, keys = example(name), 100, 300
    (q, k, v), scalars = arguments(text, rows, keys)
    made = compiled(text, {**MANY, "i": rows, "j": 1024})
    found, wanted = (torch.full((1, 1, rows, 64), np.nan, dtype=torch.float64) for _ in range(2))
    warps.run(made.source, made.emitted.launcher, [q, k, v], [wanted], *scalars.values())
    k[:, :, rows:], v[:, :, rows:] = np.inf, np.nan
    warps.run(made.source, made.emitted.launcher, [q, k, v], [found], *scalars.values())
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("name", "onward"), [("mha", True), ("causal", True), ("learned_bias", False)])
def test_a_processor_goes_on_with_further_blocks_where_registers_have_room(name: str, onward: bool) -> None:
    """Which one is next is counted in memory where some walk further than others."""
    made = by_default(name, 128)
    assert made.state.schedule is not None
    (kernel,) = made.state.schedule.kernels
    assert kernel.roles is not None
    assert kernel.roles.onward == onward
    assert ("processors(" in made.source) == onward
    assert [bool(s.counter) for s in made.emitted.kernels] == [name == "causal"]


@pytest.mark.parametrize("programs", [1, 3, 100])
def test_any_number_of_processors_computes_the_same(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warps, "PROCESSORS", programs)
    text = example("causal")
    operands, scalars = arguments(text, 700, 700)
    made = compiled(text, {**MANY, "i": 700, "j": 1024})
    exact = elaborate(driver.parse(text))
    (meant,) = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, scalars)
    found = torch.full(meant.shape, np.nan, dtype=torch.float64)
    warps.run(made.source, made.emitted.launcher, operands, [found], *scalars.values())
    np.testing.assert_allclose(found.numpy(), meant, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SPECIALISED)
def test_roles_read_back(name: str) -> None:
    schedule = compiled(example(name), {**MANY, "i": 1024, "j": 1024}).state.schedule
    assert schedule is not None
    assert read_kernels(Source("kernels", print_schedule(schedule)), 0).schedule == schedule


@pytest.mark.parametrize(
    ("kind", "name"), [(Wait, "v"), (Release, "k"), (Finish, "o_sum_2_next"), (Begin, "s_sum")], ids=str
)
def test_a_step_without_one_of_its_events_is_illegal(kind: type[Event], name: str) -> None:
    schedule = compiled(example("causal"), {**MANY, "i": 1024, "j": 1024}).state.schedule
    assert schedule is not None
    (kernel,) = schedule.kernels
    assert kernel.roles is not None
    left = tuple(e for e in kernel.roles.events if not isinstance(e, kind) or subject(e)[1] != (name,))
    assert left != kernel.roles.events
    broken = replace(kernel, roles=replace(kernel.roles, events=left))
    verify(schedule)
    with pytest.raises(IllegalIR):
        verify(replace(schedule, kernels=(broken,)))


def test_threads_find_a_slot_that_is_filled_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warps, "PATIENCE", 2.0)  # here they do wait for ever
    text = example("mha")
    operands, scalars = arguments(text, 128, 1500)
    made = compiled(text, {**MANY, "i": 128, "j": 1500})
    broken = re.sub(r"mbarrier\.wait\((\w+_free).*", "pass", made.source)
    assert broken != made.source
    results = [torch.full((1, 1, 128, 64), np.nan, dtype=torch.float64)]
    with pytest.raises(warps.Broken):
        warps.run(broken, made.emitted.launcher, operands, results, *scalars.values())


def test_a_kernel_without_roles_is_as_triton_writes_it() -> None:
    text = "def f(X[i, k]):\n    Y[i] = sum[k](X[i, k])\n    return Y\n"
    made = compiled(text, {"i": 64, "k": 64}, F32)
    assert made.state.schedule is not None
    (kernel,) = made.state.schedule.kernels
    assert kernel.roles is None
    assert "dots" in why_not(kernel, made.context) or "loops" in why_not(kernel, made.context)
    assert made.source == TRITON.emit(made.state.program, made.state.schedule, made.target).source


@pytest.mark.parametrize(("dtype", "machine"), [(F32, "sm_90"), (BF16, "sm_80"), (BF16, "sm_100")])
def test_only_hopper_multiplies_by_warpgroups(dtype: DType, machine: str) -> None:
    schedule = compiled(example("causal"), {**MANY, "i": 1024, "j": 1024}, dtype, machine).state.schedule
    assert schedule is not None
    assert all(k.roles is None for k in schedule.kernels)


def exponentials_between_waits(body: list[str]) -> list[int]:
    waits = [k for k, x in enumerate(body) if "WARPGROUP.DEPBAR" in x]
    ends = [0, *waits, len(body)]
    return [sum("MUFU.EX2" in x for x in body[a:b]) for a, b in pairwise(ends)]


OVERLAPPED = [
    pytest.param(
        name,
        width,
        dtype,
        marks=[pytest.mark.slow] * ((name, width, dtype) not in (("mha", 64, BF16), ("causal", 128, BF16))),
    )
    for name in ("mha", "causal", "sliding_window", "alibi")
    for width in (64, 128)
    for dtype in (BF16, F16)
]


@pytest.mark.aot
@pytest.mark.parametrize(("name", "width", "dtype"), OVERLAPPED)
def test_what_is_computed_lies_under_the_dots_of_the_step_before(name: str, width: int, dtype: DType) -> None:
    sizes = {**MANY, "i": 4096, "j": 4096, "d": width, "e": width}
    made = compiled(example(name), sizes, dtype)
    (kernel,) = compile_ahead(made.emitted, made.target, made.sizes)
    assert kernel.shared <= made.target.shared
    assert made.state.schedule is not None
    step = made.state.schedule.kernels[0].choices.tile("j")
    assert step is not None
    taken = step.cap // 2  # exponentials of a thread for its rows of a step
    bodies = [
        b for b in loops(disassembled(kernel.stages["cubin"]), "HGMMA") if sum("MUFU.EX2" in x for x in b) >= taken
    ]
    unmasked = sorted(bodies, key=len)[:2]  # of each consumer
    assert len(unmasked) == 2
    for body in unmasked:
        before, under, *after = exponentials_between_waits(body)
        assert under >= taken
        assert before == sum(after) == 0
        assert not any(x.startswith(("STL", "LDL")) for x in body)
        assert not any(x.startswith("R2UR") for x in body)  # slots are counted once for a warp, not by each thread


@pytest.mark.aot
def test_wide_rows_change_threads_in_slots_that_are_done_with() -> None:
    """Heads of 256: a consumer's rows of the result take the room of its rows of the queries."""
    made = compiled(example("causal"), {**MANY, "i": 4096, "j": 4096, "d": 256, "e": 256})
    assert made.state.schedule is not None
    (scheduled,) = made.state.schedule.kernels
    assert scheduled.roles is not None
    assert "_slot.store(" in made.source
    (kernel,) = compile_ahead(made.emitted, made.target, made.sizes)
    assert kernel.shared <= made.target.shared


def by_default(
    name: str, width: int, machine: str = "sm_90", choices: tuple[Choice, ...] = (), length: int = 4096
) -> Compiled:
    """An example as the generator compiles it that gives roles where they pay."""
    script = driver.parse(example(name))
    operands = elaborate(script).operands
    program = elaborate(script, {p.name: Fact((2,) * len(p.dims), BF16) for p in operands if p.dtype.is_float})
    sizes = {a.name: {**MANY, "i": length, "j": length, "d": width, "e": width}.get(a.name, 128) for a in program.axes}
    return compile_program(program, 2, target(machine), sizes, choices=choices, backend=AUTO.on(target(machine)))


def has_roles(made: Compiled) -> list[bool]:
    assert made.state.schedule is not None
    return [k.roles is not None for k in made.state.schedule.kernels]


@pytest.mark.parametrize(
    ("name", "width", "length", "why"),
    [
        ("mha", 128, 4096, ""),
        ("causal", 128, 4096, ""),
        ("alibi", 128, 4096, ""),
        ("causal", 64, 4096, "special functions take as long as dots"),
        ("softcap", 128, 4096, "special functions take as long as dots"),
        ("mha", 256, 4096, ""),
        ("softcap", 256, 4096, ""),
        ("sliding_window", 256, 4096, ""),
        ("relu", 64, 4096, "registers have room for short steps alone"),
        ("mha", 128, 100, "programs of so many rows are fewer than processors"),
        ("causal", 128, 1024, "its walk is short, and programs begin and end one after the other"),
        ("sliding_window", 128, 4096, "its walk begins and ends with blocks that are masked, and its dots hide little"),
    ],
)
def test_warps_have_roles_by_default_where_these_pay(name: str, width: int, length: int, why: str) -> None:
    made = by_default(name, width, length=length)
    assert made.state.schedule is not None
    assert has_roles(made) == [not why]
    assert [pays.why_not(k, made.context) for k in made.state.schedule.kernels if k.roles is None] == [why] * bool(why)


SCORES = """def f(Q[b, h, i, d]: bf16, K[b, h, j, d]: bf16, V[b, h, j, e]: bf16):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O, S
"""


@pytest.mark.parametrize("backend", [GLUON, AUTO], ids=lambda b: b.name)
def test_a_walk_that_stores_tiles_has_no_roles(backend: Backend) -> None:
    """Consumers compute: none writes to memory before the walk is over."""
    program = elaborate(driver.parse(SCORES))
    sizes = {"b": 4, "h": 16, "i": 4096, "j": 4096, "d": 128, "e": 128}
    made = compile_program(program, 2, target("sm_90"), sizes, backend=backend)
    assert has_roles(made) == [False]
    assert made.state.schedule is not None
    assert pays.why_not(made.state.schedule.kernels[0], made.context) == "its walk stores tiles"


def test_without_roles_kernels_are_triton_s() -> None:
    """Elsewhere, and where tiles are chosen, the source is that of Triton's generator."""
    for machine in ("sm_80", "sm_100"):
        assert by_default("causal", 128, machine).request.backend is TRITON
    chosen = by_default("causal", 128, choices=(choice("BI", 64),))
    plain = compile_program(
        chosen.request.program, 2, target("sm_90"), dict(chosen.sizes), choices=(choice("BI", 64),), backend=TRITON
    )
    assert has_roles(chosen) == [False]
    assert chosen.source == plain.source
    assert chosen.measured_as.backend is TRITON
    assert by_default("causal", 128).measured_as.backend is AUTO


def test_a_compiled_program_has_roles_unasked() -> None:
    operands = [torch.empty(1, 8, 4096, 128, dtype=torch.bfloat16, device="meta") for _ in range(3)]
    asked = ("auto", "gluon", "triton")
    found = [einc.compile(example("causal"), target="sm_90", generator=own).source(*operands) for own in asked]
    assert ["gl.warp_specialize(" in source for source in found] == [True, True, False]
    assert einc.compile(example("causal"), target="sm_90").source(*operands) == found[0]
    assert "gl.warp_specialize(" not in einc.compile(example("causal"), target="sm_80").source(*operands)


BACKWARD = """
def backward(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], L[b, h, i], O[b, h, i, e], G[b, h, i, e]):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    P[b, h, i, j] = {mask}exp(S - L[b, h, i]){end}
    D[b, h, i] = O[b, h, i, e] * G[b, h, i, e]
    T[b, h, i, j] = G[b, h, i, e] * V[b, h, j, e]
    dS[b, h, i, j] = P * (T - D[b, h, i])
    dQ[b, h, i, d] = rsqrt(|d|) * dS[b, h, i, j] * K[b, h, j, d]
    dK[b, h, j, d] = rsqrt(|d|) * dS[b, h, i, j] * Q[b, h, i, d]
    dV[b, h, j, e] = P * G[b, h, i, e]
    return dQ, dK, dV
"""
MASKS = {"full": ("", ""), "causal": ("where(j <= i, ", ", 0)"), "window": ("where(j <= i and i - j < 90, ", ", 0)")}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("rows", "keys"), [(200, 300), (513, 130)])
def test_threads_compute_gradients(mask: str, rows: int, keys: int) -> None:
    """All dots of a step belong to it; rows of numbers are copied by lanes; what is held is computed with as well."""
    begin, end = MASKS[mask]
    text = BACKWARD.format(mask=begin, end=end)
    text = text if keys > 200 else re.sub(r"\be\b", "d", text)  # widths of queries and values by one name
    operands, _ = arguments(text, rows, keys)
    made = compiled(text, {**MANY, "i": rows, "j": 1024})
    assert made.state.schedule is not None
    roles = [k.roles for k in made.state.schedule.kernels]
    assert all(r is not None and all(e.step == 0 for e in r.events) for r in roles)
    assert any(r is not None and r.rows for r in roles)
    exact = elaborate(driver.parse(text))
    meant = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, {})
    results = [torch.full(x.shape, np.nan, dtype=torch.float64) for x in meant]
    warps.run(made.source, made.emitted.launcher, operands, results)
    for found, wanted in zip(results, meant, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.aot
@pytest.mark.parametrize("width", [64, 128])
def test_gradients_leave_registers_for_rows_of_numbers(width: int) -> None:
    """Two results, two scores and their rows fill them: few are spilled, and none where heads are narrow."""
    begin, end = MASKS["full"]
    made = compiled(BACKWARD.format(mask=begin, end=end), {**MANY, "i": 4096, "j": 4096, "d": width, "e": width})
    for kernel in compile_ahead(made.emitted, made.target, made.sizes):
        assert kernel.shared <= made.target.shared
        assert kernel.spills <= (0 if width == 64 else 32)


RESIDUAL = """
def f(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, d]):
    S[b, h, i, j] = {scale}Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, d] = softmax[j](S) * V[b, h, j, d]
    R[b, h, i, d] = O[b, h, i, d] + {read}
    return R
"""


@pytest.mark.parametrize("scale", ["", "0.2 * "])
@pytest.mark.parametrize("read", ["Q[b, h, i, d]", "sum[d](Q[b, h, i, d] * Q[b, h, i, d])", "0"])
@pytest.mark.parametrize("width", [64, 128])
def test_what_is_held_for_dots_is_computed_with(scale: str, read: str, width: int) -> None:
    """A residual reads what dots read; scores without a scale are dots within a mask, and alone where none is."""
    text = RESIDUAL.format(scale=scale, read=read)
    operands, _ = arguments(text, 200, 300)
    operands = [x.repeat(1, 1, 1, width // 64) for x in operands]
    made = compiled(text, {**MANY, "i": 1024, "j": 1024, "d": width})
    assert made.state.schedule is not None
    assert [k.roles is not None for k in made.state.schedule.kernels] == [True]
    exact = elaborate(driver.parse(text))
    (meant,) = evaluate(exact, {p.name: x.numpy() for p, x in zip(exact.operands, operands, strict=True)}, {})
    found = torch.full(meant.shape, np.nan, dtype=torch.float64)
    warps.run(made.source, made.emitted.launcher, operands, [found])
    np.testing.assert_allclose(found.numpy(), meant, rtol=1e-9, atol=1e-9)


SQUARED = """def f(Q[b, h, i, d]: bf16, K[b, g, j, d]: bf16, V[b, g, j, e]: bf16, T[h]: f32):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d] + 0.02 * T[h] * (j - i)
    O[b, h, i, e] = softmax[j](S[b, h, i, j] + 0.1 * S[b, h, i, j] * S[b, h, i, j]) * V[b, h // (|h| / |g|), j, e]
    return O
"""


def test_products_that_wait_for_what_reads_them_are_read_by_others() -> None:
    program = einc.compile(SQUARED, target="sm_90", generator="auto")
    sizes = {"b": 2, "h": 8, "g": 2, "i": 1025, "j": 1024, "d": 128, "e": 128}
    assert "def f_gradient(" in (source := gradient_for(program, Request(sizes), []).together.source)
    assert "hopper.warpgroup_mma(" in source.partition("def f_ahead(")[2]
