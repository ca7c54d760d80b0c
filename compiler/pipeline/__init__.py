"""The shape of a pass, what passes are told, and what a generator is to them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from math import prod
from operator import is_
from typing import Any, TypeVar

from einc import ein, tile
from einc.base.errors import TargetError
from einc.base.facts import Layout
from einc.base.targets import INTERPRETER, Target
from einc.base.types import F16, DType
from einc.ein.ranges import interval
from einc.pipeline.emitted import Both, Emitted
from einc.pipeline.plan import Join, Plan
from einc.tile.asked import Choice

A = TypeVar("A")
B = TypeVar("B")
K = TypeVar("K")
T = TypeVar("T")

ENGINE = 16  # bytes at multiples of which copy engines find blocks, and a thread reads the most at once
GATHERED = 8  # what counts as the bytes that threads read at once of blocks that copy engines do not find
APART = 1  # the same of single elements whose neighbours in memory lie in no block with them


@dataclass(frozen=True, slots=True)
class Product:
    """A contraction of two tensors as they lie in memory: its extents, and the bytes of an element.

    `lined` says whether the rows of both begin at whole lines of a cache. `access` are the bytes that are read at once
    of the side with the rows, and of that with the columns: 16 by copy engines, `GATHERED` by threads, `APART` where
    neighbours in a block are not neighbours in memory; `across` says whether neighbours are rows, or
    columns, and not along the walk, which begins anew at each of so many `steps`.
    """

    batch: int
    rows: int
    columns: int
    inner: int
    size: int
    lined: bool = True
    access: tuple[int, ...] = (16, 16)
    across: tuple[bool, ...] = (False, False)
    steps: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """A generator of kernels: what it can do and what it must be spared, its own passes, and how it writes a file.

    `multiplies` says whether operands of a type are multiplied by a dot on a target, `block` how many positions along
    its rows, and along its columns, a program takes of a contraction there, where that is computed from another one or
    not. Tiles that are folded as they lie in memory have the folded axis last, or before the last from `folds_before`
    axes on.
    `passes` go from tile to tile, each list after the shared pass that it stands beside. `emit` writes the file of a
    program, `emit_both` that of one with its gradients. If the generator knows the time of a product on a target,
    `seconds` is the least, and `parts` are those of the walk that take it. `predicted` is the time of a kernel with the
    tiles, warps and stages that it has: infinite where it takes more than there is, None where that cannot be told. A
    generator for some targets alone says by `lacks` what another one lacks for it, and nothing of its own; `elsewhere`
    is the one that takes its place there, if there is one. `account` tells people what it made of a kernel that all
    passes are done with. In a kernel that it `counts` in, what positions a dot leaves out stays with the dot, and loads
    are whole.
    """

    name: str
    multiplies: Callable[[Target, DType], bool]
    block: Callable[[Target, bool], int]
    passes: Mapping[str, tuple[Pass, ...]]
    emit: Callable[[ein.Program, tile.Schedule, Target], Emitted]
    emit_both: Callable[[Both, Target], Emitted]
    folds_before: int | None = None
    seconds: Callable[[Product, Target], float] | None = None
    parts: Callable[[Product, Target], int] | None = None
    predicted: Callable[[tile.Kernel, Context], float | None] | None = None
    lacks: Callable[[Target], str] = lambda _: ""
    counts: Callable[[tile.Kernel, Context], bool] = lambda *_: False
    elsewhere: Backend | None = None
    account: Callable[[tile.Kernel, Context], tuple[str, ...]] = lambda *_: ()

    def on(self, target: Target) -> Backend:
        """The generator that writes kernels for a target: itself, or the one that takes its place there."""
        return self.elsewhere if self.elsewhere is not None and self.lacks(target) else self

    def check(self, target: Target) -> None:
        """Raise `TargetError` where it has no kernels of its own for a target, and no other takes its place."""
        if fact := self.on(target).lacks(target):
            what = f"the generator {self.name} has no kernels for {target.name}"
            raise TargetError(what, fact=fact, hint="leave out the generator")


@dataclass(frozen=True, slots=True)
class Context:
    """What decisions may depend on: the generator that writes the kernels, the optimisation level, the target, and size
    hints (extents by axis name). `choices` are made already; the rest is left to the heuristics. `layouts` are those of
    operands, as far as they are known, and `extents` what the size hints stand for, to an eighth or less. Programs that
    are `deterministic` give the same bits in every run.
    """

    backend: Backend
    level: int = 2
    target: Target = INTERPRETER
    sizes: Mapping[str, int] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    extents: Mapping[str, int] = field(default_factory=dict)
    deterministic: bool = True
    worked_out: dict[str, dict[Any, Any]] = field(init=False, default_factory=dict, compare=False, repr=False)

    def extent(self, axis: str) -> int:
        """The extent of an axis, as far as it is known."""
        return self.extents.get(axis, self.size(axis))

    def size(self, axis: str, default: int = 1024) -> int:
        """The hint for an axis; 1024 where there is none."""
        return self.sizes.get(axis, default)

    def multiplies(self, dtype: DType) -> bool:
        """Does a dot take operands of this type?"""
        return self.backend.multiplies(self.target, dtype)

    def unit(self, dtype: DType) -> DType:
        """The type that a dot over this one multiplies in: f16, which has all of their values, for floats of 8 bits
        that no unit takes."""
        return F16 if dtype.is_float and dtype.bits == 8 and not self.multiplies(dtype) else dtype

    def block(self, chained: bool = False) -> int:
        """The positions along the rows, or the columns, of a contraction that share a program."""
        return self.backend.block(self.target, chained)

    def knowing(self, axes: Iterable[ein.AxisDecl]) -> Context:
        """The context with hints for axes that a pass has added, where those that their formulas need are there."""
        sizes = dict(self.sizes)
        for a in axes:
            known = None if a.extent is None else interval(a.extent, sizes, {})
            if known is not None and known[0] == known[1]:
                sizes[a.name] = known[0]
        return self if sizes == self.sizes else replace(self, sizes=sizes)


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
    """A pass on one kernel as a pass on states: it is applied to each.

    A kernel that it changes nothing of stays the same object, of which much is known.
    """

    def run(state: State, context: Context) -> State:
        assert state.schedule is not None
        before = state.schedule.kernels
        made = (f(k, context) for k in before)
        kernels = tuple(k if new == k else new for k, new in zip(before, made, strict=True))
        return (
            state
            if all(map(is_, kernels, before))
            else replace(state, schedule=replace(state.schedule, kernels=kernels))
        )

    return run


SIZED_AFTER = "place-rows"  # the pass beside which generators have those that size tiles


def own_passes(program: ein.Program, kernel: tile.Kernel, context: Context) -> tile.Kernel:
    """A kernel that was just lowered, after those of its generator's passes that come next; they size its tiles."""
    state = State(program, tile.Schedule((kernel,), ()))
    for p in context.backend.passes.get(SIZED_AFTER, ()):
        state = p.run(state, context)
    assert state.schedule is not None
    (made,) = state.schedule.kernels
    return made


def once(f: Callable[[K, Context], T]) -> Callable[[K, Context], T]:
    """The function, which works its result out once for equal values in a context: a search asks again and again."""
    return kept(f, lambda value, context: (context.worked_out, value))


def kept(f: Callable[[A, B], T], where: Callable[[A, B], tuple[dict[str, Any], Hashable]]) -> Callable[[A, B], T]:
    """The function, which works its result out once: `where` gives what holds results, by function, and the key."""
    name = f"{f.__module__}.{f.__qualname__}"

    def known(a: A, b: B) -> T:
        results, key = where(a, b)
        found: dict[Hashable, Any] = results.setdefault(name, {})
        result: T = found.get(key, found)
        if result is found:  # as no result is
            result = found[key] = f(a, b)
        return result

    return update_wrapper(known, f)


@once
def positions(axes: tuple[str, ...], context: Context) -> int:
    """The number of positions of a group of axes, by the size hints; limited, for ranks that no tensor has."""
    return min(prod(context.size(a) for a in axes), 1 << 200)
