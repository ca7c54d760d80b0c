"""Every function that a program may call, with its form and its result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from einc.base.ops import OPS
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS


@dataclass(frozen=True, slots=True)
class Word:
    """A function: its name, how it is written, and what it gives. `kind` says where it comes from."""

    name: str
    form: str
    says: str
    kind: str


_CALLS = {
    "sqrt": "the square root", "rsqrt": "1 / sqrt(x)", "exp": "e ** x", "exp2": "2 ** x",
    "log": "the natural logarithm", "log2": "the logarithm to base 2",
    "log1p": "log(1 + x), with all its digits near 0", "expm1": "exp(x) - 1, with all its digits near 0",
    "tanh": "the hyperbolic tangent", "erf": "the error function", "sin": "the sine", "cos": "the cosine",
    "tan": "the tangent", "atan2": "the angle of the point (x, y), from -pi to pi",
    "abs": "the absolute value, of complex numbers too",
    "floor": "the greatest integer that is at most x", "ceil": "the least integer that is at least x",
    "round": "the nearest integer, and the even one of two",
    "max": "the greatest of its arguments", "min": "the least of its arguments",
    "where": "x where the condition holds, else y; the other is not read",
    "rand": "a random number in [0, 1) for a seed and an index: the same at every level and on every machine",
    "re": "the real part", "im": "the imaginary part", "conj": "the complex conjugate",
    "complex": "the complex number with this real and imaginary part",
}  # fmt: skip
_ARGUMENTS = {
    "atan2": "y, x",
    "complex": "x, y",
    "max": "x, y, …",
    "min": "x, y, …",
    "where": "condition, x, y",
    "rand": "seed, i, …",
}


def vocabulary() -> tuple[Word, ...]:
    """Scalar operations that are calls, casts, reductions, and functions of the prelude, each in order."""
    calls = [op.name for op in OPS.values() if not op.infix]
    return (
        *(Word(n, f"{n}({_ARGUMENTS.get(n, 'x')})", _CALLS[n], "operation") for n in calls),
        *(Word(t, f"{t}(x)", "x in this type", "cast") for t in BY_NAME),
        *(Word(m.name, f"{m.name}[j](x)", m.meaning, "reduction") for m in MONOIDS.values()),
        *_prelude(),
    )


def _prelude() -> Iterator[Word]:
    """The functions of the prelude, each with the comment above it."""
    text = files("einc.frontend.elaboration").joinpath("prelude.ein").read_text(encoding="utf-8")
    for says, form in re.findall(r"((?:^# .+\n)+)fn ([^:=]+?(?:\([^)]*\)))", text, flags=re.MULTILINE):
        name = re.match(r"\w+", form)
        assert name is not None
        comment = " ".join(line.removeprefix("# ") for line in says.splitlines())
        yield Word(name[0], form.replace("*r", "j, …"), comment[0].lower() + comment[1:].rstrip("."), "prelude")


def markdown(words: Iterable[Word]) -> str:
    """A table of functions in Markdown."""
    rows = [(f"`{w.form}`", w.says.replace("|", "\\|")) for w in words]
    return "\n".join(["| written | gives |", "|---|---|", *(f"| {form} | {says} |" for form, says in rows)]) + "\n"
