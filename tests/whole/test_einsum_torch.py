"""PyTorch's documented einsums and its own tests of einsum, as cases, with torch tensors in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import einc

pytestmark = pytest.mark.usefixtures("on_cpu")

einsum = einc.einsum

_SHAPES = {
    "x": (5,), "y": (7,), "A": (3, 5), "B": (2, 5), "C": (2, 3, 5), "D": (2, 5, 7), "E": (7, 9), "F": (2, 3, 3, 5),
    "G": (5, 4, 6), "H": (4, 4), "I": (2, 3, 2),
}  # fmt: skip


def tensors(names: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in _SHAPES.items()}
    return [made[name] for name in names]


def random(*shape: int) -> Tensor:
    """In double precision, as what is compared differs by the order of its sums alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def agree(*args: Any) -> None:
    got, wanted = einsum(*args), torch.einsum(*args)
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("i->", "x"), ("i,i->", "xx"), ("i,i->i", "xx"), ("i,j->ij", "xy"), ("ij->ji", "A"), ("ij->j", "A"),
        ("ij->i", "A"), ("ij,ij->ij", "AA"), ("ij,j->i", "Ax"), ("ij,kj->ik", "AB"), ("ij,ab->ijab", "AE"),
        ("Aij,Ajk->Aik", "CD"), ("ijk,jk->i", "CA"), ("aij,jk->aik", "DE"), ("abCd,dFg->abCFg", "FG"),
        ("ijk,jk->ik", "CA"), ("ijk,jk->ij", "CA"), ("ijk,ik->j", "CB"), ("ijk,ik->jk", "CB"),
        ("ii", "H"), ("ii->i", "H"), ("iji->j", "I"), ("i...->...", "H"), ("...ik, ...j -> ...ij", "Cx"),
        ("...,be,b...,beg,gi,bc...->bi...", "ABCDEF"),
    ],
)  # fmt: skip
def test_cases(text: str, names: str) -> None:
    agree(text, *tensors(names))


def test_cases_on_views() -> None:
    a, b, c = tensors("ABC")
    agree("ki,...k->i...", a.t(), b)
    agree("k...,jk->...", a.t(), b)
    agree("Bik,k...j->i...j", c, random(5, 3))
    agree("i...j, ij... -> ...ij", c, random(2, 5, 2, 3))
    agree("ngrg...->nrg...", random(2, 1, 3, 1, 4))
    left, weight, right = random(5, 10), random(15, 10, 20), random(5, 20)
    agree("bn,anm,bm->ba", left, weight, right)
    agree("bn,Anm,bm->bA", left[:, ::2], weight[:, ::2, ::2], right[:, ::2])


def test_documented() -> None:
    first, second = random(3, 2, 5), random(3, 5, 4)
    agree("bij,bjk->bik", first, second)
    agree(first, [..., 0, 1], second, [..., 1, 2], [..., 0, 2])
    assert einsum("...ij->...ji", torch.randn(2, 3, 4, 5)).shape == (2, 3, 5, 4)


@pytest.mark.parametrize(
    ("text", "values", "wanted"),
    [
        (" ", [1.0], 1.0), (" -> ", [1.0], 1.0), (" , ", [2.0, 2.0], 4.0), (" , , ", [2.0, 2.0, 2.0], 8.0),
        (" , -> ", [2.0, 2.0], 4.0), (" i ", [[1.0]], [1.0]), (" i -> ", [[1.0]], 1.0), (" i -> i ", [[1.0]], [1.0]),
        (" i , i ", [[2.0], [2.0]], 4.0), (" i , i -> i ", [[2.0], [2.0]], [4.0]),
        ("i", [[]], []), (" i j -> j", [[[], []]], []), ("ij->i", [[[], []]], [0.0, 0.0]),
        ("i,j", [[2.0], [1.0, 2.0]], [[2.0, 4.0]]),
        ("i,ij->ij", [[1.0, 2.0], [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]], [[1.0, 2.0, 3.0], [4.0, 6.0, 8.0]]),
        ("...", [1.0], 1.0), ("...->", [1.0], 1.0), ("...->...", [1.0], 1.0), ("...", [[1.0]], [1.0]),
        ("...->", [[1.0]], 1.0), ("z...->z", [[1.0]], [1.0]), ("Z...->...Z", [[1.0]], [1.0]),
        ("...a->", [[[2.0], [4.0]]], 6.0), ("a...b->ab", [[[[1.0], [2.0]], [[3.0], [4.0]]]], [[3.0], [7.0]]),
    ],
)  # fmt: skip
def test_corner_cases(text: str, values: list[Any], wanted: Any) -> None:
    torch.testing.assert_close(einsum(text, *(torch.tensor(v) for v in values)), torch.tensor(wanted))


def test_empty_contraction() -> None:
    assert einsum(" i j k  ,  k  -> i j ", torch.ones(3, 0, 6), torch.ones(6)).shape == (3, 0)


def test_operands_in_a_list() -> None:
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    torch.testing.assert_close(einsum("ij,jk", [a, b]), a @ b)
    torch.testing.assert_close(einsum("ij->i", (a,)), a.sum(1))


@pytest.mark.parametrize(
    "args",
    [
        ("", []), (". ..", torch.ones(2)), ("... ...", torch.ones(2)), ("1", torch.ones(2)), (",", torch.ones(2)),
        ("", torch.ones(2), torch.ones(2)), ("", torch.ones(2)), ("ai", torch.ones(2)), ("ai...", torch.ones(2)),
        ("a->... .", torch.ones(2)), ("a->..", torch.ones(2)), ("a->1", torch.ones(2)), ("a->aa", torch.ones(2)),
        ("a->i", torch.ones(2)), ("aa", torch.ones(2, 3)), ("...,...", torch.ones(2), torch.ones(2, 3)),
        ("a,a", torch.ones(2), torch.ones(3)), ("a, ba", torch.ones(2), torch.ones(2, 3)),
        (torch.ones(2), [-1]), (torch.ones(2), [52]), (torch.ones(2),), (),
    ],
    ids=range(22),
)  # fmt: skip
def test_refused(args: tuple[Any, ...]) -> None:
    with pytest.raises(einc.Error):
        einsum(*args)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats(dtype: torch.dtype) -> None:
    a, b = torch.randn(33, 70, dtype=torch.float64).to(dtype), torch.randn(70, 5, dtype=torch.float64).to(dtype)
    got, exact = einsum("ij,jk", a, b), a.double() @ b.double()
    assert got.dtype == dtype
    ours, theirs = (got.double() - exact).abs().max(), ((a @ b).double() - exact).abs().max()
    assert ours <= theirs * 1.05


def test_other_types() -> None:
    a = torch.randint(-5, 5, (3, 4), dtype=torch.int32)
    assert torch.equal(einsum("ij,kj", a, a), a @ a.T)
    assert torch.equal(einsum("ij->i", a.bool()), a.bool().any(1))
    c = torch.randn(3, 4, dtype=torch.complex64)
    torch.testing.assert_close(einsum("ij,kj", c, c.conj()), c @ c.conj().T)
    assert einsum("ij,jk", a, a.T.to(torch.bfloat16)).dtype == torch.bfloat16


def test_numbers_beside_tensors_have_no_type() -> None:
    assert einsum(",i", 2, torch.ones(3)).dtype == torch.float32
    assert einsum(",i", 2.5, torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert einsum(",i", 2, torch.ones(3, dtype=torch.int8)).dtype == torch.int8
    assert einsum(",i", 300, torch.ones(3, dtype=torch.int8)).dtype == torch.int64


def test_arrays_beside_tensors() -> None:
    a, b = torch.randn(2, 3, dtype=torch.float64), np.ones((3, 4))
    got = einsum("ij,jk", a, b)
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got, a @ torch.from_numpy(b))


def test_views() -> None:
    a = torch.randn(3, 3)
    for text in ("ij->ji", "ii->i", "...", "a b -> (a b)", "a b -> a 1 b"):
        view = einsum(text, a)
        assert view.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
    einsum("ii->i", a).zero_()
    assert a.trace() == 0


def test_output_given() -> None:
    a, b = torch.randn(2, 3), torch.randn(3, 2)
    out = torch.empty(2, 2)
    assert einsum("ij,jk", a, b, out=out) is out
    torch.testing.assert_close(out, a @ b)
    square = torch.randn(3, 3)
    wanted = square.T.clone()
    torch.testing.assert_close(einsum("ij->ji", square, out=square), wanted)
    with pytest.raises(TypeError):
        einsum("ij,jk", a, b, out=np.empty((2, 2), "f4"))
    with pytest.raises(ValueError, match="shape"):
        einsum("ij,jk", a, b, out=torch.empty(2, 3))


class Unreadable:
    def __array__(self, *_: object, **__: object) -> None:
        raise RuntimeError


@pytest.mark.parametrize("value", [None, {}, object(), Unreadable(), b"i", [[1, 2], [3]], 10**40, np.array(["a"])])
@pytest.mark.parametrize("beside", [torch.ones(2), np.ones(2), 1])
def test_what_is_no_operand(value: object, beside: object) -> None:
    for args in (("...,...", value, beside), (beside, [...], value, [...]), (value, beside), (beside, value)):
        with pytest.raises(einc.Error):
            einsum(*args)


def test_tensors_that_no_kernel_reads() -> None:
    value = torch.ones(2, 2).to_sparse()
    for args in (("...", value), ("...,...", value, 2), ("...,...", value, torch.ones(2))):
        with pytest.raises(TypeError):
            einsum(*args)


EINSUMS = [
    ("ij->ji", 1), ("ij->i", 1), ("ij->", 1), ("ii->i", 1), ("ii->", 1), ("ij,jk->ik", 2), ("ij,ij->ij", 2),
    ("ij,j...->...i", 2), ("ij,kj,k->ik", 3), ("ij,jk,kl->il", 3), ("...i,i...->...", 2), ("ij,kl->ijkl", 2),
]  # fmt: skip


@pytest.mark.parametrize(("text", "count"), EINSUMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16])
def test_gradients(text: str, count: int, dtype: torch.dtype) -> None:
    shapes = [(3,) * len(side.replace("...", ".")) for side in text.split("->")[0].split(",")]
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    assert len(tensors) == count
    found, wanted = einsum(text, *tensors), torch.einsum(text, *tensors)
    weight = torch.randn_like(wanted)
    for x, y in zip(
        torch.autograd.grad(found, tensors, weight), torch.autograd.grad(wanted, tensors, weight), strict=True
    ):
        assert x.dtype == y.dtype
        if dtype == torch.bfloat16:
            torch.testing.assert_close(x, y, rtol=2e-2, atol=2e-2)
        else:
            torch.testing.assert_close(x, y)


def test_gradients_of_einops_strings() -> None:
    a, b = torch.randn(2, 6, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    found = einc.einsum(a, b, "b (g r) d, b g d -> b r g", r=2)
    wanted = torch.einsum("bgrd,bgd->brg", a.reshape(2, 3, 2, 4), b)
    weight = torch.randn_like(wanted)
    for x, y in zip(
        torch.autograd.grad(found, (a, b), weight), torch.autograd.grad(wanted, (a, b), weight), strict=True
    ):
        torch.testing.assert_close(x, y)


def test_out_that_requires_gradients_is_refused() -> None:
    a = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(einc.Error, match="written"):
        einsum("ij->ij", torch.ones(2, 3), out=a)
