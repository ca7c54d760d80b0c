"""Arrays of other libraries: taken and given by DLPack, on the same memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import einc

TEXT = """
def f(A[i, j], B[j, k], s: float = 2.0):
    C[i, k] = s * A[i, j] * B[j, k]
    D[i] = sum[j](A)
    return C, D
"""


class Foreign:
    """An array as the array API standard describes it, and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(from_dlpack=lambda x: Foreign(np.from_dlpack(x)))


class Broken(Foreign):
    """An array that cannot be passed on."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("it is on another planet")


def arrays() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(3, 4)).astype("f4"), draw.normal(size=(4, 5)).astype("f4")


def test_arrays_of_another_library_give_its_arrays() -> None:
    a, b = arrays()
    for operands in ((Foreign(a), Foreign(b)), (Foreign(a), b), (a, Foreign(b))):
        c, d = einc.compile(TEXT)(*operands, s=3.0)
        assert (type(c), type(d)) == (Foreign, Foreign)
        np.testing.assert_allclose(c.array, 3 * a @ b, rtol=1e-5)
        np.testing.assert_allclose(d.array, a.sum(1), rtol=1e-5)
        product = einc.einsum("ij,jk->ik", *operands)
        np.testing.assert_allclose(product.array, a @ b, rtol=1e-5)
    named = einc.compile(TEXT)(B=Foreign(b), A=Foreign(a))
    np.testing.assert_allclose(named[0].array, 2 * a @ b, rtol=1e-5)
    merged = einc.einsum(Foreign(a), "i (g j) -> g (i j)", g=2)
    np.testing.assert_array_equal(merged.array, a.reshape(3, 2, 2).transpose(1, 0, 2).reshape(2, 6))


def test_results_are_written_to_its_memory() -> None:
    a, b = arrays()
    into = Foreign(np.zeros((3, 5), np.float32)), Foreign(np.zeros(3, np.float32))
    assert einc.compile(TEXT)(Foreign(a), Foreign(b), out=into) is into
    np.testing.assert_allclose(into[0].array, 2 * a @ b, rtol=1e-5)
    assert einc.einsum("ij,jk->ik", Foreign(a), Foreign(b), out=into[0]) is into[0]
    np.testing.assert_allclose(into[0].array, a @ b, rtol=1e-5)


def test_a_view_shares_its_memory() -> None:
    a, _ = arrays()
    turned = einc.einsum("ij->ji", Foreign(a))
    a[0, 1] = 7
    assert turned.array[1, 0] == 7


def test_an_array_that_cannot_be_passed_on() -> None:
    a, b = arrays()
    with pytest.raises(einc.CallError, match="another planet"):
        einc.einsum("ij,jk->ik", Broken(a), b)


def test_beside_torch_tensors() -> None:
    a, b = arrays()
    found = einc.einsum("ij,jk->ik", torch.from_numpy(a), Foreign(b))
    assert type(found) is Foreign
    np.testing.assert_allclose(found.array, a @ b, rtol=1e-5)
