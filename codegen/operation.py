"""Programs that one operation of torch computes: a product of matrices, a sum, a copy in another order, a gather.

    C[b, i, k] = A[b, i, j] * B[j, k]  -->  torch.matmul        S[i] = sum[j](A[i, j])  -->  A.sum(1)
    Y[n, d] = T[token[n], d]           -->  torch.index_select

Such an operation has the same meaning, sums included: narrow floats are added in f32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from einc.base.types import F32, F64, I64, DType
from einc.ein import Apply, AxisValue, Cast, Equation, Expr, Program, Read


class Operation(Protocol):
    """An operation of torch."""

    def __call__(self, operands: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """The result for the operands of a program in order: in fresh memory, or in `out`, which shares none with
        them."""


def operation(program: Program) -> Operation | None:
    """The operation of torch that a program is, if it is one."""
    if len(program.equations) != 1 or program.scalars:
        return None
    (e,) = program.equations
    if len(e.outputs) != 1 or len(e.bodies) != 1 or e.domain is not None or any(len(d) != 1 for d in e.dims):
        return None
    factors = [_axes(f) for f in _factors(e.body)]
    operands = {p.name: k for k, p in enumerate(program.operands)}
    if any(f is None for f in factors) or any(p.dtype != e.outputs[0].dtype for p in program.operands):
        return None
    reads = [(operands[name], axes) for name, axes in (f for f in factors if f is not None)]
    if any(program.operands[k].dims != tuple((a,) for a in axes) for k, axes in reads):
        return None  # it is read along another axis than its own, which may be shorter
    if len(reads) == 1:
        return _of_one(e, *reads[0])
    exact = e.outputs[0].dtype != F32 or program.precision == F32
    if len(reads) == 2 and e.monoid is not None and e.monoid.adds and e.outputs[0].dtype.is_float and exact:
        return _product(e, reads)
    return None


def _factors(e: Expr) -> tuple[Expr, ...]:
    return e.args if isinstance(e, Apply) and e.op == "mul" else (e,)


def _axes(e: Expr) -> tuple[str, tuple[str, ...]] | None:
    """A tensor that is read at axes of its own, each once, and these axes."""
    if not isinstance(e, Read) or e.guard is not None:
        return None
    axes = tuple(i.axis for i in e.index if isinstance(i, AxisValue))
    return (e.tensor, axes) if len(axes) == len(e.index) == len(set(axes)) else None


def _of_one(e: Equation, k: int, axes: tuple[str, ...]) -> Operation | None:
    """A sum over some of the axes, or a copy, in the order of the result."""
    if set(axes) != {*e.axes, *e.over} or not _summed(e.outputs[0].dtype):
        return None
    left = [a for a in axes if a not in e.over]
    order = [left.index(a) for a in e.axes]
    if e.monoid is None:
        return _copy(k, order)
    return _sum(k, [axes.index(a) for a in e.over], order) if e.monoid.adds else None


def _copy(k: int, order: list[int]) -> Operation:
    def copy(operands: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        found = operands[k].permute(order)
        return found.clone(memory_format=torch.contiguous_format) if out is None else out.copy_(found)

    return copy


def _sum(k: int, over: list[int], order: list[int]) -> Operation:
    if order == sorted(order):
        return lambda operands, out=None: torch.sum(operands[k], over, out=out)
    back = [order.index(n) for n in range(len(order))]

    def in_order(operands: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        if out is None:
            return operands[k].sum(over).permute(order).contiguous()
        torch.sum(operands[k], over, out=out.permute(back))
        return out

    return in_order


def _summed(t: DType) -> bool:
    """Does torch sum this type in the type that the language does?"""
    return t.is_float and t.bits >= 16


def _product(e: Equation, reads: list[tuple[int, tuple[str, ...]]]) -> Operation | None:
    """A product of matrices, over one axis, with one axis of rows and one of columns beside those of a batch."""
    (p, left), (q, right) = reads
    if not _summed(e.outputs[0].dtype):
        return None
    batch = [a for a in e.axes if a in left and a in right]
    rows, columns = (
        [a for a in e.axes if a in own and a not in other] for own, other in ((left, right), (right, left))
    )
    inner = list(e.over)
    if not (len(rows) == len(columns) == len(inner) == 1 and inner[0] in left and inner[0] in right):
        return None
    if e.axes == (*batch, *columns, *rows):
        (p, left, rows), (q, right, columns) = (q, right, columns), (p, left, rows)
    if e.axes != (*batch, *rows, *columns):
        return None
    on_left = [left.index(a) for a in (*batch, *rows, *inner)]
    on_right = [right.index(a) for a in (*batch, *inner, *columns)]
    if on_left == sorted(on_left) and on_right == sorted(on_right):
        return lambda operands, out=None: torch.matmul(operands[p], operands[q], out=out)
    return lambda operands, out=None: torch.matmul(operands[p].permute(on_left), operands[q].permute(on_right), out=out)


def scattered(program: Program) -> Operation | None:
    """The operation of torch that adds a tensor to the places that another gives, if that is what a program is.

        S[v, d] = sum[b, n : v == token[b, n]](x[b, n, d])

    Torch does not differentiate it where a place is out of range.
    """
    if len(program.equations) != 1 or len(program.equations[0].bodies) != 1:
        return None
    (e,) = program.equations
    if e.monoid is None or not e.monoid.adds or e.outputs[0].dtype not in (F32, F64):
        return None
    places, terms = _place(e.domain), _axes(e.body)
    operands = {p.name: (k, p) for k, p in enumerate(program.operands)}
    if places is None or terms is None:
        return None
    v, index, at = places
    rest = tuple(a for a in e.axes if a != v)
    fitting = {*at} == {*e.over} and {*terms[1]} == {*at, *rest} and e.dims == tuple((a,) for a in e.axes)
    whole = all(n in operands and operands[n][1].dims == tuple((a,) for a in own) for n, own in ((index, at), terms))
    lengths = [(k, p.dims.index((v,))) for k, p in operands.values() if (v,) in p.dims]
    if not (fitting and whole and lengths) or operands[terms[0]][1].dtype != e.outputs[0].dtype:
        return None
    order = [terms[1].index(a) for a in (*at, *rest)]
    return _add(operands[index][0], operands[terms[0]][0], len(at), order, lengths[0], e.axes.index(v))


def gathered(program: Program) -> Operation | None:
    """The operation of torch that takes the rows of a tensor that another one names, if that is what a program is.

        Y[b, n, d] = T[token[b, n], d]                  0 where no row has that name

    Torch does not differentiate it where a place is out of range.
    """
    if len(program.equations) != 1 or program.scalars or len(program.equations[0].bodies) != 1:
        return None
    (e,) = program.equations
    operands = {p.name: (k, p) for k, p in enumerate(program.operands)}
    if (
        e.monoid is not None
        or not isinstance(e.body, Read)
        or e.body.guard is not None
        or e.body.tensor not in operands
    ):
        return None
    table, source = operands[e.body.tensor]
    data = [n for n, x in enumerate(e.body.index) if not isinstance(x, AxisValue)]
    if len(data) != 1 or (found := _element(e.body.index[data[0]])) is None or found[0] not in operands:
        return None
    index, places = operands[found[0]]
    rest = [x.axis for x in e.body.index if isinstance(x, AxisValue)]
    own = [(a,) for a in rest]
    read_whole = list(source.dims[: data[0]] + source.dims[data[0] + 1 :]) == own and places.dims == tuple(
        (a,) for a in found[1]
    )
    made = [*rest[: data[0]], *found[1], *rest[data[0] :]]
    if not read_whole or sorted(made) != sorted(e.axes) or e.dims != tuple((a,) for a in e.axes):
        return None
    same = source.dtype == e.outputs[0].dtype and not (source.dtype.kind == "u" and source.dtype.bits > 8)
    return _take(table, index, data[0], [made.index(a) for a in e.axes]) if same else None


def _take(table: int, index: int, dim: int, order: list[int]) -> Operation:
    """The rows along a dimension of a table, in an order of the result's dimensions."""
    in_order = order == sorted(order)

    def take(operands: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        rows, at = operands[table], operands[index]
        flat = at.reshape(-1) if at.dtype in (torch.int32, torch.int64) else at.reshape(-1).to(torch.int64)
        shape = [*rows.shape[:dim], *at.shape, *rows.shape[dim + 1 :]]
        least, most = torch.aminmax(flat) if flat.numel() else (0, -1)
        if int(least) >= 0 and int(most) < rows.shape[dim]:
            plain = out is not None and in_order and out.is_contiguous() and out.numel() > 0
            into = out.view([*rows.shape[:dim], -1, *rows.shape[dim + 1 :]]) if plain and out is not None else None
            found = torch.index_select(rows, dim, flat, out=into)
        else:
            found = _guarded(rows, dim, flat)
            into = None
        if into is not None and out is not None:
            return out
        found = found.view(shape).permute(order)
        return found.contiguous() if out is None else out.copy_(found)

    return take


def _guarded(rows: Tensor, dim: int, at: Tensor) -> Tensor:
    """The rows that there are, 0 for others."""
    inside = (at >= 0) & (at < rows.shape[dim])
    found = rows.new_zeros([*rows.shape[:dim], at.numel(), *rows.shape[dim + 1 :]])
    (places,) = torch.nonzero(inside, as_tuple=True)
    return found.index_copy_(dim, places, rows.index_select(dim, at[places]))


def _place(e: Expr | None) -> tuple[str, str, tuple[str, ...]] | None:
    """The axis that a condition equates to an element of a tensor, the tensor, and the axes it is read at."""
    match e:
        case Apply("eq", (AxisValue(v), place)) | Apply("eq", (place, AxisValue(v))):
            found = _element(place)
            return None if found is None or v in found[1] else (v, *found)
    return None


def _element(e: Expr) -> tuple[str, tuple[str, ...]] | None:
    """A tensor whose elements are positions, read at axes of its own, and these axes."""
    return _axes(e.arg if isinstance(e, Cast) and e.dtype == I64 else e)


def _add(index: int, terms: int, count: int, order: list[int], length: tuple[int, int], axis: int) -> Operation:
    """Terms in this order, the first `count` dimensions those of the index, added along an axis of a length."""

    def add(operands: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        n = operands[length[0]].shape[length[1]]
        at = operands[index].to(torch.int64).flatten()
        added = operands[terms].permute(order)
        rest = added.shape[count:]
        inside = torch.where((at >= 0) & (at < n), at, -1)
        rows = added.reshape(at.numel(), prod(rest))
        found = torch.ops.aten.embedding_dense_backward(rows, inside, n, -1, False).reshape(n, *rest).movedim(0, axis)
        return found.contiguous() if out is None else out.copy_(found)

    return add
