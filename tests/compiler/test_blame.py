"""Whatever a pass breaks, and wherever it stands in the table, it is the one that is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from einc import ein, tile
from einc.base.types import BOOL
from einc.codegen import TRITON
from einc.driver import elaborate, parse
from einc.passes import pipeline
from einc.pipeline import Context, Pass, State
from einc.pipeline.forms import IllegalIR
from einc.stages import run_passes
from einc.tile import Ref, Store

PROGRAM = elaborate(parse('softmax("ij->ij") * "j->ij"'))
NAMES = [p.name for p in pipeline(TRITON)]
LOWER = NAMES.index("lower")
UNKNOWN: Any = object()  # a node of no class that there is


def of_body(f: Callable[[ein.Expr], ein.Expr]) -> Callable[[State], State]:
    """Breaks what the last equation computes."""

    def broken(state: State) -> State:
        *first, last = state.program.equations
        changed = replace(last, bodies=tuple(map(f, last.bodies)))
        return replace(state, program=replace(state.program, equations=(*first, changed)))

    return broken


def of_program(**fields: Any) -> Callable[[State], State]:
    return lambda state: replace(state, program=replace(state.program, **fields))


OF_EQUATIONS: dict[str, Callable[[State], State]] = {
    "a result that nothing gives": of_program(results=("nothing",)),
    "a parameter less": of_program(params=PROGRAM.params[1:]),
    "a definition less": lambda s: of_program(equations=s.program.equations[1:])(s),
    "a definition twice": lambda s: of_program(equations=(s.program.equations[0], *s.program.equations))(s),
    "an axis less": of_program(axes=PROGRAM.axes[1:]),
    "another type": of_body(lambda e: ein.Apply("and", (e, e))),
    "another arity": of_body(lambda e: ein.Apply("exp", (e, e))),
    "no operation": of_body(lambda e: ein.Apply("softmax", (e,))),
    "another rank": of_body(lambda _: ein.Read(PROGRAM.operands[0].name, ())),
    "no tensor": of_body(lambda _: ein.Read("nothing", ())),
    "no node": of_body(lambda e: ein.Apply("add", (e, UNKNOWN))),
}


def of_kernel(f: Callable[[tile.Kernel], tile.Kernel]) -> Callable[[State], State]:
    """Breaks the last kernel."""

    def broken(state: State) -> State:
        assert state.schedule is not None
        *first, last = state.schedule.kernels
        return replace(state, schedule=replace(state.schedule, kernels=(*first, f(last))))

    return broken


def of_values(f: Callable[[tile.Value], tile.Value]) -> Callable[[State], State]:
    """Breaks what the last kernel stores."""

    def stored(s: tile.Statement) -> tile.Statement:
        return replace(s, value=f(s.value)) if isinstance(s, Store) else s

    return of_kernel(lambda k: replace(k, body=tuple(map(stored, k.body))))


def unsized(kernel: tile.Kernel) -> tile.Kernel:
    return replace(kernel, choices=replace(kernel.choices, tiles=()))


def unplaced(kernel: tile.Kernel) -> tile.Kernel:
    return replace(kernel, choices=replace(kernel.choices, ways=()))


OF_KERNELS: dict[str, tuple[str, Callable[[State], State]]] = {  # and the first pass behind which each is a break
    "no name": ("lower", of_values(lambda _: Ref("nothing"))),
    "another type": ("lower", of_values(lambda v: tile.Convert(BOOL, v))),
    "another arity": ("lower", of_values(lambda v: tile.Elem("exp", (v, v)))),
    "no operation": ("lower", of_values(lambda v: tile.Elem("softmax", (v,)))),
    "no value": ("lower", of_values(lambda v: tile.Elem("add", (v, UNKNOWN)))),
    "no statement": ("lower", of_kernel(lambda k: replace(k, body=(*k.body, UNKNOWN)))),
    "a statement less": ("lower", of_kernel(lambda k: replace(k, body=k.body[:-1]))),
    "a buffer less": ("lower", of_kernel(lambda k: replace(k, buffers=k.buffers[1:]))),
    "a kernel less": ("lower", lambda s: replace(s, schedule=tile.Schedule((), ()))),
    "a size less": ("choose-tiles", of_kernel(unsized)),
    "a load that is not placed": ("place-loads", of_kernel(unplaced)),
}


def places() -> Iterator[tuple[str, Callable[[State], State], int]]:
    """Each break, and each number of passes to run before it."""
    for what, f in OF_EQUATIONS.items():
        yield from ((what, f, at) for at in (0, 1, NAMES.index("hoist"), LOWER))
    for what, (after, f) in OF_KERNELS.items():
        first, last = NAMES.index(after) + 1, len(NAMES)
        yield from ((what, f, at) for at in sorted({first, (first + last) // 2, last}))


@pytest.mark.parametrize(("what", "f", "at"), [pytest.param(*p, id=f"{p[0]}, {p[2]}") for p in places()])
def test_what_breaks_is_named(what: str, f: Callable[[State], State], at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Pass("break", what, "to see it caught", lambda state, _: f(state))
    table = pipeline(TRITON)
    monkeypatch.setattr("einc.stages.pipeline", lambda _: (*table[:at], bad, *table[at:]))
    with pytest.raises(IllegalIR, match=r"^after 'break': "):
        run_passes(PROGRAM, Context(TRITON))
