"""Types of operands by where they are read, if neither the text nor a fact gives them: integers and truth values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from einc.base.types import BOOL, I64, DType
from einc.frontend.syntax.nodes import Call, Name, Node, Operation, Read


def likely_types(nodes: Iterable[Node], values: Mapping[str, Node]) -> dict[str, DType]:
    """The type of each tensor that is read in a subscript or as a condition, and of those it is computed from.

    `values` are the right sides of the tensors that are defined.
    """
    found: dict[str, DType] = {}
    stack = [demand for node in nodes for demand in _demands(node)]
    while stack:
        node, dtype = stack.pop()
        match node:
            case Read(tensor=name) | Name(name):
                if name not in found:
                    found[name] = dtype
                    stack += [(values[name], dtype)] if name in values else []
            case _:
                stack += [(n, dtype) for n in _carriers(node, dtype)]
    return found


def conditions(node: Node) -> tuple[Node, ...]:
    """The parts of a node that are truth values."""
    match node:
        case Call("where", args=(condition, *_)):
            return (condition,)
        case Call("any" | "all", args=args) | Operation("and" | "or" | "not", args):
            return args
        case _:
            return ()


def _demands(node: Node) -> Iterator[tuple[Node, DType]]:
    """The nodes below a node that have a type by their place."""
    if isinstance(node, Read):
        yield from ((i, I64) for i in node.index)
    yield from ((c, BOOL) for c in conditions(node))


def _carriers(node: Node, dtype: DType) -> tuple[Node, ...]:
    """The parts of a node that have its type."""
    match node:
        case Call("where", args=(_, *chosen)):
            return tuple(chosen)
        case Call("max" | "min" | "sum", args=args) | Operation(
            "add" | "sub" | "mul" | "floordiv" | "mod" | "neg", args
        ):
            return args if dtype == I64 else ()
        case _:
            return ()
