"""The shape of a pass, what passes are told, and the runner that checks a stage's form before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from einc import ein, tile
from einc.base.targets import INTERPRETER, Target
from einc.ein.ranges import interval
from einc.pipeline.plan import Join, Plan


@dataclass(frozen=True, slots=True)
class Context:
    """What decisions may depend on: the optimisation level, the target, and size hints (extents by axis name).

    `splits` asks for walks in so many parts, wherever that is possible; without it they are as many as pay.
    """

    level: int = 2
    target: Target = INTERPRETER
    sizes: Mapping[str, int] = field(default_factory=dict)
    splits: int | None = None

    def size(self, axis: str, default: int = 1024) -> int:
        """The hint for an axis; 1024 where there is none."""
        return self.sizes.get(axis, default)

    def knowing(self, axes: Iterable[ein.AxisDecl]) -> Context:
        """The context with hints for axes that a pass has added, where those that their formulas need are there."""
        sizes = dict(self.sizes)
        for a in axes:
            known = None if a.extent is None else interval(a.extent, sizes, {})
            if known is not None and known[0] == known[1]:
                sizes[a.name] = known[0]
        return replace(self, sizes=sizes)


@dataclass(frozen=True, slots=True)
class State:
    """The program between two passes: its equations, the plan of each kernel once it is decided, then the kernels.

    Plans name equations, which are the program's alone. `joins` are what was compared when the plans were made: those
    that led to them, then those that were not taken.
    """

    program: ein.Program
    schedule: tile.Schedule | None = None
    plans: tuple[Plan, ...] = ()
    joins: tuple[Join, ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """A total function on states with its law.

    `law` is the rewrite on one line, `why` the reason on another; `level` is the least optimisation level that runs it;
    `needs` and `gives` name the forms (see `einc.pipeline.forms`) that hold before and after.
    """

    name: str
    law: str
    why: str
    run: Callable[[State, Context], State]
    level: int = 0
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


def on_program(f: Callable[[ein.Program, Context], ein.Program]) -> Callable[[State, Context], State]:
    """A pass on equations as a pass on states."""
    return lambda state, context: replace(state, program=f(state.program, context))


def on_kernels(f: Callable[[tile.Kernel, Context], tile.Kernel]) -> Callable[[State, Context], State]:
    """A pass on one kernel as a pass on states: it is applied to each."""

    def run(state: State, context: Context) -> State:
        assert state.schedule is not None
        kernels = tuple(f(k, context) for k in state.schedule.kernels)
        return replace(state, schedule=replace(state.schedule, kernels=kernels))

    return run


def positions(axes: tuple[str, ...], context: Context) -> int:
    """The number of positions of a group of axes, by the size hints; limited, for ranks that no tensor has."""
    return min(prod(context.size(a) for a in axes), 1 << 200)
