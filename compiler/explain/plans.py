"""Plans for kernels that were not planned, such as those of a text: read off the kernels and their program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from einc import tile
from einc.ein import Const, Equation, Program
from einc.passes.streaming.walks import tensors_read
from einc.pipeline.plan import Plan
from einc.tile.walk import loops


def plans_of(program: Program, schedule: tile.Schedule) -> tuple[Plan, ...]:
    """A plan for each kernel that writes tensors of the program, or for two where one merges the parts of the other's
    walk."""
    return tuple(_plans(program, schedule.kernels))


def _plans(program: Program, kernels: Sequence[tile.Kernel]) -> Iterator[Plan]:
    walkers = {k.parts_of: k for k in kernels if k.parts_of}
    made = program.dtypes()
    for k in kernels:
        stores = tuple(b.name for b in k.buffers if b.written)
        if k.parts_of or not set(stores) <= made.keys():
            continue
        walker = walkers[k.name] if k.merges else k
        given = {b.name for b in (*walker.buffers, *k.buffers) if not b.written}
        yield _plan(program, walker, _computed(program, stores, given), stores)


def _computed(program: Program, stores: Sequence[str], given: set[str]) -> tuple[Equation, ...]:
    """The equations that compute the stored tensors from the given ones."""
    needed, found = set(stores), []
    for eq in reversed(program.equations):
        if needed & {t.name for t in eq.outputs}:
            found.append(eq)
            needed |= tensors_read(eq.expressions()) - given
    return tuple(reversed(found))


def _plan(program: Program, k: tile.Kernel, equations: tuple[Equation, ...], stores: tuple[str, ...]) -> Plan:
    own = {a for eq in equations for a in (*eq.axes, *eq.over)}

    def axes(role: str) -> tuple[str, ...]:
        return tuple(a for t in (*k.grid, *k.whole) if t.role == role for a in t.axes if a in own)

    parts = next((a for t in k.grid for a in t.axes if a not in own), "") if k.parts_of else ""
    extent = next((a.extent for a in program.axes if a.name == parts), None)
    placed = {
        "batch": axes("batch"),
        "rows": axes("row"),
        "columns": axes("column"),
        "walked": next((loop.axis.axes for loop in loops(k.body) if loop.axis.role != "inner"), ()),
        "whole": axes("whole"),
    }
    inner = tuple(dict.fromkeys(loop.axis.axes for loop in loops(k.body) if loop.axis.role == "inner"))
    known = {a for group in (*placed.values(), *inner) for a in group}
    return Plan(
        tuple(eq.name for eq in equations),
        stores=stores,
        split=parts,
        splits=int(extent.value) if isinstance(extent, Const) else 1,
        scanned=tuple(dict.fromkeys(a for eq in equations for a in eq.axes if a not in known)),
        inner=inner,
        **placed,
    )
