"""Values of a kernel as nodes: for each tile value a function of the frame, and its interval."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, prod
from typing import assert_never, cast

import torch
from torch import Tensor

from einc import tile
from einc.base.ops import OPS, Rule
from einc.base.types import BOOL, F32, F64, INT, DType
from einc.codegen.executor import memory
from einc.codegen.executor.elementwise import (
    as_tensor,
    binary,
    computed,
    decided,
    is_finite,
    is_lowest,
    is_lowest_beside,
    logic,
    multiply_add,
    power,
    unary,
    where,
    written,
)
from einc.codegen.executor.frames import (
    Affine,
    Compute,
    Frame,
    Interval,
    Node,
    Result,
    affine_form,
    holds,
    interval,
    unknown,
)
from einc.codegen.executor.names import Names
from einc.codegen.executor.ops import HELD, convert, literal, uniform
from einc.codegen.executor.reductions import Components, contracted, reduced, scanned
from einc.tile import Value
from einc.tile.masks import conjuncts

NOWHERE: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Values:
    """Makes nodes for the values of one kernel at known extents.

    `positions` are the indices of the tile axes and `members` their dims; `whole` is the extent of every dim. `shapes`
    collects the dims of every computed tensor, from which boxes are sized, and `fast` those along which tensors of
    several dimensions lie in memory.
    """

    positions: dict[str, Affine]
    members: dict[str, tuple[int, ...]]
    whole: tuple[int, ...]
    extents: dict[str, int]
    given: dict[str, int | bool]
    scalars: dict[str, DType]
    buffers: dict[str, tile.Buffer]
    device: torch.device
    names: Names = field(default_factory=Names)
    shapes: set[frozenset[int]] = field(default_factory=set)
    sliding: set[int] = field(default_factory=set)
    fast: set[int] = field(default_factory=set)
    constants: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    # Nodes -----------------------------------------------------------------------------------------------------------

    def node(self, v: Value) -> Node:
        """The node of a value; one that occurs more than once in a body is bound at its first occurrence."""
        return self.names.once(v, self.made)

    def made(self, v: Value) -> Node:
        match v:
            case tile.Ref(name=name) if name in self.positions:
                return self.affine(self.positions[name], INT)
            case tile.Ref(name=name):
                return self.names.used(name)
            case tile.Lit(value=value, dtype=dtype) | tile.Fill(value=tile.Lit(value=value, dtype=dtype)):
                return self.constant(literal(value, dtype), dtype)
            case tile.ExtentOf(axis=axis):
                return self.affine(Affine(self.extents[axis]), INT)
            case tile.ScalarArg(name=name):
                return self.scalar(name)
            case tile.Elem(op="mul", args=(factor, tile.Dot() as dot)):
                return self.scaled(self.node(factor), dot)
            case tile.Elem(op="lt", args=(tile.Elem(op="abs", args=(x,)), tile.Lit(value=bound))) if bound == inf:
                return self.is_finite(self.node(x))
            case tile.Elem(op="where", args=(tile.Elem(op="eq") as lowest, tile.Lit(value=0) as zero, power)) if (
                found := self.referred(lowest, power)
            ):
                return self.elem("where", [found, self.node(zero), self.node(power)])
            case tile.Elem(
                op="add",
                args=(x, tile.Elem(op="mul", args=(y, z)) as product)
                | (tile.Elem(op="mul", args=(y, z)) as product, x),
            ) if not self.names.repeats(product) and not isinstance(z, tile.Dot):
                return self.added(self.node(x), self.node(y), self.node(z))
            case tile.Elem(op=op, args=args):
                return self.elem(op, [self.node(a) for a in args])
            case tile.Convert(dtype=dtype, arg=arg):
                return self.convert(self.node(arg), dtype)
            case tile.Load():
                return self.load(v)
            case tile.Dot():
                return self.dot(v)
            case tile.Fold(monoid=monoid, axis=axis, args=args):
                many = self.fold(v)
                kept = monoid.results[0]
                first = self.node(args[kept])
                return Node(first.dtype, first.dims - set(self.members[axis]), lambda f: many(f)[kept], passes=True)
            case tile.Scan(monoid=monoid, axis=axis, args=args):
                prefixes = self.scan(v)
                chosen = monoid.results[0]
                one = self.node(args[chosen])
                return Node(one.dtype, one.dims.union(self.members[axis]), lambda f: prefixes(f)[chosen], passes=True)
            case _:
                assert_never(v)

    def constant(self, value: bool | int | float, t: DType) -> Node:
        if t.is_bool:
            truth = bool(value)
            return Node(t, NOWHERE, lambda _: (truth, False), bounds=lambda *_: (truth, truth), fixed=truth)
        key = (repr(value), t.name)
        if key not in self.constants:
            self.constants[key] = torch.full((), value, dtype=HELD[t.name], device=self.device)
        return self.fixed_at(self.constants[key], t)

    def fixed_at(self, x: Tensor, t: DType) -> Node:
        """A node that is one tensor, without dims."""
        if t.is_bool:
            return self.constant(bool(x), t)
        affine = Affine(int(x)) if t.is_int else None
        return Node(t, NOWHERE, lambda _: (x, False), affine, affine.bounds if affine else unknown, x, at_hand=True)

    def affine(self, a: Affine, t: DType) -> Node:
        """Positions: an integer at each place of a box."""
        if not a.coefs:
            return self.constant(a.const, t)
        held, device, rank = HELD[t.name], self.device, len(self.whole)

        def run(frame: Frame) -> Result:
            total: Tensor | int = a.const
            for dim, n in a.coefs:
                lo, hi = frame.lo[dim], frame.hi[dim]
                shape = [1] * rank
                shape[dim] = hi - lo
                total = total + torch.arange(lo * n, hi * n, n, device=device).view(shape)
            return cast(Tensor, total).to(held), frame.reuse

        return Node(t, frozenset(d for d, _ in a.coefs), run, a, a.bounds)

    def scalar(self, name: str) -> Node:
        t = self.scalars[name]
        if name in self.given:
            return self.constant(literal(self.given[name], t), t)
        return Node(t, NOWHERE, lambda frame: (frame.scalars[name], False))

    # Elementwise -----------------------------------------------------------------------------------------------------

    def elem(self, op: str, args: list[Node]) -> Node:
        if op == "where" and isinstance(args[0].fixed, bool):
            return args[1] if args[0].fixed else args[2]
        t = args[-1].dtype
        result = BOOL if OPS[op].rule in (Rule.TRUTH, Rule.LOGIC) else F32 if op == "rand" else t
        whole = [0] * len(self.whole), self.whole
        affine = affine_form(op, args, *whole) if t.is_int and op != "where" else None
        if affine is not None and holds(t, affine.bounds(*whole)):
            return self.affine(affine, t)
        known = interval(op, args)
        if known is not unknown and t.is_int and not holds(t, known(*whole) or (0, 0)):
            known = unknown  # it may wrap
        if result.is_bool:
            decided = known(*whole)
            if decided is not None and decided[0] == decided[1]:
                return self.constant(bool(decided[0]), BOOL)
        dims = frozenset().union(*(a.dims for a in args))
        compute, put = where(*args) if op == "where" else (self.operation(op, args, t, known), written(op, args, t))
        node = Node(result, dims, compute, bounds=known, passes=op in ("where", "and", "or"), write=put)
        if all(a.fixed is not None for a in args):
            value = node.compute(Frame((), 0, {}, False))[0]
            return self.constant(value, BOOL) if isinstance(value, bool) else self.fixed_at(value, result)
        self.shapes.add(dims)
        return node

    def added(self, x: Node, y: Node, z: Node) -> Node:
        """The sum of a tile and a product: one operation for tiles of floats of which one factor is as large."""
        dims = x.dims | y.dims | z.dims
        if x.dtype not in (F32, F64) or x.dims != dims or dims not in (y.dims, z.dims) or not dims:
            return self.elem("add", [x, self.elem("mul", [y, z])])
        self.shapes.add(dims)
        compute, put = multiply_add(x, y, z)
        return Node(x.dtype, dims, compute, write=put)

    def referred(self, lowest: tile.Elem, power: Value) -> Node | None:
        """The condition of `where(x == -inf, 0, exp(x - m))`, if that is what a choice is, or None.

        It is decided before the power is computed, which may so take the memory of x.
        """
        match lowest.args, power:
            case (
                (tile.Ref() | tile.Elem() | tile.Convert() as x, tile.Lit(value=bound)),
                tile.Elem(op="exp", args=(tile.Elem(op="sub", args=(y, tile.Ref() as m)),)),
            ) if bound == -inf and x == y and not self.names.repeats(lowest):
                before = len(self.names.seen)
                arg, reference = self.node(x), self.node(m)
                del self.names.seen[before:]
                return Node(BOOL, arg.dims, is_lowest_beside(arg, reference)) if arg.dtype.is_float else None
        return None

    def operation(self, op: str, args: list[Node], t: DType, known: Interval) -> Compute:
        """The function of an operation other than `where`; a truth value that an interval decides is not computed."""
        if op in ("and", "or"):
            return logic(op, *args)
        if op == "rand":
            seed, *index = args
            return lambda f: (uniform(computed(seed, f), [computed(i, f) for i in index]), f.reuse)
        if op == "pow" and isinstance(args[1].fixed, Tensor) and t.name in ("f32", "f64"):
            return power(args[0], float(args[1].fixed))
        lowest = [k for k, a in enumerate(args) if op == "eq" and a.fixed is not None and float(a.fixed) == -inf]
        if lowest:
            return is_lowest(args[1 - lowest[0]])
        if OPS[op].rule is Rule.TRUTH and all(a.affine is not None for a in args):
            args, t = self.sides(*args), INT
        run = unary(op, args[0]) if len(args) == 1 else binary(op, args[0], args[1], t)
        return decided(run, known) if known is not unknown and OPS[op].rule in (Rule.TRUTH, Rule.LOGIC) else run

    def sides(self, a: Node, b: Node) -> list[Node]:
        """Two positions to compare, as two others with the same difference, each over as few dims as possible: the
        compared tensors are then no larger than an axis."""
        difference = cast(Affine, a.affine).plus(cast(Affine, b.affine), -1)
        own, rest = difference.coefs[-1:], difference.coefs[:-1]
        return [self.affine(Affine(0, own), INT), self.affine(Affine(difference.const, rest).times(-1), INT)]

    def convert(self, arg: Node, t: DType) -> Node:
        have = arg.dtype
        if have == t:
            return arg
        whole = [0] * len(self.whole), self.whole
        if arg.affine is not None and t.is_int and holds(t, arg.affine.bounds(*whole)):
            return self.affine(arg.affine, t)
        if isinstance(arg.fixed, Tensor):
            return self.fixed_at(convert(arg.fixed, have, t), t)
        self.shapes.add(arg.dims)

        def run(frame: Frame) -> Result:
            x, owned = arg.compute(frame)
            x = as_tensor(x, frame)
            found = convert(x, have, t)
            if found is x:
                return x, owned
            frame.recycle(x, owned)
            return found, frame.reuse

        return Node(t, arg.dims, run, bounds=arg.bounds if t.is_int and have.is_bool else unknown, passes=True)

    # Memory ----------------------------------------------------------------------------------------------------------

    def access(self, tensor: str, part: int | None, index: tuple[Value, ...], mask: Value | None) -> memory.Access:
        """The place of a load or store. Mask terms that keep an index in range are dropped: that is checked anyway."""
        nodes = tuple(self.node(i) for i in index)
        kept = [self.node(term) for term in conjuncts(mask) if not self.is_range_check(tensor, term, index)]
        dims = [prod(self.extents[a] for a in dim) for dim in self.buffers[tensor].dims]
        inside = all(self.is_inside(n, extent) for n, extent in zip(nodes, dims, strict=True))
        return memory.Access(tensor, part, nodes, tuple(n for n in kept if n.fixed is not True), inside)

    def is_inside(self, index: Node, extent: int) -> bool:
        """Does an index never decrease, and stay inside its dimension, in every box?"""
        if index.affine is None or any(c < 0 for _, c in index.affine.coefs):
            return False
        low, high = index.affine.bounds([0] * len(self.whole), self.whole)
        return low >= 0 and high < extent

    def is_range_check(self, tensor: str, term: Value, index: tuple[Value, ...]) -> bool:
        """Does a term keep an index of this tensor in range: `e >= 0`, or `e < |dim|`?"""
        match term:
            case tile.Elem(op="ge", args=(e, tile.Lit(value=0))):
                return e in index
            case tile.Elem(op="lt", args=(e, bound)) if e in index:
                end = self.node(bound).affine
                dims = [prod(self.extents[a] for a in dim) for dim in self.buffers[tensor].dims]
                return any(i == e and end == Affine(n) for i, n in zip(index, dims, strict=True))
            case _:
                return False

    def load(self, v: tile.Load) -> Node:
        access = self.access(v.tensor, v.part, v.index, v.mask)
        stored = self.buffers[v.tensor].dtype.part
        view = access.affine and not access.terms and stored.bits >= 32
        if not view:
            self.shapes.add(access.dims)
        self.slide(access)
        if len(access.index) > 1 and access.index[-1].affine is not None:
            self.fast |= {d for d, n in access.index[-1].affine.coefs if n == 1}
        return self.convert(Node(stored, access.dims, memory.load(access, stored), view=view), v.dtype)

    def slide(self, access: memory.Access) -> None:
        """Note the dims that move a window along others, as r does in `T[x + r]`."""
        for node in access.index:
            if node.affine is not None and len(node.affine.coefs) > 1:
                self.sliding |= node.dims

    def is_finite(self, arg: Node) -> Node:
        self.shapes.add(arg.dims)
        return Node(BOOL, arg.dims, is_finite(arg))

    # Contractions and reductions -------------------------------------------------------------------------------------

    def scaled(self, factor: Node, v: tile.Dot) -> Node:
        """A contraction times a factor: one operation if the factor is a number and the contraction starts from 0."""
        start = self.node(v.acc).fixed
        if factor.dims or factor.dtype.name not in ("f32", "f64") or not isinstance(start, Tensor) or float(start):
            return self.elem("mul", [factor, self.dot(v)])
        return self.dot(v, factor)

    def dot(self, v: tile.Dot, factor: Node | None = None) -> Node:
        """A contraction, times a number where one is given."""
        left, right, acc = self.node(v.left), self.node(v.right), self.node(v.acc)
        counted = tuple(None if p is None else self.node(p) for p in (v.left_in, v.right_in))
        inner = self.members[v.inner]
        zero = self.constant(literal(0, acc.dtype), acc.dtype).fixed
        dims = (left.dims | right.dims | acc.dims) - set(inner)
        self.shapes.add(dims)
        if v.batch or max(len(self.members[a]) for a in (v.row, v.column, v.inner)) > 1:
            self.shapes |= {left.dims, right.dims}  # they may have to be copied into matrices
        return Node(acc.dtype, dims, contracted(left, right, acc, counted, inner, zero, factor, v.product))

    def fold(self, v: tile.Fold) -> Components:
        """The components of a reduction over a tile axis."""
        args, dims = [self.node(a) for a in v.args], self.members[v.axis]
        self.shapes |= {a.dims for a in args if not a.view} | {a.dims.difference(dims) for a in args}
        return reduced(v.monoid, args, dims, self.device)

    def scan(self, v: tile.Scan) -> Components:
        """The components of the prefixes along a tile axis."""
        args, dims = [self.node(a) for a in v.args], self.members[v.axis]
        self.shapes |= {a.dims.union(dims) for a in args}
        return scanned(v.monoid, args, dims, v.reverse)
