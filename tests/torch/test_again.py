"""Calls that were made before: they take the short way, and what differs in more than memory does not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import einc

Array = np.ndarray[Any, Any]

TEXT = """
def f(A[i, k], B[k, j], n: int, s: float = 2.0, on: bool = true):
    y[i, j] = sum[k](where(k < n and on, s * A[i, k] * B[k, j], 0))
    return y
"""


def wanted(a: Tensor, b: Tensor, n: int, s: float = 2.0, on: bool = True) -> Tensor:
    return s * (a[:, :n].double() @ b[:n].double()) * on


def test_a_second_call_takes_the_short_way(long_way: list[int]) -> None:
    f = einc.compile(TEXT)
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((a, b, 3), {}), ((a + 1, b, 3), {}), ((a, b), {"n": 3}), ((), {"B": b, "n": 3, "A": a})
    ]  # fmt: skip
    for args, named in calls:
        exact = wanted(args[0] if args else a, b, 3)
        torch.testing.assert_close(f(*args, **named).double(), exact, rtol=1e-5, atol=1e-5)
    assert len(long_way) == 1
    torch.testing.assert_close(f(a, b, 3, 0.5).double(), wanted(a, b, 3, 0.5), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(f(a, b, 3, s=-1.5).double(), wanted(a, b, 3, -1.5), rtol=1e-5, atol=1e-5)
    assert len(long_way) == 2
    f(a, b, 4)
    f(a[:, ::1], b.T.contiguous().T, 4)
    f(a.double(), b, 4)
    f(a, b, 4, on=False)
    assert len(long_way) == 6


def test_parameters_that_are_not_given_have_no_place_among_the_numbers() -> None:
    f = einc.compile("def f(x[i], s: float = 2.0, t: float = 1.0, u: float = 0.0):\n    return x[i] * s + t * u\n")
    x = torch.ones(2)
    for k in (3.0, 4.0, 5.0):
        assert f(x, u=k).tolist() == [2.0 + k] * 2
        assert f(x, t=k, u=k).tolist() == [2.0 + k * k] * 2
        assert f(x, k).tolist() == [k] * 2
        assert f(x).tolist() == [2.0] * 2


def layouts(rows: int, columns: int) -> st.SearchStrategy[Callable[[], Tensor]]:
    """Tensors of one shape in several layouts and types."""
    makes: list[Callable[[], Tensor]] = [
        lambda: torch.randn(rows, columns),
        lambda: torch.randn(columns, rows).T,
        lambda: torch.randn(rows, columns + 3)[:, 1 : columns + 1],
        lambda: torch.randn(2 * rows, columns)[::2],
        lambda: torch.randn(1, columns).expand(rows, columns),
        lambda: torch.randn(rows, columns, dtype=torch.float64),
        lambda: torch.nn.Parameter(torch.randn(rows, columns)),
        lambda: torch.randn(rows, columns, dtype=torch.complex64).conj().imag,
    ]
    return st.sampled_from(makes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_call_is_taken_for_another(data: st.DataObject) -> None:
    f = einc.compile(TEXT)
    for _ in range(6):
        rows = data.draw(st.integers(1, 3))
        a, b = data.draw(layouts(rows, 4))(), data.draw(layouts(4, 2))()
        n, s, on = (
            data.draw(st.sampled_from([1, 2, 4])),
            data.draw(st.sampled_from([1.0, -2.0])),
            data.draw(st.booleans()),
        )
        with torch.inference_mode(data.draw(st.booleans())):
            found = f(a, b, n, s, on)
        torch.testing.assert_close(found.detach().double(), wanted(a, b, n, s, on).detach(), rtol=1e-4, atol=1e-5)


def misaligned(a: Array) -> Array:
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    memory[:] = a.reshape(-1).view(np.uint8)
    return memory.view(a.dtype).reshape(a.shape)


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("arrange", "short"),
    [
        (lambda a: a, True),
        (lambda a: a.T.copy().T, True),
        (lambda a: np.repeat(a, 2, 0)[::2], True),
        (lambda a: a[::-1].copy()[::-1], False),
        (lambda a: a.astype(">f4"), False),
        (misaligned, False),
        (read_only, False),
        (lambda a: a.tolist(), False),
        (torch.from_numpy, False),
    ],
)
def test_arrays_of_numpy(arrange: Callable[[Array], Any], short: bool, long_way: list[int]) -> None:
    """`short` says which take the short way, beside another array; all of them come out right."""
    f = einc.compile("ij,jk->ik")
    for _ in range(3):
        a, b = np.random.randn(5, 6).astype("f4"), np.random.randn(6, 7).astype("f4")
        found = f(arrange(a), b)
        assert type(found) is (Tensor if arrange is torch.from_numpy else np.ndarray)
        np.testing.assert_allclose(found, a.astype("f8") @ b, rtol=1e-4, atol=1e-5)
    assert len(long_way) == (1 if short else 3)
    found[:] = 0
    assert f(a, b).any()


def test_arrays_of_numpy_for_results(long_way: list[int]) -> None:
    f = einc.compile("ij,jk->ik")
    memory = np.zeros((3, 6, 6), "f4")
    p, q, r = memory
    cases: list[tuple[Array, Array, Any, int]] = [
        (p, q, r, 1), (p, q, r, 0), (q, p, r, 0), (p, q, q, 1), (p, q, r[::-1], 1), (p, q, torch.from_numpy(r), 1),
        (p, q, (r,), 0),
    ]  # fmt: skip
    for a, b, out, calls in cases:
        before = len(long_way)
        memory[:] = np.random.randn(3, 6, 6)
        wanted = a.astype("f8") @ b
        assert f(a, b, out=out) is out
        np.testing.assert_allclose(out[0] if isinstance(out, tuple) else out, wanted, rtol=1e-4, atol=1e-5)
        assert len(long_way) - before == calls
    for _ in range(2):
        with pytest.raises(einc.CallError, match="read-only"):
            f(p, q, out=read_only(r))


def test_results_without_dims_are_numbers_of_numpy() -> None:
    f = einc.compile("def f(x[i]):\n    s[] = sum[i](x[i])\n    t[i] = 2 * x[i]\n    return s, t\n")
    for n in range(3):
        s, t = f(np.full(4, n, "f4"))
        assert (type(s), s, t.tolist()) == (np.float32, 4.0 * n, [2.0 * n] * 4)
        total = einc.einsum("i->", np.full(4, n, "f4"))
        assert (type(total), total) == (np.float32, 4.0 * n)


def test_einsums_of_numpy_and_of_torch_are_kept_apart() -> None:
    """Of the same string, torch sums the dimensions of an ellipsis that the result lacks; NumPy refuses."""
    a = np.random.randn(2, 3, 4)
    for _ in range(3):
        np.testing.assert_allclose(
            einc.einsum("...j,...j->j", torch.from_numpy(a), torch.from_numpy(a)), (a * a).sum((0, 1))
        )
        with pytest.raises(einc.Error):
            einc.einsum("...j,...j->j", a, a)
        out = np.empty((2, 3))
        assert einc.einsum("...j,...j", a, a, out=out) is out
        np.testing.assert_allclose(out, (a * a).sum(-1))
        with pytest.raises(einc.CallError, match="not a NumPy array"):
            einc.einsum("...j,...j", a, a, out=torch.from_numpy(out))


def test_errors_are_the_same_the_second_time() -> None:
    f = einc.compile(TEXT)
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    args: tuple[Any, ...]
    named: Any
    for _ in range(2):
        f(a, b, 3)
        for args, named in (
            ((a, b), {}), ((a, b, 3.0), {}), ((a, b, True), {}), ((a, b, 3, None), {}), ((a, b, 1 << 70), {}),
            ((a, b, 3, 1.0, True, 0), {}), ((a, b, 3), {"n": 3}), ((a, b, 3), {"m": 3}), ((a, b[:5], 3), {}),
            ((a, b.to_sparse(), 3), {}), ((a, None, 3), {}),
        ):  # fmt: skip
            with pytest.raises(einc.Error):
                f(*args, **named)


def test_results_are_fresh_memory() -> None:
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    first, second = einc.einsum("ij,jk->ik", a, b), einc.einsum("ij,jk->ik", a, b)
    assert torch.equal(first, second)
    first.zero_()
    assert not torch.equal(first, second)


def test_a_view_stays_a_view() -> None:
    for _ in range(3):
        a = torch.zeros(2, 3, requires_grad=True)
        turned = einc.einsum("ij->ji", a)
        turned.sum().backward()
        assert turned.data_ptr() == a.data_ptr()
        assert torch.equal(a.grad, torch.ones(2, 3)) if a.grad is not None else False


def test_a_string_that_is_called_in_many_ways() -> None:
    a, b = torch.randn(5, 6), torch.randn(6, 7)
    for _ in range(2):
        for x, y in ((a, b), (a.double(), b), (a.numpy(), b.numpy()), (a, b.numpy()), (torch.ones(5, 1), b)):
            found = einc.einsum("ij,jk->ik", x, y)
            plain = [t.double().numpy() if isinstance(t, Tensor) else t.astype(float) for t in (x, y)]
            exact = np.einsum("ij,jk->ik", np.broadcast_to(plain[0], (5, 6)), plain[1])
            assert type(found) is (np.ndarray if isinstance(x, np.ndarray) else Tensor)
            np.testing.assert_allclose(np.asarray(found), exact, rtol=1e-4, atol=1e-5)
        with pytest.raises(einc.Error):
            einc.einsum("ij,jk->ik", a)


def test_random_numbers_follow_the_seed() -> None:
    f = einc.compile("def f(x[i], seed: int):\n    y[i] = x[i] * rand(seed, i)\n    return y")
    x, seeds = torch.ones(9), (0, 1, 0, 7, 1, 2**40, -1, 2**40)
    found = [f(x, seed) for seed in seeds]
    for k, seed in enumerate(seeds):
        np.testing.assert_allclose(found[k], f(x.numpy(), seed, backend="evaluate"), rtol=1e-6)
    assert len({tuple(y.tolist()) for y in found}) == len(set(seeds))


def test_threads_that_meet_in_a_first_call_compile_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from einc import stages

    seen: list[int] = []
    real = stages.run_passes

    def counted(*args: Any, **named: Any) -> Any:
        seen.append(1)
        return real(*args, **named)

    monkeypatch.setattr(stages, "run_passes", counted)
    f = einc.compile("def threads(x[i, j], y[j]):\n    z[i] = x[i, j] * y[j] + 17\n    return z")
    x, y = torch.randn(40, 50), torch.randn(50)
    barrier, found = threading.Barrier(8), list[Tensor]()

    def work() -> None:
        barrier.wait()
        found.extend(f(x, y) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 160
    for z in found:
        torch.testing.assert_close(z, x @ y + 17)
    assert len(seen) == 1
