"""Programs and einsums where torch looks on: as nodes of graphs, on tensors without memory, over batches."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.utils.data import DataLoader, Dataset

import einc
from einc.base.errors import CallError
from tests.support.places import ROOT

TEXT = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e], window: int = 1000, scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    T[b, h, i, j] = where(i - j < window, S, -inf)
    O[b, h, i, e] = softmax[j](T) * V[b, h, j, e]
    L[b, h, i] = logsumexp[j](T)
    return O, L
"""
ATTENTION = einc.compile(TEXT)
SHIFT = einc.compile("def f(x[i], shift: int):\n    axis k = |i| + shift\n    return sum[i](where(k >= i, x[i], 0))")


def operands(n: int = 33, m: int = 33, e: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 3, n, 16), torch.randn(2, 3, m, 16), torch.randn(2, 3, m, e)


def exact(*tensors: Tensor, **scalars: Any) -> list[Tensor]:
    found = ATTENTION(*(t.double().numpy() for t in tensors), backend="evaluate", **scalars)
    return [torch.from_numpy(x) for x in found]


def close(found: Any, wanted: Any) -> None:
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-5)


class Model(torch.nn.Module):
    """A module that calls a program, and has a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ATTENTION
        self.weight = torch.nn.Parameter(torch.ones(16))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found: tuple[Tensor, Tensor] = self.attention(q * self.weight, k, v, window=5)
        return found[0]


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """The number of graphs that torch.compile has made in this test."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


# ---------------------------------------------------------------------------------------------------------------------
# torch.compile and torch.export


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_node_of_one_graph(graphs: Callable[[], int], dynamic: bool) -> None:
    seen: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    def f(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        return [x * 2 for x in ATTENTION(q, k, v, window=5, scale=0.3)]

    tensors = operands()
    found = torch.compile(f, fullgraph=True, dynamic=dynamic, backend=backend)(*tensors)
    close([x / 2 for x in found], exact(*tensors, window=5, scale=0.3))
    calls = [n for n in seen[0].graph.nodes if n.target is torch.ops.einc.call]
    assert (graphs(), len(calls)) == (1, 1)


def test_no_compilation_for_another_length(graphs: Callable[[], int]) -> None:
    f = torch.compile(lambda *t: ATTENTION(*t, window=5)[0] + 1, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, m in ((33, 44), (40, 33), (57, 80), (64, 16)):
        tensors = operands(n, m)
        close([f(*tensors) - 1], exact(*tensors, window=5)[:1])
    assert graphs() == 1


def test_inductor(graphs: Callable[[], int]) -> None:
    tensors = operands()
    close([torch.compile(lambda *t: ATTENTION(*t)[0], fullgraph=True)(*tensors)], exact(*tensors)[:1])
    assert graphs() == 1


def test_einsum_is_traced(graphs: Callable[[], int]) -> None:
    cases: list[tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = [
        (lambda a, b: einc.einsum("ij,jk->ik", a, b), (5, 6), (6, 7)),
        (lambda a, b: einc.einsum("...j,jk->...k", a, b), (4, 5, 6), (6, 7)),
        (lambda a, b: einc.einsum(a, b, "b (g r) d, b d -> b g r", g=2), (3, 6, 4), (3, 4)),
        (lambda a, b: einc.einsum(a, [0, 1], b, [1, 2], [0, 2]), (5, 6), (6, 7)),
    ]
    for f, left, right in cases:
        a, b = torch.randn(left), torch.randn(right)
        found = torch.compile(f, fullgraph=True, dynamic=True, backend="aot_eager")(a, b)
        torch.testing.assert_close(found, f(a, b))
    assert graphs() == len(cases)


def test_extents_that_formulas_give(graphs: Callable[[], int]) -> None:
    f = torch.compile(lambda x: SHIFT(x, shift=2) * 1, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (5, 9):
        x = torch.randn(n)
        torch.testing.assert_close(f(x), torch.cat([x.cumsum(0), x.sum()[None].expand(2)]))
    assert graphs() == 1


def test_out_is_written_in_a_graph(graphs: Callable[[], int]) -> None:
    tensors, into = operands(), (torch.empty(2, 3, 33, 16), torch.empty(2, 3, 33))

    def f(q: Tensor, k: Tensor, v: Tensor, o: Tensor, rows: Tensor) -> Any:
        return ATTENTION(q, k, v, out=(o, rows))

    torch.compile(f, fullgraph=True, backend="aot_eager")(*tensors, *into)
    close(into, exact(*tensors))
    assert graphs() == 1


def test_an_exported_graph_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    tensors, file = operands(), tmp_path / "model.pt2"
    n, m = Dim("n"), Dim("m")
    exported = torch.export.export(Model(), tensors, dynamic_shapes=({2: n}, {2: m}, {2: m}))
    other = operands(40, 50)
    close([exported.module()(*other)], exact(*other, window=5)[:1])
    torch.export.save(exported, file)
    torch.save(other, tmp_path / "operands.pt")
    script = (
        "import einc.operators, torch, sys; folder = sys.argv[1]\n"
        "model = torch.export.load(folder + '/model.pt2').module()\n"
        "torch.save(model(*torch.load(folder + '/operands.pt')), folder + '/result.pt')"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=ROOT)
    close([torch.load(tmp_path / "result.pt")], exact(*other, window=5)[:1])


def test_integers_are_symbols_of_a_graph(graphs: Callable[[], int]) -> None:
    f = torch.compile(lambda n, *t: ATTENTION(*t, window=n)[0] + 1, fullgraph=True, dynamic=True, backend="aot_eager")
    tensors = operands()
    for n in (5, 7, 20):
        close([f(n, *tensors) - 1], exact(*tensors, window=n)[:1])
    assert graphs() == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_of_the_older_kind_keeps_the_call() -> None:
    tensors = operands()
    with torch.no_grad():
        traced = torch.jit.trace(Model(), tensors)  # type: ignore[no-untyped-call]
    other = operands()
    close([traced(*other)], exact(*other, window=5)[:1])


def test_wrong_arguments_of_a_traced_call(graphs: Callable[[], int]) -> None:
    q, k, v = operands()
    for args, named in (((q, k), {}), ((q, k, v), {"windw": 3}), ((q, k, v), {"V": v})):
        with pytest.raises(Exception, match=r"operand or scalar 'windw'|operand 'V' is missing|'V' is given twice"):
            torch.compile(ATTENTION, fullgraph=True, backend="aot_eager")(*args, **named)
    assert graphs() == 0


@pytest.mark.parametrize("around", [lambda f: f, torch.compile], ids=["called", "traced"])
def test_a_scalar_that_asks_for_a_gradient_is_refused(around: Any) -> None:
    f, tensors = around(ATTENTION), operands()
    scale = torch.tensor(0.3, requires_grad=True)
    with pytest.raises(CallError, match=r"'scale' has no gradient.*(\n.*)*scale\[\]"):
        f(*tensors, scale=scale)
    with torch.no_grad():
        close([f(*tensors, scale=scale)[0]], exact(*tensors, scale=0.3)[:1])


# ---------------------------------------------------------------------------------------------------------------------
# Shapes alone, batches, transformations


def test_shapes_and_types_without_memory() -> None:
    tensors = [t.bfloat16() for t in operands(33, 44, 8)]
    wanted = [(tuple(x.shape), x.dtype) for x in ATTENTION(*tensors)]
    on_meta = ATTENTION(*(t.to("meta") for t in tensors))
    assert [(tuple(x.shape), x.dtype) for x in on_meta] == wanted
    with FakeTensorMode() as mode:
        fake = ATTENTION(*map(mode.from_tensor, tensors))
        product = einc.einsum("ij,jk->ik", torch.empty(5, 6), torch.empty(6, 7))
    assert [(tuple(x.shape), x.dtype) for x in fake] == wanted
    assert {x.device.type for x in (*fake, product)} == {"cpu"}
    assert product.shape == (5, 7)


def test_a_batch_is_one_more_axis() -> None:
    q, k, v = operands()
    many = torch.randn(4, *q.shape)
    found = torch.vmap(lambda q: ATTENTION(q, k, v, window=5))(many)
    close(found, [torch.stack(x) for x in zip(*(exact(q, k, v, window=5) for q in many), strict=True)])


def test_nested_batches_along_any_dimension() -> None:
    q, keys, v = torch.randn(4, 2, 3, 33, 16), torch.randn(2, 3, 5, 33, 16), operands()[2]

    def one(q: Tensor, k: Tensor) -> Any:
        return ATTENTION(q, k, v, window=5)[0]

    found = torch.vmap(torch.vmap(one, in_dims=(0, None)), in_dims=(None, 2), out_dims=1)(q, keys)
    wanted = [torch.stack([exact(x, keys[:, :, n], v, window=5)[0] for n in range(5)]) for x in q]
    close([found], [torch.stack(wanted)])


def test_a_batch_of_scalars_of_an_einsum() -> None:
    a, b = torch.randn(3, 5, 6), torch.randn(6, 3)
    found = torch.vmap(lambda a, b: einc.einsum("ij,j->i", a, b), in_dims=(0, 1))(a, b)
    torch.testing.assert_close(found, torch.einsum("nij,jn->ni", a, b))


def test_what_does_not_depend_on_the_batch_has_none() -> None:
    f = einc.compile("def f(x[i], y[j]):\n    s[] = sum[i](x[i])\n    t[] = sum[j](y[j])\n    return s, t")
    x, y = torch.randn(4, 7), torch.randn(5)
    s, t = torch.vmap(lambda x: f(x, y), out_dims=(0, None))(x)  # type: ignore[arg-type]  # as torch documents
    torch.testing.assert_close(s, x.sum(1))
    torch.testing.assert_close(t, y.sum())


def test_functionalized_and_called_with_other_parameters() -> None:
    tensors, model = operands(), Model()
    found = torch.func.functionalize(lambda *t: ATTENTION(*t)[0])(*tensors)
    close([found], exact(*tensors)[:1])
    scaled = torch.func.functional_call(model, {"weight": torch.full((16,), 2.0)}, tensors)
    close([scaled.detach()], exact(2 * tensors[0], *tensors[1:], window=5)[:1])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast_lowers_the_sides_of_products_as_it_does_those_of_einsum(kind: torch.dtype) -> None:
    a, b = torch.randn(16, 16), torch.randn(16, 16)
    rows = einc.compile("def f(x[i, j]):\n    y = softmax[j](x)\n    return y")
    bias = einc.compile("def f(A[i, k], B[k, j], c[j]: f32):\n    y[i, j] = A[i, k] * B[k, j] + c[j]\n    return y")
    with torch.autocast("cpu", dtype=kind):
        found, wanted = einc.einsum("ij,jk->ik", a, b), torch.einsum("ij,jk->ik", a, b)
        assert (einc.einsum("ij->i", a).dtype, rows(a).dtype) == (torch.float32, torch.float32)
        assert bias(a, b, a[0]).dtype == torch.float32
        assert einc.einsum("ij,jk->ik", a.double(), b.double()).dtype == torch.float64
        traced = torch.compile(lambda a, b: einc.einsum("ij,jk->ik", a, b), fullgraph=True, backend="aot_eager")(a, b)
    assert found.dtype == wanted.dtype == traced.dtype == kind
    assert torch.equal(found, einc.einsum("ij,jk->ik", a.to(kind), b.to(kind)))
    assert torch.equal(traced, found)


def test_the_gradient_is_given_when_it_is_asked_for() -> None:
    tensors, model = operands(), Model()

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        far = torch.arange(33)[:, None] - torch.arange(33) >= 5
        return ((q @ k.mT) / 4).masked_fill(far, -torch.inf).softmax(-1) @ v

    (wanted,) = torch.autograd.grad(plain(tensors[0] * model.weight, *tensors[1:]).sum(), model.weight)
    for f in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        found = f(*tensors)
        close([found.detach()], exact(*tensors, window=5)[:1])
        torch.testing.assert_close(torch.autograd.grad(found.sum(), model.weight)[0], wanted, rtol=1e-4, atol=1e-4)
    q = torch.func.grad(lambda q: ATTENTION(q, *tensors[1:], window=5)[0].sum())(tensors[0])
    torch.testing.assert_close(
        q, torch.func.grad(lambda q: plain(q, *tensors[1:]).sum())(tensors[0]), rtol=1e-4, atol=1e-5
    )
    assert torch.func.grad(lambda x: (x * ATTENTION(*tensors)[0]).sum())(torch.ones(16)).shape == (16,)


# ---------------------------------------------------------------------------------------------------------------------
# Copies, processes


def test_a_program_is_copied_and_pickled_by_its_text() -> None:
    options: dict[str, Any] = {"level": 1, "name": "mine", "target": "sm_90", "verify": False, "generator": "gluon"}
    chosen = einc.compile(TEXT, **options, choices={"L.BI": 32, "warps": 8})
    back = pickle.loads(pickle.dumps(chosen))
    shapes = [t.to("meta") for t in operands()]
    assert (str(back), back.source(*shapes)) == (str(chosen), chosen.source(*shapes))
    assert back.options == chosen.options
    assert copy.deepcopy(chosen) is copy.copy(chosen) is chosen
    model = pickle.loads(pickle.dumps(Model()))
    close([model(*(tensors := operands())).detach()], exact(*tensors, window=5)[:1])


class Rows(Dataset[Tensor]):
    """Rows that are normalised by a program, wherever they are fetched."""

    def __init__(self) -> None:
        self.softmax = einc.compile("def f(x[i]):\n    y = softmax[i](x)\n    return y")
        self.softmax(torch.ones(3))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, n: int) -> Tensor:
        found: Tensor = self.softmax(torch.arange(3.0) + n)
        return found


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start: str) -> None:
    loader = DataLoader(Rows(), batch_size=2, num_workers=2, multiprocessing_context=start)
    for batch in loader:
        torch.testing.assert_close(batch, torch.arange(3.0).softmax(0).expand(2, 3))
