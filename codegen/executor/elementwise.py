"""Operations on the values of nodes, in place where nothing else holds the argument."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf, prod

import torch
from torch import Tensor

from einc.base.types import DType
from einc.codegen.executor.frames import Compute, Frame, Interval, Node, Result, Write, unknown
from einc.codegen.executor.ops import function, in_place, sums_finitely

_WORTH_A_LOOK = 1 << 14  # elements; fewer are compared as fast as their minimum is found

_FEWER = 8  # times as many elements as references to them are worth asking the latter


def computed(node: Node, frame: Frame) -> Tensor:
    return as_tensor(node.compute(frame)[0], frame)


def as_tensor(value: Tensor | bool, frame: Frame) -> Tensor:
    if not isinstance(value, bool):
        return value
    device = next((x.device for x in frame.operands.values()), torch.device("cpu"))
    return torch.full((), value, device=device)


def ranked(x: Tensor, frame: Frame) -> Tensor:
    """The tensor with one dimension for each dim."""
    return x if x.ndim else x.view([1] * frame.rank)


def _fits(x: Tensor, other: Tensor) -> bool:
    """Is x at least as large as the other along every dim?"""
    return _covers(x.shape, other.shape)


@lru_cache(maxsize=4096)
def _covers(shape: Sequence[int], other: Sequence[int]) -> bool:
    return all(n in (1, m) for m, n in zip(shape, other, strict=False))


def _scratch(frame: Frame, x: Tensor, y: Tensor) -> Tensor | None:
    """Idle memory for the result of x and y."""
    if not frame.idle:
        return None
    wide = x if x.ndim and _fits(x, y) else y if y.ndim and _fits(y, x) else None
    return None if wide is None else frame.beside(wide, x.dtype)


def write(node: Node, frame: Frame, target: Tensor) -> None:
    """Compute a value directly into its target, if it needs no other memory."""
    if node.write is not None and frame.reuse:
        node.write(frame, target)
        return
    value, owned = node.compute(frame)
    target.copy_(as_tensor(value, frame))
    frame.recycle(value, owned)


def written(op: str, args: Sequence[Node], t: DType) -> Write | None:
    """The function that writes an operation's result directly to memory; None where torch has none."""
    if not in_place(op, t):
        return None
    f = function(op, t)

    def run(frame: Frame, target: Tensor) -> None:
        given = [a.compute(frame) for a in args]
        xs = [as_tensor(x, frame) for x, _ in given]
        same = all(x.dtype == target.dtype for x in xs) and any(x.shape == target.shape for x in xs)
        if same and all(_covers(target.shape, x.shape) for x in xs):
            f(*xs, out=target)
        else:
            target.copy_(f(*xs))
        for x, owned in given:
            frame.recycle(x, owned)

    return run


def unary(op: str, arg: Node) -> Compute:
    f, over = function(op, arg.dtype), in_place(op, arg.dtype)

    def run(frame: Frame) -> Result:
        x, owned = arg.compute(frame)
        if isinstance(x, bool):
            return not x, False
        if over and frame.reuse:
            return f(x, out=x if owned else frame.beside(x, x.dtype)), True
        return f(x), frame.reuse

    return run


def binary(op: str, a: Node, b: Node, t: DType) -> Compute:
    f, over = function(op, t), in_place(op, t)

    def run(frame: Frame) -> Result:
        (x, mine), (y, yours) = a.compute(frame), b.compute(frame)
        if isinstance(x, bool) or isinstance(y, bool):
            x, y = as_tensor(x, frame), as_tensor(y, frame)
        if not frame.reuse:
            return f(x, y), False
        if over and mine and x.ndim and _fits(x, y):
            f(x, y, out=x)
            if yours:
                frame.recycle(y, yours)
            return x, True
        if over and yours and y.ndim and _fits(y, x):
            f(x, y, out=y)
            if mine:
                frame.recycle(x, mine)
            return y, True
        found = f(x, y, out=_scratch(frame, x, y)) if over else f(x, y)
        frame.recycle(x, mine)
        frame.recycle(y, yours)
        return found, True

    return run


def multiply_add(x: Node, y: Node, z: Node) -> tuple[Compute, Write]:
    """`x + y * z` for x of all dims, as a function that computes it, and as one that writes it to memory."""

    def given(frame: Frame) -> tuple[Result, Result, Result]:
        return x.compute(frame), y.compute(frame), z.compute(frame)

    def run(frame: Frame) -> Result:
        (a, owned), (b, mine), (c, yours) = given(frame)
        a, b, c = as_tensor(a, frame), as_tensor(b, frame), as_tensor(c, frame)
        if not frame.reuse:
            return torch.addcmul(a, b, c), False
        if not (a.ndim and _fits(a, b) and _fits(a, c)):  # a number may stand for all of a tile
            return torch.addcmul(a, b, c), True
        if owned:
            into: Tensor | None = a
        elif mine and b.shape == a.shape:
            into, mine = b, False
        elif yours and c.shape == a.shape:
            into, yours = c, False
        else:
            into = frame.beside(a, a.dtype)
        found = torch.addcmul(a, b, c, out=into)
        frame.recycle(b, mine)
        frame.recycle(c, yours)
        return found, True

    def put(frame: Frame, target: Tensor) -> None:
        (a, owned), (b, mine), (c, yours) = given(frame)
        a, b, c = as_tensor(a, frame), as_tensor(b, frame), as_tensor(c, frame)
        if a.dtype == target.dtype and a.shape == target.shape:
            torch.addcmul(a, b, c, out=target)
        else:
            target.copy_(torch.addcmul(a, b, c))
        frame.recycle(a, owned)
        frame.recycle(b, mine)
        frame.recycle(c, yours)

    return run, put


def power(x: Node, exponent: float) -> Compute:
    """A power of floats by a known number, which torch turns into products and roots."""

    def run(frame: Frame) -> Result:
        base, owned = x.compute(frame)
        base = as_tensor(base, frame)
        if not frame.reuse:
            return torch.pow(base, exponent), False
        return torch.pow(base, exponent, out=base if owned else frame.beside(base, base.dtype)), True

    return run


def is_lowest(arg: Node) -> Compute:
    """`x == -inf`: mostly nowhere, which the least element shows in a fraction of the time of a comparison."""

    def run(frame: Frame) -> Result:
        x = computed(arg, frame)
        if x.device.type == "cpu" and x.numel() > _WORTH_A_LOOK and bool(x.amin() > -inf):
            return False, False
        return x == -inf, frame.reuse

    return run


def is_lowest_beside(arg: Node, reference: Node) -> Compute:
    """`x == -inf` where the choice is between 0 and `exp(x - m)`, as it is of itself for all m that are finite.

    The references are far fewer than what they are subtracted from, so that this is asked of them.
    """
    compared = is_lowest(arg)

    def run(frame: Frame) -> Result:
        m = computed(reference, frame)
        few = prod(frame.shape(arg.dims)) >= _FEWER * m.numel()
        if m.device.type == "cpu" and few and sums_finitely(m):
            return False, False
        return compared(frame)

    return run


def is_finite(arg: Node) -> Compute:
    """`abs(x) < inf`: mostly everywhere, which a finite sum shows."""

    def run(frame: Frame) -> Result:
        x = computed(arg, frame)
        if x.device.type == "cpu" and x.numel() > _WORTH_A_LOOK and sums_finitely(x):
            return True, False
        return x.abs() < inf, frame.reuse

    return run


def decided(run: Compute, known: Interval) -> Compute:
    """The truth value that the box's interval decides, else the computed one."""

    def decided(frame: Frame) -> Result:
        found = known(frame.lo, frame.hi)
        if found is not None and found[0] == found[1]:
            return bool(found[0]), False
        return run(frame)

    return decided


def where(condition: Node, a: Node, b: Node) -> tuple[Compute, Write]:
    """The choice as a function that computes it, and as one that writes it to memory."""
    undecided = condition.bounds is unknown  # otherwise the interval has already told if it is the same everywhere
    costly = not all(x.at_hand and x.dims <= condition.dims for x in (a, b))
    every = condition.dims | a.dims | b.dims

    def decide(frame: Frame) -> Tensor | bool:
        holds = condition.compute(frame)[0]
        if isinstance(holds, bool) or not undecided or not holds.is_cpu:
            return holds
        if prod(frame.shape(every)) > _WORTH_A_LOOK if costly else holds.numel() > _WORTH_A_LOOK:
            return bool(holds.any()) and (bool(holds.all()) or holds)  # cheaper than choosing
        return holds

    def choose(frame: Frame, holds: Tensor) -> Result:
        (x, mine), (y, yours) = a.compute(frame), b.compute(frame)
        if isinstance(x, bool) or isinstance(y, bool):
            x, y = as_tensor(x, frame), as_tensor(y, frame)
        if mine and x.ndim and _fits(x, y) and _fits(x, holds):
            torch.where(holds, x, y, out=x)
            frame.recycle(y, yours)
            return x, True
        found = torch.where(holds, x, y)
        frame.recycle(x, mine)
        frame.recycle(y, yours)
        return found, frame.reuse

    def run(frame: Frame) -> Result:
        holds = decide(frame)
        return (a if holds else b).compute(frame) if isinstance(holds, bool) else choose(frame, holds)

    def put(frame: Frame, target: Tensor) -> None:
        holds = decide(frame)
        if isinstance(holds, bool):
            write(a if holds else b, frame, target)
            return
        (x, mine), (y, yours) = a.compute(frame), b.compute(frame)
        x, y = as_tensor(x, frame), as_tensor(y, frame)
        if x.dtype == y.dtype == target.dtype and any(t.shape == target.shape for t in (holds, x, y)):
            torch.where(holds, x, y, out=target)  # else torch would give it another shape
        else:
            target.copy_(torch.where(holds, x, y))
        frame.recycle(x, mine)
        frame.recycle(y, yours)

    return run, put


def logic(op: str, a: Node, b: Node) -> Compute:
    ends = op == "or"  # the truth value that decides alone

    def run(frame: Frame) -> Result:
        x = a.compute(frame)[0]
        if x is ends:
            return ends, False
        y = b.compute(frame)[0]
        if isinstance(y, bool):
            return (y, False) if y is ends else (x, False)
        if isinstance(x, bool):
            return y, False
        return x | y if ends else x & y, frame.reuse

    return run
