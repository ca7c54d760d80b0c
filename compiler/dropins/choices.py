"""Torch's choices, limits, comparisons, truth values, casts and constants in the language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from einc.dropins.kinds import cast, constant, joined, like, truth
from einc.dropins.symbols import Symbol, Table, refuse, rule
from einc.dropins.values import apply, number


@rule(3, "where")
def _where(condition: Symbol, x: Symbol, y: Symbol) -> Symbol:
    if condition.dtype != torch.bool:
        refuse("torch.where takes a truth value as its condition", f"it is {condition.dtype}", "condition != 0")
    return like(x, apply("where", condition.value, x.value, y.value), joined(x, y))


@rule(3, "masked_fill")
def _masked_fill(x: Symbol, mask: Symbol, value: Symbol) -> Symbol:
    return like(x, apply("where", truth(mask), value.value, x.value))


def _pick(op: str, *names: str) -> None:
    @rule(2, *names)
    def call(x: Symbol, y: Symbol) -> Symbol:
        return like(x, apply(op, x.value, y.value), joined(x, y))


_pick("max", "maximum", "max", "fmax")
_pick("min", "minimum", "min", "fmin")


@rule(3, "clamp", "clip")
def _clamp(x: Symbol, low: Symbol | None = None, high: Symbol | None = None) -> Symbol:
    value, dtype = x.value, x.dtype
    for op, limit in (("max", low), ("min", high)):
        if limit is not None:
            value, dtype = apply(op, value, limit.value), joined(like(x, value, dtype), limit)
    return like(x, value, dtype)


@rule(2, "clamp_min")
def _clamp_min(x: Symbol, low: Symbol) -> Symbol:
    return _clamp(x, low)


@rule(2, "clamp_max")
def _clamp_max(x: Symbol, high: Symbol) -> Symbol:
    return _clamp(x, None, high)


@rule(1, "hardtanh")
def _hardtanh(x: Symbol, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Symbol:  # noqa: ARG001
    return like(x, apply("clamp", x.value, number(min_val), number(max_val)))


@rule(1, "nan_to_num")
def _nan_to_num(
    x: Symbol, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Symbol:
    if not x.dtype.is_floating_point:
        return x
    limits = torch.finfo(x.dtype)
    value = apply("where", apply("ne", x.value, x.value), number(nan or 0.0), x.value)
    for at, instead in ((math.inf, limits.max if posinf is None else posinf),
                        (-math.inf, limits.min if neginf is None else neginf)):  # fmt: skip
        value = apply("where", apply("eq", x.value, number(at)), number(instead), value)
    return like(x, value)


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons and truth values


def _comparison(op: str, *names: str) -> None:
    @rule(2, *names)
    def call(x: Symbol, y: Symbol) -> Symbol:
        return like(x, apply(op, x.value, y.value), torch.bool)


for _names in ("eq equal", "ne not_equal", "lt less", "le less_equal", "gt greater", "ge greater_equal"):
    _comparison(_names.split()[0], *_names.split())


def _logical(op: str, *names: str) -> None:
    @rule(2, *names)
    def call(x: Symbol, y: Symbol) -> Symbol:
        return like(x, apply(op, truth(x), truth(y)), torch.bool)


_logical("and", "logical_and")
_logical("or", "logical_or")
_logical("ne", "logical_xor")


@rule(1, "logical_not")
def _logical_not(x: Symbol) -> Symbol:
    return like(x, apply("not", truth(x)), torch.bool)


@rule(1, "isnan")
def _isnan(x: Symbol) -> Symbol:
    return like(x, apply("ne", x.value, x.value), torch.bool)


@rule(1, "isinf")
def _isinf(x: Symbol) -> Symbol:
    return like(x, apply("eq", apply("abs", x.value), number(math.inf)), torch.bool)


@rule(1, "isfinite")
def _isfinite(x: Symbol) -> Symbol:
    return like(x, apply("lt", apply("abs", x.value), number(math.inf)), torch.bool)


# ---------------------------------------------------------------------------------------------------------------------
# Types and constants


@rule(1, "to", "type", "type_as", "astype")
def _to(x: Symbol, *wanted: Any, dtype: Any = None, other: Any = None, **_: Any) -> Symbol:
    """A type, a device or a tensor that has both, in any order; what is said of memory makes no difference."""
    for given in (*wanted, dtype, other):
        if isinstance(given, torch.dtype):
            x = cast(x, given)
        elif isinstance(given, torch.Tensor | Symbol | Table):
            x = cast(x, given.dtype)
        elif given in _NAMED:
            x = cast(x, _NAMED[given])
    return x


_NAMED: dict[object, torch.dtype] = {
    float: torch.float64, int: torch.int64, bool: torch.bool,
    **{f"torch.{name}Tensor": getattr(torch, name.lower()) for name in ("Float", "Double", "Half", "Int", "Long")},
}  # fmt: skip


def _typed(name: str, dtype: torch.dtype) -> None:
    @rule(1, name)
    def call(x: Symbol, **_: Any) -> Symbol:
        return cast(x, dtype)


for _name in ("float", "double", "half", "bfloat16", "int", "long", "short", "bool"):
    _typed(_name, getattr(torch, _name))
_typed("char", torch.int8)
_typed("byte", torch.uint8)


@rule(1, "positive", "clone", "contiguous", "alias", "cpu", "cuda", "conj", "real", "squeeze")
def _same(x: Symbol, *_: Any, **__: Any) -> Symbol:
    return x


@rule(1, "detach")
def _detach(x: Symbol) -> Symbol:
    return like(x, x.recorder.held(x.value))


@rule(1, "view", "reshape", "expand", "broadcast_to")
def _shaped(x: Symbol, *shape: Any) -> Symbol:
    _check_scalar(shape)
    return x


@rule(1, "view_as", "reshape_as", "expand_as")
def _shaped_as(x: Symbol, _: object) -> Symbol:
    return x


def _check_scalar(shape: Sequence[Any]) -> None:
    flat = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list | torch.Size) else shape
    if len(flat):
        refuse("a traced value has no dimensions", f"{tuple(flat)} is asked for", "shape ()")


def _made(name: str, value: float | None, sized: bool) -> None:
    """A function that makes a scalar tensor of the same type, or of the one that `dtype` names."""

    @rule(1, name)
    def call(x: Symbol, *given: Any, dtype: torch.dtype | None = None, **options: Any) -> Symbol:
        rest = list(given)
        if sized:
            _check_scalar((options.pop("size", ()) if not rest else rest.pop(0),) if value is None else tuple(rest))
        filled = value if value is not None else (rest[0] if rest else options["fill_value"])
        if isinstance(filled, Symbol):
            return cast(filled, dtype or x.dtype)
        return constant(x, filled, dtype or x.dtype)


_made("ones_like", 1, sized=False)
_made("zeros_like", 0, sized=False)
_made("empty_like", 0, sized=False)
_made("full_like", None, sized=False)
_made("new_ones", 1, sized=True)
_made("new_zeros", 0, sized=True)
_made("new_empty", 0, sized=True)
_made("new_full", None, sized=True)


@rule(1, "new_tensor")
def _new_tensor(x: Symbol, data: bool | int | float, dtype: torch.dtype | None = None, **_: Any) -> Symbol:
    return constant(x, data, dtype or x.dtype)
