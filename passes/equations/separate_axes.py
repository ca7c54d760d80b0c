"""Split a composite dimension of an intermediate tensor into one dimension for each of its axes.

    T[(g r)] = f(g, r);  U = h(T[g * |r| + r])   -->   T[g, r] = f(g, r);  U = h(T[g, r])
    and where T is a result                      -->   S[g, r] = f(g, r);  U = h(S[g, r]);  T[(g r)] = S[g, r]

This holds where all reads of T are at such positions. Only operands and results have a layout in memory to keep; in
between, a composite dimension would only hide that a value is read where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from einc.ein import AxisValue, Equation, Expr, Program, Read, reads
from einc.ein.guards import in_range_by_form
from einc.ein.rewriting import bottom_up, names, unused
from einc.passes.algebra.exposure import Dims


def separate_axes(program: Program) -> Program:
    """The program with one dimension for each axis of its intermediate tensors."""
    read: dict[str, list[Read]] = {}
    for r in (r for eq in program.equations for e in eq.expressions() for r in reads(e)):
        read.setdefault(r.tensor, []).append(r)
    apart = [eq for eq in program.equations if any(len(dim) != 1 for dim in eq.dims) and _is_read_whole(eq, read)]
    if not apart:
        return program
    taken = names(program)
    new: dict[str, str] = {}
    for t in (t for eq in apart for t in eq.outputs):
        new[t.name] = unused(f"{t.name}_apart", taken) if t.name in program.results else t.name
        taken.add(new[t.name])
    dims = {t.name: eq.dims for eq in apart for t in eq.outputs}
    equations = tuple(_reading(e, dims, new) for eq in program.equations for e in _made(eq, new))
    return replace(program, equations=equations)


def _is_read_whole(eq: Equation, read: Mapping[str, list[Read]]) -> bool:
    """Is the equation's tensor read, and always with the positions of a composite dimension's own axes in it?"""
    at = [r for t in eq.outputs for r in read.get(t.name, [])]
    return bool(at) and all(
        in_range_by_form(e, dim) for r in at for e, dim in zip(r.index, eq.dims, strict=True) if len(dim) != 1
    )


def _made(eq: Equation, new: Mapping[str, str]) -> tuple[Equation, ...]:
    """The equation with its axes apart and, if it is a result, the equation that gives it its layout in memory."""
    if eq.name not in new:
        return (eq,)
    outputs = tuple(replace(t, name=new[t.name]) for t in eq.outputs)
    flat = replace(eq, outputs=outputs, dims=tuple((a,) for a in eq.axes))
    at = tuple(map(AxisValue, eq.axes))
    stored = [(t, u) for t, u in zip(eq.outputs, outputs, strict=True) if t.name != u.name]
    return flat, *(Equation((t,), eq.dims, (Read(u.name, at),), span=eq.span) for t, u in stored)


def _reading(eq: Equation, dims: Mapping[str, Dims], new: Mapping[str, str]) -> Equation:
    """The equation reading tensors whose axes are apart."""

    def read(e: Expr) -> Expr:
        if not isinstance(e, Read) or e.tensor not in dims or len(e.index) != len(dims[e.tensor]):
            return e
        pairs = zip(e.index, dims[e.tensor], strict=True)
        index = tuple(x for at, dim in pairs for x in ((at,) if len(dim) == 1 else map(AxisValue, dim)))
        return replace(e, tensor=new[e.tensor], index=index)

    return eq.map(lambda e: bottom_up(e, read))
