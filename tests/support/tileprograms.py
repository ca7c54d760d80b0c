"""Tile programs written by hand, with the equations they compute: what code generation is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from einc import tile
from einc.base.types import BOOL, C64, F32, F64, FLOAT, I64, INT, DType, accumulator
from einc.ein import (
    Apply,
    AxisDecl,
    AxisValue,
    Const,
    Equation,
    Expr,
    Monoid,
    Operand,
    Param,
    Program,
    Read,
    Scalar,
    Tensor,
)
from einc.ein.monoids import MONOIDS
from einc.tile import (
    Block,
    Carried,
    Convert,
    Dot,
    Elem,
    ExtentOf,
    Fill,
    Fold,
    Let,
    Lit,
    Load,
    Loop,
    Ref,
    Statement,
    Store,
    TileAxis,
    TileType,
    Value,
)
from einc.tile.walk import Scope, rewritten, tile_axes, walk_values

Scheduled = tuple[Program, tile.Schedule]
Dims = tuple[tuple[str, ...], ...]


def dims(text: str) -> Dims:
    """`b (g r) i` as dimensions."""
    found: list[tuple[str, ...]] = []
    for part in text.replace("(", " ( ").replace(")", " ) ").split("("):
        inside, closed, rest = part.partition(")")
        found += [tuple(inside.split())] if closed else [(a,) for a in inside.split()]
        found += [(a,) for a in rest.split()]
    return tuple(found)


def at(tensor: str, *index: str | Expr) -> Read:
    return Read(tensor, tuple(AxisValue(i) if isinstance(i, str) else i for i in index))


def apply(op: str, *args: Expr) -> Apply:
    return Apply(op, args)


def equation(
    name: str, shape: str, body: Expr | Sequence[Expr], monoid: str | None = None, over: str = "", dtype: DType = F32
) -> Equation:
    bodies = tuple(body) if isinstance(body, Sequence) else (body,)
    chosen = None if monoid is None else MONOIDS[monoid]
    return Equation((Tensor(name, dtype),), dims(shape), bodies, chosen, tuple(over.split()))


def program(
    name: str,
    params: Sequence[Operand | Param],
    equations: Sequence[Equation],
    results: str,
    axes: Sequence[AxisDecl] = (),
) -> Program:
    groups = [d for p in params if isinstance(p, Operand) for d in p.dims]
    groups += [d for e in equations for d in (*e.dims, e.over)]
    declared = {a: AxisDecl(a) for d in groups for a in d} | {a.name: a for a in axes}
    return Program(name, tuple(params), tuple(declared.values()), tuple(equations), tuple(results.split()))


def elem(op: str, *args: Value) -> Elem:
    return Elem(op, args)


def conj(*terms: Value) -> Value:
    whole = terms[0]
    for term in terms[1:]:
        whole = elem("and", whole, term)
    return whole


def inside(axis: str, *members: str) -> Let:
    """`axis_in = axis < extent`."""
    extent: Value = ExtentOf((members or (axis,))[0])
    for member in members[1:]:
        extent = elem("mul", extent, ExtentOf(member))
    return Let((f"{axis}_in",), (TileType(BOOL, (axis,)),), elem("lt", Ref(axis), extent))


def let(name: str, dtype: DType, axes: str, value: Value) -> Let:
    return Let((name,), (TileType(dtype, tuple(axes.split())),), value)


def load(tensor: str, index: str, dtype: DType = F32, mask: str = "", part: int | None = None) -> Load:
    """A load at positions; `mask` names axes whose ends are masked."""
    where = [Ref(f"{a}_in") for a in mask.split()]
    positions = tuple(Ref(i) for i in index.split())
    return Load(tensor, positions, dtype, (False,) * len(positions), conj(*where) if where else None, part)


def store(
    tensor: str, index: str, value: Value, dtype: DType, axes: str, mask: str = "", part: int | None = None
) -> Store:
    where = [Ref(f"{a}_in") for a in mask.split()]
    type_ = TileType(dtype, tuple(axes.split()))
    return Store(tensor, tuple(Ref(i) for i in index.split()), value, type_, conj(*where) if where else None, part)


@dataclass(frozen=True, slots=True)
class Sized(TileAxis):
    """A tile axis with the size that a kernel made of it gets."""

    block: Block = Block(1, 16)  # noqa: RUF009 - frozen


def axis(name: str, role: str, block: Block | None, axes: str = "") -> TileAxis:
    members = tuple(axes.split()) or (name,)
    return TileAxis(name, members, role, False) if block is None else Sized(name, members, role, True, block)


def kernel(p: Program, n: int, grid: Sequence[TileAxis], body: Sequence[Statement], **more: Any) -> tile.Kernel:
    """The kernel of equation n, with the buffers its body names and the sizes of its axes."""
    from einc.ein.printer import print_equation

    e = p.equations[n]
    reads = {v.tensor for v in _values(body) if isinstance(v, Load)}
    written = {t.name for t in e.outputs}
    shapes, dtypes = p.shapes(), p.dtypes()
    buffers = tuple(tile.Buffer(x, d, dtypes[x], x in written) for x, d in shapes.items() if x in reads | written)
    used = {v.axis for v in _values(body) if isinstance(v, ExtentOf)}
    used |= {a for axis in (*grid, *_loops(body)) for a in axis.axes}
    scalars = tuple((s.name, F32 if s.dtype == FLOAT else s.dtype) for s in p.scalars if _uses(body, s.name))
    extents = tuple(a.name for a in p.axes if a.name in used)
    made = tile.Kernel(e.name, (print_equation(e),), buffers, extents, scalars, tuple(grid), tuple(body), **more)
    return with_sizes(made)


def with_sizes(k: tile.Kernel) -> tile.Kernel:
    """The kernel with the sizes of its axes among its choices."""
    sizes = {a.name: a.block for a in tile_axes(k).values() if isinstance(a, Sized)}

    def plain(a: TileAxis) -> TileAxis:
        return TileAxis(a.name, a.axes, a.role, a.blocked)

    def loop(s: Statement, _: Scope) -> tuple[Statement, ...]:
        return (replace(s, axis=plain(s.axis)) if isinstance(s, Loop) else s,)

    grid, whole = tuple(map(plain, k.grid)), tuple(map(plain, k.whole))
    return replace(k, grid=grid, whole=whole, body=rewritten(k.body, loop), choices=k.choices.sized(sizes))


def _values(body: Sequence[Statement]) -> list[Value]:
    roots: list[Value] = []
    for s in body:
        match s:
            case Let():
                roots.append(s.value)
            case Store():
                roots += [*s.index, s.value, *([] if s.mask is None else [s.mask])]
            case Loop():
                roots += [c.init for c in s.carried] + _values(s.body)
    return [v for root in roots for v in walk_values(root)]


def _loops(body: Sequence[Statement]) -> list[TileAxis]:
    return [a for s in body if isinstance(s, Loop) for a in (s.axis, *_loops(s.body))]


def _uses(body: Sequence[Statement], scalar: str) -> bool:
    return tile.ScalarArg(scalar) in _values(body)


ROW, INNER = Block(16, 32), Block(16, 64)

# ---------------------------------------------------------------------------------------------------------------------
# Programs


def matmul(dtype: DType = F32, out: DType | None = None, block: Block = ROW, inner: Block = INNER) -> Scheduled:
    """C[b, i, j] = sum[k](A[b, i, k] * B[b, k, j])."""
    out = out or dtype
    operands = [Operand("A", dims("b i k"), dtype), Operand("B", dims("b k j"), dtype)]
    e = equation("C", "b i j", apply("mul", at("A", *"bik"), at("B", *"bkj")), "sum", "k", out)
    p = program("matmul", operands, [e], "C")
    acc = TileType(accumulator(dtype), ("i", "j"))
    loop = Loop(
        axis("k", "reduced", inner),
        (Carried("c", acc, Fill(Lit(0, acc.dtype)), "c_next"),),
        (
            inside("k"),
            let("left", dtype, "i k", load("A", "b i k", dtype, "i k")),
            let("right", dtype, "k j", load("B", "b k j", dtype, "k j")),
            let("c_next", acc.dtype, "i j", Dot(Ref("left"), Ref("right"), Ref("c"), "i", "j", "k")),
        ),
    )
    value: Value = Ref("c") if out == acc.dtype else Convert(out, Ref("c"))
    body: list[Statement] = [inside("i"), inside("j"), loop, store("C", "b i j", value, out, "i j", "i j")]
    grid = [axis("b", "batch", None), axis("i", "row", block), axis("j", "column", block)]
    return p, tile.Schedule((kernel(p, 0, grid, body),), ())


def complex_product() -> Scheduled:
    """C[i] = A[i] * B[i] on complex numbers, by parts."""
    p = program(
        "product",
        [Operand("A", dims("i"), C64), Operand("B", dims("i"), C64)],
        [equation("C", "i", apply("mul", at("A", "i"), at("B", "i")), dtype=C64)],
        "C",
    )
    body: list[Statement] = [inside("i")]
    for t in "AB":
        body += [let(f"{t}{part}", F32, "i", load(t, "i", F32, "i", part)) for part in (0, 1)]
    a, b, c, d = (Ref(n) for n in ("A0", "A1", "B0", "B1"))
    parts = [("sub", (a, c), (b, d)), ("add", (a, d), (b, c))]
    for part, (op, x, y) in enumerate(parts):
        body.append(store("C", "i", elem(op, elem("mul", *x), elem("mul", *y)), F32, "i", "i", part))
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 16))], body),), ())


def softmax_statistics(dtype: DType = F32) -> Scheduled:
    """L[i] = the sum over j <= i of exp(X - max), in one pass that carries a maximum and a sum."""
    causal = apply("le", AxisValue("j"), AxisValue("i"))
    read = apply("where", causal, at("X", "i", "j"), Const(float("-inf")))
    p = program("statistics", [Operand("X", dims("i j"), dtype)], [equation("L", "i", read, "sum", "j")], "L")
    state, row = TileType(F32, ("i",)), "i j"
    lowest = Lit("lowest", F32)
    visible = conj(Ref("j_in"), elem("le", Ref("j"), Ref("i")))
    read_x: Value = load("X", "i j", dtype, "i j")
    loop = Loop(
        axis("j", "reduced", Block(1, 16)),
        (Carried("m", state, Fill(lowest), "m_next"), Carried("l", state, Fill(Lit(0.0, F32)), "l_next")),
        (
            inside("j"),
            let("x", F32, row, elem("where", visible, read_x if dtype == F32 else Convert(F32, read_x), lowest)),
            let("top", F32, "i", Fold(MONOIDS["max"], "j", (Ref("x"),))),
            let("m_next", F32, "i", elem("max", Ref("m"), Ref("top"))),
            let(
                "p", F32, row, elem("where", visible, elem("exp", elem("sub", Ref("x"), Ref("m_next"))), Lit(0.0, F32))
            ),
            let("kept", F32, "i", elem("exp", elem("sub", Ref("m"), Ref("m_next")))),
            let("block", F32, "i", Fold(MONOIDS["sum"], "j", (Ref("p"),))),
            let("l_next", F32, "i", elem("add", elem("mul", Ref("l"), Ref("kept")), Ref("block"))),
        ),
    )
    body: list[Statement] = [inside("i"), loop, store("L", "i", Ref("l"), F32, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 16))], body),), ())


def reduction(name: str, dtype: DType = F32, out: DType | None = None, monoid: Monoid | None = None) -> Scheduled:
    """R[i] = monoid[j](X[i, j]), several blocks of j merged by the monoid's combine."""
    m = monoid or MONOIDS[name]
    both: tuple[Expr, ...] = (at("X", "i", "j"), AxisValue("j"))
    bodies = both[: m.components]
    out = out or (I64 if m.components > 1 else dtype)
    e = Equation((Tensor("R", out),), dims("i"), bodies, m, ("j",))
    p = program("reduction", [Operand("X", dims("i j"), dtype)], [e], "R")
    types = (out if m.components == 1 else dtype, I64)[: m.components]
    names = [f"r{k}" for k in range(m.components)]
    units = [Lit(u, t) for u, t in zip(m.identity, types, strict=True)]
    x: Value = load("X", "i j", dtype, "i j")
    args = (x if types[0] == dtype else Convert(types[0], x), Convert(I64, Ref("j")))
    masked = tuple(elem("where", Ref("j_in"), a, u) for a, u in zip(args, units, strict=False))
    found = tuple(TileType(t, ("i",)) for t in types)
    merged = [Let((f"{n}_next",), (t,), _combined(c, names)) for n, t, c in zip(names, found, m.combine, strict=True)]
    loop = Loop(
        axis("j", "reduced", Block(1, 16)),
        tuple(Carried(n, t, Fill(u), f"{n}_next") for n, t, u in zip(names, found, units, strict=True)),
        (inside("j"), Let(tuple(f"{n}_block" for n in names), found, Fold(m, "j", masked)), *merged),
    )
    body: list[Statement] = [inside("i"), loop, store("R", "i", Ref(names[m.results[0]]), out, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 16))], body),), ())


def _combined(e: Expr, names: Sequence[str]) -> Value:
    match e:
        case Scalar(name=name):
            k = int(name[1:])
            return Ref(names[k] if name.startswith("a") else f"{names[k]}_block")
        case Apply(op=op, args=args):
            return Elem(op, tuple(_combined(a, names) for a in args))
        case _:
            raise AssertionError(e)


def gather() -> Scheduled:
    """R[i, k] = T[at[i], k]: 0 where the index misses the table."""
    p = program(
        "gather",
        [Operand("T", dims("v k"), F32), Operand("at", dims("i"), I64)],
        [equation("R", "i k", at("T", at("at", "i"), "k"))],
        "R",
    )
    n: Value = Ref("n")
    hit = conj(elem("ge", n, Lit(0, I64)), elem("lt", n, Convert(I64, ExtentOf("v"))))
    mask = conj(Ref("i_in"), Ref("k_in"), hit)
    body: list[Statement] = [
        inside("i"),
        inside("k"),
        let("n", I64, "i", load("at", "i", I64, "i")),
        let("t", F32, "i k", Load("T", (n, Ref("k")), F32, (True, False), mask)),
        store("R", "i k", Ref("t"), F32, "i k", "i k"),
    ]
    grid = [axis("i", "row", Block(1, 16)), axis("k", "column", Block(1, 16))]
    return p, tile.Schedule((kernel(p, 0, grid, body),), ())


def flattened() -> Scheduled:
    """R[(g r), i] = X[i, g, r] + Y[r]: two axes as one, taken apart again by // and %."""
    body_ = apply("add", at("X", "i", "g", "r"), at("Y", "r"))
    p = program(
        "flattened",
        [Operand("X", dims("i g r"), F32), Operand("Y", dims("r"), F32)],
        [equation("R", "(g r) i", body_)],
        "R",
    )
    body: list[Statement] = [
        inside("g_r", "g", "r"),
        inside("i"),
        let("r", INT, "g_r", elem("mod", Ref("g_r"), ExtentOf("r"))),
        let("g", INT, "g_r", elem("floordiv", Ref("g_r"), ExtentOf("r"))),
        let("x", F32, "g_r i", load("X", "i g r", F32, "g_r i")),
        let("y", F32, "g_r", load("Y", "r", F32, "g_r")),
        store("R", "g_r i", elem("add", Ref("x"), Ref("y")), F32, "g_r i", "g_r i"),
    ]
    grid = [axis("g_r", "row", Block(1, 16), "g r"), axis("i", "column", Block(1, 16))]
    return p, tile.Schedule((kernel(p, 0, grid, body),), ())


def transposed() -> Scheduled:
    """R[j, i] = X[i, j] * 2: the tile is made in one order and stored in the other."""
    e = equation("R", "j i", apply("mul", at("X", "i", "j"), Const(2.0)))
    p = program("transposed", [Operand("X", dims("i j"), F32)], [e], "R")
    body: list[Statement] = [
        inside("i"),
        inside("j"),
        let("x", F32, "i j", load("X", "i j", F32, "i j")),
        store("R", "j i", elem("mul", Ref("x"), Lit(2.0, F32)), F32, "j i", "i j"),
    ]
    grid = [axis("i", "row", Block(1, 16)), axis("j", "column", Block(1, 32))]
    return p, tile.Schedule((kernel(p, 0, grid, body),), ())


def elementwise(op: str, dtype: DType = F32, count: int = 1, out: DType | None = None) -> Scheduled:
    """R[i] = op(X[i], Y[i], ...)."""
    out = out or dtype
    names = "XYZ"[:count]
    operands = [Operand(n, dims("i"), dtype) for n in names]
    p = program("elementwise", operands, [equation("R", "i", apply(op, *(at(n, "i") for n in names)), dtype=out)], "R")
    loads = [let(n.lower(), dtype, "i", load(n, "i", dtype, "i")) for n in names]
    value = elem(op, *(Ref(n.lower()) for n in names))
    body: list[Statement] = [inside("i"), *loads, store("R", "i", value, out, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 256))], body),), ())


def elementwise_rows(dtype: DType) -> Scheduled:
    """R[i, j] = X[i, j]."""
    p = program("copy", [Operand("X", dims("i j"), dtype)], [equation("R", "i j", at("X", "i", "j"), dtype=dtype)], "R")
    body: list[Statement] = [
        inside("i"),
        inside("j"),
        store("R", "i j", load("X", "i j", dtype, "i j"), dtype, "i j", "i j"),
    ]
    grid = [axis("i", "row", Block(1, 16)), axis("j", "column", Block(1, 16))]
    return p, tile.Schedule((kernel(p, 0, grid, body),), ())


def power(n: float) -> Scheduled:
    """R[i] = X[i] ** n."""
    p = program(
        "power", [Operand("X", dims("i"), F32)], [equation("R", "i", apply("pow", at("X", "i"), Const(n)))], "R"
    )
    value = elem("pow", load("X", "i", F32, "i"), Lit(float(n), F32))
    body: list[Statement] = [inside("i"), store("R", "i", value, F32, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 64))], body),), ())


def random(indices: int) -> Scheduled:
    """R[i] = X[i] + rand(seed, i, 3, 3, ...)."""
    index: list[Expr] = [AxisValue("i"), *[Const(3)] * (indices - 1)]
    drawn = apply("rand", Scalar("seed"), *index)
    params: list[Operand | Param] = [Operand("X", dims("i"), F32), Param("seed", INT)]
    p = program("random", params, [equation("R", "i", apply("add", at("X", "i"), drawn))], "R")
    rest: list[Value] = [Lit(3, INT)] * (indices - 1)
    value = elem("rand", tile.ScalarArg("seed"), Ref("i"), *rest)
    body: list[Statement] = [inside("i"), store("R", "i", elem("add", load("X", "i", F32, "i"), value), F32, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 64))], body),), ())


def recurrence(monoid: Monoid) -> Scheduled:
    """R[i] = the second component of the monoid over j of (X[i, j], j), folded block by block."""
    e = Equation((Tensor("R", F64),), dims("i"), (at("X", "i", "j"), AxisValue("j")), monoid, ("j",))
    p = program("recurrence", [Operand("X", dims("i j"), F64)], [e], "R")
    state = TileType(F64, ("i",))
    units = [Lit(float(u), F64) for u in monoid.identity]
    values: tuple[Value, ...] = (load("X", "i j", F64, "i j"), Convert(F64, Ref("j")))
    masked = tuple(elem("where", Ref("j_in"), v, u) for v, u in zip(values, units, strict=True))
    names = ["r0", "r1"]
    merged = [Let((f"{n}_next",), (state,), _combined(c, names)) for n, c in zip(names, monoid.combine, strict=True)]
    loop = Loop(
        axis("j", "reduced", Block(1, 16)),
        tuple(Carried(n, state, Fill(u), f"{n}_next") for n, u in zip(names, units, strict=True)),
        (inside("j"), Let(("r0_block", "r1_block"), (state, state), Fold(monoid, "j", masked)), *merged),
    )
    body: list[Statement] = [inside("i"), loop, store("R", "i", Ref("r1"), F64, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 16))], body),), ())


def renamed(name: str) -> Scheduled:
    """The hyperbolic tangent, with the program, its operand and its axis all called the same."""
    p = program(name, [Operand(name, ((name,),), F32)], [equation("R", "", apply("tanh", at(name, name)))], "R")
    e = Equation((Tensor("R", F32),), ((name,),), p.equations[0].bodies)
    p = Program(name, p.params, (AxisDecl(name),), (e,), ("R",))
    x = load(name, name, F32, name)
    body: list[Statement] = [inside(name), store("R", name, elem("tanh", x), F32, name, name)]
    return p, tile.Schedule((kernel(p, 0, [axis(name, "row", Block(1, 16))], body),), ())


def conversion(have: DType, want: DType) -> Scheduled:
    """R[i] = want(X[i])."""
    p = program("conversion", [Operand("X", dims("i"), have)], [equation("R", "i", at("X", "i"), dtype=want)], "R")
    body: list[Statement] = [inside("i"), store("R", "i", Convert(want, load("X", "i", have, "i")), want, "i", "i")]
    return p, tile.Schedule((kernel(p, 0, [axis("i", "row", Block(1, 256))], body),), ())


def scaled() -> Scheduled:
    """R[i] = where(keep, X[i] * scale + shift, 0): typed scalars, one with a default over an extent."""
    params: list[Operand | Param] = [
        Operand("X", dims("i"), F64),
        Param("shift", INT),
        Param("keep", BOOL),
        Param("scale", FLOAT, apply("rsqrt", apply("add", _extent("i"), Const(1)))),
    ]
    e = equation("R", "i", at("X", "i"), dtype=F64)
    p = program("scaled", params, [e], "R")
    total = elem("add", elem("mul", Ref("x"), tile.ScalarArg("scale")), Convert(F64, tile.ScalarArg("shift")))
    value = elem("where", tile.ScalarArg("keep"), total, Lit(0.1, F64))
    body: list[Statement] = [
        inside("i"),
        let("x", F64, "i", load("X", "i", F64, "i")),
        store("R", "i", value, F64, "i", "i"),
    ]
    k = kernel(p, 0, [axis("i", "row", Block(1, 16))], body)
    scalars = (("shift", INT), ("keep", BOOL), ("scale", F64))
    return p, tile.Schedule((replace(k, scalars=scalars),), ())


def _extent(name: str) -> Expr:
    from einc.ein import Extent

    return Extent(name)


def two_kernels() -> Scheduled:
    """M[i] = max[j](X[i, j]), then R[i, j] = X[i, j] - M[i], M living in between."""
    equations = [
        equation("M", "i", at("X", "i", "j"), "max", "j"),
        equation("R", "i j", apply("sub", at("X", "i", "j"), at("M", "i"))),
    ]
    p = program("centred", [Operand("X", dims("i j"), F32)], equations, "R")
    lowest = Lit("lowest", F32)
    x = elem("where", Ref("j_in"), load("X", "i j", F32, "i j"), lowest)
    first = kernel(
        p,
        0,
        [axis("i", "row", Block(1, 16))],
        [
            inside("i"),
            Loop(
                axis("j", "reduced", Block(1, 16)),
                (Carried("m", TileType(F32, ("i",)), Fill(lowest), "m_next"),),
                (
                    inside("j"),
                    let("top", F32, "i", Fold(MONOIDS["max"], "j", (x,))),
                    let("m_next", F32, "i", elem("max", Ref("m"), Ref("top"))),
                ),
            ),
            store("M", "i", Ref("m"), F32, "i", "i"),
        ],
    )
    value = elem("sub", load("X", "i j", F32, "i j"), load("M", "i", F32, "i"))
    second = kernel(
        p,
        1,
        [axis("i", "row", Block(1, 16)), axis("j", "column", Block(1, 16))],
        [inside("i"), inside("j"), store("R", "i j", value, F32, "i j", "i j")],
    )
    return p, tile.Schedule((first, second), (tile.Buffer("M", dims("i"), F32),))
