"""Sums of products of arrays, by matrix products of two at a time.

out[o...] = Σ f1[...] · f2[...] · ...        all factors over the same dimensions, 1 where they do not depend on one
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from einc.evaluate.elementwise import Array

Axes = tuple[int, ...]


def sum_of_products(factors: Sequence[Array], outputs: int) -> Array:
    """The product of factors of equal rank, summed over all dimensions but the first `outputs`.

    A dimension that no factor extends along stays 1; the caller accounts for its extent.
    """
    rank = factors[0].ndim
    terms = []
    for f in factors:
        axes = tuple(k for k in range(rank) if f.shape[k] > 1)
        terms.append((f.reshape([f.shape[k] for k in axes]), axes))
    for first, second in _order(terms, outputs):
        chosen = [terms.pop(k) for k in sorted((first, second), reverse=True)]
        needed = {k for _, axes in terms for k in axes} | set(range(outputs))
        terms.append(_pair(chosen[0], chosen[1], needed))
    total, axes = _summed(*terms[0], set(range(outputs)))
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [1] * outputs
    for k in axes:
        shape[k] = total.shape[axes.index(k)]
    return total.transpose(order).reshape(shape)


def _order(terms: Sequence[tuple[Array, Axes]], outputs: int) -> list[tuple[int, int]]:
    """Which two to contract in each step, by place in the list of terms left, to which each result is appended."""
    if len(terms) < 3:
        return [(0, 1)] * (len(terms) - 1)
    from opt_einsum import contract_path, get_symbol

    def letters(axes: Sequence[int]) -> str:
        return "".join(get_symbol(k) for k in axes)

    present = {k for _, axes in terms for k in axes}
    left = ",".join(letters(axes) for _, axes in terms)
    text = f"{left}->{letters([k for k in range(outputs) if k in present])}"
    path, _ = contract_path(text, *(x.shape for x, _ in terms), shapes=True, optimize="greedy")
    return [(step[0], step[1]) for step in path]


def _summed(x: Array, axes: Axes, needed: set[int]) -> tuple[Array, Axes]:
    """The array summed over the dimensions that nothing else needs."""
    gone = tuple(n for n, k in enumerate(axes) if k not in needed)
    return (x.sum(axis=gone, dtype=x.dtype) if gone else x), tuple(k for k in axes if k in needed)


def _pair(a: tuple[Array, Axes], b: tuple[Array, Axes], needed: set[int]) -> tuple[Array, Axes]:
    """The product of two arrays, summed over the dimensions that only they need."""
    (x, on_x), (y, on_y) = _summed(*a, needed | set(b[1])), _summed(*b, needed | set(a[1]))
    both = [k for k in on_x if k in on_y]
    batch, inner = [k for k in both if k in needed], [k for k in both if k not in needed]
    rows, columns = [k for k in on_x if k not in on_y], [k for k in on_y if k not in on_x]
    sizes = dict(zip((*on_x, *on_y), (*x.shape, *y.shape), strict=True))

    def count(axes: list[int]) -> int:
        return math.prod(sizes[k] for k in axes)

    x = x.transpose([on_x.index(k) for k in (*batch, *rows, *inner)])
    y = y.transpose([on_y.index(k) for k in (*batch, *inner, *columns)])
    x, y = x.reshape(count(batch), count(rows), count(inner)), y.reshape(count(batch), count(inner), count(columns))
    if not inner:
        product = x * y
    elif batch and not (rows and columns):
        product = np.einsum("bri,bic->brc", x, y)
    else:
        product = np.matmul(x, y)
    axes = (*batch, *rows, *columns)
    return product.reshape([sizes[k] for k in axes]), axes
