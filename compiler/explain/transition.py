"""One reduction as mathematics: what it carries, and how that moves, merges and finishes.

a = ⊕_{r} f(r; d)     carries  Φ_q = ⊕_{r} φ_q(r; d),     moved by  C(d → d′)  whenever d moves,     a = Σ_q h_q·Φ_q
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from einc import ein
from einc.base.ops import PRODUCT
from einc.ein import ONE, ZERO, Expr, Read
from einc.explain.like_terms import tidied
from einc.explain.notation import Shapes, body, combined, expression, left, lowered, reduction
from einc.passes.streaming.sweep import Accumulator, Link, Reference

_LETTERS = "μνρσ"


@dataclass(frozen=True, slots=True)
class Relative:
    """A value that still changes while the axis is walked; `hat` replaces it where it is not finite (and, if 1, where
    it is 0). If `seen`, it is that of the positions seen so far during the walk."""

    name: str
    value: str
    hat: int
    seen: bool


@dataclass(frozen=True, slots=True)
class Carried:
    """An accumulator, called `symbol` in the formulas: `total` is its definition, `body` one position's share of it.

    After a movement it is the sum of the accumulators in `moves`, each times its coefficient; without any it stays.
    """

    symbol: str
    name: str
    body: str
    axes: tuple[str, ...]
    moves: dict[str, str]
    total: str


@dataclass(frozen=True, slots=True)
class Open:
    """Why a reduction does not follow the values it reads: the part of its body that does not, the changing values that
    this part reads, and the reason."""

    reduction: str
    part: str
    waits_for: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """One reduction: what it carries in which walk (the first is 1), and how that moves, steps, merges and finishes.

    `matrix` is C(d → d′), a row for each accumulator, if several of them move; `waited` says why the reduction was not
    carried in an earlier walk.
    """

    reduction: str
    over: tuple[str, ...]
    equation: str
    walk: int
    structure: str
    relative: tuple[Relative, ...]
    accumulators: tuple[Carried, ...]
    matrix: tuple[tuple[str, ...], ...]
    move: tuple[str, ...]
    step: str
    merge: str
    finish: str
    waited: Open | None = None


class Writer:
    """Writes one link, with symbols for its accumulators."""

    def __init__(self, link: Link, shapes: Shapes) -> None:
        self.link, self.monoid = link, link.accumulators[0].monoid
        self.aliases = _aliases(link, shapes)
        own = {a.name: a.axes for a in link.accumulators}
        own |= {self.aliases.get(r.name, r.name): r.axes for r in link.references}
        self.single = len(link.accumulators) == 1
        self.symbols = {a.name: "Φ" + ("" if self.single else lowered(n)) for n, a in enumerate(link.accumulators)}
        own |= {symbol: own[name] for name, symbol in self.symbols.items()}
        self.shapes = {**shapes, **{name: tuple((x,) for x in axes) for name, axes in own.items()}}
        self.names = [self.aliases.get(r.name, r.name) for r in link.references]

    def derivation(self, walk: int, waited: Open | None) -> Derivation:
        eq, accumulators = self.link.equation, self.link.accumulators
        moving = any(_moves(a) for a in accumulators)
        return Derivation(
            reduction=eq.name,
            over=eq.over,
            equation=f"{left(eq)} = {body(eq, self.shapes)}",
            walk=walk,
            structure=structure(self.link),
            relative=tuple(self.relative(r) for r in self.link.references),
            accumulators=tuple(self.carried(a) for a in accumulators),
            matrix=() if self.single or not moving else tuple(self.row(a) for a in accumulators),
            move=tuple(self.moved(a) for a in accumulators) if moving else (),
            step=self.step(moving),
            merge=self.merge(moving),
            finish=f"{eq.name} = {self.text(_renamed(self.link.finish, self.symbols))}",
            waited=waited,
        )

    def text(self, e: Expr, least: int = 0) -> str:
        return expression(tidied(_renamed(e, self.aliases)), self.shapes, least)

    def relative(self, r: Reference) -> Relative:
        return Relative(self.aliases.get(r.name, r.name), self.text(r.value), r.hat, r.seen)

    def carried(self, a: Accumulator) -> Carried:
        total = reduction(a.monoid, self.link.equation.over, a.domain, self.text(a.bodies[0], PRODUCT), self.shapes)
        moves = {name: self.text(c) for c, name in a.moves}
        if _moves(a) and a.shift is not None:
            moves = {a.name: f"+ {self.text(a.shift)}"}
        elif a.count is not None:
            moves = {a.name: f"({moves[a.name]})^{{{a.count}}}"}
        return Carried(self.symbols[a.name], a.name, self.text(a.bodies[0]), a.axes, moves, total)

    def row(self, a: Accumulator) -> tuple[str, ...]:
        """A row of the transition matrix."""
        factors = {name: self.text(c) for c, name in a.moves} or {a.name: "1"}
        return tuple(factors.get(b.name, "0") for b in self.link.accumulators)

    # ------------------------------------------------------------------------------------------------------- movements

    def primed(self, times: int) -> str:
        return ", ".join(n + "′″"[times - 1 : times] for n in self.names)

    def moved(self, a: Accumulator) -> str:
        symbol = self.symbols[a.name]
        return f"{symbol}({self.primed(1)}) = {self.after(a, {})}" if _moves(a) else f"{symbol} stays"

    def after(self, a: Accumulator, names: dict[str, str], prime: str = "") -> str:
        """An accumulator after a movement; `names` renames references, `prime` marks accumulators of another part."""
        own = self.symbols[a.name] + prime
        if not _moves(a):
            return own
        if a.shift is not None:
            return self.plus(own, _renamed(a.shift, names))
        if a.count is not None:
            ((c, _),) = a.moves
            return f"{self.text(_renamed(c, names), PRODUCT + 2)}^{{{self.symbols[a.count]}{prime}}}·{own}"
        terms = [
            ("" if c == ONE else self.text(_renamed(c, names), PRODUCT) + "·") + self.symbols[n] + prime
            for c, n in a.moves
        ]
        return " + ".join(terms)

    def plus(self, own: str, shift: Expr) -> str:
        return f"{own} + {self.text(shift)}"

    def step(self, moving: bool) -> str:
        share = f"φ_{{q}}(block{'; ' + self.primed(1) if self.names else ''})"
        if self.single:
            a = self.link.accumulators[0]
            over = ", ".join(self.link.equation.over)
            inside = self.text(a.bodies[0], PRODUCT) if not moving else f"φ({over}; {self.primed(1)})"
            block = reduction(a.monoid, (f"{over} in block",), None, inside)
            return f"Φ ← {combined(a.monoid, f'Φ({self.primed(1)})' if moving else 'Φ', block)}"
        return f"Φ_{{q}} ← {combined(self.monoid, f'Φ_{{q}}({self.primed(1)})' if moving else 'Φ_{q}', share)}"

    def merge(self, moving: bool) -> str:
        """Two partial results merged, at the references of both together."""
        a = self.link.accumulators[0]
        if not moving:
            q = "" if self.single else "_{q}"
            return f"Φ{q}″ = {combined(self.monoid, f'Φ{q}', f'Φ{q}′')}"
        if self.single or a.count is not None:
            names = [r.name for r in self.link.references]
            first = {n + "'": n + "''" for n in names}
            second = first | {n: n + "'" for n in names}
            return (
                f"{self.symbols[a.name]}″ = {combined(self.monoid, self.after(a, first), self.after(a, second, '′'))}"
            )
        d, e, f = ", ".join(self.names), self.primed(1), self.primed(2)
        return f"Φ″ = C({d} → {f})·Φ + C({e} → {f})·Φ′"


def _moves(a: Accumulator) -> bool:
    return bool(a.moves) or (a.shift is not None and a.shift != ZERO)


def _renamed(e: Expr, names: dict[str, str]) -> Expr:
    """The expression with tensors renamed, primes kept unless the primed name has one of its own."""
    if isinstance(e, Read):
        plain = e.tensor.rstrip("'")
        if e.tensor in names:
            return replace(e, tensor=names[e.tensor])
        if plain in names and plain != e.tensor:
            return replace(e, tensor=names[plain] + e.tensor[len(plain) :])
    return ein.rebuild(e, lambda below: _renamed(below, names))


def _aliases(link: Link, shapes: Shapes) -> dict[str, str]:
    """Letters for references that are not tensors themselves."""
    letters = (x for x in _LETTERS if x not in shapes)
    composite = [r.name for r in link.references if r.value != Read(r.name, tuple(ein.AxisValue(a) for a in r.axes))]
    return dict(zip(composite, letters, strict=False))


def structure(link: Link) -> str:
    """The kind of transition, in words."""
    moving = [a for a in link.accumulators if _moves(a)]
    count = len(link.accumulators)
    if not moving:
        tail = "; values that still move are applied last" if link.references else ""
        return f"a plain {link.accumulators[0].monoid.name}: nothing in it moves" + tail
    first = moving[0]
    if first.shift is not None:
        return "one accumulator, translated when its reference moves"
    if first.count is not None:
        return "one accumulator, scaled once for each position counted"
    diagonal = {c for a in moving for c, n in a.moves if n == a.name}
    if count == 1:
        return "one accumulator, scaled by a factor when its reference moves"
    order = {a.name: n for n, a in enumerate(link.accumulators)}
    if any(order[n] < order[a.name] for a in moving for _, n in a.moves):
        return f"{count} accumulators that turn into each other: C is triangular in no order of them"
    if diagonal == {ONE}:
        return f"{count} accumulators that shift like centred moments: C is triangular, with ones on its diagonal"
    return f"{count} accumulators that shift and scale: C is triangular"
