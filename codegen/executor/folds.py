"""Reductions of a tensor over some of its dims by a monoid, and prefixes along them, component by component."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from einc.base.ops import COMPARISONS
from einc.base.types import BOOL, DType
from einc.codegen.executor.ops import HELD, convert, function, literal, rounded, wrapped
from einc.ein import Apply, Cast, Const, Expr, Monoid, Scalar

Dims = tuple[int, ...]
Fold = Callable[[Sequence[Tensor], Dims], list[Tensor]]


def fold(monoid: Monoid, types: tuple[DType, ...]) -> Fold:
    """The function that reduces the components over all of the dims, and keeps these with size 1."""
    if monoid.chooses and monoid.order is not None:
        return _first(monoid, types)
    one = _single(monoid.op, types[0])
    if one is not None:
        return lambda args, dims: [one(args[0], dims)]
    return _tree(monoid, types)


def _single(op: str | None, t: DType) -> Callable[[Tensor, Dims], Tensor] | None:
    kept = HELD[t.name]
    ordered = t.name != "u64"
    match op:
        case "add" if t.name in ("f32", "f64"):
            return lambda x, dims: torch.sum(x, dims, keepdim=True)
        case "add" if not t.is_bool:
            return lambda x, dims: rounded(wrapped(torch.sum(x, dims, keepdim=True, dtype=kept), t), t)
        case "max" if ordered and not t.is_bool:
            return lambda x, dims: torch.amax(x, dims, keepdim=True)
        case "min" if ordered and not t.is_bool:
            return lambda x, dims: torch.amin(x, dims, keepdim=True)
        case "or" | "max" if t.is_bool:
            return lambda x, dims: torch.any(x, dims, keepdim=True)
        case "and" | "min" if t.is_bool:
            return lambda x, dims: torch.all(x, dims, keepdim=True)
        case "mul" if t.is_float and t.bits >= 32:
            return _product
        case _:
            return None


def _product(x: Tensor, dims: Dims) -> Tensor:
    for dim in dims:
        x = torch.prod(x, dim, keepdim=True)
    return x


def _first(monoid: Monoid, types: tuple[DType, ...]) -> Fold:
    """The best value and its least index; a NaN is better than any number."""
    extreme = _single(monoid.order, types[0])
    if extreme is None:
        return _tree(monoid, types)
    none = torch.full((), int(literal("highest", types[1])), dtype=HELD[types[1].name])

    def run(args: Sequence[Tensor], dims: Dims) -> list[Tensor]:
        x, index = args
        best = extreme(x, dims)
        here = (x == best) | (x != x) if x.is_floating_point() else x == best
        return [best, torch.amin(torch.where(here, index, none.to(x.device)), dims, keepdim=True)]

    return run


def first_along(monoid: Monoid, types: tuple[DType, ...]) -> Fold | None:
    """The same where the index grows along the only reduced dim: torch finds the place. None for other monoids."""
    if not monoid.chooses or monoid.order is None or types[0].name not in ("f32", "f64", "i32", "i64"):
        return None
    place = torch.argmax if monoid.order == "max" else torch.argmin

    def run(args: Sequence[Tensor], dims: Dims) -> list[Tensor]:
        x, index = args
        at = place(x, dims[0], keepdim=True)
        return [torch.take_along_dim(x, at, dims[0]), torch.take_along_dim(index, at, dims[0])]

    return run


def _tree(monoid: Monoid, types: tuple[DType, ...]) -> Fold:
    """Any monoid: neighbours combined, earlier with later, until one is left."""
    both = combine(monoid, types)
    units = [torch.full((), literal(u, t), dtype=HELD[t.name]) for u, t in zip(monoid.identity, types, strict=True)]

    def run(args: Sequence[Tensor], dims: Dims) -> list[Tensor]:
        parts = list(args)
        for dim in reversed(dims):
            while parts[0].shape[dim] > 1:
                if parts[0].shape[dim] % 2:
                    parts = [_extended(x, unit, dim) for x, unit in zip(parts, units, strict=True)]
                halves = [x.reshape(*x.shape[:dim], -1, 2, *x.shape[dim + 1 :]) for x in parts]
                parts = both([h.select(dim + 1, 0) for h in halves], [h.select(dim + 1, 1) for h in halves])
        return parts

    return run


def _extended(x: Tensor, unit: Tensor, dim: int) -> Tensor:
    one = x.select(dim, 0).unsqueeze(dim)
    return torch.cat([x, unit.to(x).expand_as(one)], dim)


def scan(monoid: Monoid, types: tuple[DType, ...], reverse: bool) -> Fold:
    """The function that combines each position with those before it along the dims, the last of which runs fastest."""
    one = _prefixes(monoid.op, types[0])
    several = _doubled(monoid, types)

    def run(args: Sequence[Tensor], dims: Dims) -> list[Tensor]:
        last = tuple(range(-len(dims), 0))
        parts = [x.movedim(dims, last) for x in args]
        rows = [x.flatten(-len(dims)) for x in parts]
        rows = [x.flip(-1) for x in rows] if reverse else rows
        ends = several(rows) if one is None else [one(rows[0])]
        ends = [x.flip(-1) for x in ends] if reverse else ends
        return [x.reshape(p.shape).movedim(last, dims) for x, p in zip(ends, parts, strict=True)]

    return run


def _prefixes(op: str | None, t: DType) -> Callable[[Tensor], Tensor] | None:
    """Torch's own function for prefixes along the last dim, if there is one."""
    kept = HELD[t.name]
    plain = t.name != "u64" and not t.is_bool
    match op:
        case "add" if not t.is_bool:
            return lambda x: rounded(wrapped(torch.cumsum(x, -1, dtype=kept), t), t)
        case "max" if plain:
            return lambda x: torch.cummax(x, -1).values
        case "min" if plain:
            return lambda x: torch.cummin(x, -1).values
        case "or" | "max" if t.is_bool:
            return lambda x: torch.cummax(x.to(torch.uint8), -1).values.to(torch.bool)
        case "and" | "min" if t.is_bool:
            return lambda x: torch.cummin(x.to(torch.uint8), -1).values.to(torch.bool)
        case "mul" if t.is_float and t.bits >= 32:
            return lambda x: torch.cumprod(x, -1)
        case _:
            return None


def _doubled(monoid: Monoid, types: tuple[DType, ...]) -> Callable[[list[Tensor]], list[Tensor]]:
    """Any monoid, along the last dim: each position combined with those 1, 2, 4, ... before it."""
    both = combine(monoid, types)

    def run(parts: list[Tensor]) -> list[Tensor]:
        step = 1
        while step < parts[0].shape[-1]:
            ends = both([x[..., :-step] for x in parts], [x[..., step:] for x in parts])
            parts = [torch.cat([x[..., :step], end], -1) for x, end in zip(parts, ends, strict=True)]
            step *= 2
        return parts if step > 1 else [x.clone() for x in parts]

    return run


def combine(monoid: Monoid, types: tuple[DType, ...]) -> Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]:
    """The monoid's combination of an earlier and a later state."""

    def run(earlier: Sequence[Tensor], later: Sequence[Tensor]) -> list[Tensor]:
        known = {f"a{k}": x for k, x in enumerate(earlier)} | {f"b{k}": x for k, x in enumerate(later)}
        kinds = {name: types[int(name[1:])] for name in known}
        return [_value(e, known, kinds)[0] for e in monoid.combine]

    return run


def _value(e: Expr, known: dict[str, Tensor], kinds: dict[str, DType]) -> tuple[Tensor, DType]:
    match e:
        case Scalar(name=name):
            return known[name], kinds[name]
        case Const(value=value):
            t = BOOL if isinstance(value, bool) else kinds["a0"]
            return torch.full((), literal(value, t), dtype=HELD[t.name], device=known["a0"].device), t
        case Cast(dtype=t, arg=Const(value=value)):
            return torch.full((), literal(value, t), dtype=HELD[t.name], device=known["a0"].device), t
        case Cast(dtype=t, arg=arg):
            x, have = _value(arg, known, kinds)
            return convert(x, have, t), t
        case Apply(op="where", args=(c, a, b)):
            (condition, _), (x, t), (y, _) = (_value(arg, known, kinds) for arg in (c, a, b))
            return torch.where(condition, x, y), t
        case Apply(op=op, args=args):
            found = [_value(arg, known, kinds) for arg in args]
            t = found[0][1]
            truth = op in (*COMPARISONS, "and", "or", "not")
            return function(op, t)(*(x for x, _ in found)), BOOL if truth else t
        case _:
            raise AssertionError(f"a monoid combines with {e}")
