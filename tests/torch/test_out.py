"""Results that are written where the caller says: right, in the very tensors given, the short way once it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import einc
from einc.einsums import _callees

MASKED = """
def masked(Q[i, d], K[j, d], V[j, e], n: int, scale: float = 0.5):
    S[i, j] = scale * Q[i, d] * K[j, d]
    T[i, j] = where(j < n, S, -inf)
    O[i, e] = softmax[j](T) * V[j, e]
    L[i] = logsumexp[j](T)
    return O, L
"""
PROGRAMS: dict[str, tuple[str, list[tuple[int, ...]]]] = {
    "a product": ("ij,jk->ik", [(5, 6), (6, 7)]),
    "a product, turned": ("ij,jk->ki", [(5, 6), (6, 7)]),
    "products": ("bij,jk->bik", [(3, 5, 6), (6, 7)]),
    "a sum": ("ijk->ik", [(5, 6, 7)]),
    "a sum, turned": ("ijk->kj", [(5, 6, 7)]),
    "a total": ("ij->", [(5, 6)]),
    "a copy": ("ijk->kij", [(5, 6, 7)]),
    "three factors": ("i,j,k->ki", [(5,), (6,), (7,)]),
    "attention": ('softmax("ik,jk->ij") * "je->ie"', [(5, 6), (7, 6), (7, 3)]),
    "a constant": ("def f(x[i]):\n    y[i, j] = where(j == i, 1.0, x[i] * 0)\n    axis j = 4\n    return y\n", [(5,)]),
}
LAYOUTS: dict[str, Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]] = {}


def layout(make: Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """A way to lay out a result: gives the memory, and the result in it."""
    LAYOUTS[make.__name__] = make
    return make


@layout
def contiguous(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    memory = torch.full(shape, 9.0)
    return memory, memory


@layout
def turned(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    memory = torch.full(shape[::-1], 9.0)
    return memory, memory.permute(list(range(len(shape)))[::-1])


@layout
def every_second(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    memory = torch.full([2 * n for n in shape], 9.0)
    return memory, memory[(slice(1, None, 2),) * len(shape)]


def operands(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(shape) for shape in shapes]


def exact(f: einc.Program, tensors: list[Tensor], *scalars: Any) -> Any:
    return f(*(t.numpy() for t in tensors), *scalars, backend="evaluate")


def close(found: Tensor, wanted: Any) -> None:
    torch.testing.assert_close(found.detach().double(), torch.from_numpy(np.asarray(wanted)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", LAYOUTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_written_where_asked_and_nowhere_else(name: str, make: str, long_way: list[int]) -> None:
    text, shapes = PROGRAMS[name]
    f = einc.compile(text)
    for n in range(4):
        tensors = operands(shapes)
        wanted = exact(f, tensors)
        memory, out = LAYOUTS[make](np.shape(wanted))
        written = sum(long_way)
        assert f(*tensors, out=out) is out
        close(out, wanted)
        assert (memory == 9).sum() == memory.numel() - out.numel()
        assert sum(long_way) - written == (n == 0)


def test_several_results_in_a_tuple_or_a_list(long_way: list[int]) -> None:
    f = einc.compile(MASKED)
    shapes: list[tuple[int, ...]] = [(5, 6), (7, 6), (7, 3)]
    for n, scale in enumerate((0.5, 0.5, 2.0, 2.0, 0.25)):
        tensors = operands(shapes)
        out: Any = [torch.empty(5, 3), torch.empty(2, 5)[1]]
        out = out if n % 2 else tuple(out)
        before = len(long_way)
        assert f(*tensors, n=4, scale=scale, out=out) is out
        for found, wanted in zip(out, exact(f, tensors, 4, scale), strict=True):
            close(found, wanted)
        assert len(long_way) - before - 1 == (n == 0)  # one for the evaluation


def test_one_result_in_a_list() -> None:
    f, a = einc.compile("ij->ji"), torch.randn(2, 3)
    for _ in range(3):
        out = [torch.empty(3, 2)]
        assert f(a, out=out) is out
        assert torch.equal(out[0], a.T)


def test_calls_with_out_and_without_are_kept_apart() -> None:
    f = einc.compile("ij,jk->ik")
    for _ in range(3):
        a, b, out = torch.randn(5, 6), torch.randn(6, 7), torch.zeros(5, 7)
        found = f(a, b)
        assert not out.any()
        assert f(a, b, out=out) is out
        assert torch.equal(found, out)
        assert found.data_ptr() != out.data_ptr()


def test_a_result_in_an_operand_or_beside_it(long_way: list[int]) -> None:
    """The same layouts each time: what differs is where the tensors are."""
    f = einc.compile("ij,jk->ki")
    memory = torch.empty(3, 4, 4)
    for n, (p, q, r) in enumerate([(0, 1, 2), (2, 0, 1), (0, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 2), (1, 1, 2)]):
        memory.normal_()
        wanted = (memory[p].double() @ memory[q].double()).T
        assert f(memory[p], memory[q], out=memory[r]) is not None
        close(memory[r], wanted)
        assert len(long_way) == (1, 1, 2, 3, 4, 4, 4)[n]


def test_a_result_that_overlaps_an_operand_in_part() -> None:
    f = einc.compile('softmax("ij->ij")')
    f(torch.randn(3, 4), out=torch.empty(3, 4))
    memory = torch.randn(5, 4)
    for row in (2, 1, 0):
        wanted = torch.softmax(memory[1:4].double(), 1)
        f(memory[1:4], out=memory[row : row + 3])
        close(memory[row : row + 3], wanted.numpy())


def test_results_that_overlap_each_other(long_way: list[int]) -> None:
    f = einc.compile("def f(x[i]):\n    y[i] = x[i] + 1\n    z[i] = 2 * x[i]\n    return y, z\n")
    x, memory = torch.arange(4.0), torch.zeros(8)
    for start, calls in ((4, 1), (0, 2), (2, 3), (4, 3)):
        f(x, out=(memory[:4], memory[start : start + 4]))
        assert torch.equal(memory[start : start + 4], 2 * x)
        assert torch.equal(memory[: min(start, 4)], (x + 1)[: min(start, 4)])
        assert len(long_way) == calls


def test_a_result_that_is_asked_for_twice() -> None:
    f = einc.compile("def f(x[i]):\n    y[i] = 2 * x[i]\n    return y, y, x\n")
    for _ in range(3):
        x, out = torch.randn(4), tuple(torch.zeros(4) for _ in range(3))
        f(x, out=out)
        assert all(torch.equal(t, w) for t, w in zip(out, (2 * x, 2 * x, x), strict=True))


@pytest.mark.parametrize(
    ("out", "error", "says"),
    [
        (torch.empty(5, 8), einc.ShapeError, r"\(5, 8\), the result \(5, 7\)"),
        (torch.empty(5, 7, 1), einc.ShapeError, r"\(5, 7, 1\), the result \(5, 7\)"),
        (torch.empty(5, 7, dtype=torch.float64), einc.DTypeError, "f64, the result f32"),
        (torch.empty(5, 1).expand(5, 7), einc.CallError, "share memory"),
        (torch.empty(5, 7, requires_grad=True), einc.CallError, "requires a gradient"),
        ([torch.empty(5, 7)] * 2, einc.CallError, "holds 2 tensors"),
        ([], einc.CallError, "holds 0 tensors"),
        ("here", einc.CallError, "not a tensor"),
    ],
)
def test_what_is_wrong_with_out_is_said_every_time(out: Any, error: type[einc.Error], says: str) -> None:
    f = einc.compile("ij,jk->ik")
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    for _ in range(2):
        f(a, b)
        f(a, b, out=torch.empty(5, 7))
        with pytest.raises(error, match=says):
            f(a, b, out=out)
        with torch.no_grad():
            f(a, b, out=torch.empty(5, 7))
            with pytest.raises(error, match=says):
                f(a, b, out=out)


def test_operands_that_require_gradients(long_way: list[int]) -> None:
    f = einc.compile('softmax("ik,jk->ij") * "je->ie"')
    product = einc.compile("ij,jk->ik")
    for _ in range(3):
        q, k, v = (t.requires_grad_() for t in operands([(5, 6), (7, 6), (7, 6)]))
        out, into = torch.empty(5, 6), torch.empty(7, 7)
        f(q, k, v, out=out)
        product(k, v.detach().T, out=into)
        close(out, torch.softmax(q.double() @ k.double().T, 1).matmul(v.double()).detach().numpy())
        close(into, (k.double() @ v.double().T).detach().numpy())
        assert not out.requires_grad
        assert not into.requires_grad
    assert len(long_way) == 2


def test_a_parameter_that_needs_no_gradient_takes_a_result() -> None:
    f = einc.compile("ij->i")
    for _ in range(3):
        a, out = torch.randn(3, 4), torch.nn.Parameter(torch.empty(3), requires_grad=False)
        version = out._version
        assert f(a, out=out) is out
        close(out, a.double().sum(1).numpy())
        assert out._version > version  # torch knows that it was written to


@pytest.mark.parametrize("inside", [True, False])
def test_memory_that_was_made_in_inference_mode(inside: bool, long_way: list[int]) -> None:
    f = einc.compile('softmax("ik,jk->ij") * "je->ie"')
    for _ in range(4):
        with torch.inference_mode():
            q, k, v = operands([(5, 6), (7, 6), (7, 3)])
            out = torch.empty(5, 3)
        with torch.inference_mode(inside):
            out = out if inside else torch.empty(5, 3)
            f(q, k, v, out=out)
            close(out, torch.softmax(q.double() @ k.double().T, 1).matmul(v.double()).numpy())
    assert len(long_way) == 1


def test_a_parameter_that_is_called_out() -> None:
    f = einc.compile("def f(x[i], out[i]):\n    y[i] = x[i] - out[i]\n    return y\n")
    for _ in range(3):
        x, y = torch.randn(4), torch.randn(4)
        kept = y.clone()
        assert torch.equal(f(x, out=y), x - y)
        assert torch.equal(y, kept)


@pytest.mark.parametrize("text", ["ij,jk->ik", "ij,jk->ki", "ij,jk->", "ij,jk,k->ki"])
def test_einsum_keeps_its_calls(text: str) -> None:
    _callees[0].pop(text, None)
    for _ in range(3):
        tensors = operands([(5, 6), (6, 7), (7,)])[: text.count(",") + 1]
        wanted = torch.einsum(text, *(t.double() for t in tensors))
        out = torch.empty(wanted.shape)
        assert einc.einsum(text, *tensors, out=out) is out
        close(out, wanted.numpy())
    calls = _callees[0][text].calls
    assert calls is not None
    assert len(calls.known) == 1
    assert calls(tensors, {}, out) is out
    with pytest.raises(einc.Error):
        einc.einsum(text, *tensors, out=torch.empty(3, 2, 1))
    square = torch.randn(6, 6)
    wanted = square.double() @ square.double()
    einc.einsum("ij,jk->ik", square, square, out=torch.empty(6, 6))
    einc.einsum("ij,jk->ik", square, square, out=square)
    close(square, wanted.numpy())
