"""Contractions of tensors with one dimension a dim, as batched matrix products.

    out[b, r, c] = acc[b, r, c] + Σ[k] left[b, r, k] · right[b, k, c]

A dim that both sides vary over is b, one that only the left varies over r, one that only the right does c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from einc.types import DType

Shape = tuple[int, ...]
Scratch = Callable[[Sequence[int], torch.dtype], "Tensor | None"]

_EXACT = {"i8": 1024, "u8": 256}  # so many products sum to at most 2**24, up to which float32 is exact


@dataclass(frozen=True, slots=True)
class Recipe:
    """How two shapes contract: axes in the order of their matrices, the shapes of these, and the way back."""

    left: Shape
    right: Shape
    matrices: tuple[Shape, Shape]
    expanded: tuple[Shape, Shape]
    product: Shape  # the axes of the product of the matrices, each dim by itself
    back: Shape
    shape: Shape


@lru_cache(maxsize=4096)
def recipe(left: Shape, right: Shape, inner: Shape, sizes: Shape) -> Recipe:
    """The recipe for tensors of these shapes; `inner` are the dims summed over, of these sizes."""
    dims = [d for d in range(len(left)) if d not in inner]
    batch = [d for d in dims if left[d] > 1 and right[d] > 1]
    rows = [d for d in dims if left[d] > 1 and right[d] == 1]
    columns = [d for d in dims if left[d] == 1 and right[d] > 1]
    flat = [d for d in dims if left[d] == right[d] == 1]
    b, r, c = (prod(max(left[d], right[d]) for d in group) for group in (batch, rows, columns))
    product = (*batch, *rows, *columns, *flat, *inner)
    wide = [tuple(sizes[inner.index(d)] if d in inner else n for d, n in enumerate(s)) for s in (left, right)]
    ones = dict.fromkeys((*flat, *inner), 1)
    return Recipe(
        (*batch, *rows, *columns, *flat, *inner),
        (*batch, *rows, *flat, *inner, *columns),
        ((b, r, prod(sizes)), (b, prod(sizes), c)),
        (wide[0], wide[1]),
        tuple(ones.get(d, max(left[d], right[d])) for d in product),
        tuple(product.index(d) for d in range(len(left))),
        tuple(1 if d in inner else max(left[d], right[d]) for d in range(len(left))),
    )


def contract(
    left: Tensor, right: Tensor, inner: Shape, sizes: Shape, acc: Tensor | None, own: bool, scratch: Scratch
) -> Tensor:
    """The contraction of floats, added to `acc` if there is one, into its memory where that is owned.

    `scratch` gives memory for a product of a shape, or None.
    """
    plan = recipe(tuple(left.shape), tuple(right.shape), inner, sizes)
    x = left.expand(plan.expanded[0]).permute(plan.left).reshape(plan.matrices[0])
    y = right.expand(plan.expanded[1]).permute(plan.right).reshape(plan.matrices[1])
    shape = (*plan.matrices[0][:2], plan.matrices[1][2])
    if acc is not None and tuple(acc.shape) == plan.shape:
        into = acc.permute(plan.left).reshape(shape)
        if own and into.data_ptr() == acc.data_ptr():
            into.baddbmm_(x, y)
            return acc
        return torch.baddbmm(into, x, y).view(plan.product).permute(plan.back)
    found = torch.bmm(x, y, out=scratch(shape, x.dtype)).view(plan.product).permute(plan.back)
    return found if acc is None else acc + found


def contract_integers(left: Tensor, right: Tensor, inner: Shape, sizes: Shape, t: DType, wide: torch.dtype) -> Tensor:
    """The contraction of integers of type t in a wide type: of 8-bit ones by float32, in stretches that are exact."""
    plan = recipe(tuple(left.shape), tuple(right.shape), inner, sizes)
    x = left.expand(plan.expanded[0]).permute(plan.left).reshape(plan.matrices[0])
    y = right.expand(plan.expanded[1]).permute(plan.right).reshape(plan.matrices[1])
    stretch = _EXACT.get(t.name)
    if stretch is None:
        return torch.bmm(x.to(wide), y.to(wide)).view(plan.product).permute(plan.back)
    total = torch.zeros((), dtype=wide, device=x.device)
    for k in range(0, x.shape[2], stretch):
        part = torch.bmm(x[:, :, k : k + stretch].to(torch.float32), y[:, k : k + stretch].to(torch.float32))
        total = total + part.to(wide)
    return total.view(plan.product).permute(plan.back)
