"""What scalar expressions take: instructions of the vector units, and results of the special ones.

A multiply-add is one instruction, and so is any other operation on numbers. Functions take as many as the assembler of
CUDA 12.8 makes of them for Hopper, counted in what it writes for kernels that compute one of them; special units give
exponentials, reciprocals and roots. Where units take their turns each function counts as one special one: a library's
loop computes it, whatever it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from einc import ein
from einc.base.ops import TRANSCENDENTAL
from einc.ein import Apply, Const
from einc.pipeline import Context, positions

_SPECIAL = TRANSCENDENTAL | {"div", "pow", "rand"}
_MULTIPLIED = 64  # the largest power that is made of products
_OTHERS = (50.0, 2.0)  # of a function that was not counted
_INSTRUCTIONS: dict[str, tuple[float, float]] = {
    "sqrt": (0, 1), "rsqrt": (0, 1), "exp": (1, 1), "exp2": (0, 1), "log": (27, 0), "log2": (29, 0), "tanh": (28, 3),
    "erf": (27, 1), "sin": (78, 0), "cos": (79, 0), "tan": (163, 1), "log1p": (52, 1), "expm1": (50, 5), "div": (8, 1),
    "pow": (126, 1), "atan2": (62, 4),
}  # fmt: skip


def counted(expressions: Iterable[ein.Expr], context: Context) -> tuple[float, float]:
    """Vector operations and special functions of some expressions, over all positions of their axes."""
    vector = special = 0.0
    for n in (n for e in expressions for n in ein.walk(e) if isinstance(n, Apply)):
        size = float(positions(ein.axes_of(n), context))
        v, s = _of(n, in_turn=context.target.rates.in_turn)
        vector, special = vector + size * v, special + size * s
    return vector, special


def _of(n: Apply, in_turn: bool) -> tuple[float, float]:
    """Vector operations and special functions of one operation."""
    match n:
        case Apply(op="pow", args=(_, Const(value=int() as power))) if 0 < power <= _MULTIPLIED:
            return power.bit_length() + power.bit_count() - 2, 0.0  # squares, and products of them
        case Apply(op="div", args=(_, Const())) if not in_turn:
            return 1.0, 0.0  # a product with its reciprocal
        case Apply(op=op) if op in _SPECIAL:
            return (0.0, 1.0) if in_turn else _INSTRUCTIONS.get(op, _OTHERS)
        case _:
            return 1.0, 0.0
