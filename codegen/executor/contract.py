"""Contractions of tensors that have one dimension for each dim, as batched matrix products.

    out[b, r, c] = acc[b, r, c] + Σ[k] left[b, r, k] · right[b, k, c]

A dim that both sides vary over belongs to b, one of the left side only to r, one of the right side only to c. Sides
become matrices without a copy where their strides allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from einc.base.types import BF16X3, TF32, DType
from einc.codegen.executor.ops import sums_finitely

Shape = tuple[int, ...]
Strided = tuple[Shape, Shape]  # a shape and its strides
Scratch = Callable[[Sequence[int], torch.dtype], "Tensor | None"]

_MANTISSA = 13  # bits of a mantissa that tf32 has not
_EXACT = {"i8": 1024, "u8": 256}  # products of this type whose sum is at most 2**24, up to which float32 is exact


@dataclass(frozen=True, slots=True)
class Recipe:
    """How two tensors contract: the groups of dims that make up the matrices of each, outermost first; the shape of the
    product of the matrices; the shape of the result, and its strides in that product."""

    left: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]
    product: Shape
    shape: Shape
    strides: Shape


@lru_cache(maxsize=4096)
def recipe(left: Shape, right: Shape, inner: Shape) -> Recipe:
    """The recipe for tensors of these shapes; `inner` are the dims summed over."""
    dims = [d for d in range(len(left)) if d not in inner]
    batch = tuple(d for d in dims if left[d] != 1 and right[d] != 1)
    rows = tuple(d for d in dims if left[d] != 1 and right[d] == 1)
    columns = tuple(d for d in dims if left[d] == 1 and right[d] != 1)
    sizes = tuple(1 if d in inner else right[d] if left[d] == 1 else left[d] for d in range(len(left)))
    strides = [1] * len(left)
    step = 1
    for d in reversed((*batch, *rows, *columns)):
        strides[d] = step
        step *= sizes[d]
    groups = [prod(sizes[d] for d in group) for group in (batch, rows, columns)]
    return Recipe((batch, rows, inner), (batch, inner, columns), tuple(groups), sizes, tuple(strides))


@lru_cache(maxsize=4096)
def collapsed(shape: Shape, strides: Shape, groups: tuple[Shape, ...], sizes: Shape) -> Strided | None:
    """The tensor as a batch of matrices, each group of dims one dimension; None where no strides express that.

    A dim of size 1 that is summed over is repeated to its size in `sizes`.
    """
    found: list[tuple[int, int]] = []
    for group in groups:
        count, step = 1, 0
        for d in reversed(group):
            n, s = (sizes[d], 0) if shape[d] == 1 else (shape[d], strides[d])
            if n == 1:
                continue
            if count > 1 and s != step * count:
                return None
            count, step = n * count, s if count == 1 else step
        found.append((count, step))
    (b, _), (m, _), (n, _) = found
    natural = (m * n, n, 1)  # the strides to give a dimension of size 1
    return (b, m, n), tuple(s if count > 1 else t for (count, s), t in zip(found, natural, strict=True))


@lru_cache(maxsize=4096)
def layout(left: Strided, right: Strided, inner: Shape, sizes: Shape) -> tuple[Recipe, Strided | None, Strided | None]:
    """The recipe for tensors of these shapes and strides, and each as matrices, if strides express that."""
    plan = recipe(left[0], right[0], inner)
    return plan, collapsed(*left, plan.left, sizes), collapsed(*right, plan.right, sizes)


def _matrices(x: Tensor, y: Tensor, inner: Shape, sizes: Shape) -> tuple[Recipe, Tensor, Tensor]:
    """The recipe for two tensors, and the two as matrices."""
    plan, left, right = layout((x.shape, x.stride()), (y.shape, y.stride()), inner, sizes)
    rows = _copied(x, plan.left, sizes) if left is None else x.as_strided(*left)
    columns = _copied(y, plan.right, sizes) if right is None else y.as_strided(*right)
    return plan, rows, columns


def _matrix(x: Tensor, groups: tuple[Shape, ...], sizes: Shape) -> Tensor:
    shape = tuple(x.shape)
    view = collapsed(shape, x.stride(), groups, sizes)
    return _copied(x, groups, sizes) if view is None else x.as_strided(*view)


def _copied(x: Tensor, groups: tuple[Shape, ...], sizes: Shape) -> Tensor:
    """The tensor as a batch of matrices, copied into the order of their elements."""
    wide = [sizes[d] if n == 1 else n for d, n in enumerate(x.shape)]
    order = [d for group in groups for d in group]
    rest = [d for d in range(x.ndim) if d not in order]
    matrices = [prod(wide[d] for d in group) for group in groups]
    return x.expand(wide).permute(order + rest).reshape(matrices)


def contract(
    left: Tensor,
    right: Tensor,
    inner: Shape,
    sizes: Shape,
    acc: Tensor | None,
    own: bool,
    scratch: Scratch,
    scale: float = 1.0,
) -> Tensor:
    """The contraction of floats times a number, or added to `acc` if given, in its memory where that is owned.

    `sizes` holds the sizes of the dims summed over and 1 for the others; `scratch` gives memory for a shape, or None.
    """
    plan, x, y = _matrices(left, right, inner, sizes)
    if acc is None or acc.shape != plan.shape:
        found = _product(x, y, scratch(plan.product, x.dtype), scale).as_strided(plan.shape, plan.strides)
        return found if acc is None else acc + found
    if own and _lies(acc, plan):
        acc.as_strided(plan.product, _dense(plan.product)).baddbmm_(x, y)
        return acc
    groups = (plan.left[0], plan.left[1], plan.right[2])
    return torch.baddbmm(_matrix(acc, groups, (1,) * acc.ndim), x, y).as_strided(plan.shape, plan.strides)


def _lies(acc: Tensor, plan: Recipe) -> bool:
    """Does it have the layout in memory that the product of the matrices would have?"""
    steps = acc.stride()
    return steps == plan.strides or all(
        a == b for a, b, n in zip(steps, plan.strides, plan.shape, strict=True) if n > 1
    )


def _product(x: Tensor, y: Tensor, into: Tensor | None, scale: float) -> Tensor:
    """The products of matrices times a number, written to given memory, whatever it holds."""
    if scale == 1:
        return torch.bmm(x, y, out=into)
    records = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if scale == 0 or records:  # 0 times a value that is not finite is not 0
        return torch.bmm(x, y) * scale
    into = x.new_empty((*x.shape[:2], y.shape[2])) if into is None else into
    return torch.baddbmm(into, x, y, beta=0, alpha=scale, out=into)


def _dense(shape: Shape) -> Shape:
    return shape[1] * shape[2], shape[2], 1


def precisely(left: Tensor, right: Tensor, inner: Shape, sizes: Shape, product: DType) -> tuple[Tensor, Tensor, Shape]:
    """Sides of f32 as a precision has them multiplied, and the sizes of the dims summed over then: where a number is
    two, high and low, what is summed is high · high + high · low + low · high, the latter two of finite ones."""
    if product == TF32:
        return _cut(left), _cut(right), sizes
    along = inner[0]
    wide = [n if d == along else -1 for d, n in enumerate(sizes)]
    (high, low), (other, rest) = (parts(x.expand(wide), product) for x in (left, right))
    own, its = (torch.where(torch.isfinite(x), x, 0) for x in (high, other))
    sides = torch.cat((high, own, low), along), torch.cat((other, rest, its), along)
    return *sides, tuple(3 * n if d == along else n for d, n in enumerate(sizes))


def parts(x: Tensor, product: DType) -> tuple[Tensor, Tensor]:
    """Numbers of f32 as sums of two of the type whose products take the place of theirs."""
    high = _rounded(x, product)
    low = x - high
    return high, _rounded(torch.where(torch.isfinite(low), low, 0), product)


def _rounded(x: Tensor, product: DType) -> Tensor:
    if product == BF16X3:
        return x.to(torch.bfloat16).to(x.dtype)
    found = _cut(x, 1 << _MANTISSA - 1)
    return torch.where(torch.isfinite(x), found, x)


def _cut(x: Tensor, more: int = 0) -> Tensor:
    """Numbers without the bits of their mantissa that tf32 has not, after so much was added to these."""
    return ((x.view(torch.int32) + more) & -(1 << _MANTISSA)).view(torch.float32)


def excluded(counts: Tensor, other: Tensor) -> bool:
    """Does the other side of a contraction have infinities or NaN, and this one positions that do not count?"""
    if other.is_cpu and sums_finitely(other):
        return False
    return not bool(torch.isfinite(other).all()) and not bool(counts.all())


def uncounted(side: Tensor, other: Tensor, counts: Tensor, inner: Shape, sizes: Shape) -> tuple[Tensor, Tensor]:
    """A side of a contraction with its infinities and NaN set to 0, and the sum of their products where the other side
    `counts`; no other products of them take part."""
    wild = ~torch.isfinite(side)
    tensors = [x.expand([n if d in inner else x.shape[d] for d, n in enumerate(sizes)]) for x in (side, other)]
    inside = (wild & counts).expand([sizes[d] if d in inner else -1 for d in range(counts.ndim)])
    total = torch.zeros((), dtype=side.dtype)
    for place in product(*(range(sizes[d]) for d in inner)):
        at = [slice(None)] * side.ndim
        for d, k in zip(inner, place, strict=True):
            at[d] = slice(k, k + 1)
        if bool(inside[tuple(at)].any()):
            x, y = (t[tuple(at)] for t in tensors)
            total = total + torch.where(inside[tuple(at)], x * y, 0)
    return side.masked_fill(wild, 0), total


def contract_integers(left: Tensor, right: Tensor, inner: Shape, sizes: Shape, t: DType, wide: torch.dtype) -> Tensor:
    """The contraction of integers of type t in a wide type; 8-bit ones in float32, in stretches that are exact."""
    plan, x, y = _matrices(left, right, inner, sizes)
    stretch = _EXACT.get(t.name)
    if stretch is None:
        return torch.bmm(x.to(wide), y.to(wide)).as_strided(plan.shape, plan.strides)
    total = torch.zeros(plan.product, dtype=wide, device=x.device)
    for k in range(0, x.shape[2], stretch):
        total += torch.bmm(x[:, :, k : k + stretch].float(), y[:, k : k + stretch].float()).to(wide)
    return total.as_strided(plan.shape, plan.strides)
