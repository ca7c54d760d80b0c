"""A program as a system under test: its boundary, its einsums, what is optimised, and what runs in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from einc.ein import Apply, AxisValue, Cast, Equation, Expr, Program, Read, axes_of, reads


@dataclass(frozen=True, slots=True)
class Step:
    """One equation in the data flow: the tensors it defines and those it reads."""

    gives: tuple[str, ...]
    reads: tuple[str, ...]
    reduces: str
    over: tuple[str, ...]
    einsum: str


def step_of(e: Equation) -> Step:
    sources = dict.fromkeys(r.tensor for x in e.expressions() for r in reads(x))
    reduction = "" if e.monoid is None else e.monoid.name
    return Step(tuple(t.name for t in e.outputs), tuple(sources), reduction, e.over, _einsum(e))


def _einsum(e: Equation) -> str:
    """The equation's contraction as an einsum string, if its body is a product of two tensors or more.

    A computed factor counts as a tensor with the axes that it depends on; numbers do not count.
    """
    if e.monoid is None or e.monoid.op != "add":
        return ""
    terms = [_term(f, (*e.axes, *e.over)) for f in _factors(e.body) if reads(f)]
    if len(terms) < 2:
        return ""
    result = [f"({' '.join(d)})" if len(d) > 1 else "".join(d) or "1" for d in e.dims]
    if all(len(s) == 1 for term in (*terms, result) for s in term):
        return f"{','.join(map(''.join, terms))}->{''.join(result)}"
    return f"{', '.join(map(' '.join, terms))} -> {' '.join(result)}"


def _term(e: Expr, order: Sequence[str]) -> list[str]:
    """The subscripts of a factor; one that is not a plain axis is shown by the axes that it is made of."""
    if not isinstance(e, Read):
        return sorted(axes_of(e), key=order.index)
    return [i.axis if isinstance(i, AxisValue) else f"({' '.join(axes_of(i)) or '·'})" for i in e.index]


def _factors(e: Expr) -> list[Expr]:
    match e:
        case Apply("mul", (a, b)):
            return _factors(a) + _factors(b)
        case Apply("neg", (a,)) | Cast(arg=a):
            return _factors(a)
        case Apply("div", (a, b)) if not axes_of(b) and not reads(b):
            return _factors(a)
        case _:
            return [e]


def boundary(program: Program, steps: Sequence[Step]) -> str:
    inputs, results = ", ".join(p.name for p in program.operands), ", ".join(program.results)
    if len(steps) <= 1:
        return f"one closed module: {inputs} → {results}"
    flow = " → ".join(", ".join(s.gives) for s in steps)
    return f"a pipeline of {len(steps)} equations: {inputs} → {flow}"


def optimised(pipeline: bool, reuse: Mapping[str, int]) -> str:
    if pipeline:
        return "data movement and latency: the tensors between the equations"
    if max(reuse.values(), default=1) > 1:
        most = ", ".join(f"{name} {n}×" for name, n in reuse.items() if n > 1)
        return f"FLOPs, reuse (each element is used: {most})"
    return "data movement: each element is used once"


def walked(program: Program, operand: str) -> tuple[str, ...]:
    """The axes of the equations that read an operand."""
    found = [a for e in program.equations if operand in step_of(e).reads for a in (*e.axes, *e.over)]
    return tuple(dict.fromkeys(found))


def parallel(program: Program) -> str:
    """Axes on the left of every equation run in parallel throughout; reduced axes make positions interdependent."""
    everywhere = [a for a in program.equations[0].axes if all(a in e.axes for e in program.equations)]
    reduced = [a for a in dict.fromkeys(a for e in program.equations for a in e.over) if a not in everywhere]
    free = f"data parallel over {', '.join(everywhere)}" if everywhere else "nothing parallel throughout"
    if not reduced:
        return free
    uses = "; ".join(f"{a} reduced by {', '.join(_reductions(program, a))}" for a in reduced)
    return f"{free}; {uses}"


def _reductions(program: Program, axis: str) -> list[str]:
    return [e.monoid.name for e in program.equations if e.monoid is not None and axis in e.over]
