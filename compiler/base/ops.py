"""The scalar operations of the language: one table of how each is written and typed, and how tightly it binds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from einc.base.errors import DTypeError
from einc.base.types import BOOL, C64, FLOAT, INT, DType, join


class Rule(Enum):
    """How the type of a result follows from the types of the arguments."""

    JOIN = "the join of the arguments"
    ARITHMETIC = "the join of the arguments; two booleans count as integers"
    FLOATING = "the join of the arguments as floats: integers give f32"
    TRUTH = "bool, from arguments of any type"
    LOGIC = "bool, from bools"
    SELECT = "the join of all arguments but the first, which is a bool"
    INTEGER = "the join of the arguments, which are integers"
    RANDOM = "f32, from integers"
    PART = "the part of a complex argument"
    COMPLEX = "the complex type whose parts hold the arguments, which are real"
    SIZE = "that of the argument, or of the parts of a complex one; a boolean counts as an integer"


@dataclass(frozen=True, slots=True)
class Op:
    """A scalar operation. `arity` -1 means one or more arguments; `infix` ones bind by `binding`, higher is tighter.

    `says` describes the result of a call, `takes` its arguments. One that `keeps_zero` is 0 at 0; at each of its
    `poles` it is infinite. `slopes` are its derivatives by each argument, as text of the language over the arguments x
    and y and the value f; none where it has no derivative but 0, or none of this form.
    """

    name: str
    arity: int
    rule: Rule
    infix: str = ""
    binding: int = 0
    says: str = ""
    takes: str = "x"
    keeps_zero: bool = False
    poles: tuple[tuple[float, float], ...] = ()
    slopes: tuple[str, ...] = ()


# Binding strengths of the written operators, loosest first; 8 is a call, a read or a literal.
OR, AND, NOT, COMPARE, SUM, PRODUCT, SIGN, POWER, ATOM = range(9)

_INFIX = (
    ("or", "or", Rule.LOGIC, OR), ("and", "and", Rule.LOGIC, AND),
    ("lt", "<", Rule.TRUTH, COMPARE), ("le", "<=", Rule.TRUTH, COMPARE), ("gt", ">", Rule.TRUTH, COMPARE),
    ("ge", ">=", Rule.TRUTH, COMPARE), ("eq", "==", Rule.TRUTH, COMPARE), ("ne", "!=", Rule.TRUTH, COMPARE),
    ("add", "+", Rule.ARITHMETIC, SUM), ("sub", "-", Rule.ARITHMETIC, SUM),
    ("mul", "*", Rule.ARITHMETIC, PRODUCT), ("div", "/", Rule.FLOATING, PRODUCT),
    ("exactdiv", "/", Rule.INTEGER, PRODUCT),  # between extents; checked at the call
    ("floordiv", "//", Rule.ARITHMETIC, PRODUCT), ("mod", "%", Rule.ARITHMETIC, PRODUCT),
    ("pow", "**", Rule.ARITHMETIC, POWER),
)  # fmt: skip
_SLOPES = {
    "add": ("1", "1"), "sub": ("1", "-1"), "mul": ("y", "x"), "div": ("1 / y", "-(f / y)"), "neg": ("-1",),
    "mod": ("1", "-floor(x / y)"),
    "pow": ("where(y == 0, 0, y * x ** (y - 1))", "where(x == 0, 0, f * log(x))"),
}  # fmt: skip


def _function(name: str, says: str, slope: str, keeps_zero: bool = False, **poles: float) -> Op:
    """A function of one real number, called so by Python's `math`, NumPy and torch; `at_0=-inf` is a pole."""
    found = tuple((float(at.removeprefix("at_").replace("m", "-")), value) for at, value in poles.items())
    return Op(name, 1, Rule.FLOATING, says=says, keeps_zero=keeps_zero, poles=found, slopes=(slope,))


def _call(
    name: str,
    arity: int,
    rule: Rule,
    says: str,
    takes: str = "x",
    keeps_zero: bool = False,
    slopes: tuple[str, ...] = (),
) -> Op:
    return Op(name, arity, rule, says=says, takes=takes, keeps_zero=keeps_zero, slopes=slopes)


_FUNCTIONS = (
    _function("sqrt", "the square root", "0.5 / f", True),
    _function("rsqrt", "1 / sqrt(x)", "-0.5 * f * f * f"),
    _function("exp", "e ** x", "f"),
    _function("exp2", "2 ** x", "0.6931471805599453 * f"),
    _function("log", "the natural logarithm", "1 / x", at_0=-math.inf),
    _function("log2", "the logarithm to base 2", "1.4426950408889634 / x", at_0=-math.inf),
    _function("tanh", "the hyperbolic tangent", "1 - f * f", True),
    _function("erf", "the error function", "1.1283791670955126 * exp(-(x * x))", True),
    _function("sin", "the sine", "cos(x)", True),
    _function("cos", "the cosine", "-sin(x)"),
    _function("tan", "the tangent", "1 + f * f", True),
    _function("log1p", "log(1 + x), with all its digits near 0", "1 / (1 + x)", True, at_m1=-math.inf),
    _function("expm1", "exp(x) - 1, with all its digits near 0", "f + 1", True),
)
_CALLS = (
    *_FUNCTIONS,
    _call(
        "atan2",
        2,
        Rule.FLOATING,
        "the angle of the point (x, y), from -pi to pi",
        "y, x",
        slopes=("y / (x * x + y * y)", "-(x / (x * x + y * y))"),
    ),
    _call(
        "abs",
        1,
        Rule.SIZE,
        "the absolute value, of complex numbers too",
        keeps_zero=True,
        slopes=("where(x > 0, 1, where(x < 0, -1, 0))",),
    ),
    _call("floor", 1, Rule.JOIN, "the greatest integer that is at most x", keeps_zero=True),
    _call("ceil", 1, Rule.JOIN, "the least integer that is at least x", keeps_zero=True),
    _call("round", 1, Rule.JOIN, "the nearest integer, and the even one of two", keeps_zero=True),
    _call(
        "max",
        2,
        Rule.JOIN,
        "the greatest of its arguments",
        "x, y, …",
        slopes=("where(x >= y, 1, 0)", "where(x >= y, 0, 1)"),
    ),
    _call(
        "min",
        2,
        Rule.JOIN,
        "the least of its arguments",
        "x, y, …",
        slopes=("where(x <= y, 1, 0)", "where(x <= y, 0, 1)"),
    ),
    _call("where", 3, Rule.SELECT, "x where the condition holds, else y; the other is not read", "condition, x, y"),
    _call("rand", -1, Rule.RANDOM, "a random number in [0, 1), everywhere the same for its arguments", "seed, i, …"),
    _call("re", 1, Rule.PART, "the real part"),
    _call("im", 1, Rule.PART, "the imaginary part"),
    _call("conj", 1, Rule.ARITHMETIC, "the complex conjugate", keeps_zero=True),
    _call("complex", 2, Rule.COMPLEX, "the complex number with this real and imaginary part", "x, y"),
)

OPS: dict[str, Op] = {
    **{name: Op(name, 2, rule, infix, by, slopes=_SLOPES.get(name, ())) for name, infix, rule, by in _INFIX},
    "neg": Op("neg", 1, Rule.ARITHMETIC, "-", SIGN, keeps_zero=True, slopes=_SLOPES["neg"]),
    "not": Op("not", 1, Rule.LOGIC, "not", NOT),
    **{op.name: op for op in _CALLS},
}
FUNCTIONS = tuple(op.name for op in _FUNCTIONS)  # of one real number


def sides(op: Op) -> tuple[int, int]:
    """How strongly the left and right side of an infix operation must bind to stand without parentheses."""
    if op.binding == POWER:
        return ATOM, SIGN
    if op.binding == COMPARE:
        return SUM, SUM
    return op.binding, op.binding + 1


TRANSCENDENTAL = frozenset((*FUNCTIONS, "atan2"))  # and roots: they take many instructions
CONSTANTS = {"pi": math.pi}  # names with a value, where nothing else has the name
ORDERINGS = ("lt", "le", "gt", "ge")
COMPARISONS = (*ORDERINGS, "eq", "ne")
MIRRORED = dict(zip(COMPARISONS, ("gt", "ge", "lt", "le", "eq", "ne"), strict=True))  # with the sides exchanged
DENIED = dict(zip(COMPARISONS, ("ge", "gt", "le", "lt", "ne", "eq"), strict=True))  # with a NaN, only for `eq` and `ne`
LINEAR = ("neg", "re", "im", "conj")  # unary operations that pass through a sum


@lru_cache(maxsize=4096)
def result_type(name: str, args: tuple[DType, ...]) -> DType:
    """The type of operation `name` on arguments of these types (weak types included).

    Raises `DTypeError` (without a place: the caller adds it) where the operation does not take them.
    """
    op = OPS[name]
    joined = args[0]
    for t in args[1:]:
        joined = join(joined, t)
    match op.rule:
        case Rule.JOIN:
            return _real(name, joined)
        case Rule.ARITHMETIC:
            if name in ("floordiv", "mod"):
                _real(name, joined)
            return INT if joined.is_bool else joined
        case Rule.FLOATING:
            if joined.is_complex and name != "div":
                _real(name, joined)
            return joined if joined.is_float or joined.is_complex else FLOAT
        case Rule.TRUTH:
            if name in ORDERINGS:
                _real(name, joined)
            return BOOL
        case Rule.LOGIC:
            for t in args:
                _need(name, t.is_bool, t, "a truth value")
            return BOOL
        case Rule.SELECT:
            _need(name, args[0].is_bool, args[0], "a truth value as its condition")
            chosen = args[1]
            for t in args[2:]:
                chosen = join(chosen, t)
            return chosen
        case Rule.INTEGER | Rule.RANDOM:
            for t in args:
                _need(name, t.is_int, t, "integers")
            return joined if op.rule is Rule.INTEGER else FLOAT
        case Rule.PART:
            return joined.part
        case Rule.COMPLEX:
            return join(_real(name, joined), C64)
        case Rule.SIZE:
            return INT if joined.is_bool else joined.part


def _need(name: str, holds: bool, got: DType, wanted: str) -> None:
    if not holds:
        raise DTypeError(f"'{OPS[name].infix or name}' takes {wanted}, not {got}")


def _real(name: str, t: DType) -> DType:
    _need(name, not t.is_complex, t, "real numbers")
    return t
