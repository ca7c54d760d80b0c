"""What a measurement is of, apart from names: the text of a program whose names are places, sizes, ways to memory.

    def f(Q[i, d], K[j, d]): S[i, j] = Q * K   -->   def f(t0[a0, a1], t1[a2, a1]): t2[a0, a2] = t0 * t1

Programs that differ in names only have equal kernels, and so one measurement. A key is made of the text of the language
and of numbers, and of nothing that moves when the compiler's own classes do, so that it is the same for years.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

from einc import ein
from einc.base.types import F32
from einc.driver import Request
from einc.ein import AxisValue, Equation, Expr, Extent, Operand, Param, Program, Read, Scalar
from einc.ein.printer import print_program, print_signature
from einc.ein.rewriting import bottom_up

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Key:
    """The names of a call among what was measured: of the program for such sizes, and of that for such operands."""

    sizes: str
    call: str
    reads: str  # for people: the signature with types, and the sizes by axis


def key_of(request: Request) -> Key | None:
    """The key of what is compiled; None for kernels that a text gives, which are as they are."""
    if request.begin is not None:
        return None
    place = {a.name: k for k, a in enumerate(request.program.axes)}
    sizes = sorted((place[name], n) for name, n in request.sizes if name in place)
    extents = sorted((place[name], n) for name, n in request.extents if name in place)
    layouts = {name: str(own) for name, own in request.layouts}
    lying = tuple(layouts.get(p.name, "") for p in request.program.operands)
    order = () if request.deterministic else ("in any order",)
    precision = request.program.precision
    less = () if precision == F32 else (precision.name,)
    shared = _digest(request.backend.name, request.level, _text(request.program), sizes, *order, *less)
    return Key(shared, _digest(shared, extents, lying), _read(request))


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=_DIGITS // 2).hexdigest()


def _read(request: Request) -> str:
    types = " ".join(dict.fromkeys(str(p.dtype) for p in request.program.operands))
    sizes = ", ".join(f"{name}={n}" for name, n in (request.extents or request.sizes))
    return f"{print_signature(request.program)} of {types or 'nothing'}, {sizes or 'any size'}"


@lru_cache(maxsize=256)
def _text(program: Program) -> str:
    return print_program(unnamed(program))


def unnamed(program: Program) -> Program:
    """The program with places for names."""
    axes = {a.name: f"a{k}" for k, a in enumerate(program.axes)}
    tensors = [p.name for p in program.params] + [t.name for e in program.equations for t in e.outputs]
    names = {name: f"t{k}" for k, name in enumerate(dict.fromkeys(tensors))}

    def renamed(n: Expr) -> Expr:
        match n:
            case Read(tensor=tensor):
                return replace(n, tensor=names[tensor])
            case AxisValue(axis=axis) | Extent(axis=axis):
                return replace(n, axis=axes[axis])
            case Scalar(name=name):
                return replace(n, name=names[name])
            case _:
                return n

    def of(e: Expr | None) -> Expr | None:
        return None if e is None else bottom_up(e, renamed)

    def dims(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(axes[a] for a in group) for group in groups)

    def param(p: Operand | Param) -> Operand | Param:
        if isinstance(p, Operand):
            return replace(p, name=names[p.name], dims=dims(p.dims))
        return replace(p, name=names[p.name], default=of(p.default))

    def equation(e: Equation) -> Equation:
        return replace(
            e.map(lambda x: bottom_up(x, renamed)),
            outputs=tuple(ein.Tensor(names[t.name], t.dtype) for t in e.outputs),
            dims=dims(e.dims),
            over=tuple(axes[a] for a in e.over),
        )

    return Program(
        "f",
        tuple(map(param, program.params)),
        tuple(ein.AxisDecl(axes[a.name], of(a.extent)) for a in program.axes),
        tuple(map(equation, program.equations)),
        tuple(names[name] for name in program.results),
    )
