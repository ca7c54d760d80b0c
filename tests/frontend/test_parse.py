"""Texts into syntax trees: forms, precedence, layout; and whatever is not in the language ends in one error."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einc.base.errors import Error, SyntaxError
from einc.base.source import Source
from einc.base.types import BF16
from einc.frontend import parse
from einc.frontend.parse import form_of
from einc.frontend.syntax.grammar import parse_expression, parse_program
from einc.frontend.syntax.nodes import (
    AxisStatement,
    Call,
    Definition,
    Extent,
    Group,
    Literal,
    Name,
    Node,
    OperandDecl,
    Operation,
    Quoted,
    Read,
    Return,
    ScalarDecl,
)


def source(text: str) -> Source:
    return Source("<test>", text)


def show(n: Node | None) -> str:
    """A tree with every operation in parentheses."""
    match n:
        case Literal(value=value):
            return str(value).lower() if isinstance(value, bool) else repr(value)
        case Name(name):
            return name
        case Extent(axis):
            return f"|{axis}|"
        case Group(axes):
            return f"<{' '.join(a.name for a in axes)}>"
        case Read(tensor, index, guard):
            return f"{tensor}[{', '.join(map(show, index))}{'' if guard is None else ' : ' + show(guard)}]"
        case Call(function, axes, domain, args):
            over = "" if axes is None else f"[{' '.join(a.name for a in axes)}]"
            return f"{function}{over}{'' if domain is None else ':' + show(domain)}({', '.join(map(show, args))})"
        case Operation(op, args):
            return f"({op} {' '.join(map(show, args))})"
        case Quoted(text):
            return f"'{text}'"
        case None:
            return ""


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", "(add a (mul b c))"),
        ("a - b - c", "(sub (sub a b) c)"),
        ("a / b * c // d % e", "(mod (floordiv (mul (div a b) c) d) e)"),
        ("a ** b ** c", "(pow a (pow b c))"),
        ("-a ** 2", "(neg (pow a 2))"),
        ("2 ** -a", "(pow 2 (neg a))"),
        ("(-2) ** 2", "(pow -2 2)"),
        ("-2 ** 2", "(neg (pow 2 2))"),
        ("-2 * a", "(mul -2 a)"),
        ("-(2)", "(neg 2)"),
        ("--a", "(neg (neg a))"),
        ("+a", "a"),
        ("a or b and not c", "(or a (and b (not c)))"),
        ("not a == b", "(not (eq a b))"),
        ("a <= b < c", "(and (le a b) (lt b c))"),
        ("a < b + 1 != c", "(and (lt a (add b 1)) (ne (add b 1) c))"),
        ("((a))", "a"),
        ("|d| / |g|", "(div |d| |g|)"),
        ("K[page[b, j // 16], j % 16, d]", "K[page[b, (floordiv j 16)], (mod j 16), d]"),
        ("Q[b, (g r), 0]", "Q[b, <g r>, 0]"),
        ("Q[(), (g)]", "Q[<>, g]"),
        ("T[]", "T[]"),
        ("K[j - 1 : j >= 1]", "K[(sub j 1) : (ge j 1)]"),
        ("sum[j, k : j <= k](x)", "sum[j k]:(le j k)(x)"),
        ("softmax[j](x, 1)", "softmax[j](x, 1)"),
        ("f()", "f()"),
        ("f(a, b,)", "f(a, b)"),
        ("where(i == j, 1, inf)", "where((eq i j), 1, inf)"),
        ("true and not false", "(and true (not false))"),
        ("1e-6 + .5 + 1. + 1_000 + 2E+3", "(add (add (add (add 1e-06 0.5) 1.0) 1000) 2000.0)"),
        ("-inf", "-inf"),
        ("'ij,jk' * \"k\"", "(mul 'ij,jk' 'k')"),
        ("α1 * größe", "(mul α1 größe)"),
        ("a\n  +\n b # the rest", "(add a b)"),
    ],
)
def test_expressions(text: str, tree: str) -> None:
    assert show(parse_expression(source(text))) == tree


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("bik,bkj->bij", "einsum"),
        ("...ij,...jk", "einsum"),
        ("b (g r) q d, b g k d -> b (g r) q k", "einsum"),
        ("ij", "einsum"),
        ("# a product\nij,jk->ik\n", "einsum"),
        ("ij;jk->ik", "einsum"),
        ('softmax("ij")', "expression"),
        ("'ij' + 1", "expression"),
        ('"ij', "expression"),
        ("C[i, j] = A[i, k] * B[k, j]", "program"),
        ("# don't\nC[i] = A[i]", "program"),
        ("def f(A[i]):\n    return A", "program"),
        ("return A", "program"),
        ("softmax(x)", "program"),
        ("", "program"),
    ],
)
def test_forms(text: str, form: str) -> None:
    assert form_of(text) == form


PROGRAM = """
# Grouped-query attention.

fn twice(x) = 2 * x
fn spread[j, *r](x[j], eps = 1e-6):
    m = mean[r](x)
    return x - m

def fmha(Q[b, (g r), i, 1]: bf16,
         K[b, g, j, d], n[],
         window: int, scale: float = rsqrt(|d|)):   # scalars last
    axis g = 2

    S[b, h, i, j]: f32 = scale * Q[b,
        h, i, 0]
    V[b], I[b]: i32 = argmax[j](S)
    P = softmax[j](S)
    return P, V + 1
"""


def test_program() -> None:
    tree = parse_program(source(PROGRAM))
    twice, spread = tree.functions
    assert (twice.name, twice.axes, twice.variadic) == ("twice", (), False)
    assert [a.name for a in spread.axes] == ["j", "r"]
    assert spread.variadic
    assert [(p.name, [a.name for a in p.axes], show(p.default)) for p in spread.params] == [
        ("x", ["j"], ""),
        ("eps", [], "1e-06"),
    ]
    assert [type(s) for s in spread.body] == [Definition, Return]
    assert tree.name == "fmha"
    assert tree.params is not None
    q, k, n, window, scale = tree.params
    assert isinstance(q, OperandDecl)
    assert [show(d) for d in q.dims] == ["b", "<g r>", "i", "<>"]
    assert q.dtype == BF16
    assert isinstance(k, OperandDecl)
    assert k.dtype is None
    assert isinstance(n, OperandDecl)
    assert n.dims == ()
    assert isinstance(window, ScalarDecl)
    assert (window.kind, window.default) == ("int", None)
    assert isinstance(scale, ScalarDecl)
    assert show(scale.default) == "rsqrt(|d|)"
    axis, s, several, p, results = tree.body
    assert isinstance(axis, AxisStatement)
    assert (axis.name, show(axis.extent)) == ("g", "2")
    assert isinstance(s, Definition)
    assert show(s.value) == "(mul scale Q[b, h, i, 0])"
    assert isinstance(several, Definition)
    assert [t.name for t in several.targets] == ["V", "I"]
    assert isinstance(p, Definition)
    assert p.targets[0].index is None
    assert isinstance(results, Return)
    assert [show(v) for v in results.values] == ["P", "(add V 1)"]


@pytest.mark.parametrize(
    "text",
    [
        "S[i] = A[i]\nT[i] = S[i]",
        "S[i] = A[i]\r\nT[i] = S[i]\r\n",
        "S[i] = A[i]\rT[i] = S[i]",
        "\n\n    S[i] = A[i]\n    # between\n\n    T[i] = S[i]\n  ",
        "\ufeffS[i] = A[i]\nT[i] = S[i]",
        "\tS[i] = A[i]\n\tT[i] = S[i]",
        "S[i] = (\n A[\ni])\nT[i] = S[i]  # end",
    ],
)
def test_layout(text: str) -> None:
    tree = parse_program(source(text))
    assert [show(s.value) for s in tree.body if isinstance(s, Definition)] == ["A[i]", "S[i]"]


def test_body_on_the_line_of_its_def() -> None:
    tree = parse_program(source("def f(A[i]): return A"))
    assert tree.name == "f"
    assert len(tree.body) == 1


def test_places() -> None:
    tree = parse_program(source("S[i] = A[i] * (B[i] + 1)\nT[i] = S[i]"))
    first = tree.body[0]
    assert isinstance(first, Definition)
    assert first.value.span.text == "A[i] * (B[i] + 1)"
    assert first.targets[0].span.text == "S[i]"
    assert tree.body[1].span.line == 2


def test_texts_say_what_a_call_gives() -> None:
    assert parse(source("ij,jk->ik")).operands == ("A", "B")
    text = parse(source('softmax("ij,jk" * alpha) * "kl->il" + beta'))
    assert (text.operands, text.scalars) == (("A", "B", "C"), ("alpha", "beta"))
    text = parse(source(PROGRAM))
    assert (text.form, text.operands, text.scalars) == ("program", ("Q", "K", "n"), ("window", "scale"))
    text = parse(source("Y[i] = a * X[i] + T[i]\nT[i] = B[i]"))
    assert (text.operands, text.scalars) == (("X", "B"), ("a",))


def test_two_hundred_levels() -> None:
    parse_program(source("O[i] = " + "(" * 200 + "A[i]" + ")" * 200))
    assert show(parse_expression(source("exp(" * 200 + "x" + ")" * 200))).count("exp") == 200


@pytest.mark.parametrize("opening", ["(", "exp(", "-", "not ", "2 ** ", "A[", "where(", "|", "1 + "])
def test_thousands_of_levels_are_refused(opening: str) -> None:
    with pytest.raises(SyntaxError):
        parse_expression(source(opening * 5000 + "x"))


def test_nested_chains_do_not_double() -> None:
    text = "x"
    for _ in range(100):
        text = f"0 < ({text}) < 1"
    with pytest.raises(SyntaxError, match="chained comparison"):
        parse_expression(source(text))


def test_importing_the_frontend_leaves_lark_alone() -> None:
    code = "import sys, einc.frontend; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TOKENS = [
    *["def", "fn", "axis", "return", "and", "or", "not", "inf", "true", "sum", "softmax", "where", "f32"],
    *["i", "j", "A", "x", "1", "2.5", "|", "(", ")", "[", "]", ",", ":", "=", "==", "<", "+", "-", "*", "**", "/", "%"],
    *['"ij"', '"', "'", "#", "\n", "\n    ", "\t", "^", "§", "->", "..."],
]


def outcome(text: str) -> str:
    """What parsing says: nothing, or the text of the error."""
    try:
        parse(source(text))
    except Error as error:
        return str(error)
    return "parsed"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(TOKENS), max_size=30), st.sampled_from(["", " "]))
def test_any_tokens_end_in_a_tree_or_an_error(tokens: list[str], between: str) -> None:
    assert outcome(between.join(tokens))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_ends_in_a_tree_or_an_error(text: str) -> None:
    assert outcome(text)
