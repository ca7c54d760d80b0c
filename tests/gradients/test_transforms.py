"""Gradients in graphs that torch traces, and by the transformations of `torch.func`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

import einc
from tests.gradients.attending import attention, close, gradients, operands, plain


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """The number of graphs that torch.compile has made in this test."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def loss(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *tensors: f(*tensors).square().sum()


def detached(n: int = 9) -> tuple[Tensor, ...]:
    return operands(n, (False, False, False))


# ---------------------------------------------------------------------------------------------------------------------
# torch.compile


@pytest.mark.parametrize("dynamic", [False, True])
def test_forward_and_backward_in_one_graph(graphs: Callable[[], int], dynamic: bool) -> None:
    """One graph ahead with one call, and one behind with one call."""
    seen: list[tuple[str, int]] = []

    def counting(kind: str) -> Callable[..., Any]:
        def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
            seen.append((kind, sum(n.target is torch.ops.einc.call.default for n in graph.graph.nodes)))
            return graph.forward

        return compiler

    backend = aot_autograd(fw_compiler=counting("ahead"), bw_compiler=counting("behind"))
    f = torch.compile(attention, fullgraph=True, dynamic=dynamic, backend=backend)
    tensors = operands()
    close(gradients(f, tensors), gradients(plain, tensors))
    assert graphs() == 1
    assert seen == [("ahead", 1), ("behind", 1)]


def test_no_compilation_for_another_length(graphs: Callable[[], int]) -> None:
    f = torch.compile(attention, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (33, 40, 57, 64):
        tensors = operands(n)
        close(gradients(f, tensors), gradients(plain, tensors))
    assert graphs() == 1


def test_inductor(graphs: Callable[[], int]) -> None:
    f = torch.compile(lambda q, k, v: attention(q * 2, k, v).tanh(), fullgraph=True)
    tensors = operands()
    close(gradients(f, tensors), gradients(lambda q, k, v: plain(q * 2, k, v).tanh(), tensors))
    assert graphs() == 1


def test_einsums_in_a_graph(graphs: Callable[[], int]) -> None:
    a, b = torch.randn(5, 6, requires_grad=True), torch.randn(6, 7, requires_grad=True)
    f = torch.compile(lambda a, b: einc.einsum("ij,jk->ik", a, b), fullgraph=True, backend="aot_eager")
    close(gradients(f, (a, b)), gradients(torch.matmul, (a, b)))
    assert graphs() == 1


def test_a_subset_in_a_graph() -> None:
    f = torch.compile(attention, fullgraph=True, backend="aot_eager")
    tensors = operands(needing=(False, True, False))
    close(gradients(f, tensors), gradients(plain, tensors))


# ---------------------------------------------------------------------------------------------------------------------
# torch.func


def test_grad_and_vjp() -> None:
    tensors = detached()
    close([torch.func.grad(loss(attention))(*tensors)], [torch.func.grad(loss(plain))(*tensors)])
    every = (0, 1, 2)
    close(torch.func.grad(loss(attention), every)(*tensors), torch.func.grad(loss(plain), every)(*tensors))
    found: Any = torch.func.vjp(attention, *tensors)
    wanted: Any = torch.func.vjp(plain, *tensors)
    close(found[1](found[0]), wanted[1](found[0]))


def test_grad_and_value_with_another_result() -> None:
    q, k, v = detached()

    def f(g: Callable[..., Tensor]) -> Any:
        def inner(q: Tensor) -> tuple[Tensor, Tensor]:
            out = g(q, k, v)
            return out.square().sum(), out

        return torch.func.grad_and_value(inner, has_aux=True)(q)

    (g, (value, out)), (h, (wanted, other)) = f(attention), f(plain)
    close([g, value, out], [h, wanted, other])


def test_jacobians() -> None:
    tensors = detached(5)
    close([torch.func.jacrev(attention)(*tensors)], [torch.func.jacrev(plain)(*tensors)])


def test_gradients_of_each_of_a_batch() -> None:
    q, k, v = detached()
    many = torch.randn(3, *q.shape)
    for dims in ((0, None, None), (0, 0, None)):
        keys = torch.randn(3, *k.shape) if dims[1] == 0 else k
        found, wanted = (
            torch.vmap(torch.func.grad(loss(f), argnums=(0, 1, 2)), in_dims=dims)(many, keys, v)
            for f in (attention, plain)
        )
        close(found, wanted)


def test_gradients_through_a_batch() -> None:
    q, k, v = detached()
    many = torch.randn(3, *q.shape)

    def total(f: Callable[..., Tensor]) -> Any:
        return torch.func.grad(lambda k: torch.vmap(f, in_dims=(0, None, None))(many, k, v).square().sum())(k)

    close([total(attention)], [total(plain)])


def test_gradients_of_gradients() -> None:
    q, k, v = detached(5)

    def second(f: Callable[..., Tensor]) -> Any:
        inner = torch.func.grad(lambda q: f(q, k, v).square().sum())
        return torch.func.grad(lambda q: inner(q).square().sum())(q)

    close([second(attention)], [second(plain)])


def test_hessians() -> None:
    q, k, v = detached(3)

    def hessian(f: Callable[..., Tensor]) -> Any:
        return torch.func.jacrev(torch.func.jacrev(lambda q: f(q, k, v).square().sum()))(q)

    close([hessian(attention)], [hessian(plain)])


def test_gradients_by_something_else() -> None:
    """A program of tensors that are not differentiated by is a constant."""
    tensors = detached()
    found = torch.func.grad(lambda x: (x * attention(*tensors)).sum())(torch.ones(8))
    close([found], [plain(*tensors).sum((0, 1, 2))])


def test_parameters_by_functional_call() -> None:
    layer = torch.nn.Linear(8, 8)
    parameters = dict(layer.named_parameters())
    q, k, v = detached()

    def f(g: Callable[..., Tensor]) -> Any:
        return torch.func.grad(lambda p: g(torch.func.functional_call(layer, p, (q,)), k, v).square().sum())(parameters)

    found, wanted = f(attention), f(plain)
    close([*found.values()], [*wanted.values()])
