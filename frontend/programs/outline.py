"""The parts of a program before any is elaborated: parameters, axes, definitions in order, results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from einc.base import errors
from einc.base.ops import CONSTANTS
from einc.base.source import Span
from einc.base.types import DType
from einc.frontend.programs.undeclared import check_misspelt, free_scalars, read_operands
from einc.frontend.programs.usage import likely_types
from einc.frontend.syntax.mistakes import recurrence
from einc.frontend.syntax.nodes import (
    AxisStatement,
    Call,
    Definition,
    Definitions,
    Name,
    Node,
    OperandDecl,
    Read,
    Return,
    ScalarDecl,
    Target,
    expressions,
    walk,
)


@dataclass(frozen=True)
class Outline:
    """`definitions` are ordered so that each comes after those it reads; `axes` has the first place of every axis.

    `types` are the types of operands where neither the text nor a fact gives one, but the place they are read at does.
    """

    tree: Definitions
    params: tuple[OperandDecl | ScalarDecl, ...]
    axes: Mapping[str, Span]
    extents: tuple[AxisStatement, ...]
    definitions: tuple[Definition, ...]
    returns: tuple[Node, ...]
    types: Mapping[str, DType]

    @property
    def operands(self) -> tuple[OperandDecl, ...]:
        return tuple(p for p in self.params if isinstance(p, OperandDecl))

    @property
    def scalars(self) -> tuple[ScalarDecl, ...]:
        return tuple(p for p in self.params if isinstance(p, ScalarDecl))


def outline(tree: Definitions) -> Outline:
    """The outline of a parsed program. Raises `NameError` for names that appear twice or are defined by themselves."""
    definitions = [s for s in tree.body if isinstance(s, Definition)]
    extents = tuple(s for s in tree.body if isinstance(s, AxisStatement))
    targets = _targets(definitions)
    nodes = [n for s in tree.body for v in expressions(s) for n in walk(v)]
    params = tree.params or ()
    tensors = {*targets, *(p.name for p in params if isinstance(p, OperandDecl))}
    if tree.params is None:
        tensors |= {n.tensor for n in nodes if isinstance(n, Read)}
    scalars = {p.name for p in params if isinstance(p, ScalarDecl)}
    axes = _axes(params, tree.body, nodes, tensors | scalars)
    if tree.params is None:
        params = (*read_operands(nodes, targets, axes), *free_scalars(nodes, {*tensors, *axes, *CONSTANTS}))
    _check_names(params, targets, axes, extents)
    ordered = _ordered(definitions, targets)
    types = likely_types(nodes, {name: d.value for name, (d, _) in targets.items()})
    return Outline(tree, params, axes, extents, ordered, _returns(tree, definitions, targets), types)


def _targets(definitions: Sequence[Definition]) -> dict[str, tuple[Definition, Target]]:
    found: dict[str, tuple[Definition, Target]] = {}
    for d in definitions:
        for t in d.targets:
            if t.name in found:
                raise errors.NameError(
                    f"'{t.name}' is defined twice",
                    t.span,
                    fact=f"first in line {found[t.name][1].span.line}",
                    hint="give the second a name of its own",
                )
            found[t.name] = (d, t)
    return found


def _dim_names(dims: Iterable[Node]) -> Iterator[Name]:
    return (n for d in dims for n in walk(d) if isinstance(n, Name))


def _axes(
    params: Sequence[OperandDecl | ScalarDecl],
    body: Sequence[Definition | AxisStatement | Return],
    nodes: Sequence[Node],
    others: set[str],
) -> dict[str, Span]:
    """Every axis at its first place: in the signature, `axis` statements, left sides, reductions, subscripts."""
    found: dict[str, Span] = {}
    for p in params:
        if isinstance(p, OperandDecl):
            for n in _dim_names(p.dims):
                found.setdefault(n.name, n.span)
    for s in body:
        if isinstance(s, AxisStatement):
            found.setdefault(s.name, s.span)
    for s in body:
        if isinstance(s, Definition):
            for n in _dim_names(d for t in s.targets for d in t.index or ()):
                found.setdefault(n.name, n.span)
    for node in nodes:
        if isinstance(node, Call):
            for n in node.axes or ():
                if n.name not in others:
                    found.setdefault(n.name, n.span)
    for node in nodes:
        if isinstance(node, Read):
            for n in _dim_names(node.index):
                if n.name not in others and n.name not in found:
                    check_misspelt(n, others)
                    found[n.name] = n.span
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Names, order, results


def _check_names(
    params: Sequence[OperandDecl | ScalarDecl],
    targets: Mapping[str, tuple[Definition, Target]],
    axes: Mapping[str, Span],
    extents: Sequence[AxisStatement],
) -> None:
    seen: dict[str, Span] = {}
    for p in params:
        if p.name in seen:
            raise errors.NameError(f"there are two parameters '{p.name}'", p.span, hint="rename one of the two")
        seen[p.name] = p.span
        if isinstance(p, ScalarDecl) and p.name in axes:
            raise errors.NameError(f"'{p.name}' is a scalar and an axis", p.span, hint="rename one of the two")
    for name, (_, target) in targets.items():
        if name in seen:
            raise errors.NameError(
                f"'{name}' is a parameter, and is defined again",
                target.span,
                fact=f"the parameter stands in line {seen[name].line}",
                hint="give the definition a name of its own",
            )
    stated: dict[str, Span] = {}
    for s in extents:
        if s.name in stated:
            raise errors.NameError(
                f"the extent of axis '{s.name}' is given twice",
                s.span,
                fact=f"first in line {stated[s.name].line}",
                hint="leave out one of the two",
            )
        stated[s.name] = s.span


def _ordered(
    definitions: Sequence[Definition], targets: Mapping[str, tuple[Definition, Target]]
) -> tuple[Definition, ...]:
    """The definitions, each after those it reads, else as written."""
    ordered: list[Definition] = []
    done: set[int] = set()
    open_: set[int] = set()
    for first in definitions:
        path = [first]
        open_.add(id(first))
        pending = [_needed(first, targets)]
        while path:
            following = None if id(path[-1]) in done else next((d for d in pending[-1] if id(d) not in done), None)
            if following is None:
                if id(path[-1]) not in done:
                    done.add(id(path[-1]))
                    ordered.append(path[-1])
                open_.discard(id(path.pop()))
                pending.pop()
            elif id(following) in open_:
                raise _cycle(path, following)
            else:
                path.append(following)
                open_.add(id(following))
                pending.append(_needed(following, targets))
    return tuple(ordered)


def _needed(d: Definition, targets: Mapping[str, tuple[Definition, Target]]) -> Iterator[Definition]:
    names = (n.tensor if isinstance(n, Read) else n.name for n in walk(d.value) if isinstance(n, Name | Read))
    return iter([targets[n][0] for n in dict.fromkeys(names) if n in targets])


def _cycle(path: Sequence[Definition], back: Definition) -> errors.Error:
    start = next(k for k, d in enumerate(path) if d is back)
    names = [d.targets[0].name for d in (*path[start:], back)]
    return errors.NameError(
        f"'{names[0]}' is defined by itself",
        back.targets[0].span,
        fact=" reads ".join(f"'{n}'" for n in (names if len(names) < 8 else [*names[:6], "…", names[-1]])),
        hint=recurrence("it"),
    )


def _returns(
    tree: Definitions, definitions: Sequence[Definition], targets: Mapping[str, tuple[Definition, Target]]
) -> tuple[Node, ...]:
    """What the program returns: what its `return` names, or every definition that nothing reads."""
    returns = [s for s in tree.body if isinstance(s, Return)]
    if len(returns) > 1 or (returns and tree.body[-1] is not returns[0]):
        last = returns[1] if len(returns) > 1 else returns[0]
        message = "a second return" if len(returns) > 1 else "return is not the last line"
        raise errors.SyntaxError(message, last.span, hint="return everything in the last line: return O, L")
    if returns:
        return returns[0].values
    if not definitions:
        raise errors.SyntaxError(
            "the program computes nothing", tree.span, hint="define a tensor: C[i, j] = A[i, k] * B[k, j]"
        )
    read = {
        n.tensor if isinstance(n, Read) else n.name
        for d in definitions
        for n in walk(d.value)
        if isinstance(n, Name | Read)
    }
    return tuple(Name(name, t.span) for name, (_, t) in targets.items() if name not in read)
