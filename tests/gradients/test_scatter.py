"""Gradients of reads whose index is data: sums over sorted segments, equal to torch's, the same in every run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

import einc
from einc import derive
from einc.api import Gradient
from einc.base.source import Source
from einc.base.targets import INTERPRETER, TARGETS
from einc.binding import bind, completed
from einc.driver import compile_program
from einc.ein import Program
from einc.ein.printer import print_program
from einc.frontend import elaborate, parse
from einc.passes.scatter.segments import Segmented, segmented
from tests.gradients.by_data import READS, SQUARED, TABLE, TOKENS, integers, normal
from tests.gradients.compare import Call, assert_equal, call, error


def halves(c: Call) -> tuple[Program, Segmented | None]:
    """The program of gradients, and what it is with segments."""
    bindings = bind(c.program, {n: tuple(t.shape) for n, t in c.operands.items()}, c.scalars)
    run = derive.ahead(c.program, c.by, 2, INTERPRETER, bindings.extents)
    program = derive.behind(run, tuple(n for k, n in enumerate(run.program.results) if k not in run.fixed)).program
    return program, segmented(program, completed(program, bindings).extents)


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    """At each level in turn, by torch operations."""
    text, operands = READS[name]
    c = Call(text, operands)
    assert halves(c)[1] is not None
    exact = c.in_torch()
    assert any(g.abs().max() > 0 for g in exact.values())
    for level in {2, list(READS).index(name) % 3}:
        assert_equal(c.compiled(level), exact)


@pytest.mark.parametrize("name", ["two dimensions", "out of range", "guarded by data", "of each head", "two indices"])
def test_reads_in_kernels(name: str) -> None:
    text, operands = READS[name]
    c = Call(text, operands)
    assert_equal(c.compiled(2, "interpret"), c.in_torch())


@pytest.mark.parametrize("name", ["two dimensions", "all the same", "twice"])
def test_single_precision(name: str) -> None:
    """As exact as sums of so many terms in single precision are."""
    text, operands = READS[name]
    single = Call(text, {n: t.float() if t.is_floating_point() else t for n, t in operands.items()})
    terms = max(t.numel() for t in operands.values() if not t.is_floating_point())
    assert_equal(single.compiled(), single.in_torch(), within=terms * torch.finfo(torch.float32).eps)


def test_the_sum_goes_over_segments() -> None:
    text, operands = READS["two dimensions"]
    _, found = halves(Call(text, operands))
    assert found is not None
    assert found.indices is None
    (segments,) = found.segments
    assert (segments.index, segments.kept, segments.places) == ("token", 0, ("v",))
    printed = print_program(found.program)
    assert "sum[k : k < count[v]](dT[order[start[v] + k] // |n|, order[start[v] + k] % |n|, d])" in printed
    assert "token" not in printed


def test_what_is_read_at_the_place_is_read_once() -> None:
    """The table is read at the place itself, and not at the place of each term."""
    text, operands = READS["squared"]
    _, found = halves(Call(text, operands))
    assert found is not None
    assert "table[v, d]" in print_program(found.program)
    assert "token" not in {p.name for p in found.program.operands}


@pytest.mark.parametrize("last", ["", " * 2"])
def test_a_segment_is_walked(last: str) -> None:
    """Up to the longest of the block, in short steps; also where what is summed is multiplied afterwards."""
    text = f"""def f(x[n, d]: f32, order[t]: i64, start[v]: i64, count[v]: i64):
    axis k = |t|
    S[v, d] = sum[k : k < count[v]](x[order[start[v] + k], d]{last})
    return S"""
    sizes = {"n": 4096, "t": 4096, "v": 50000, "d": 64}
    source = compile_program(elaborate(parse(Source("<program>", text))), 2, TARGETS["sm_90"], sizes).source
    assert "for k0 in tl.range(0, k_stop, BK)" in source
    assert "BK = tile_size(k, 1, 16)" in source


def test_one_index_is_sorted_once() -> None:
    text, operands = READS["two tables by one index"]
    _, found = halves(Call(text, operands))
    assert found is not None
    assert len(found.segments) == 1


def test_other_axes_are_summed_first() -> None:
    """At each position, as the product that it is."""
    text, operands = READS["masked by another axis"]
    _, found = halves(Call(text, operands))
    assert found is not None
    printed = print_program(found.program)
    assert "dtable_terms[n, d] = sum[i : n <= i](dT[i, d] * y[i, n])" in printed
    assert "dtable[v, d] = sum[k : k < count[v]](dtable_terms[order[start[v] + k], d])" in printed


def test_nothing_larger_than_there_is_gets_sorted() -> None:
    """A place of each pair of positions takes more memory than all operands: pairs are compared where they are."""
    text = """def f(bias[r], bucket[p], Q[i, d], K[j, d], V[j, e]):
    S[i, j] = Q[i, d] * K[j, d] + bias[bucket[i * j // 40]]
    T[i, e] = softmax[j](S) * V[j, e]
    return T"""
    x = normal(70, 3)
    operands = {"bias": normal(80), "bucket": integers(140, most=80), "Q": x, "K": x, "V": x}
    c = Call(text, operands, by=["bias"])
    assert halves(c)[1] is None
    assert_equal(c.compiled(), c.in_torch())


def test_each_value_of_a_combination_is_sorted() -> None:
    """A bucket of each distance has one place, and not one for each pair of positions."""
    text = """def f(bias[r], bucket[p], Q[i, d], K[j, d], V[j, e]):
    S[i, j] = Q[i, d] * K[j, d] + bias[bucket[i - j + |j| - 1]]
    T[i, e] = softmax[j](S) * V[j, e]
    return T"""
    x = normal(70, 3)
    operands = {"bias": normal(80), "bucket": integers(139, most=80), "Q": x, "K": x, "V": x}
    c = Call(text, operands, by=["bias"])
    _, found = halves(c)
    assert found is not None
    assert [s.index for s in found.segments] == ["bucket"]
    assert_equal(c.compiled(), c.in_torch())


@pytest.mark.parametrize(
    ("places", "positions", "is_sorted"), [(65, 65, True), (64, 500, False), (500, 64, False), (500, 0, False)]
)
def test_few_are_compared_with_each(places: int, positions: int, is_sorted: bool) -> None:
    """Whether there are few places, few positions, or none."""
    text, _ = READS["one dimension"]
    c = call(text, table=normal(places, 3), token=integers(positions, most=places))
    assert (halves(c)[1] is not None) == is_sorted
    assert_equal(c.compiled(), c.in_torch())


@pytest.mark.parametrize("name", ["two dimensions", "out of range", "two indices", "pages"])
def test_two_runs_agree_in_every_bit(name: str) -> None:
    text, operands = READS[name]
    c = Call(text, {n: t.float() if t.is_floating_point() else t for n, t in operands.items()})
    first, second = c.compiled(), c.compiled()
    assert {n: g.equal(second[n]) for n, g in first.items()} == dict.fromkeys(first, True)


# ---------------------------------------------------------------------------------------------------------------------
# Through torch


def squared(table: Tensor, token: Tensor) -> Tensor:
    return table[token].square() @ torch.arange(table.shape[1], dtype=table.dtype)


@pytest.fixture(scope="module")
def compiled() -> Callable[..., Any]:
    return einc.compile(SQUARED)


def second(f: Callable[..., Tensor], table: Tensor, token: Tensor) -> tuple[Tensor, ...]:
    """The gradient, and the gradients of a product with it."""
    table, weights = table.clone().requires_grad_(), normal(token.shape[0]).requires_grad_()
    (first,) = torch.autograd.grad(f(table, token), table, weights, create_graph=True)
    return first.detach(), *torch.autograd.grad((first * normal(*table.shape)).sum(), (table, weights))


def test_the_gradient_of_the_gradient(compiled: Callable[..., Any]) -> None:
    found, exact = second(compiled, TABLE, TOKENS), second(squared, TABLE, TOKENS)
    assert [error(x, y) <= 1e-12 for x, y in zip(found, exact, strict=True)] == [True] * 3


def test_calls_after_the_first(compiled: Callable[..., Any]) -> None:
    """Calls of other shapes, and again of the first with other values."""
    for most, n in ((90, 150), (70, 90), (90, 150), (90, 20)):
        table, token = normal(most, 5).requires_grad_(), integers(n, 2, most=most)[:, 0]
        found = torch.autograd.grad(compiled(table, token).sum(), table)
        exact = torch.autograd.grad(squared(table, token).sum(), table)
        assert_equal({"table": found[0]}, {"table": exact[0]}, 1e-12)


@pytest.mark.parametrize("dynamic", [False, True])
def test_in_a_graph(compiled: Callable[..., Any], dynamic: bool) -> None:
    torch._dynamo.reset()
    f = torch.compile(lambda t, n: compiled(2 * t, n), fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (150, 120):
        table = TABLE.clone().requires_grad_()
        found = torch.autograd.grad(f(table, TOKENS[:n]).sum(), table)
        exact = torch.autograd.grad(squared(2 * table, TOKENS[:n]).sum(), table)
        assert_equal({"table": found[0]}, {"table": exact[0]}, 1e-12)
    torch._dynamo.reset()


@pytest.mark.parametrize("dims", [(0, 0), (None, 0), (0, None)])
def test_over_a_batch(compiled: Callable[..., Any], dims: tuple[int | None, int | None]) -> None:
    tables = normal(3, 90, 5) if dims[0] == 0 else TABLE
    tokens = integers(3, 150, most=90) if dims[1] == 0 else TOKENS

    def gradient(f: Callable[..., Tensor]) -> Tensor:
        found: Tensor = vmap(grad(lambda t, n: f(t, n).sum()), in_dims=dims)(tables, tokens)
        return found

    assert_equal({"table": gradient(compiled)}, {"table": gradient(squared)}, 1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Called by itself


@pytest.fixture
def sorts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often torch has sorted."""
    found: list[int] = []
    known = torch.sort

    def sort(*args: Any, **kwargs: Any) -> Any:
        found.append(1)
        return known(*args, **kwargs)

    monkeypatch.setattr(torch, "sort", sort)
    return found


def values_of(gradient: Gradient, given: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a program of gradients takes, where nothing is saved."""
    assert not gradient.saved
    return {n: given[n] for n in gradient.text.operands}


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", ["two dimensions", "next", "squared", "of each head"])
def test_the_program_of_gradients_sorts(name: str, level: int, sorts: list[int]) -> None:
    """As torch has it do: by name, into given memory, of NumPy's arrays, stored and loaded."""
    text, operands = READS[name]
    c = Call(text, operands)
    gradient = einc.compile(text, level).gradient(*c.by, given=[*operands.values()])
    given = values_of(gradient, {**operands, **{f"d{n}": t for n, t in c.cotangents.items()}})
    several = gradient(**given)
    found = several if isinstance(several, tuple) else (several,)
    assert_equal(dict(zip(c.by, found, strict=True)), c.in_torch())
    again = pickle.loads(pickle.dumps(gradient))(**given)
    arrays = gradient(**dict[str, Any]({n: t.numpy() for n, t in given.items()}))
    into = tuple(torch.empty_like(t) for t in found)
    assert gradient(**given, out=into if isinstance(several, tuple) else into[0]) is not None
    for others in (again, arrays, into):
        own = others if isinstance(others, tuple) else (others,)
        assert [torch.as_tensor(t).equal(f) for t, f in zip(own, found, strict=True)] == [True] * len(found)
    by_torch = name == "two dimensions" and level == 2  # which adds in order
    assert len(sorts) == 4 * (not by_torch)


def test_the_program_of_gradients_of_any_order_does_not_sort(sorts: list[int]) -> None:
    text, operands = READS["squared"]
    c = Call(text, operands)
    gradient = einc.compile(text, deterministic=False).gradient("table", given=[*operands.values()])
    found = gradient(**values_of(gradient, {**operands, **{f"d{n}": t for n, t in c.cotangents.items()}}))
    assert_equal({"table": found}, {"table": c.in_torch()["table"]})
    assert not sorts


# ---------------------------------------------------------------------------------------------------------------------
# One operation of torch


@pytest.mark.parametrize("level", [1, 2])
def test_terms_added_at_their_places(level: int) -> None:
    """As a program writes it, with places out of range, and into given memory."""
    added = einc.compile(
        "def f(x[n, d], at[n], y[v]):\n    S[v, d] = sum[n : v == at[n]](x[n, d])\n    return S", level
    )
    x, at = normal(50, 3), integers(50, most=30, least=-5)
    inside = (at >= 0) & (at < 20)
    exact = torch.zeros(20, 3, dtype=x.dtype).index_add_(0, at[inside], x[inside])
    out = torch.empty_like(exact)
    assert error(added(x, at, normal(20)), exact) <= 1e-15
    added(x, at, normal(20), out=out)
    assert error(out, exact) <= 1e-15
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((added(leaf, at, normal(20)) * exact).sum(), leaf)
    assert found.equal(torch.where(inside[:, None], exact[at.clamp(0, 19)], 0))
