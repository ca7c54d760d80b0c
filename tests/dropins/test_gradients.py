"""The gradients of attention as it is called in PyTorch are torch's, for all that is a float."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch._higher_order_ops.flex_attention import math_attention
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask
from torch.utils.checkpoint import checkpoint

import einc
from tests.dropins import mods
from tests.dropins.mods import CASES, B, H, N, causal
from tests.dropins.test_attention import CALLS, lower, qkv, truths
from tests.dropins.test_flex import SHAPES, exact, operands

Tensor = torch.Tensor
ours: Any = einc.scaled_dot_product_attention
torchs: Any = functional.scaled_dot_product_attention
flex: Any = einc.flex_attention
eager: Any = exact
narrow: Any = math_attention

_NEAR = {torch.float64: 1e-12, torch.float32: 1e-6}
_ROUNDING = 2.0**-23


def leaves(*tensors: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copies that ask for gradients."""
    return [t.detach().to(dtype or t.dtype, copy=True).requires_grad_() for t in tensors]


def gradients(results: Any, wanted: Sequence[Tensor], again: bool = False) -> list[Tensor]:
    """The gradients of a sum of results with fixed weights; `again` says that there will be others of them."""
    results = results if isinstance(results, tuple) else (results,)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    return list(torch.autograd.grad(results, wanted, weights, retain_graph=again))


def assert_as_exact(found: Sequence[Tensor], wanted: Sequence[Tensor], near: Sequence[Tensor] | None = None) -> None:
    """Asserts that gradients have the errors of some roundings, or of three times those of other ones in f32 at most.

    Errors count by their Euclidean length over that of the longest gradient, since some are 0 but for rounding.
    """
    size = max(float(w.norm()) for w in wanted)
    for k, (x, y) in enumerate(zip(found, wanted, strict=True)):
        assert x.shape == y.shape
        allowed = _NEAR[x.dtype] * size
        if near is not None:
            assert x.dtype == near[k].dtype
            allowed = max(3 * float((near[k] - y).norm()), _ROUNDING * size)
        assert float((x - y).norm()) <= allowed


# ---------------------------------------------------------------------------------------------------------------------
# scaled_dot_product_attention


def both(attend: Any, given: Sequence[Tensor], options: dict[str, Any], dtype: torch.dtype) -> list[Tensor]:
    """The gradients of operands, the last of which may be an additive mask, computed in a type."""
    copies = leaves(*given, dtype=dtype)
    named = options if len(copies) == 3 else options | {"attn_mask": copies[3]}
    with sdpa_kernel(SDPBackend.MATH):
        return gradients(attend(*copies[:3], **named), copies)


def differentiable(call: tuple[tuple[Tensor, ...], dict[str, Any]]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The call with an additive mask among the operands."""
    given, options = call
    mask = options.get("attn_mask")
    return (*given, mask) if mask is not None and mask.is_floating_point() else given, options


ALIKE = {"causal", "groups of one", "one batch of values", "truths for all", "truths expanded", "groups in one batch"}


@pytest.mark.turns(2)
@pytest.mark.parametrize("name", [name for name in CALLS if "drop" not in name and name not in ALIKE])
def test_attention(name: str) -> None:
    """In f32, with three times the error of torch at most."""
    given, options = differentiable(CALLS[name]())
    wanted, near = (both(torchs, given, options, t) for t in (torch.float64, torch.float32))
    assert_as_exact(both(ours, given, options, torch.float32), wanted, near)


@pytest.mark.parametrize("name", ["plain", "6-D", "two sizes of groups", "bias and groups", "truths of queries"])
def test_attention_in_f64(name: str) -> None:
    given, options = differentiable(CALLS[name]())
    assert_as_exact(both(ours, given, options, torch.float64), both(torchs, given, options, torch.float64))


def test_rows_that_see_nothing_have_no_gradient() -> None:
    mask = truths(mods.N, mods.N)
    mask[2] = False
    q, k, v = leaves(*operands())
    gradient, *others = gradients(ours(q, k, v, attn_mask=mask), (q, k, v))
    assert torch.equal(gradient[..., 2, :], torch.zeros_like(gradient[..., 2, :]))
    assert gradient[..., 3, :].abs().min() > 0
    assert all(g.isfinite().all() for g in others)


@pytest.mark.parametrize("needing", range(4))
def test_one_operand_alone(needing: int) -> None:
    given = [*qkv(), lower(9, 13)]
    alone = [leaves(t)[0] if k == needing else t for k, t in enumerate(given)]
    every = leaves(*given)
    found = gradients(ours(*alone), [alone[needing]])
    assert_as_exact(found, [gradients(ours(*every), every)[needing].double()])


def test_calls_with_and_without_gradients_alternate() -> None:
    given = qkv()
    plain = ours(*given)
    assert not plain.requires_grad
    asking = leaves(*given)
    first = gradients(ours(*asking), asking)
    with torch.no_grad():
        torch.testing.assert_close(ours(*asking), plain)
    assert not ours(*given).requires_grad
    torch.testing.assert_close(gradients(ours(*asking), asking), first)


def test_a_mask_that_repeats_its_elements() -> None:
    """Each has a gradient of its own if the mask itself asks for one, and they are summed if what it repeats does."""
    q, k, v = qkv()
    row = torch.randn(1, 13)
    for attend, dtype in ((ours, torch.float32), (torchs, torch.float64)):
        operands = [t.to(dtype) for t in (q, k, v)]
        whole = row.to(dtype).expand(9, 13).detach().requires_grad_()
        (one,) = leaves(row, dtype=dtype)
        found = gradients(attend(*operands, whole), [whole]) + gradients(attend(*operands, one.expand(9, 13)), [one])
        if attend is ours:
            mine = found
    assert_as_exact(mine, found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_types(dtype: torch.dtype) -> None:
    """Gradients have the types of the operands, an f32 mask's among narrower ones too."""
    given = [t.to(dtype) for t in qkv()]
    copies = leaves(*given, lower(9, 13))
    found = gradients(ours(*copies), copies)
    assert [g.dtype for g in found] == [dtype] * 3 + [torch.float32]
    wide = leaves(*copies, dtype=torch.float64)
    for x, y in zip(found, gradients(torchs(*wide), wide), strict=True):
        assert float((x - y).norm() / y.norm()) <= 2 * torch.finfo(dtype).eps


def test_autocast() -> None:
    copies = leaves(*qkv(), lower(9, 13))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(*copies)
    found = gradients(out.float(), copies)
    wanted = gradients(torchs(*copies), copies)
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == torch.float32
        assert float((x - y).norm() / y.norm()) <= 2 * torch.finfo(torch.bfloat16).eps


def test_dropout_is_the_same_backward() -> None:
    """Which weights are dropped is seen where the values are the identity."""
    n, p = 8, 0.4
    q, k, v = qkv()
    q, k, v = q[..., :n, :], k[..., :n, :], v[..., :n, :]
    torch.manual_seed(3)
    kept = ours(q, k, torch.eye(n).expand(2, 4, n, n), dropout_p=p) != 0
    copies = leaves(q, k, v)
    torch.manual_seed(3)
    found = gradients(ours(*copies, dropout_p=p), copies)

    def written_out(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) * kept / (1 - p) @ v

    wanted, near = (gradients(written_out(*c), c) for c in (leaves(q, k, v, dtype=torch.float64), leaves(q, k, v)))
    assert_as_exact(found, wanted, near)
    torch.manual_seed(3)
    again = checkpoint(lambda *c: ours(*c, dropout_p=p), *copies, use_reentrant=False)
    torch.testing.assert_close(gradients(again, copies), found)


def test_gradients_are_the_same_each_time() -> None:
    copies = leaves(*qkv((2, 8), (2, 2), (2, 2)), lower(9, 13))
    _, second, third = (gradients(ours(*copies, enable_gqa=True), copies) for _ in range(3))
    assert all(map(torch.equal, second, third))


def test_gradcheck() -> None:
    shapes = (1, 2, 3, 2), (1, 1, 4, 2), (1, 1, 4, 3), (2, 1, 4)
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(lambda *a: ours(*a, enable_gqa=True), given)


def test_gradients_of_gradients() -> None:
    found, given = [], [t[:1, :1, :4] for t in qkv()]
    for attend in (ours, torchs):
        copies = leaves(*given, dtype=torch.float64)
        with sdpa_kernel(SDPBackend.MATH):
            first = torch.autograd.grad(attend(*copies, is_causal=True).sin().sum(), copies, create_graph=True)
            found.append(gradients(tuple(first), copies))
    assert_as_exact(*found)


def test_functions_of_functions() -> None:
    given = qkv((3,), (3,), (3,))

    def loss(attend: Any) -> Any:
        return torch.func.grad(lambda *x: attend(*x, is_causal=True).sin().sum(), argnums=(0, 1, 2))

    wanted = loss(torchs)(*(t.double() for t in given))
    assert_as_exact(loss(ours)(*given), wanted)
    assert_as_exact(torch.func.vmap(loss(ours))(*given), wanted)


def test_compiled_by_torch() -> None:
    """For any lengths at once, with a mask that is expanded on the way."""
    copies = leaves(*qkv(), lower(9, 13))

    def attend(function: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Any:
        return function(q * 2, k, v, mask.expand(2, 4, 9, 13), scale=0.3)

    f = torch.compile(lambda *c: attend(ours, *c), fullgraph=True, dynamic=True, backend="aot_eager")
    wide = leaves(*copies, dtype=torch.float64)
    assert_as_exact(gradients(f(*copies), copies), gradients(attend(torchs, *wide), wide))


# ---------------------------------------------------------------------------------------------------------------------
# flex_attention

_TABLES = [name for name, t in vars(mods).items() if isinstance(t, Tensor) and t.is_floating_point()]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Tensor]]:
    """What the functions capture, in f64 and asking for gradients; torch makes floats of positions in f64 too."""
    found = {name: leaves(getattr(mods, name), dtype=torch.float64)[0] for name in _TABLES}
    found["GATE"] = leaves(found["GATE"].abs())[0]  # of which the root is taken
    for name, table in found.items():
        monkeypatch.setattr(mods, name, table)
    torch.set_default_dtype(torch.float64)
    yield found
    torch.set_default_dtype(torch.float32)


CAPTURING: dict[str, list[str]] = {
    "plain": [],
    "alibi": [],
    "alibi table": ["SLOPES"],
    "softcap": [],
    "head offset": ["SLOPES"],
    "trigonometric": [],
    "document": [],
    "natten": [],
    "paged": [],
    "bias by all": ["BY_ALL"],
    "bias chained": ["BY_ALL", "BY_BATCH"],
    "bias wrapped": ["RELATIVE"],
    "bias distance": ["GATE"],
    "bias permuted": ["GATE", "SCALE"],
    "bias by block": ["BLOCKS"],
    "bias half": ["HALF"],
    "gate": ["GATE"],
    "latent": ["ROPE_Q", "ROPE_K"],
}

INDEXED_AT_ONCE: dict[str, Callable[..., Any]] = {  # torch differentiates no reads of rows
    "bias chained": lambda s, b, h, q, k: s + mods.BY_ALL[b, h, q, k] + mods.BY_BATCH[b * 0, q, k],
    "latent": lambda s, b, h, q, k: s + 0.3 * _latent(b, h, q, k),
}


def _latent(b: Any, h: Any, q: Any, k: Any) -> Any:
    return sum((mods.ROPE_Q[b, h, q, c] * mods.ROPE_K[b, k, c] for c in torch.arange(8)), torch.tensor(0.0))


@pytest.mark.turns(2)
@pytest.mark.parametrize("name", CAPTURING)
def test_flex(name: str, tables: dict[str, Tensor]) -> None:
    """In f64, with the statistic."""
    case, captured = CASES[name], [tables[n] for n in CAPTURING[name]]
    copies = leaves(*operands(), dtype=torch.float64)
    found = gradients(flex(*copies, case.score, case.mask, return_lse=True), [*copies, *captured])
    torchs_own = eager(*copies, INDEXED_AT_ONCE.get(name, case.score), case.mask)
    assert_as_exact(found, gradients(torchs_own[:2], [*copies, *captured]))


@pytest.mark.parametrize("name", ["bias permuted", "bias wrapped", "latent"])
def test_the_kernels_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the kernels, interpreted."""
    monkeypatch.setattr("einc.runtime.execution.ON_CPU", "interpret")
    monkeypatch.setattr("einc.runtime.derivative.ON_CPU", "interpret")
    monkeypatch.setattr("einc.runtime.again.Calls.__call__", lambda *_: None)  # what an earlier call has left
    tables = {n: leaves(getattr(mods, n))[0] for n in CAPTURING[name]}
    for n, table in tables.items():
        monkeypatch.setattr(mods, n, table)
    given = [*leaves(*operands()), *tables.values()]
    found = gradients(flex(*given[:3], CASES[name].score, CASES[name].mask), given)
    wanted = gradients(eager(*given[:3], INDEXED_AT_ONCE.get(name, CASES[name].score), CASES[name].mask)[0], given)
    assert_as_exact(found, [w.double() for w in wanted])


@pytest.mark.parametrize("name", ["more keys", "groups", "one batch of keys", "one batch of groups", "transposed"])
def test_flex_shapes(name: str) -> None:
    """In f64; the mask and a table make it attention of its own."""
    table = torch.randn(H)

    def score(s: Any, _b: Any, h: Any, q: Any, k: Any) -> Any:
        return s + slopes[h] * (k - q)

    *copies, slopes = given = leaves(*SHAPES[name](), table, dtype=torch.float64)
    found = gradients(flex(*copies, score, causal, scale=0.3, enable_gqa=True), given)
    assert_as_exact(found, gradients(eager(*copies, score, causal, 0.3)[0], given))


@pytest.mark.parametrize("name", ["alibi", "softcap", "window", "bias by all"])
def test_flex_in_f32(name: str) -> None:
    """With three times the error of torch's eager implementation at most."""
    case, given = CASES[name], operands()
    mask: Any = (*(None,) * 5, case.mask)
    score = case.score or (lambda s, b, h, q, k: s)
    copies, wide = leaves(*given), leaves(*given, dtype=torch.float64)
    near = gradients(narrow(*copies, score, mask, 0.25, {})[0], copies)
    wanted = gradients(narrow(*wide, score, mask, 0.25, {})[0], wide)
    assert_as_exact(gradients(flex(*copies, case.score, case.mask), copies), wanted, near)


def test_a_module_that_is_trained() -> None:
    module = mods.Bias()
    copies = leaves(*operands())
    found = gradients(flex(*copies, module), [module.table])
    assert_as_exact(found, [g.double() for g in gradients(eager(*copies, module)[0].float(), [module.table])])


def test_captured_tensors_with_and_without_gradients() -> None:
    """One function, one trace: each call has the gradients that its own tensors ask for."""
    q, k, v = operands()

    def attend(tables: list[Tensor]) -> Tensor:
        out: Tensor = flex(q, k, v, lambda s, b, h, i, j: s * tables[0][h] + tables[1])
        return out

    held = [torch.randn(H), torch.tensor(0.5)]
    assert not attend(held).requires_grad
    asking = [leaves(held[0])[0], held[1]]
    first = gradients(attend(asking), asking[:1])
    assert not attend(held).requires_grad
    both = leaves(*held)
    assert_as_exact(gradients(attend(both), both)[:1], [g.double() for g in first])


def test_what_is_detached_has_no_gradient() -> None:
    table = torch.randn(H, N)

    def score(s: Any, _b: Any, h: Any, q: Any, k: Any) -> Any:
        return s * torch.sigmoid(s).detach() + bias[h, q].detach() * bias[h, k]

    *copies, bias = given = leaves(*operands(), table, dtype=torch.float64)
    wanted = gradients(eager(*copies, score)[0], given)
    for _ in range(2):  # traced, and found again
        assert_as_exact(gradients(flex(*copies, score), given), wanted)


def test_conditions_and_integers_have_no_gradient() -> None:
    (limit,), (table,) = leaves(torch.tensor(3.5)), leaves(torch.randn(N))
    index = torch.randint(0, N, (N,))
    copies = leaves(*operands())
    out = flex(*copies, lambda s, b, h, i, j: s + table[index[j]], lambda b, h, i, j: i - j < limit)
    found = torch.autograd.grad(out.sum(), (*copies, table, limit), allow_unused=True)
    assert all(g is not None for g in found[:4])
    assert found[4] is None or float(found[4]) == 0


def test_results_beside_the_values() -> None:
    """The statistic has gradients, which count where a row sees nothing too; the greatest scores have none."""
    mask = create_block_mask(lambda b, h, q, k: q > k + 4, None, None, N, N, device="cpu")
    copies = leaves(*operands(), dtype=torch.float64)
    out, aux = flex(*copies, block_mask=mask, return_aux=AuxRequest(lse=True, max_scores=True))
    assert not aux.max_scores.requires_grad
    wanted = eager(*copies, mask=mask.mask_mod)
    assert_as_exact(gradients(aux.lse, copies[:2], again=True), gradients(wanted[1], copies[:2], again=True))
    assert_as_exact(gradients((out, aux.lse), copies), gradients(wanted[:2], copies))


def test_flex_gradcheck() -> None:
    shapes = (1, 2, 3, 2), (1, 1, 4, 2), (1, 1, 4, 3), (2, 6), ()
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, factor: Tensor) -> Any:
        return flex(
            q, k, v, lambda s, b, h, i, j: factor * s + table[h, i - j + 3], causal, enable_gqa=True, return_lse=True
        )

    assert torch.autograd.gradcheck(attend, given)


def test_flex_in_a_function_of_functions() -> None:
    given = [t[0] for t in operands()] + [torch.randn(H, 2 * N)]

    def loss(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        q, k, v = q[None], k[None], v[None]
        out: Tensor = flex(q, k, v, lambda s, b, h, i, j: s + table[h, i - j + N])
        return out.sin().sum()

    copies = leaves(*given)
    wanted = torch.autograd.grad(loss(*copies), copies)
    assert_as_exact(torch.func.grad(loss, argnums=(0, 1, 2, 3))(*given), [g.double() for g in wanted])


assert B == 2
