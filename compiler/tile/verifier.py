"""Whether a tile program is legal: types, axes, scopes, and what each statement may name."""

from __future__ import annotations

from typing import NoReturn, assert_never

from einc import tile
from einc.base.errors import AxisError, DTypeError, Error, NameError, ShapeError
from einc.base.types import F32, F64, I32, I64, DType
from einc.ein import Program
from einc.ein.printer import print_dims
from einc.tile import TileType
from einc.tile.faults import Axes, Checker, Fault
from einc.tile.roles.legal import check_roles
from einc.tile.typing import scope
from einc.tile.walk import each, every_value, loop_position, once_for_all, tile_axes

Names = dict[str, TileType]

ADDED = (F32, F64, I32, I64)  # the types that every machine adds to in memory at once


def verify(schedule: tile.Schedule) -> None:
    """Check that every name is bound once before its use, argument types are equal, a binding has the axes of its
    value, and buffers are declared. Raises `IllegalIR` at the first statement that breaks one of these rules."""
    for kernel in schedule.kernels:
        _verify(kernel)
        _check_sizes(kernel)
        check_roles(kernel)


def follow(schedule: tile.Schedule, before: tile.Schedule) -> None:
    """What is known of the values of kernels holds in those that come after them, wherever these have them still."""
    legal = {k.name: k for k in before.kernels}
    for kernel in schedule.kernels:
        other = legal.get(kernel.name)
        if other is not None and other is not kernel and other.buffers == kernel.buffers and _LEGAL in other.lasting:
            kernel.lasting.setdefault(_LEGAL, other.lasting[_LEGAL])


_LEGAL = "legal values"  # of a kernel: by identity, with the names that decide what each is, and with what that is
Legal = dict[int, tuple[tile.Value, tuple[tuple[str, TileType], ...], tuple[DType, Axes]]]


@once_for_all
def _verify(kernel: tile.Kernel) -> None:
    verifier = _Verifier(kernel, kernel.lasting.get(_LEGAL, {}))
    verifier.run()
    kernel.lasting[_LEGAL] = verifier.legal


def _check_sizes(kernel: tile.Kernel) -> None:
    """Check that a tile has all positions of an axis that a block holds whole: there is no second one for the rest."""
    for a in kernel.whole:
        block = kernel.choices.tile(a.name)
        if block is not None and block.cap < tile.WHOLE:
            fact = f"a tile has at most {block.cap} of its positions"
            hint = "size another axis"
            raise Fault(kernel, f"'{a.name}' is held whole", ShapeError, fact=fact, hint=hint, kernel=kernel.name)


class _Verifier:
    def __init__(self, kernel: tile.Kernel, known: Legal) -> None:
        self.kernel, self.known, self.legal = kernel, known, Legal()
        self.buffers = {b.name: b for b in kernel.buffers}
        self.stored: set[str] = set()

    def run(self) -> None:
        names = scope(self.kernel)
        if len(names) < len(self.kernel.grid) + len(self.kernel.whole) + len(self.kernel.scalars):
            self.fail("the kernel has an axis or a scalar twice", self.kernel, NameError, hint="name each once")
        there = (*self.kernel.grid, *self.kernel.whole)
        self.body(self.kernel.body, names, frozenset(a.name for a in there if a.blocked))
        for b in self.kernel.buffers:
            if b.written and b.name not in self.stored:
                self.fail(f"nothing is stored in '{b.name}'", self.kernel, NameError, hint="store it, or leave it out")

    def fail(self, what: str, at: object, kind: type[Error] = Error, fact: str = "", hint: str = "") -> NoReturn:
        raise Fault(at, what, kind, fact=fact, hint=hint, kernel=self.kernel.name)

    def check(self, names: Names, at: object) -> Checker:
        return Checker(self.kernel.name, self.buffers, names, at)

    def body(self, statements: tuple[tile.Statement, ...], names: Names, axes: Axes) -> Names:
        for s in statements:
            match s:
                case tile.Let():
                    self.let(s, names, axes)
                case tile.Loop():
                    self.loop(s, names, axes)
                case tile.Store():
                    self.store(s, names, axes)
                case _:
                    assert_never(s)
        return names

    def value(self, s: tile.Let, names: Names) -> tuple[DType, Axes]:
        """The element type and the axes of what a statement binds; as they were, where all that decides them is."""
        found = self.known.get(id(s.value))
        if found is None or found[0] is not s.value or any(names.get(n) != t for n, t in found[1]):
            check = self.check(names, s)
            kind = check.value(s.value)
            found = s.value, tuple((n, names[n]) for n in dict.fromkeys(check.asked)), kind
        self.legal[id(s.value)] = found
        return found[2]

    def let(self, s: tile.Let, names: Names, axes: Axes) -> None:
        dtype, extends = self.value(s, names)
        for name, type_ in zip(s.names, s.types, strict=True):
            if name in names:
                self.fail(f"'{name}' is bound twice", s, NameError, hint="give the second a name of its own")
            self.declared(type_, s, axes)
            if not isinstance(s.value, tile.Fill) and frozenset(type_.axes) != extends:
                have = f"its value extends over {', '.join(sorted(extends))}" if extends else "its value has no axes"
                message = f"'{name}' is declared over axes other than those of its value"
                self.fail(message, s, AxisError, have, "declare those")
            if len(s.names) == 1 and type_.dtype != dtype:
                hint = f"declare it {dtype}, or convert the value: {type_.dtype}(…)"
                self.fail(f"'{name}' is declared {type_.dtype}", s, DTypeError, f"its value is {dtype}", hint)
            names[name] = type_

    def declared(self, t: TileType, at: object, axes: Axes) -> None:
        """Check that a type extends over existing tile axes, each once."""
        for axis in t.axes:
            if axis not in axes:
                known = f"there are {', '.join(sorted(axes))}" if axes else "there are none"
                self.fail(f"there is no blocked tile axis '{axis}' here", at, AxisError, known, "leave it out")
        if len(set(t.axes)) < len(t.axes):
            self.fail("a tile extends over an axis twice", at, AxisError, hint="name each axis once")

    def store(self, s: tile.Store, names: Names, axes: Axes) -> None:
        check = self.check(names, s)
        element = check.element(s.tensor, s.part)
        if not self.buffers[s.tensor].written:
            self.fail(f"'{s.tensor}' is only read", s, NameError, hint="store to a buffer that the kernel writes")
        self.stored.add(s.tensor)
        dtype, extends = check.value(s.value)
        if dtype != s.type.dtype or element != dtype:
            fact = f"the value is {dtype}, stored as {s.type.dtype}, and elements of '{s.tensor}' are {element}"
            self.fail("a store's type is not that of its value", s, DTypeError, fact, f"convert it: {element}(…)")
        if s.adds and dtype not in ADDED:
            hint = f"add to one of {', '.join(map(str, ADDED))}, and convert it afterwards"
            self.fail(f"nothing is added to {dtype} in memory", s, DTypeError, hint=hint)
        extends |= check.index(s.tensor, s.index) | (frozenset() if s.mask is None else check.mask(s.mask))
        self.declared(s.type, s, axes)
        if not extends <= {*s.type.axes}:
            fact = f"value, index and mask extend over {', '.join(sorted(extends))}"
            self.fail("a store extends over axes other than those it names", s, AxisError, fact, "name those")

    # Loops -----------------------------------------------------------------------------------------------------------

    def loop(self, s: tile.Loop, names: Names, axes: Axes) -> None:
        self.bounds(s, names)
        if s.axis.name in names:
            self.fail(f"'{s.axis.name}' is an axis already", s, AxisError, hint="walk another one")
        inner = names | {s.axis.name: loop_position(s.axis)}
        over = axes | {s.axis.name} if s.axis.blocked else axes
        for state in s.carried:
            dtype, extends = self.check(names, s).value(state.init)
            self.declared(state.type, s, over)
            if dtype != state.type.dtype or not extends <= {*state.type.axes}:
                fact = f"it begins as {dtype} over {', '.join(sorted(extends)) or 'no axes'}"
                self.fail(f"state '{state.name}' is {state.type.dtype}", s, DTypeError, fact, "begin it as declared")
            if state.name in names:
                self.fail(f"'{state.name}' is bound twice", s, NameError, hint="give the state a name of its own")
            inner[state.name] = state.type
        after = self.body(s.body, dict(inner), over)
        self.ends(s, after)
        loads = {x.names[0]: x for x in s.body if isinstance(x, tile.Let) and isinstance(x.value, tile.Load)}
        for n in s.ahead:
            if n not in loads or loads[n].types[0].axes != (s.axis.name,):
                fact = f"'{n}' is over {', '.join(loads[n].types[0].axes)}" if n in loads else f"'{n}' is none"
                self.fail("loads ahead of a loop are those over its axis", s, ShapeError, fact, f"leave out '{n}'")
        if s.full is not None:
            for p in s.full.holds:
                self.check(after, s).mask(p)
            if s.full.body:
                self.ends(s, self.body(s.full.body, inner, over))
        names |= {state.name: state.type for state in s.carried}

    def bounds(self, s: tile.Loop, names: Names) -> None:
        for v in s.bounds:
            dtype, axes = self.check(names, s).value(v)
            if not dtype.is_int or axes:
                fact = f"it is {dtype} over {', '.join(sorted(axes)) or 'no axes'}"
                self.fail("a loop's bound is one integer per program", s, DTypeError, fact, "fold it: max[i](x)")
        if s.reverse and s.start is not None:
            self.fail("a loop that goes backwards begins at 0", s, ShapeError, hint="leave out 'from'")

    def ends(self, s: tile.Loop, inner: Names) -> None:
        """Check that every state has a value at the end of the loop's body."""
        for state in s.carried:
            if inner.get(state.after) != state.type:
                bound = state.after in inner
                fact = f"'{state.after}' {'has another type' if bound else 'is not bound'}"
                message = f"state '{state.name}' has no value of its type after a block"
                self.fail(message, s, DTypeError, fact, "bind it to a value of that type")


# ---------------------------------------------------------------------------------------------------------------------
# Against the program


def verify_for(program: Program, schedule: tile.Schedule) -> None:
    """Check that kernels declare the program's tensors as it does, read each after the kernel that writes it, and write
    every result. Raises `IllegalIR` at the first kernel that does not."""
    _Fit(program, schedule).run()


class _Fit:
    def __init__(self, program: Program, schedule: tile.Schedule) -> None:
        self.program, self.schedule = program, schedule
        shapes = program.shapes()
        self.known = {name: (shapes[name], t) for name, t in program.dtypes().items() if name in shapes}
        self.known |= {b.name: (b.dims, b.dtype) for b in schedule.intermediates}
        self.axes = {a.name for a in program.axes}
        self.scalars = {p.name: p.dtype for p in program.scalars}
        self.there = {p.name for p in program.operands}
        self.places = {*program.results, *(b.name for b in schedule.intermediates)}

    def run(self) -> None:
        for k in self.schedule.kernels:
            self.arguments(k)
            added = {s.tensor for s in each(k.body) if isinstance(s, tile.Store) and s.adds}
            for b in k.buffers:
                self.buffer(k, b, b.name in added)
            self.there |= {b.name for b in k.buffers if b.written}
        for name in self.program.results:
            if name not in self.there:
                self.fail(None, f"no kernel writes the result '{name}'", NameError, "", "store it in one of them")

    def fail(self, at: object, what: str, kind: type[Error], fact: str, hint: str) -> NoReturn:
        raise Fault(at, what, kind, fact=fact, hint=hint, kernel=getattr(at, "name", ""))

    def buffer(self, k: tile.Kernel, b: tile.Buffer, added: bool) -> None:
        shown = f"{b.name}{print_dims(b.dims)}: {b.dtype}"
        if b.name not in self.known:
            self.fail(k, f"there is no tensor '{b.name}'", NameError, shown, f"declare it: between kernels: {shown}")
        dims, dtype = self.known[b.name]
        if (b.dims, b.dtype) != (dims, dtype):
            wanted = f"{b.name}{print_dims(dims)}: {dtype}"
            fact = f"it is {wanted}, not {shown}"
            self.fail(k, f"'{b.name}' is declared differently", ShapeError, fact, f"write {wanted}")
        if b.written and b.name not in self.places:
            fact = f"results are {', '.join(self.program.results)}"
            hint = f"declare it: between kernels: {shown}"
            self.fail(k, f"'{b.name}' is neither a result nor between kernels", NameError, fact, hint)
        if added and b.name not in self.there:
            self.fail(k, f"'{b.name}' is added to before a kernel writes it", NameError, "", "store it in one before")
        if not b.written and b.name not in self.there:
            self.fail(k, f"'{b.name}' is read before a kernel writes it", NameError, "", "put that kernel first")

    def arguments(self, k: tile.Kernel) -> None:
        for name, dtype in k.scalars:
            declared = self.scalars.get(name)
            if declared is None or declared.kind != dtype.kind:
                fact = "no such parameter" if declared is None else f"it is {name}: {declared}"
                message = f"'{name}: {dtype}' is not a scalar of the program"
                self.fail(k, message, NameError, fact, "take one of its scalars")
        named = {*k.extents, *(a for t in tile_axes(k).values() for a in t.axes)}
        named |= {v.axis for v in every_value(k) if isinstance(v, tile.ExtentOf)}
        for axis in sorted(named - self.axes):
            fact = f"axes are {', '.join(sorted(self.axes))}"
            self.fail(k, f"there is no axis '{axis}' in the program", NameError, fact, "declare it: axis n = …")
