"""A source into syntax trees, by the grammar in `einc.lark`; every text that is not in it ends in one `SyntaxError`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from lark import Lark
from lark.exceptions import UnexpectedToken

from einc.base.errors import SyntaxError
from einc.base.recursion import make_room
from einc.base.source import Source
from einc.frontend.syntax import mistakes
from einc.frontend.syntax.lexer import Input, TokenLexer
from einc.frontend.syntax.nodes import Definitions, Node, ScalarDecl, children, expressions
from einc.frontend.syntax.trees import Trees

DEEPEST = 256  # operations within operations


@cache
def _parser() -> Lark:
    grammar = files("einc.frontend.syntax").joinpath("einc.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer=TokenLexer, start=["program", "expression"], transformer=Trees())


def parse_program(source: Source) -> Definitions:
    """The functions and the program of a text. Raises `SyntaxError`."""
    tree = _parse(source, "program")
    if tree is None:
        raise empty(source)
    assert isinstance(tree, Definitions)
    for s in (*tree.body, *(s for f in tree.functions for s in f.body)):
        _check_depth(expressions(s))
    defaults = [p.default for p in tree.params or () if isinstance(p, ScalarDecl) and p.default is not None]
    _check_depth(tuple(defaults))
    return tree


def parse_expression(source: Source) -> Node:
    """The tree of an expression; line ends in it mean nothing. Raises `SyntaxError`."""
    node = _parse(source, "expression")
    assert node is not None
    assert not isinstance(node, Definitions)
    _check_depth((node,))
    return node


def empty(source: Source) -> SyntaxError:
    return SyntaxError(
        "the text is empty",
        source.whole(),
        fact="there is nothing but spaces and comments" if source.text else "",
        hint='write an einsum string, "ij,jk->ik", or a definition, C[i, j] = A[i, k] * B[k, j]',
    )


def _parse(source: Source, start: str) -> Definitions | Node | None:
    given = Input(source, layout=start == "program")
    try:
        return _parser().parse(given, start=start)  # type: ignore[return-value]  # lark knows of trees only
    except UnexpectedToken as e:
        raise _explain(e, given) from None


def _explain(e: UnexpectedToken, given: Input) -> SyntaxError:
    token, source = e.token, given.source
    end = len(source.text.rstrip())
    place = getattr(token, "span", None) or source.span(end, end)
    for bracket in given.open:
        if bracket.line < place.line and token.type != "$END":
            return mistakes.unclosed(bracket)
    accepts: set[str] = set(e.interactive_parser.accepts()) if e.interactive_parser else set(e.expected)  # type: ignore[no-untyped-call]
    return mistakes.unexpected(token.type, place, accepts, _before(source.text, place.start))


def _before(text: str, at: int) -> str:
    """The last character before a place that is no space."""
    return text[:at].rstrip()[-1:]


def _check_depth(nodes: tuple[Node, ...]) -> None:
    """Raise `SyntaxError` where operations nest deeper than any stage can follow; make room for those that do not."""
    stack, deepest = [(n, 1) for n in nodes], 0
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        if depth > DEEPEST:
            raise SyntaxError(
                "operations are nested too deeply",
                node.span,
                fact=f"more than {DEEPEST} stand within each other; each '+' of a long sum counts",
                hint="give parts of it a definition of their own",
            )
        stack += [(c, depth + 1) for c in children(node)]
    make_room(deepest)
