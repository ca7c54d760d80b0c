"""Programs as dense torch computations, in double precision unless asked, whose gradients are torch's own.

Every equation is evaluated over all positions of all of its axes at once, by torch operations that torch can
differentiate: nothing here is shared with the compiler, but the nodes of a program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from einc.binding import bind
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Extent, Program, Read, Scalar
from einc.evaluate.philox import uniform

_COMPLEX = {torch.float64: torch.complex128}


def dense(
    program: Program,
    operands: Mapping[str, Tensor],
    scalars: Mapping[str, Any] | None = None,
    real: torch.dtype = torch.float64,
) -> list[Tensor]:
    """The results, for operands of reals of this type, complex numbers of such parts, and integers."""
    found = bind(program, {n: tuple(t.shape) for n, t in operands.items()}, dict(scalars or {}))
    values = {n: torch.tensor(v, dtype=real if isinstance(v, float) else None) for n, v in found.scalars.items()}
    tensors = {n: t.long() if _is_integer(t) else t for n, t in operands.items()}
    scope = _Scope(tensors, program, found.extents, values, real)
    for e in program.equations:
        tensors.update(scope.equation(e))
    return [tensors[r] for r in program.results]


def _is_integer(t: Tensor) -> bool:
    return not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)


class _Scope:
    def __init__(
        self,
        tensors: dict[str, Tensor],
        program: Program,
        extents: Mapping[str, int],
        scalars: Mapping[str, Tensor],
        real: torch.dtype,
    ) -> None:
        self.tensors, self.dims, self.dtypes = tensors, program.shapes(), program.dtypes()
        self.extents, self.scalars, self.real = extents, scalars, real
        self.stored = {
            "f": real,
            "c": _COMPLEX.get(real, torch.complex64),
            "i": torch.int64,
            "u": torch.int64,
            "b": torch.bool,
        }

    def equation(self, e: Equation) -> dict[str, Tensor]:
        axes = (*e.axes, *e.over)
        box = [self.extents[a] for a in axes]
        domain = None if e.domain is None else self.value(e.domain, axes)
        bodies = [self.value(b, axes).broadcast_to(box) for b in e.bodies]
        found = self.reduced(e, bodies, None if domain is None else domain.broadcast_to(box)) if e.monoid else bodies
        shape = [math.prod(self.extents[a] for a in group) for group in e.dims]
        return {t.name: x.to(self.stored[t.dtype.kind]).reshape(shape) for t, x in zip(e.outputs, found, strict=True)}

    def reduced(self, e: Equation, bodies: Sequence[Tensor], domain: Tensor | None) -> Sequence[Tensor]:
        assert e.monoid is not None
        outer, name = [self.extents[a] for a in e.axes], e.monoid.name
        n = math.prod(self.extents[a] for a in e.over)
        f = bodies[0].reshape([*outer, n])
        inside = None if domain is None else domain.reshape([*outer, n])
        unit = complex(_UNITS[name]) if f.is_complex() else _UNITS[name]
        f = f if inside is None else torch.where(inside, f, unit if f.dtype == torch.bool else f.new_full((), unit))
        if e.monoid.order is not None:
            if n == 0:
                return [f.new_full(outer, unit)]
            at = _first(f, e.monoid.order).unsqueeze(-1)
            parts = [f, *(b.reshape([*outer, n]) for b in bodies[1:])]
            return [parts[k].gather(-1, at).squeeze(-1) for k in e.monoid.results]
        match name:
            case "sum":
                return [f.sum(-1) if f.dtype != torch.bool else f.long().sum(-1)]
            case "prod":
                return [f.prod(-1)]
            case "any":
                return [f.any(-1)]
            case _:
                return [f.all(-1)]

    def value(self, e: Expr, axes: Sequence[str]) -> Tensor:
        match e:
            case Const(value):
                return torch.tensor(value, dtype=self.real if isinstance(value, float) else None)
            case Extent(axis):
                return torch.tensor(self.extents[axis])
            case Scalar(name):
                return self.scalars[name]
            case AxisValue(axis):
                shape = [1] * len(axes)
                shape[list(axes).index(axis)] = -1
                return torch.arange(self.extents[axis]).reshape(shape)
            case Cast(dtype, arg):
                return self.value(arg, axes).to(self.stored[dtype.kind])
            case Read():
                return self.read(e, axes)
            case Apply(op, args):
                return _apply(op, [self.value(a, axes) for a in args], self.real)

    def read(self, e: Read, axes: Sequence[str]) -> Tensor:
        x = self.tensors[e.tensor]
        index, inside = [], torch.tensor(True)
        for i, n in zip(e.index, x.shape, strict=True):
            at = self.value(i, axes)
            inside = inside & (at >= 0) & (at < n)
            index.append(at.clamp(0, max(n - 1, 0)))
        if e.guard is not None:
            inside = inside & self.value(e.guard, axes)
        if x.numel() == 0:
            return x.new_zeros(())
        found = x[tuple(index)] if index else x
        return torch.where(inside, found, torch.zeros((), dtype=found.dtype))


_UNITS: dict[str, Any] = {
    "sum": 0, "prod": 1, "max": -math.inf, "min": math.inf, "argmax": -math.inf, "argmin": math.inf, "any": False,
    "all": True,
}  # fmt: skip


def _first(f: Tensor, name: str) -> Tensor:
    """The first position of the extreme."""
    best = (f.amax if name == "max" else f.amin)(-1, keepdim=True)
    return (f == best).long().argmax(-1)


def _broadcast(*x: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.broadcast_tensors(*x))  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _where(p: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A choice whose other side gets no gradient, infinite or not."""
    t = torch.promote_types(x.dtype, y.dtype)
    p, x, y = _broadcast(p, x.to(t), y.to(t))
    return torch.where(p, x, y)


def _pow(x: Tensor, y: Tensor) -> Tensor:
    return x**y


def _first_of(better: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: _where(better(x, y), x, y)


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y, "exactdiv": lambda x, y: x // y, "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y, "pow": _pow, "neg": lambda x: -x, "where": _where,
    "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y, "ne": lambda x, y: x != y, "and": lambda x, y: x & y, "or": lambda x, y: x | y,
    "not": lambda x: ~x, "max": _first_of(torch.ge), "min": _first_of(torch.le),
    "re": lambda x: x.real if x.is_complex() else x, "im": lambda x: x.imag if x.is_complex() else torch.zeros_like(x),
    "conj": lambda x: x.conj().resolve_conj(),
}  # fmt: skip


def _apply(op: str, args: list[Tensor], real: torch.dtype) -> Tensor:
    if op == "rand":
        numbers = [a.cpu().numpy() for a in _broadcast(*args)]
        return torch.as_tensor(uniform(numbers[0], numbers[1:])).to(real)
    if op == "complex":
        return torch.complex(*_broadcast(*(a.to(real) for a in args)))
    if op == "div" and not any(a.is_floating_point() or a.is_complex() for a in args):
        return args[0].to(real) / args[1].to(real)
    if op in _OPERATIONS:
        return _OPERATIONS[op](*args)
    floats = [a if a.is_floating_point() or a.is_complex() else a.to(real) for a in args]
    found: Tensor = getattr(torch, op)(*floats)
    return found
