"""Contractions and reductions of nodes along a tile axis, as functions of a box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from einc.base.types import DType
from einc.codegen.executor.contract import contract, contract_integers, excluded, precisely, uncounted
from einc.codegen.executor.elementwise import as_tensor, computed, ranked
from einc.codegen.executor.folds import first_along, fold, scan
from einc.codegen.executor.frames import Compute, Frame, Node, Result
from einc.codegen.executor.ops import HELD, common_shape, literal
from einc.ein import Monoid

Dims = tuple[int, ...]
Components = Callable[[Frame], list[Result]]


def contracted(
    left: Node,
    right: Node,
    acc: Node,
    counted: tuple[Node | None, ...],
    inner: Dims,
    zero: Tensor | bool | None,
    factor: Node | None,
    product: DType | None,
) -> Compute:
    """The contraction over the inner dims, times a factor, added to the value that it starts from, which may be `zero`.

    `counted` gives, for each side, where it counts; `product` is what sides of f32 multiply in, if not exactly.
    """
    t, wide = left.dtype, HELD[acc.dtype.name]
    known = 1.0 if factor is None else factor.fixed
    scale = None if known is None else float(known)

    def run(frame: Frame) -> Result:
        sizes = tuple([frame.size(d) if d in inner else 1 for d in range(frame.rank)])
        start, owned = acc.compute(frame)
        (x, mine), (y, yours) = left.compute(frame), right.compute(frame)
        x, y = ranked(as_tensor(x, frame), frame), ranked(as_tensor(y, frame), frame)
        into = None if start is zero else cast(Tensor, start)
        if t.is_float:
            times = scale if scale is not None else float(computed(cast(Node, factor), frame))
            x, y, beside = _apart(x, y, counted, inner, sizes, frame)
            if product is not None:
                x, y, sizes = precisely(x, y, inner, sizes, product)
            found = contract(x, y, inner, sizes, into, owned, frame.scratch, times)
            for apart in beside:
                found = found + apart * times
        else:
            found = contract_integers(x, y, inner, sizes, t, wide)
            found = found if into is None else found + into
        frame.recycle(x, mine)
        frame.recycle(y, yours)
        return found, frame.reuse

    return run


def _apart(
    x: Tensor, y: Tensor, counted: tuple[Node | None, ...], inner: Dims, sizes: Dims, frame: Frame
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Both sides without infinities and NaN that may meet uncounted positions, and the products that are left out."""
    left_in, right_in = counted
    beside: list[Tensor] = []
    if left_in is not None and excluded(counts := ranked(computed(left_in, frame), frame), y):
        y, apart = uncounted(y, x, counts, inner, sizes)
        beside.append(apart)
    if right_in is not None and excluded(counts := ranked(computed(right_in, frame), frame), x):
        x, apart = uncounted(x, y, counts, inner, sizes)
        beside.append(apart)
    return x, y, beside


def reduced(monoid: Monoid, args: list[Node], dims: Dims, device: torch.device) -> Components:
    """The components of a reduction over some dims, and whether the receiver owns them."""
    types = tuple(a.dtype for a in args)
    last = args[-1].affine if len(args) == 2 and len(dims) == 1 else None
    ranked_by = last is not None and dict(last.coefs).get(dims[0], 0) > 0
    reduce = (first_along(monoid, types) if ranked_by else None) or fold(monoid, types)
    over = frozenset(dims)
    units = [
        torch.full((), literal(u, a.dtype), dtype=HELD[a.dtype.name], device=device)
        for u, a in zip(monoid.identity, args, strict=True)
    ]

    def run(frame: Frame) -> list[Result]:
        sizes = [frame.size(d) for d in dims]
        if not all(sizes):
            return [(u, False) for u in units]
        given = [a.compute(frame) for a in args]
        if all(n == 1 for n in sizes):
            return given
        if len(given) == 1:
            whole, owned = given[0]
            found = reduce([_spread(as_tensor(whole, frame), frame, over)], dims)
            if owned:
                frame.recycle(whole, owned)
            return [(found[0], frame.reuse)]
        found = reduce(_alike([_spread(as_tensor(x, frame), frame, over) for x, _ in given]), dims)
        for x, owned in given:
            frame.recycle(x, owned)
        return [(x, frame.reuse) for x in found]

    return run


def scanned(monoid: Monoid, args: list[Node], dims: Dims, reverse: bool) -> Components:
    """The components of the prefixes along some dims, all owned by the receiver."""
    over = frozenset(dims)
    prefixes = scan(monoid, tuple(a.dtype for a in args), reverse)

    def run(frame: Frame) -> list[Result]:
        parts = _alike([_spread(as_tensor(a.compute(frame)[0], frame), frame, over) for a in args])
        return [(x, frame.reuse) for x in prefixes(parts, dims)]

    return run


def _alike(parts: list[Tensor]) -> Sequence[Tensor]:
    """The components, expanded to one shape."""
    if len(parts) == 1:
        return parts
    shape = common_shape(parts)
    return [x.expand(shape) for x in parts]


def _spread(x: Tensor, frame: Frame, over: frozenset[int]) -> Tensor:
    """The tensor at its full size along the dims to be reduced."""
    x = ranked(x, frame)
    shape = x.shape
    if all(shape[d] == frame.size(d) for d in over):
        return x
    return x.expand([frame.size(d) if d in over else n for d, n in enumerate(shape)])
