"""On a GPU: random programs, contractions in every type, and kernels whose loads are shared, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

import einc
from einc.evaluate import evaluate
from tests.support.compiled import agree, execute, magnitude, precision, tensors
from tests.support.random_programs import Case, cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

FLOATS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def near(found: torch.Tensor, wanted: torch.Tensor, ulp: float, terms: int) -> None:
    """Within the rounding of a sum of that many terms in sequence, relative to the largest result, and of its store."""
    error = (found.double() - wanted).abs().max().item()
    assert error <= 4 * ulp * terms**0.5 * wanted.abs().max().item()


@pytest.mark.parametrize("level", [0, 2])
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_random_programs(level: int, case: Case) -> None:
    program = case.program
    wanted = evaluate(program, case.operands, case.scalars)
    found = execute(program, [t.cuda() for t in tensors(case)], case.scalars, level)
    for name, got, value in zip(program.results, found, wanted, strict=True):
        agree(got.cpu(), value, precision(program, name), magnitude(value))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("i", "j", "k"), [(1, 1, 1), (37, 129, 65), (128, 256, 512), (5, 1000, 33)])
def test_matrix_products(dtype: torch.dtype, i: int, j: int, k: int) -> None:
    a, b = torch.randn(i, k, dtype=dtype, device="cuda"), torch.randn(k, j, dtype=dtype, device="cuda")
    near(einc.einsum("ik,kj->ij", a, b), a.double() @ b.double(), FLOATS[dtype], k)
    near(einc.einsum("ki,kj->ji", a.T, b), (a.double() @ b.double()).T, FLOATS[dtype], k)


def lying(shape: tuple[int, ...], order: tuple[int, ...], pad: int, skip: int) -> torch.Tensor:
    """Random numbers whose dimensions lie in this order, rows `pad` elements longer, after `skip` others."""
    sizes = [shape[k] for k in order]
    sizes[-1] += pad
    memory = torch.randn(skip + torch.Size(sizes).numel(), dtype=torch.bfloat16, device="cuda")[skip:].reshape(sizes)
    return memory[..., : shape[order[-1]]].permute([order.index(k) for k in range(len(order))])


@pytest.mark.parametrize(("pad", "skip"), [(0, 0), (8, 0), (1, 1)])
@pytest.mark.parametrize(("m", "n", "k"), [(300, 520, 264), (17, 523, 1001)])
@pytest.mark.parametrize("text", ["mk,kn->mn", "mk,nk->nm", "km,kn->mn", "km,nk->nm"])
def test_products_of_every_layout(text: str, m: int, n: int, k: int, pad: int, skip: int) -> None:
    size = {"m": m, "n": n, "k": k}
    a, b = (torch.Size(size[x] for x in part) for part in text.partition("->")[0].split(","))
    for order in ((0, 1), (1, 0)):
        x, y = lying(a, order, pad, skip), lying(b, order, pad, skip)
        wanted = torch.einsum(text, x.double(), y.double())
        for _ in range(2):  # the second call launches what the first one found
            near(einc.einsum(text, x, y), wanted, FLOATS[torch.bfloat16], 1)


@pytest.mark.parametrize("b", [2, 3, 16])
@pytest.mark.parametrize("text", ["mkb,nkb->mnb", "kbm,bnk->mnb", "mbk,kbn->nmb", "bmk,knb->mbn", "bkm,bkn->bmn"])
def test_batches_on_any_axis(text: str, b: int) -> None:
    size = {"m": 200, "n": 136, "k": 520, "b": b}
    x, y = (
        torch.randn([size[c] for c in part], dtype=torch.bfloat16, device="cuda")
        for part in text.partition("->")[0].split(",")
    )
    wanted = torch.einsum(text, x.double(), y.double())
    for _ in range(2):
        near(einc.einsum(text, x, y), wanted, FLOATS[torch.bfloat16], 1)
    out = torch.empty(wanted.shape, dtype=torch.bfloat16, device="cuda")
    near(einc.einsum(text, x, y, out=out), wanted, FLOATS[torch.bfloat16], 1)


def test_several_axes_as_one() -> None:
    x = torch.randn(2, 300, 4, 64, dtype=torch.bfloat16, device="cuda")
    w = torch.randn(4, 64, 520, dtype=torch.bfloat16, device="cuda")
    wanted = torch.einsum("bnhd,hde->bne", x.double(), w.double())
    near(einc.einsum("bnhd,hde->bne", x, w), wanted, FLOATS[torch.bfloat16], 1)
    apart = x.transpose(1, 2).contiguous().transpose(1, 2)
    near(einc.einsum("bnhd,hde->bne", apart, w), wanted, FLOATS[torch.bfloat16], 1)


def test_integers_are_exact() -> None:
    a = torch.randint(-99, 99, (65, 70), dtype=torch.int8, device="cuda")
    assert torch.equal(einc.einsum("ik,jk->ij", a, a), (a.double() @ a.double().T).to(torch.int64).to(torch.int8))
    wide = a.to(torch.int64)
    assert torch.equal(einc.einsum("ik,jk->ij", wide, wide), (a.double() @ a.double().T).to(torch.int64))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_attention(level: int, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, n, 3, 64, dtype=dtype, device="cuda") for n in (200, 333, 333))
    attend = einc.compile('softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"', level=level)
    score = torch.einsum("bihd,bjhd->bhij", q.double(), k.double()) / 8
    wanted = torch.einsum("bhij,bjhd->bihd", score.softmax(-1), v.double())
    near(attend(q, k, v), wanted, FLOATS[dtype], 64)


def test_a_load_shared_with_a_dot_is_not_overwritten() -> None:
    """A ring of buffers sized for the sum of squares alone is a race with the dot: seen as changing errors."""
    normalised = einc.compile("def f(x[i, j], w[j, e]):\n    y[i, e]: bf16 = rmsnorm[j](x) * w[j, e]\n    return y\n")
    x = torch.randn(1024, 4096, dtype=torch.bfloat16, device="cuda")
    w = torch.randn(4096, 1024, dtype=torch.bfloat16, device="cuda")
    wanted = torch.nn.functional.rms_norm(x.double(), (4096,)) @ w.double()
    for _ in range(5):
        near(normalised(x, w), wanted, FLOATS[torch.bfloat16], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n", "v", "d"), [(1000, 5000, 2048), (130, 40000, 1032), (4096, 3001, 4096)])
def test_walks_within_walks(dtype: torch.dtype, n: int, v: int, d: int) -> None:
    """Logits that are never stored: their logarithmic sum, the one of a target, the largest."""
    text = """def f(X[n, d], W[v, d], target[n]: i64):
    Z[n, v] = X[n, d] * W[v, d]
    L[n]: f32 = logsumexp[v](Z) - Z[n, target[n]]
    M[n]: f32 = max[v](Z)
    return L, M
"""
    x, w = (torch.randn(k, d, dtype=torch.float64, device="cuda").to(dtype) / 8 for k in (n, v))
    target = torch.randint(0, v, (n,), device="cuda")
    f = einc.compile(text)
    schedule = f.compiled(x, w, target).state.schedule
    assert schedule is not None
    assert not any({"n", "v"} <= {a for dim in b.dims for a in dim} for k in schedule.kernels for b in k.buffers)
    z = x.double() @ w.double().T
    wanted = z.logsumexp(1) - z.gather(1, target[:, None])[:, 0], z.max(1).values
    for found, value in zip(f(x, w, target), wanted, strict=True):
        near(found, value, 2.0**-23, d)  # products of narrow types are exact in f32


def test_lengths_do_not_recompile() -> None:
    """A program emitted once serves every length: nothing in the source or its tiles depends on it beyond its class."""
    attend = einc.compile('softmax("bihd,bjhd->bhij") * "bjhd->bihd"')
    sources = set()
    for n in (130, 190, 250):
        q, k, v = (torch.randn(1, n, 2, 64, device="cuda") for _ in range(3))
        sources.add(attend.source(q, k, v))
        score = torch.einsum("bihd,bjhd->bhij", q.double(), k.double())
        wanted = torch.einsum("bhij,bjhd->bihd", score.softmax(-1), v.double())
        near(attend(q, k, v), wanted, FLOATS[torch.float32], n)
    assert len(sources) == 1
