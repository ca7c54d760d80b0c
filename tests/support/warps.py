"""Emitted Gluon run on threads: one for each role of a program, with everything as late as the protocol allows.

A copy poisons its slot at once and fills it some time later; a dot reads its sides only when it is waited for, and has
to find them there when it begins; threads pause wherever they meet. So a slot that is read before it is filled, or
filled while it is read, gives NaN or other numbers, and a barrier that nobody arrives at a deadlock, which is an error
here, as one that more arrive at than may. What threads read by themselves may be read late as well, until a fence: a
copy to there is an error before it. Tiles are arrays of doubles: results are compared with the meaning itself.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

Tensors = Sequence[torch.Tensor]
LANES = 32  # of a warp
PROCESSORS = 2  # each with several programs of a grid one after another
PATIENCE = 20.0  # seconds that a thread waits for others
_PAUSES = 0.2  # of the meetings of threads
_LONGEST = 2e-4  # seconds of a pause
_HERE = threading.local()  # the program of a thread, its dots in flight, and the random numbers of its pauses


class Broken(Exception):
    """A protocol that does not hold."""


@dataclass
class Run:
    """A program of the grid: what went wrong in it, and the copies that are under way."""

    place: int
    total: int
    errors: list[str] = field(default_factory=list)
    copies: list[threading.Thread] = field(default_factory=list)
    reads: dict[int, list[Any]] = field(default_factory=dict)  # those of each thread that may be late

    def fail(self, what: str) -> Broken:
        self.errors.append(what)
        return Broken(what)


class Tile(np.ndarray):
    """A tile, or a scalar."""

    def to(self, dtype: str) -> Tile:
        return cast(self, dtype)

    def permute(self, order: Sequence[int]) -> Tile:
        return tile(np.transpose(self, order))


def tile(x: Any) -> Tile:
    return np.asarray(x).view(Tile)


def cast(x: Any, dtype: str) -> Tile:
    """The value in another type: of doubles, integers or truth values."""
    name = str(dtype)
    kind = bool if name == "bool" else np.float64 if name.startswith(("float", "bfloat")) else np.int64
    return tile(np.asarray(x).astype(kind))


def pause() -> None:
    if random.random() < _PAUSES:
        time.sleep(random.random() * _LONGEST)


class Barrier:
    """Phases, each over when so many have arrived and all bytes are there."""

    def __init__(self) -> None:
        self.changed, self.phase, self.count, self.left, self.bytes = threading.Condition(), 0, 0, 0, 0

    def arrive(self, count: int = 1, size: int = 0) -> None:
        with self.changed:
            self.left -= count
            self.bytes += size
            if self.left < 0:
                raise _HERE.run.fail("more arrive at a barrier than may")
            self.settle()

    def settle(self) -> None:
        if self.left == 0 and self.bytes == 0:
            self.phase, self.left = self.phase + 1, self.count
            self.changed.notify_all()

    def landed(self, size: int) -> None:
        with self.changed:
            self.bytes -= size
            self.settle()

    def wait(self, parity: int, run: Run) -> None:
        end = time.monotonic() + PATIENCE
        with self.changed:
            while self.phase & 1 == parity:
                if run.errors:
                    raise Broken("another role failed")
                if not self.changed.wait(0.1) and time.monotonic() > end:
                    raise run.fail("a role waits for ever")


class Shared:
    """Slots in shared memory, or a part of them."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def index(self, k: Any) -> Any:
        found = self.array[int(k)]
        return found if isinstance(found, Barrier) else Shared(found)

    def reshape(self, shape: Sequence[int]) -> Shared:
        return Shared(self.array.reshape(shape))

    def slice(self, start: int, length: int, axis: int) -> Shared:
        return Shared(self.array[(slice(None),) * axis + (slice(start, start + length),)])

    def load(self, _: object) -> Tile:
        _HERE.run.reads.setdefault(threading.get_ident(), []).append(self.array)
        return tile(self.array.copy())

    def store(self, x: Tile) -> None:
        self.array[...] = x

    def permute(self, order: Sequence[int]) -> Shared:
        return Shared(self.array.transpose(order))


@dataclass
class Flying:
    """A dot in flight."""

    left: Any
    right: Shared
    acc: Any
    added: bool
    result: Tile | None = None

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if isinstance(side, Shared) and np.isnan(side.array).any():
                raise _HERE.run.fail("a dot begins before its side is there")

    def finish(self) -> None:
        left = self.left.array if isinstance(self.left, Shared) else np.asarray(self.left)
        acc = self.acc.result if isinstance(self.acc, Flying) else self.acc
        self.result = tile(left @ self.right.array + (np.asarray(acc) if self.added else 0))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise _HERE.run.fail("a dot is read before it is finished")


@dataclass
class Descriptor:
    """A tensor, copied block by block; beyond its ends there are zeros."""

    base: torch.Tensor
    sides: Sequence[int]
    dtype: str = "float64"
    layout: None = None

    def block(self, corner: Sequence[int]) -> Any:
        found, array = np.zeros(self.sides), self.base.double().numpy()
        part = array[tuple(slice(max(c, 0), c + n) for c, n in zip(corner, self.sides, strict=True))]
        found[tuple(slice(n) for n in part.shape)] = part
        return found


@dataclass
class Pointer:
    """Elements of a tensor that is contiguous, at offsets."""

    memory: Any
    offsets: Any = 0

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.memory, np.asarray(self.offsets) + np.asarray(other))


def fence() -> None:
    """What the thread has read is read."""
    _HERE.run.reads[threading.get_ident()] = []


def fetch(source: Descriptor, corner: Sequence[Any], there: Barrier, slot: Shared) -> None:
    """A copy by the engine."""
    run, rng = _HERE.run, random.random() * 5e-4
    if any(np.shares_memory(x, slot.array) for own in [*run.reads.values()] for x in [*own]):
        raise run.fail("a copy may come before what a thread reads of its slot")
    slot.array[...] = np.nan
    size = slot.array.size * 2

    def copy() -> None:
        time.sleep(rng)
        _HERE.run = run
        slot.array[...] = source.block([int(c) for c in corner])
        there.landed(size)

    thread = threading.Thread(target=copy, daemon=True)
    run.copies.append(thread)
    thread.start()


def copied(slot: Shared, source: Pointer, mask: Any = None) -> None:
    """A copy by the lanes of a warp, which is there when a barrier that they are told of says so."""
    slot.array[...] = np.nan if slot.array.dtype.kind == "f" else np.iinfo(slot.array.dtype).min
    found = loaded(source, mask)
    _HERE.lanes = [*getattr(_HERE, "lanes", []), (slot, found)]


def lanes_arrive(there: Barrier, increment_count: bool = True) -> None:
    """What the lanes of a warp have begun to copy lands some time later, and each of them arrives."""
    assert not increment_count
    run, rng, begun = _HERE.run, random.random() * 5e-4, _HERE.lanes
    _HERE.lanes = []

    def land() -> None:
        time.sleep(rng)
        _HERE.run = run
        for slot, found in begun:
            slot.array[...] = found
        there.arrive(LANES)

    thread = threading.Thread(target=land, daemon=True)
    run.copies.append(thread)
    thread.start()


def specialise(roles: Sequence[tuple[Callable[..., None], Sequence[Any]]], *_: Any) -> None:
    """Every role on a thread of its own."""
    run = _HERE.run

    def body(function: Callable[..., None], args: Sequence[Any]) -> None:
        _HERE.run, _HERE.dots = run, []
        try:
            function(*args)
            if _HERE.dots:
                run.errors.append("dots are in flight at the end")
        except Broken:
            pass
        except Exception as error:
            run.errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=body, args=role, daemon=True) for role in roles]
    for t in threads:
        t.start()
    for t in threads:
        t.join(2 * PATIENCE)
    for t in run.copies:
        t.join(PATIENCE)


def dot(left: Any, right: Shared, acc: Any, use_acc: bool = True, is_async: bool = False) -> Flying:
    assert is_async
    begun = Flying(left, right, acc, use_acc)
    _HERE.dots.append(begun)
    return begun


def finish(flying: int, deps: Sequence[Any]) -> Any:
    pause()
    while len(_HERE.dots) > flying:
        _HERE.dots.pop(0).finish()
    found = [d.result if isinstance(d, Flying) and d.result is not None else d for d in deps]
    return found[0] if len(found) == 1 else tuple(found)


def wait(barrier: Barrier, parity: Any, pred: Any = True) -> None:
    pause()
    if pred:
        barrier.wait(int(parity), _HERE.run)


def arrive(barrier: Barrier, count: int = 1) -> None:
    pause()
    barrier.arrive(count)


def begin(barrier: Barrier, count: int) -> None:
    barrier.count = barrier.left = count


def allocated(dtype: str, shape: Sequence[int], layout: object = None) -> Shared:
    if layout == "barriers":
        return Shared([Barrier() for _ in range(shape[0])])
    return Shared(np.full(shape, -(2**60)) if dtype.startswith("int") else np.full(shape, np.nan))


def loaded(p: Pointer, mask: Any = None, other: Any = 0) -> Tile:
    at = np.asarray(p.offsets)
    where = np.broadcast_to(True if mask is None else np.asarray(mask), at.shape)
    found = np.full(at.shape, other, p.memory.dtype)
    found[where] = p.memory[at[where]]
    return tile(found)


def stored(p: Pointer, value: Any, mask: Any = None) -> None:
    at = np.asarray(p.offsets)
    where = np.broadcast_to(True if mask is None else np.asarray(mask), at.shape)
    p.memory[at[where]] = np.broadcast_to(np.asarray(value), at.shape)[where]


_COUNTING = threading.Lock()


def added(p: Pointer, value: Any, **_: Any) -> Tile:
    with _COUNTING:
        before = p.memory[p.offsets]
        p.memory[p.offsets] += value
    return tile(before)


def folded(x: Any, axis: int, combine: Callable[..., Any]) -> Tile:
    return tile(reduce(combine, [tile(part) for part in np.moveaxis(np.asarray(x), axis, 0)]))


def _jit(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda f: f


def _numpy(f: Callable[..., Any]) -> Callable[..., Tile]:
    def called(*args: Any, **_: Any) -> Tile:
        with np.errstate(all="ignore"):
            return tile(f(*map(np.asarray, args)))

    return called


_TYPES = "int1 int8 int16 int32 int64 float16 bfloat16 float32 float64".split()
TL = SimpleNamespace(
    **{name: "bool" if name == "int1" else name for name in _TYPES},
    constexpr=None, PropagateNan=SimpleNamespace(ALL=None), cast=cast, load=loaded, store=stored, reduce=folded,
    where=_numpy(np.where), maximum=_numpy(np.maximum), minimum=_numpy(np.minimum), exp=_numpy(np.exp),
    exp2=_numpy(np.exp2), log=_numpy(np.log), log2=_numpy(np.log2), abs=_numpy(np.abs), sqrt=_numpy(np.sqrt),
    rsqrt=_numpy(lambda x: 1 / np.sqrt(x)), floor=_numpy(np.floor), sin=_numpy(np.sin), cos=_numpy(np.cos),
    sum=lambda x, axis: tile(np.sum(np.asarray(x), axis)), max=lambda x, axis: tile(np.max(np.asarray(x), axis)),
    min=lambda x, axis: tile(np.min(np.asarray(x), axis)), cdiv=lambda a, b: -(-a // b),
    broadcast_to=lambda x, shape: tile(np.broadcast_to(x, shape)), zeros_like=lambda x: tile(np.zeros_like(x)),
    program_id=lambda axis: tile(_HERE.run.place), num_programs=lambda axis: tile(_HERE.run.total),
    debug_barrier=lambda: None, atomic_add=added, static_range=range,
)  # fmt: skip
GL = SimpleNamespace(
    constexpr=None, int32="int32", int64="int64", static_range=range, warp_specialize=specialise,
    allocate_shared_memory=allocated,
    arange=lambda a, b, layout: tile(np.arange(a, b)), full=lambda shape, x, dtype, layout: tile(np.full(shape, x)),
    convert_layout=lambda x, layout: x, split=lambda x: (x[..., 0], x[..., 1]),
    NVMMADistributedLayout=lambda *_: None, SliceLayout=lambda *_: None,
    BlockedLayout=lambda *_: None, SwizzledSharedLayout=lambda *_, **__: None, DotOperandLayout=lambda *_: None,
)  # fmt: skip


def run(source: str, name: str, operands: Tensors, results: Tensors, *scalars: Any) -> None:
    """Run an emitted file's launcher: `results`, contiguous tensors of doubles, take what it gives.

    Raises `Broken` for a program whose protocol does not hold.
    """
    memory = {id(t): t for t in (*operands, *results)}

    def launch(kernel: Callable[..., None], programs: int, *args: Any, **meta: Any) -> None:
        def given(x: Any) -> Any:
            return Pointer(memory.get(id(x), x).numpy().reshape(-1)) if isinstance(x, torch.Tensor) else x

        for place in range(int(programs)):
            _HERE.run, _HERE.dots = Run(place, programs), []
            kernel(*map(given, args), **meta)
            if _HERE.run.errors:
                raise Broken(_HERE.run.errors[0])

    text = re.sub(r"^(from|import) (triton|torch)\b.*$", "", source, flags=re.MULTILINE)
    text = re.sub(r"^fetch = .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"dtype=torch\.b?float\d+", "dtype=torch.float64", text)  # of what lies between kernels
    space: dict[str, Any] = {
        "torch": torch, "math": math, "tl": TL, "gl": GL, "triton": SimpleNamespace(jit=_jit),
        "gluon": SimpleNamespace(jit=_jit), "fetch": fetch,
        "hopper": SimpleNamespace(
            warpgroup_mma=dot, warpgroup_mma_wait=finish, warpgroup_mma_init=lambda x: x,
            fence_async_shared=fence,
        ),
        "async_copy": SimpleNamespace(async_copy_global_to_shared=copied, mbarrier_arrive=lanes_arrive),
        "mbarrier": SimpleNamespace(
            init=begin, expect=lambda b, size: b.arrive(1, int(size)), wait=wait, arrive=arrive,
            MBarrierLayout=lambda: "barriers",
        ),
    }  # fmt: skip
    exec(compile(text, "<emitted>", "exec"), space)
    space |= {"launch": launch, "expect": lambda *_: None, "index_type": lambda *_: "int64", "unit": lambda _: 1}
    space |= {"processors": lambda _: PROCESSORS, "agreed": lambda condition: condition}
    space["swizzled"] = lambda t, *sides: Descriptor(t, sides)
    space[name](*operands, *scalars, out=results[0] if len(results) == 1 else tuple(results))
