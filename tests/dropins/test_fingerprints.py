"""A function like one of an earlier call is not traced again, and one that differs in anything is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import einc
from einc.dropins.fingerprints import fingerprint
from einc.dropins.tracing import Tracer

N = 8
FACTOR = 2.0
Q, K, V = torch.randn(3, 1, 2, N, 4)
TABLE = torch.randn(N)


class Settings:
    factor = 2.0


SETTINGS = Settings()


def by_global(s: Any, _b: Any, _h: Any, _q: Any, _k: Any) -> Any:
    return s * FACTOR


def by_closure(x: Any) -> Callable[..., Any]:
    return lambda s, b, h, q, k: s * x


def by_default(x: Any) -> Callable[..., Any]:
    def function(s: Any, _b: Any, _h: Any, _q: Any, _k: Any, by: Any = x) -> Any:
        return s * by

    return function


def by_keyword(x: Any) -> Callable[..., Any]:
    return functools.partial(lambda s, b, h, q, k, by: s * by, by=x)


def by_list(x: Any) -> Callable[..., Any]:
    held = [1.0, x]
    return lambda s, b, h, q, k: s * held[1]


def by_nesting(x: Any) -> Callable[..., Any]:
    inner = by_closure(x)
    return lambda s, b, h, q, k: inner(s, b, h, q, k) + 0.0


def by_table(x: Any) -> Callable[..., Any]:
    table = torch.full((N,), x)
    return lambda s, b, h, q, k: s * table[k]


def by_value(x: Any) -> Callable[..., Any]:
    """The trace itself depends on the tensor's value."""
    table = torch.full((N,), x)
    return lambda s, b, h, q, k: s * table.max().item()


def by_instance(x: Any) -> Callable[..., Any]:
    held = Settings()
    held.factor = x
    return lambda s, b, h, q, k: s * held.factor


def by_method(x: Any) -> Callable[..., Any]:
    class Module(torch.nn.Module):
        def forward(self, s: Any, *_: Any) -> Any:
            return s * x

    return Module()


MAKERS = (by_closure, by_default, by_keyword, by_list, by_nesting, by_table, by_value, by_instance, by_method)


def result(function: Callable[..., Any]) -> torch.Tensor:
    out: torch.Tensor = einc.flex_attention(Q, K, V, function)
    return out


@pytest.mark.parametrize("made", MAKERS, ids=lambda f: f.__name__)
def test_a_difference_is_seen(made: Callable[..., Any]) -> None:
    for factor in (2.0, 3.0, 2.0):
        expected = torch.nn.functional.scaled_dot_product_attention(Q, K, V, scale=factor * 0.5)
        torch.testing.assert_close(result(made(factor)), expected)


def test_a_global_that_changes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    first = result(by_global)
    monkeypatch.setattr(f"{__name__}.FACTOR", 3.0)
    torch.testing.assert_close(result(by_global), result(lambda s, b, h, q, k: s * 3.0))
    assert not torch.equal(first, result(by_global))


KNOWN = (by_closure, by_default, by_keyword, by_list, by_nesting, by_table)


@pytest.mark.parametrize("made", KNOWN, ids=lambda f: f.__name__)
def test_an_equal_function_is_not_called(made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = result(made(2.5))
    monkeypatch.setattr(Tracer, "__call__", None)
    assert torch.equal(result(made(2.5)), first)


@pytest.mark.parametrize("made", [by_instance, by_method], ids=lambda f: f.__name__)
def test_an_object_that_may_change_has_no_fingerprint(made: Callable[..., Any]) -> None:
    assert fingerprint(made(2.0)) is None


def test_one_tensor_twice_is_not_two() -> None:
    def made(x: torch.Tensor, y: torch.Tensor) -> Callable[..., Any]:
        return lambda s, b, h, q, k: s + x[q] * y[k]

    other = torch.randn(N)
    for x, y in ((TABLE, TABLE), (TABLE, other), (other, TABLE)):
        product = x[:, None] * y
        torch.testing.assert_close(result(made(x, y)), result(lambda s, b, h, q, k, t=product: s + t[q, k]))


def test_ranks_and_types_are_part_of_it() -> None:
    def key(table: torch.Tensor) -> Any:
        mark = fingerprint(lambda s, b, h, q, k: s + table[q - k])
        assert mark is not None
        return mark.key

    assert len({key(t) for t in (TABLE, torch.randn(2 * N), TABLE.double(), TABLE[None])}) == 3


def test_another_length_is_traced_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscript that may be negative at one length and not at another has two texts."""
    table = torch.randn(64)

    def run(n: int, shift: int) -> torch.Tensor:
        q, k, v = torch.ones(3, 1, 2, n, 4)
        out: torch.Tensor = einc.flex_attention(q, k, v, lambda s, b, h, i, j: s * table[i - j + shift])
        at = torch.arange(n)
        scores = q.sum(-1, keepdim=True) * 0.5 * table[at[:, None] - at + shift]
        torch.testing.assert_close(out, scores.softmax(-1) @ v)
        return out

    def ran(n: int) -> None:
        q, k, v = torch.randn(3, 1, 2, n, 4)
        einc.flex_attention(q, k, v, block_mask=lambda b, h, i, j: i - j < 5)

    for n in (4, 30, 4):
        run(n, 16)
    ran(8)
    monkeypatch.setattr(Tracer, "__call__", None)
    ran(9)
    for n in (4, 30):
        run(n, 16)


def test_the_shape_of_a_table_may_be_asked_for() -> None:
    def run(n: int) -> None:
        table = torch.arange(float(n))
        found = result(lambda s, b, h, q, k: s * 0 + table[k + table.shape[0] - N])
        expected = table[-N:].softmax(0) @ V
        torch.testing.assert_close(found, expected[:, :, None].expand_as(found))

    for n in (8, 12, 20):
        run(n)


def test_recursion_has_a_fingerprint() -> None:
    def power(s: Any, n: int) -> Any:
        return s if n == 0 else power(s, n - 1) * s

    mark = fingerprint(lambda s, b, h, q, k: power(s, 3))
    assert mark is not None
    torch.testing.assert_close(result(lambda s, b, h, q, k: power(s, 2)), result(lambda s, b, h, q, k: s * s * s))
