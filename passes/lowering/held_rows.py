"""Reductions of rows that are held whole, as exact as walked ones: finished at the exact mean (`exact_means`).

m = sum(x) / n;  v = sum(f(x; m))   -->   v = sum_q c_q(m, m + drift) * Phi_q;  drift = sum(x - m) / n
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from einc import ein
from einc.ein import Equation, Expr
from einc.passes.lowering.finish import exactly, mean
from einc.passes.lowering.kernel import Kernel
from einc.passes.lowering.states import END, Moment, States
from einc.passes.streaming.closure import links
from einc.passes.streaming.exact_means import HELD, centred
from einc.passes.streaming.movement import prime
from einc.passes.streaming.sweep import Link, Reference
from einc.passes.streaming.walks import between, written_out
from einc.tile import Elem, Fill, Lit, Value


def refined(kernel: Kernel) -> dict[str, Callable[[], Value]]:
    """Functions for the exact values of reductions over whole axes, by name, for those that have one."""
    groups: dict[tuple[str, ...], list[Equation]] = {}
    for eq in kernel.plan.equations:
        if eq.monoid is not None and eq.over and set(eq.over) <= set(kernel.plan.whole):
            groups.setdefault(eq.over, []).append(eq)
    found: dict[str, Callable[[], Value]] = {}
    for over, equations in groups.items():
        names = {t.name for eq in equations for t in eq.outputs}
        through = between(kernel.plan.equations, names)
        made = links([written_out(eq, kernel.definitions, through) for eq in equations], over)
        chain = tuple(centred([link for link in made if isinstance(link, Link)]))
        exact = [link for link in chain if link.exact is not None]
        if exact:
            states = States(kernel, chain, over)
            found |= {link.equation.name: partial(_value, states, link) for link in exact}
            means = (r for link in chain for r in link.references if r.exact is not None)
            kernel.b.finer |= {r.value: partial(_mean, states, r) for r in means}
    return found


def _value(s: States, link: Link) -> Value:
    """The exact value of one link."""
    assert link.exact is not None
    return exactly(s, link, _end(s, link.exact, link), link.exact)


def _mean(s: States, r: Reference) -> Value:
    """The exact value of a mean."""
    assert r.exact is not None
    return mean(s, r, _end(s, r.exact, None))


def _end(s: States, exact: Expr, link: Link | None) -> Moment:
    """The moment after the row, with the accumulators that an exact value needs; `link` is the value's link, if any."""
    needed = {name.removesuffix(HELD) for name in ein.tensors_of(exact) if name.endswith(HELD)}
    bodies = [b for x in s.chain for a in x.accumulators if a.name in needed for b in a.bodies]
    read = {name for b in bodies for name in ein.tensors_of(b)} | {r.name for r in (link.references if link else ())}
    for total in (x for x in s.chain if not x.references and x.equation.name in s.wanted):
        last = Moment(END).of(total.equation.name)
        if last not in s.k.known:
            (value,) = s.k.folded(total.equation)
            s.define(last, s.b.bind(total.equation.name, value, s.k.result_order(total.equation)))
    for r in (r for x in s.chain for r in x.references):
        if r.name in read and prime(r.name) not in s.k.known:
            s.define(prime(r.name), _about(s, r))
    return Moment(END, {name: _held(s, name) for name in sorted(needed)})


def _about(s: States, r: Reference) -> Value:
    """The value of a reference that the row is reduced about."""
    if r.hat:
        s.hatted(r, s.last(r.value), ())
        return s.k.known[r.name + "^"]
    order = s.k.extends(r.axes)
    value = s.b.bind(r.name, s.b.typed(s.last(r.value), order, s.real), order)
    if s.maxima().isdisjoint(ein.tensors_of(r.value)):
        return value
    return s.b.bind(r.name, Elem("where", (s.usable(value, r), value, Lit(0, s.real))), order)  # of an empty row


def _held(s: States, name: str) -> list[Value]:
    """The states of an accumulator: the reduction of the whole row about the mean that was found."""
    known = s.k.known.get(name + HELD)
    if known is None:
        eq = s.equations[name]
        assert eq.monoid is not None
        units = [Fill(Lit(u, t)) for u, t in zip(eq.monoid.identity, s.k.state_types(eq), strict=True)]
        order = s.k.result_order(eq)
        known = s.k.known[name + HELD] = s.b.bind(name, s.k.reduce(eq, list(units), order)[0], order)
    return [known]
