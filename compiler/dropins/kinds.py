"""The types of traced values, as torch has them, and the values made from others."""

from __future__ import annotations

from functools import cache, reduce

import torch

from einc.dropins import values
from einc.dropins.symbols import Symbol
from einc.dropins.values import Number, Value, apply
from einc.runtime.tensors import dtype_of

Kind = torch.dtype | type[bool] | type[int] | type[float]  # a tensor's type, or that of a Python number

_PROMOTED: dict[tuple[Kind, Kind], torch.dtype] = {}


@cache
def language_type(dtype: torch.dtype) -> str:
    """The language's name of a type; raises `DTypeError` for one that it lacks."""
    with torch._C.DisableTorchFunction():
        return str(dtype_of(torch.empty((), dtype=dtype, device="cpu"), "captured"))


def _promoted(a: Kind, b: Kind) -> torch.dtype:
    if (a, b) not in _PROMOTED:
        _PROMOTED[a, b] = _promotion(a, b)
    return _PROMOTED[a, b]


def _promotion(a: Kind, b: Kind) -> torch.dtype:
    with torch._C.DisableTorchFunction():
        x, y = (torch.empty((), dtype=t, device="cpu") if isinstance(t, torch.dtype) else t(1) for t in (a, b))
        return torch.result_type(x, y)


def joined(*symbols: Symbol) -> torch.dtype:
    """The type that torch computes in for these values; Python's numbers only have a kind."""
    kinds: list[Kind] = [s.dtype if s.number is None else type(s.number) for s in symbols]
    dtype = _promoted(kinds[0], kinds[0] if len(kinds) == 1 else kinds[1])
    return reduce(_promoted, kinds[2:], dtype)


def floating(dtype: torch.dtype) -> torch.dtype:
    """The type of a function of such numbers: integers give torch's default type."""
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def like(x: Symbol, value: Value, dtype: torch.dtype | None = None) -> Symbol:
    """Another value of the same recording, of the same type if none is given."""
    return Symbol(x.recorder, value, x.dtype if dtype is None else dtype)


def literal(x: Symbol, value: Number) -> Symbol:
    """A Python number among the values of the same recording."""
    return Symbol(x.recorder, values.number(value), _promoted(type(value), type(value)), value)


def truth(x: Symbol) -> Value:
    """Is it true: not zero?"""
    return x.value if x.dtype == torch.bool else apply("ne", x.value, values.number(0))


def cast(x: Symbol, dtype: torch.dtype) -> Symbol:
    """The value in a type; itself where it has it."""
    if dtype == x.dtype and x.number is None:
        return x
    return like(x, truth(x) if dtype == torch.bool else apply(language_type(dtype), x.value), dtype)


def constant(x: Symbol, value: Number, dtype: torch.dtype) -> Symbol:
    """A scalar tensor of this type, with the value that it has there, among the values of the same recording."""
    with torch._C.DisableTorchFunction():
        held = torch.full((), value, dtype=dtype, device="cpu").item()
    assert isinstance(held, bool | int | float)
    named = {bool: torch.bool, int: torch.int64, float: torch.get_default_dtype()}[type(held)]
    return cast(like(x, values.number(held), named), dtype)
