"""The adjoint program: gradients of a loss by operands, from those by the results.

Its laws are one table, read downward. Those before *accumulate* give names to what gets a gradient at once, and those
after it find what is there already. The result is a program like any other: forward equations, then backward ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from einc.ein import Program
from einc.ein.rewriting import merge_equal
from einc.passes.adjoint.accumulate import accumulate
from einc.passes.adjoint.derivation import Adjoint, Derivation
from einc.passes.adjoint.factors import named_factors
from einc.passes.adjoint.groups import by_groups
from einc.passes.adjoint.quotients import as_differences
from einc.passes.adjoint.reassociate import read_in_place, reassociated
from einc.passes.algebra.identities import simplify_expression
from einc.passes.algebra.scope import Scope


@dataclass(frozen=True, slots=True)
class Law:
    """A step of differentiation: its law in one line, why it is there, and what it does."""

    name: str
    law: str
    why: str
    run: Callable[[Derivation], Derivation]
    level: int = 0  # at which programs are optimised; gradients are found at each


def _on_program(f: Callable[[Program], Program]) -> Callable[[Derivation], Derivation]:
    return lambda d: d.of(f(d.program))


def _reassociated(d: Derivation) -> Derivation:
    return replace(d, backward=reassociated(d.forward, d.backward))


def _simplified(d: Derivation) -> Derivation:
    whole = d.whole
    scope = Scope(whole.dtypes(), whole.shapes())
    return replace(d, backward=tuple(e.map(lambda x: simplify_expression(x, scope)) for e in d.backward))


LAWS: tuple[Law, ...] = (
    Law(
        "split-groups",
        "Q[h, i] * K[h // (|h| / |g|), j]  -->  Q[(g r), i] * K[g, j]      |r| = |h| / |g|",
        "what a group shares gets its gradient as a sum over the group",
        _on_program(by_groups),
    ),
    Law(
        "merge-equals",
        "T = f;  U = f  -->  T = f, U read as T",
        "a softmax and a logsumexp of the same scores have one maximum and one sum, whose gradient is found once",
        _on_program(merge_equal),
    ),
    Law(
        "read-in-place",
        "Z[n, v] = sum[d](X[n, d] * W[v, d]);  sum[d](X[n, d] * W[t[n], d])  -->  Z[n, t[n]]",
        "the gradient of a sum at a place is then a part of that of the other, and not a sum over all places",
        _on_program(read_in_place),
    ),
    Law(
        "name-factors",
        "sum[h](f(G[n, h]) * W[h, e])  -->  T[n, h] = f(G[n, h]);  sum[h](T[n, h] * W[h, e])",
        "what has a name gets its gradient by one contraction, from which all that it is made of follows",
        _on_program(named_factors),
    ),
    Law(
        "take-differences",
        "exp(x - m) / l  -->  exp(x - L);  L = m + log(l)",
        "a weight is computed again from one number for each row, without a mask for 0 / 0",
        as_differences,
    ),
    Law(
        "accumulate",
        "T[o] = monoid[r](f)  -->  dA[a] += sum[o, r : a == e(o, r)](dT[o] * df/dA)      for each read A[e(o, r)]",
        "from the last equation to the first, each tensor has its whole gradient before that is passed on",
        accumulate,
    ),
    Law(
        "take-differences-again",
        "exp(x - m) / l  -->  exp(x - L);  L = m + log(l)",
        "the derivatives of quotients are quotients",
        as_differences,
    ),
    Law(
        "reassociate",
        "sum[j](P[i, j] * sum[e](dO[i, e] * V[j, e]))  -->  sum[e](dO[i, e] * O[i, e])      O = sum[j](P * V)",
        "a sum over rows that the program has already needs no walk over its terms",
        _reassociated,
    ),
    Law(
        "simplify-gradients",
        "x * 1  -->  x;  where(true, x, y)  -->  x",
        "slopes of functions are written for any argument",
        _simplified,
    ),
)


def steps(
    program: Program,
    operands: Iterable[str],
    results: Iterable[str] | None = None,
    constants: frozenset[str] = frozenset(),
) -> tuple[tuple[Law, Derivation], ...]:
    """What each law makes of the program, in order; see `differentiate`."""
    wanted = program.results if results is None else tuple(results)
    d = Derivation(program, frozenset(operands), wanted, constants, program.equations)
    found = []
    for law in LAWS:
        d = law.run(d)
        found.append((law, d))
    return tuple(found)


def differentiate(
    program: Program,
    operands: Iterable[str],
    results: Iterable[str] | None = None,
    constants: frozenset[str] = frozenset(),
) -> Adjoint:
    """The gradients by these operands, given cotangents of these results, or of all that are of floats.

    `constants` are tensors that are known to have no derivative, beside those that only shift.
    """
    return steps(program, operands, results, constants)[-1][1].adjoint
