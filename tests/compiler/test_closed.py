"""What takes nodes apart knows all of them: a node of a further class is an error where it is met, never a leaf.

A law recognises a pattern, of one or two classes, and leaves all else as it is; a question is answered by no. A match
over statements, or over three classes or more that have expressions below, is a walk: it ends in `assert_never`, or
hands what is left to a function that does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from einc import ein, tile
from einc.ein.inference import dtype_of
from einc.tile import walk
from einc.tile.typing import dtype_of as dtype_of_value
from tests.support.places import ROOT

UNKNOWN = object()
FOLDERS = ("compiler", "passes", "codegen")
STATEMENTS = {c.__name__ for c in get_args(tile.Statement)}
INNER = {
    c.__name__
    for union, own in ((ein.Expr, "Expr"), (tile.Value, "Value"))
    for c in get_args(union)
    if any(own in str(f.type) for f in fields(c))
}
CLOSED = {"assert_never", "children", "rebuild", "values_of", "dtype_of"}


def classes(p: ast.pattern) -> Iterator[str]:
    """The classes that a pattern asks for, those inside of it apart."""
    match p:
        case ast.MatchClass(cls=ast.Name(id=name) | ast.Attribute(attr=name)):
            yield name
        case ast.MatchOr(patterns=patterns):
            for each in patterns:
                yield from classes(each)
        case ast.MatchAs(pattern=ast.pattern() as inner):
            yield from classes(inner)


def is_closed(m: ast.Match) -> bool:
    *_, last = m.cases
    rest = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and last.guard is None
    named = {n.id for n in ast.walk(last) if isinstance(n, ast.Name)}
    return rest and (bool(named & CLOSED) or isinstance(last.body[0], ast.Raise))


def is_question(f: ast.FunctionDef) -> bool:
    """Does it answer whether, or with None for what it does not know?"""
    answer = "" if f.returns is None else ast.unparse(f.returns)
    return answer == "bool" or "None" in answer.split(" | ")


def walks(file: Path) -> Iterator[tuple[ast.FunctionDef, ast.Match]]:
    for f in ast.walk(ast.parse(file.read_text())):
        for m in ast.walk(f) if isinstance(f, ast.FunctionDef) else ():
            if isinstance(m, ast.Match):
                known = {c for case in m.cases for c in classes(case.pattern)}
                if len(known & STATEMENTS) > 1 or len(known & INNER) > 2:
                    assert isinstance(f, ast.FunctionDef)
                    yield f, m


def test_every_walk_is_closed() -> None:
    found = [(file, f, m) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") for f, m in walks(file)]
    assert len(found) > 40
    open_ = [f"{file}:{m.lineno} {f.name}" for file, f, m in found if not is_question(f) and not is_closed(m)]
    assert open_ == []


@pytest.mark.parametrize(
    "meet",
    [
        ein.children,
        lambda e: ein.rebuild(e, lambda x: x),
        lambda e: dtype_of(e, {}),
        walk.values_of,
        lambda v: walk.rebuild(v, lambda x: x),
        lambda v: dtype_of_value(v, {}),
        walk.own_values,
        lambda s: walk.over_values(s, lambda x: x),
        lambda s: walk.rewritten((s,), lambda x, _: (x,)),
    ],
)
def test_an_unknown_node_is_an_error(meet: object) -> None:
    assert callable(meet)
    with pytest.raises(AssertionError, match="unreachable"):
        meet(UNKNOWN)
