"""The forms programs have between passes, each with its check: to break one is the compiler's bug, not the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from einc import tile
from einc.base.errors import AxisError, Error, IllegalIR
from einc.ein import Apply, AxisValue, Cast, Const, Equation, Expr, Program, Read, axes_of, reads, walk
from einc.ein.components import parts_of
from einc.ein.inference import dtype_of
from einc.ein.printer import print_equation
from einc.pipeline import Pass, State, wellformed
from einc.tile.choices import POINTER, is_way, order_of
from einc.tile.faults import Fault
from einc.tile.verifier import follow, verify_for
from einc.tile.verifier import verify as verify_schedule
from einc.tile.walk import every_value, tile_axes
from einc.tile.windows import box, windows

__all__ = ["FORMS", "Form", "IllegalIR", "admit", "check", "verify"]

_COMPLEX = frozenset(("re", "im", "conj", "complex"))


@dataclass(frozen=True, slots=True)
class Form:
    """A property of a state. `check` raises `IllegalIR` naming the node that lacks it.

    One that `lasts` holds after every later pass too: what comes of the kernels needs it.
    """

    meaning: str
    check: Callable[[State], None]
    lasts: bool = False


def admit(p: Pass, state: State) -> None:
    """A state that nothing has checked is well-formed, and has the forms that the pass to run on it needs.

    Raises `IllegalIR` naming the pass and the node.
    """
    _demand(("well-formed", *_of_kernels(state), *p.needs), state, f"before '{p.name}'")


def check(p: Pass, before: State, after: State, held: Iterable[str] = ()) -> None:
    """What a pass leaves is legal, has the forms that it gives and those of `held` that last, and the same signature.

    What it has not touched is as legal as it was. Raises `IllegalIR` naming the pass and the node.
    """
    touched: tuple[str, ...] = ("well-formed",) if after.program != before.program else ()
    where = f"after '{p.name}'"
    if after.schedule != before.schedule:
        touched += _of_kernels(after)
        if after.schedule is not None and before.schedule is not None:
            follow(after.schedule, before.schedule)
    lasting = () if after == before else tuple(name for name in held if FORMS[name].lasts)
    _demand((*touched, *p.gives, *lasting), after, where)
    was, given = _signature(before.program), _signature(after.program)
    if given != was:
        raise IllegalIR(f"{where}: another signature: {given}, which was {was}")


def _of_kernels(state: State) -> tuple[str, ...]:
    return () if state.schedule is None else ("lowered",)


def _signature(program: Program) -> tuple[object, ...]:
    """What callers know: parameters and results by name, in order, and the types of results."""
    dtypes = program.dtypes()
    return tuple(p.name for p in program.params), tuple((name, dtypes[name]) for name in program.results)


def verify(program: Program, *names: str) -> None:
    """The program is well-formed and has these forms; raises `IllegalIR` otherwise."""
    for name in ("well-formed", *names):
        FORMS[name].check(State(program))


def _demand(names: Iterable[str], state: State, where: str) -> None:
    for name in dict.fromkeys(names):
        try:
            FORMS[name].check(state)
        except AssertionError as bug:  # `IllegalIR`, or a node that the check does not know
            raise IllegalIR(f"{where}: not {name}: {bug}") from bug
        except Error as error:  # a check met what only a user may do wrong
            raise IllegalIR(f"{where}: not {name}: {error.message}") from error


def _inlined(program: Program) -> None:
    for e in program.equations:
        if e.monoid is None and e.name not in program.results and _is_trivial(e.body):
            raise IllegalIR(f"a definition that renames: {print_equation(e)}")


def _is_trivial(e: Expr) -> bool:
    match e:
        case Const() | AxisValue():
            return True
        case Read(index=index, guard=None):
            return not any(reads(i) for i in index)
        case _:
            return False


def factors(e: Expr) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """The axes of the factors of a product, left to right, and those of its divisors."""
    match e:
        case Apply("mul", (a, b)):
            (over, under), (more, below) = factors(a), factors(b)
            return over + more, under + below
        case Apply("neg", (a,)):
            return factors(a)
        case Apply("div", (a, b)):
            over, under = factors(a)
            return over, [*under, frozenset(axes_of(b))]
        case _:
            return [frozenset(axes_of(e))], []


def _binary(program: Program) -> None:
    for e in program.equations:
        if e.monoid is not None and e.monoid.op == "add" and e.domain is None:
            _check_binary(e)


def _check_binary(e: Equation) -> None:
    """A divisor belongs to a factor that has its axes; it is one of its own where none has."""
    over, under = factors(e.body)
    over += [d for d in under if not any(d <= f for f in over)]
    moving = [axes for f in over if (axes := f & set(e.over))]
    private = any(axes - set().union(*moving[:k], *moving[k + 1 :]) for k, axes in enumerate(moving))
    if len(moving) > 2 and private:
        raise IllegalIR(f"a sum over an axis of one factor of several: {print_equation(e)}")


def _real(program: Program) -> None:
    """Complex values are made at the root of a body, of real parts, and taken apart where they are read."""
    dtypes = program.dtypes()
    given = any(t.is_complex for t in dtypes.values())
    for e in program.equations:
        if not given and not any(map(_names_complex, e.computed())):
            continue
        found = {n for body in e.computed() for part in parts_of(body) for n in walk(part)}
        apart = {n.args[0] for n in found if isinstance(n, Apply) and n.op in ("re", "im")}
        roots = (n for n in found if not isinstance(n, Apply) or n.op == "complex")
        any_complex = any(dtype_of(n, dtypes).is_complex for n in roots)
        complexes = {n for n in found if dtype_of(n, dtypes).is_complex} if any_complex else set[Expr]()
        if apart != complexes or not all(isinstance(n, Read) for n in apart):
            raise IllegalIR(f"a complex value inside a body: {print_equation(e)}")


@lru_cache(maxsize=4096)
def _names_complex(e: Expr) -> bool:
    """Does an expression make or take apart complex values, whatever it reads?"""
    return any(
        n.op in _COMPLEX if isinstance(n, Apply) else isinstance(n, Cast) and n.dtype.is_complex for n in walk(e)
    )


def on_program(f: Callable[[Program], None]) -> Callable[[State], None]:
    """A check of equations as a check of states."""
    return lambda state: f(state.program)


def on_schedule(state: State) -> None:
    """Every kernel's names, types and axes fit together."""
    if state.schedule is None:
        raise IllegalIR("there are no kernels")
    verify_schedule(state.schedule)
    verify_for(state.program, state.schedule)


def _kernels(f: Callable[[tile.Kernel], None]) -> Callable[[State], None]:
    def check_all(state: State) -> None:
        for kernel in state.schedule.kernels if state.schedule else ():
            f(kernel)

    return check_all


def _sized(kernel: tile.Kernel) -> None:
    for axis in tile_axes(kernel).values():
        if axis.blocked and kernel.choices.tile(axis.name) is None:
            size = f"give it blocks: {axis.name}[16..64]"
            raise Fault(kernel, f"tile axis '{axis.name}' has no size", AxisError, hint=size, kernel=kernel.name)


def _placed(kernel: tile.Kernel) -> None:
    for v in every_value(kernel):
        if isinstance(v, tile.Load) and kernel.choices.way(v.tensor) is None:
            where = "say how it reaches memory: by pointer"
            raise Fault(kernel, f"a load of '{v.tensor}' is not placed", Error, hint=where, kernel=kernel.name)
    reached = [b for b in kernel.buffers if kernel.choices.way(b.name) not in (None, POINTER)]
    seen = windows(kernel) if reached else {}
    for b in reached:
        way = kernel.choices.way(b.name)
        order = order_of(way, len(b.dims))
        if way is not None and not is_way(way):
            raise Fault(kernel, f"'{way}' is no way to memory", Error, hint="by pointer", kernel=kernel.name)
        if order is not None and (b.name not in seen or box(kernel, seen[b.name], order) is None):
            what = f"no descriptor finds what is loaded of '{b.name}'"
            raise Fault(kernel, what, Error, hint=f"load {b.name} by pointer", kernel=kernel.name)


FORMS: dict[str, Form] = {
    "well-formed": Form(
        "names defined once and before use, axes declared, ranks and types fit", on_program(wellformed.check)
    ),
    "inlined": Form("no pointwise definition merely renames a read, a constant or a position", on_program(_inlined)),
    "binary-contractions": Form("no factor of three or more alone has a summed axis", on_program(_binary), lasts=True),
    "real": Form(
        "complex values are made at the root of a body, of real parts, and read by parts", on_program(_real), lasts=True
    ),
    "lowered": Form("there are kernels, whose names, types and axes fit together", on_schedule),
    "sized-tiles": Form("every blocked axis has a range of sizes", _kernels(_sized), lasts=True),
    "placed-loads": Form("every load knows how it reaches memory", _kernels(_placed), lasts=True),
}
