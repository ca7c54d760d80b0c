"""Which tensors kernels pass on only where that saves much: larger ones than all that is given or wanted, and scores.

Scores are results of a contraction that are then reduced over one of their axes.

    S[i, j] = sum[d](Q[i, d] * K[j, d]);  m[i] = max[j](S);  n[i] = sum[j](exp(S - m))          S, and exp(S - m)

No result has their positions, so that only the division into kernels would put them in memory, where they grow with
the product of two sequences.
"""

from __future__ import annotations

from einc.ein import Program
from einc.passes.estimate.sides import shapes_of
from einc.passes.streaming.walks import above, computed_from
from einc.pipeline import Context, positions


def large(program: Program, context: Context) -> frozenset[str]:
    """The tensors, by name, that are larger than any operand and any result, and the scores, whatever their size."""
    given = [tuple(a for dim in p.dims for a in dim) for p in program.operands]
    made = {t.name: eq.axes for eq in program.equations for t in eq.outputs}
    most = max((positions(axes, context) for axes in (*given, *(made[r] for r in program.results))), default=0)
    found = {name for name, axes in made.items() if positions(axes, context) > most}
    return frozenset(found | scores(program, context))


def scores(program: Program, context: Context) -> set[str]:
    """The scores of a program, by name, with what is computed from them position by position."""
    named = {t.name: eq for eq in program.equations for t in eq.outputs}
    known = above(program.equations)
    results = [set(named[name].axes) for name in program.results]
    pointwise = {name for name, eq in named.items() if eq.monoid is None}
    found: set[str] = set()
    for name, eq in named.items():
        axes = set(eq.axes)
        if any(axes <= of for of in results):
            continue
        if name in pointwise:
            is_scores = any(n in found and axes == set(named[n].axes) for n in computed_from(eq))
        else:
            made = {name} | {n for n in pointwise if name in known[n] and axes <= set(named[n].axes)}
            over = {n: axes & set(e.over) for n, e in named.items() if computed_from(e) & made}
            in_turn = any(over[n] & over[m] for n in over for m in known[n] & over.keys())
            is_scores = in_turn and bool(shapes_of([eq], context))
        if is_scores:
            found.add(name)
    return found
