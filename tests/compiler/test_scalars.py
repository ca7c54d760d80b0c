"""Scalar formulas are what IEEE says, in the call and in emitted files, as they are in tensors."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from einc.codegen.emit import library
from einc.codegen.emit.formulas import formula
from einc.codegen.emit.names import Names
from einc.codegen.emit.text import File
from einc.ein import Apply, Scalar
from einc.ein.arithmetic import evaluate_formula
from einc.evaluate import elementwise
from einc.evaluate.fields import scalar

VALUES = (0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 0.25, 710.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan)
ONE = (
    "sqrt", "rsqrt", "exp", "exp2", "log", "log2", "tanh", "erf", "sin", "cos", "tan", "floor", "ceil", "round", "abs",
    "neg",
)  # fmt: skip
TWO = ("add", "sub", "mul", "div", "pow", "max", "min", "floordiv", "mod")


def in_a_file(e: Apply, scalars: dict[str, float]) -> float:
    """The value that the launcher of an emitted file has."""
    file = File(Names(()))
    text = formula(e, {name: name for name in scalars}, file).code
    known: dict[str, object] = {"math": math}
    exec("\n\n".join(library.definitions(file.library)), known)
    found: float = eval(text, known | scalars)
    return found


def in_tensors(op: str, scalars: dict[str, float]) -> float:
    with np.errstate(all="ignore"):
        return float(elementwise.apply(op, [scalar(x) for x in scalars.values()]).array)


def check(op: str, scalars: dict[str, float]) -> None:
    e = Apply(op, tuple(Scalar(name) for name in scalars))
    wanted = in_tensors(op, scalars)
    for found in (evaluate_formula(e, {}, scalars), in_a_file(e, scalars)):
        np.testing.assert_allclose(found, wanted, rtol=1e-15, err_msg=f"{op} of {scalars}")
        if wanted == 0 and op in ("mul", "div", "neg", "abs", "rsqrt"):
            assert math.copysign(1, found) == math.copysign(1, wanted)


@pytest.mark.parametrize("op", ONE)
def test_of_one(op: str) -> None:
    for x in VALUES:
        check(op, {"x": x})


@pytest.mark.parametrize("op", TWO)
def test_of_two(op: str) -> None:
    for x, y in product(VALUES, repeat=2):
        check(op, {"x": x, "y": y})


@pytest.mark.parametrize("op", ["pow", "floordiv", "mod", "max", "add"])
def test_of_integers(op: str) -> None:
    for x, y in product((-3, -1, 1, 2, 5), repeat=2):
        check(op, {"x": x, "y": y})
