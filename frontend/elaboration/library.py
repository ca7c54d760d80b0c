"""The functions that a program may call: the prelude, and its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from einc.base import errors
from einc.base.errors import AxisError
from einc.base.ops import OPS
from einc.base.source import Source, Span
from einc.base.types import BY_NAME
from einc.ein.monoids import MONOIDS
from einc.frontend.syntax.nodes import Call, Definition, Function, Name, Node, Read, Return, expressions, walk


@dataclass(frozen=True)
class Entry:
    """A function, with how often its body uses each parameter and the axes that are its own."""

    function: Function
    uses: Mapping[str, int]
    axes: tuple[str, ...]
    results: tuple[Node, ...]
    prelude: bool = False


Library: TypeAlias = Mapping[str, Entry]


@cache
def prelude() -> Library:
    """The functions that every program has, from `prelude.ein`."""
    from einc.frontend.syntax.grammar import parse_program

    text = files("einc.frontend.elaboration").joinpath("prelude.ein").read_text(encoding="utf-8")
    return {f.name: _entry(f, prelude=True) for f in parse_program(Source("prelude.ein", text)).functions}


def library(functions: Sequence[Function]) -> Library:
    """The prelude and the functions of a program, which may replace those of the prelude."""
    own: dict[str, Entry] = {}
    for f in functions:
        if f.name in BY_NAME or f.name in MONOIDS or (f.name in OPS and not OPS[f.name].infix):
            raise errors.NameError(f"'{f.name}' is a function of the language", f.span, hint="choose another name")
        if f.name in own:
            raise errors.NameError(
                f"the function '{f.name}' is defined twice",
                f.span,
                fact=f"first in line {own[f.name].function.span.line}",
                hint="rename one of the two",
            )
        own[f.name] = _entry(f)
    return {**prelude(), **own}


def _entry(f: Function, *, prelude: bool = False) -> Entry:
    *body, last = f.body
    if not isinstance(last, Return):
        raise errors.SyntaxError(f"the function '{f.name}' returns nothing", f.span, hint="end it with return …")
    for s in body:
        if not isinstance(s, Definition):
            what = "return is its last line" if isinstance(s, Return) else "the axes of a function are its callers'"
            raise errors.SyntaxError(
                f"'{f.name}' has definitions and one return", s.span, fact=what, hint="leave it out"
            )
    _check_names(f)
    nodes = [n for s in f.body for v in expressions(s) for n in walk(v)]
    uses = Counter(n.tensor if isinstance(n, Read) else n.name for n in nodes if isinstance(n, Name | Read))
    return Entry(f, uses, _own_axes(f, nodes), last.values, prelude)


def _check_names(f: Function) -> None:
    """Axes, parameters and definitions of a function differ in name, and the axes of a parameter are the function's."""
    axes = [a.name for a in f.axes]
    seen: dict[str, Span] = {a.name: a.span for a in f.axes}
    targets = [t for s in f.body if isinstance(s, Definition) for t in s.targets]
    for name, span in [(p.name, p.span) for p in f.params] + [(t.name, t.span) for t in targets]:
        if name in seen:
            raise errors.NameError(f"'{f.name}' uses the name '{name}' twice", span, hint="rename one of the two")
        seen[name] = span
    for p in f.params:
        for a in p.axes:
            if a.name not in axes or (f.variadic and a.name == axes[-1]):
                raise AxisError(
                    f"the axis '{a.name}' of '{p.name}' is not a single axis of '{f.name}'",
                    a.span,
                    fact="an argument is declared at single axes that the function takes",
                    hint=f"fn {f.name}[{', '.join(dict.fromkeys((*axes, a.name)))}]({p.name}[{a.name}])",
                )


def _own_axes(f: Function, nodes: Iterable[Node]) -> tuple[str, ...]:
    """The axes that a body brings in: those that it reduces over, reads at, or defines tensors with."""
    known = {a.name for a in f.axes} | {p.name for p in f.params}
    targets = [t for s in f.body if isinstance(s, Definition) for t in s.targets]
    known |= {t.name for t in targets}
    found: dict[str, None] = {}
    for target in targets:
        for dim in target.index or ():
            found |= dict.fromkeys(n.name for n in walk(dim) if isinstance(n, Name))
    for node in nodes:
        parts: Sequence[Node] = (node.axes or ()) if isinstance(node, Call) else ()
        parts = node.index if isinstance(node, Read) else parts
        found |= dict.fromkeys(n.name for part in parts for n in walk(part) if isinstance(n, Name))
    return tuple(a for a in found if a not in known)
