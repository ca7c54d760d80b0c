"""Gradients of reads whose index is data, in any order: terms are added in memory, and nothing is sorted for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc import tile
from einc.base.errors import CallError
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, F32, I64
from einc.codegen.run.aot import artifact, compile_ahead
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.tile.walk import each
from tests.gradients.by_data import READS, TABLE, TOKENS, integers, normal
from tests.gradients.compare import Call, assert_equal, error

SUM = "def f(x[n, d], at[n], y[v]):\n    S[v, d] = sum[n : v == at[n]](x[n, d])\n    return S"


@dataclass
class AnyOrder(Call):
    """The same calls of programs that need not be deterministic."""

    def program_at(self, level: int, backend: str | None = None) -> Callable[[dict[str, Tensor]], Any]:
        program = einc.compile(self.text, level=level, deterministic=False)
        return lambda values: program(**values, **self.scalars, backend=backend)


@pytest.fixture
def unsorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """To sort is a mistake."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is sorted")

    for name in ("sort", "argsort", "searchsorted", "bincount", "unique"):
        monkeypatch.setattr(torch, name, refuse)


def added(compiled: Compiled) -> list[str]:
    """The tensors that kernels add to, in order."""
    schedule = compiled.state.schedule
    assert schedule is not None
    return [s.tensor for k in schedule.kernels for s in each(k.body) if isinstance(s, tile.Store) and s.adds]


@pytest.mark.usefixtures("unsorted")
@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    """At each level in turn, by torch operations, as exact as double precision is."""
    text, operands = READS[name]
    c = AnyOrder(text, operands)
    exact = c.in_torch()
    assert any(g.abs().max() > 0 for g in exact.values())
    for level in {2, list(READS).index(name) % 3}:
        assert_equal(c.compiled(level), exact)


@pytest.mark.usefixtures("unsorted")
@pytest.mark.parametrize("name", ["two dimensions", "out of range", "guarded by data", "of each head", "two indices"])
def test_reads_in_kernels(name: str) -> None:
    text, operands = READS[name]
    c = AnyOrder(text, operands)
    assert_equal(c.compiled(2, "interpret"), c.in_torch())


@pytest.mark.parametrize("name", READS)
def test_terms_are_added_where_they_would_be_sorted(name: str) -> None:
    text, operands = READS[name]
    program = einc.compile(text, deterministic=False)
    gradient = program.gradient(given=[operands[n] for n in program.text.operands])
    assert added(gradient.compiled())
    again = einc.compile(text).gradient(given=[operands[n] for n in program.text.operands])
    assert not added(again.compiled())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_as_wide_as_ever(dtype: torch.dtype) -> None:
    """A thousand terms of one place, each less than half of what the type of the result tells from their sum."""
    x, at = torch.full((5000, 3), 2.0**-9, dtype=dtype), torch.full((5000,), 70)
    program = einc.compile(SUM, deterministic=False)
    compiled = program.compiled(x, at, torch.zeros(100))
    schedule = compiled.state.schedule
    assert schedule is not None
    assert {b.dtype for k in schedule.kernels for b in k.buffers if b.name in added(compiled)} == {F32}
    for backend in ("torch", "interpret"):
        found = program(x, at, torch.zeros(100), backend=backend)
        assert found[70].double().allclose(torch.full((3,), 5000 * 2.0**-9, dtype=torch.float64), rtol=2.0**-8)
        assert not found[:70].any()
        assert not found[71:].any()


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_counts_of_integers_are_exact(backend: str) -> None:
    count = einc.compile("def f(at[n], y[v]):\n    S[v] = sum[n : v == at[n]](1)\n    return S", deterministic=False)
    at, y = integers(3000, most=120, least=-20), torch.zeros(100)
    assert added(count.compiled(at, y))
    assert count(at, y, backend=backend).equal(torch.bincount(at[(at >= 0) & (at < 100)], minlength=100))


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_complex_sums(backend: str) -> None:
    x = torch.complex(normal(150, 3), normal(3, 150).T.contiguous())
    c = AnyOrder(SUM, {"x": x, "at": TOKENS, "y": normal(90)}, by=["x"])
    assert added(einc.compile(SUM, deterministic=False).compiled(x, TOKENS, normal(90))) == ["S_re", "S_im"]
    found = einc.compile(SUM, deterministic=False)(x, TOKENS, normal(90), backend=backend)
    assert error(found, torch.zeros(90, 3, dtype=x.dtype).index_add_(0, TOKENS, x)) <= 1e-12
    assert_equal(c.compiled(), c.in_torch())


@pytest.mark.parametrize(("places", "positions"), [(0, 150), (90, 0), (0, 0)])
def test_nothing_to_add(places: int, positions: int) -> None:
    """By kernels that were made for sizes at which there is something."""
    program = einc.compile(SUM, deterministic=False)
    compiled = program.compiled(normal(150, 3), TOKENS, normal(90))
    assert added(compiled)
    given = normal(positions, 3), torch.zeros(positions, dtype=torch.int64), normal(places)
    for backend in ("torch", "interpret"):
        assert program(*given, backend=backend).equal(torch.zeros(places, 3, dtype=torch.float64))


def test_into_given_memory() -> None:
    """Results begin as zeros, whatever is there."""
    program, x = einc.compile(SUM, deterministic=False), normal(150, 3)
    exact = torch.zeros(90, 3, dtype=x.dtype).index_add_(0, TOKENS, x)
    for backend in ("torch", "interpret"):
        out = torch.full((3, 90), 7.0, dtype=x.dtype).T
        program(x, TOKENS, normal(90), out=out, backend=backend)
        assert error(out, exact) <= 1e-12


def test_several_results() -> None:
    """Gradients of two tables by indices of their own, and of what is multiplied with both."""
    text = (
        "def f(A[v, d], B[w, d], p[n], q[n], y[n]):\n    T[n, d] = A[p[n], d] * B[q[n], d] * y[n]\n"
        "    U[n] = sum[d](B[q[n], d])\n    return T, U"
    )
    c = AnyOrder(
        text,
        {"A": normal(90, 4), "B": normal(80, 4), "p": integers(150, most=100, least=-9), "q": integers(150, most=80),
         "y": normal(150)},
    )  # fmt: skip
    assert_equal(c.compiled(), c.in_torch())
    program = einc.compile(text, deterministic=False)
    gradient = program.gradient(given=[c.operands[n] for n in program.text.operands])
    assert len(added(gradient.compiled())) >= 2


def test_what_is_added_is_read_by_kernels_behind() -> None:
    sums = SUM[: SUM.index("    return")]
    text = f"{sums}    T[n, d] = S[at[n], d] * y[at[n]]\n    R[v] = max[d](S[v, d])\n    return T, R"
    x, y = normal(150, 3), normal(90)
    exact = torch.zeros(90, 3, dtype=x.dtype).index_add_(0, TOKENS, x)
    for backend in ("torch", "interpret"):
        found = einc.compile(text, deterministic=False)(x, TOKENS, y, backend=backend)
        assert error(found[0], exact[TOKENS] * y[TOKENS][:, None]) <= 1e-12
        assert error(found[1], exact.amax(1)) <= 1e-12


def test_the_gradient_of_the_gradient() -> None:
    text, operands = READS["squared"]
    program = einc.compile(text, deterministic=False)
    table = operands["table"].clone().requires_grad_()
    steps = torch.arange(table.shape[1], dtype=table.dtype)

    def second(f: Callable[[Tensor], Tensor]) -> Tensor:
        (first,) = torch.autograd.grad((f(table) ** 2).sum(), table, create_graph=True)
        return torch.autograd.grad((first * normal(*table.shape)).sum(), table)[0]

    exact = second(lambda t: t[operands["token"]].square() @ steps)
    assert error(second(lambda t: program(t, operands["token"])), exact) <= 1e-12


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_compiled_ahead(target: str, dtype: Any) -> None:
    """The gradient of an embedding, for machines that are not here: atomic additions of single precision."""
    facts = {"x": Fact((2, 2), dtype), "at": Fact((2,), I64), "y": Fact((2,), dtype)}
    program = elaborate(parse(SUM, "<program>"), facts)
    sizes = {"n": 4096, "d": 64, "v": 50304}
    compiled = compile_program(program, 2, TARGETS[target], sizes, deterministic=False)
    kernels = compile_ahead(compiled.emitted, TARGETS[target], sizes)
    assembly = {"cuda": "ptx", "hip": "amdgcn"}[TARGETS[target].vendor]
    (own,) = (str(artifact(k, assembly)) for k in kernels if k.name == f"{added(compiled)[0]}_kernel")
    assert re.search(r"atom\S*\.add\S*\.f32|red\S*\.add\S*\.f32|global_atomic_add_f32", own)
    assert [k.spills for k in kernels] == [0] * len(kernels)


def test_one_file_of_both() -> None:
    """The file of a program with its gradients adds as well."""
    text, operands = READS["two dimensions"]
    single = {n: t.float() if t.is_floating_point() else t for n, t in operands.items()}
    program = einc.compile(text, deterministic=False)
    assert "tl.atomic_add(" in program.source(**single, gradient=True)
    assert "tl.atomic_add(" not in einc.compile(text).source(**single, gradient=True)


# ---------------------------------------------------------------------------------------------------------------------
# The option


def test_programs_are_deterministic_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms are sorted."""
    text, operands = READS["two dimensions"]
    sorts: list[int] = []
    known = torch.sort

    def sort(*args: Any, **kwargs: Any) -> Any:
        sorts.append(1)
        return known(*args, **kwargs)

    monkeypatch.setattr(torch, "sort", sort)
    Call(text, operands).compiled(1)  # at level 2 it is one operation of torch, which adds in order
    assert sorts
    del sorts[:]
    AnyOrder(text, operands).compiled(1)
    assert not sorts


def test_neither_takes_what_was_made_for_the_other() -> None:
    """Calls with equal operands, one after the other, and descriptions."""
    x, at, y = normal(150, 3), TOKENS, TABLE[:, 0].contiguous()
    programs = {d: einc.compile(SUM, deterministic=d) for d in (False, True)}
    for d in (False, True, False):
        assert bool(added(programs[d].compiled(x, at, y))) != d
    assert programs[True].description != programs[False].description
    keys = {d: p.compiled(x, at, y).request.key for d, p in programs.items()}
    assert keys[True] != keys[False]


def test_copies_keep_the_option() -> None:
    import pickle

    program = pickle.loads(pickle.dumps(einc.compile(SUM, deterministic=False)))
    assert program.options.deterministic is False


@pytest.mark.parametrize("wrong", [0, 1, None, "no"])
def test_wrong_values(wrong: Any) -> None:
    with pytest.raises(CallError, match="deterministic or not") as info:
        einc.compile(SUM, deterministic=wrong)
    assert f"deterministic={wrong!r}" in str(info.value)


def test_a_gradient_has_the_option_of_its_program() -> None:
    text, operands = READS["two dimensions"]
    gradient = einc.compile(text, deterministic=False).gradient(given=[operands["table"], operands["token"]])
    assert gradient.options == replace(gradient.options, deterministic=False)
