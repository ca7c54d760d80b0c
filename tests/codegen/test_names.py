"""A user's names are never those of generated code: in tiles, in kernels, in launchers, in calls."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import einc
from einc.codegen.emit.names import Names, identifier
from einc.runtime.tensors import as_torch

ROWS = "def f(A[i, d], B[{j}, d], C[{j}, {e}], {s}: float):\n{body}    return O\n"
BODY = (
    "    S[i, {j}] = {s} * A[i, d] * B[{j}, d]\n"
    "    O[i, {e}] = softmax[{j}](where({j} <= i + 3, S, -inf)) * C[{j}, {e}]\n"
)
NAMES = [  # an axis that is walked, one of the result, a scalar
    ("c_in", "c", "num_warps"), ("c", "c_in", "num_stages"), ("BK", "k", "INT"), ("k", "K", "k_mixed"),
    ("K", "k", "k0"), ("j", "BJ", "j_mixed"), ("k_full_stop", "BI", "BD"), ("size_i", "blocks_i", "size_size_i"),
    ("o_max", "o_sum", "o_exp"), ("O_max", "O_exp", "O_sum"), ("o_max_next", "o_max_block", "o_max_was"),
    ("S_sum", "s_sum", "rescale"), ("left", "right", "where_"), ("i_in", "d_in", "O_stride_i"), ("r", "split", "r_2"),
    ("tl", "triton", "torch"), ("program", "launch", "device"), ("math", "float", "max"), ("lambda", "None", "class"),
    ("expect", "tile_size", "index_type"), ("maximum", "blocks", "exact_quotient"), ("self", "args", "kwargs"),
    ("options", "params", "specialize_impl"), ("grid", "warmup", "debug"), ("__name__", "__builtins__", "_"),
    ("ﬁ", "fi", "ﬃ"), ("µ", "μ", "ℓ"), ("ß", "ss", "ı"), ("x" * 90, "x" * 91, "X" * 90), ("A_", "a_1", "b_1"),
    ("max_combine", "maximum_2", "f_2"), ("O_kernel", "O_kernel_2", "f_"), ("ref", "ref1", "O_ref"),
]  # fmt: skip


def operands(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(s).astype(np.float32) for s in shapes]


def text(j: str, e: str, s: str) -> str:
    return ROWS.format(j=j, e=e, s=s, body=BODY.format(j=j, e=e, s=s))


PLAIN = text("j", "e", "s")


def hygienic(source: str) -> None:
    """No function of an emitted file binds a name that it has from elsewhere, nor two arguments of one name."""
    module = ast.parse(source)
    functions = [n for n in module.body if isinstance(n, ast.FunctionDef)]
    names = [f.name for f in functions]
    assert len({*names}) == len(names)
    around = {*names, "torch", "triton", "tl", "math", *dir(builtins)}
    for f in functions:
        bound = {*_bound(f)} - {"_"}
        assert not bound & around, f.name
        read = {n.id for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert read <= bound | around, f.name


def _bound(f: ast.FunctionDef) -> Iterator[str]:
    """The names of a function: arguments, and what is assigned to."""
    arguments = [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
    arguments += [a.arg for a in (f.args.vararg, f.args.kwarg) if a is not None]
    assert len({*arguments}) == len(arguments)
    yield from arguments
    for n in ast.walk(f):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            yield n.id
        elif isinstance(n, ast.ListComp | ast.GeneratorExp):
            yield from (x.id for g in n.generators for x in ast.walk(g.target) if isinstance(x, ast.Name))


@pytest.mark.turns(2)
@pytest.mark.parametrize(("j", "e", "s"), NAMES)
def test_names_do_not_matter(j: str, e: str, s: str) -> None:
    given = operands((5, 8), (40, 8), (40, 7))
    program = einc.compile(text(j, e, s))
    named: dict[str, Any] = {s: 0.5}
    hygienic(program.source(*given, **named))
    for backend in ("torch", "interpret"):
        wanted = einc.compile(PLAIN)(*given, 0.5, backend=backend)
        np.testing.assert_array_equal(program(*given, **{s: 0.5}, backend=backend), wanted)


@pytest.mark.parametrize(("j", "e", "s"), NAMES[:6])
def test_names_do_not_matter_at_any_level(j: str, e: str, s: str) -> None:
    given = operands((5, 8), (40, 8), (40, 7))
    for level in (0, 1):
        found = einc.compile(text(j, e, s), level)(*given, 0.5, backend="interpret")
        np.testing.assert_array_equal(found, einc.compile(PLAIN, level)(*given, 0.5, backend="interpret"))


@pytest.mark.parametrize("name", ["out", "backend", "self", "format", "stage", "level", "operands", "named"])
def test_a_parameter_may_have_the_name_of_an_option(name: str) -> None:
    (a,) = operands((4, 3))
    program = einc.compile(f"def f(A[i, k], {name}: float):\n    Y[i] = {name} * A[i, k]\n    return Y\n")
    expected = einc.compile("def f(A[i, k], s: float):\n    Y[i] = s * A[i, k]\n    return Y\n")(a, 2.5)
    given: dict[str, Any] = {name: 2.5}
    np.testing.assert_array_equal(program(a, **given), expected)
    np.testing.assert_array_equal(program.run((a,), given, backend="interpret"), expected)
    assert program.source(a, **given) == program.source(a, 2.5)
    assert program.explain(a, **given)
    assert program.dump("hoist", a, **given)


def test_an_option_that_is_no_parameter_stays_one() -> None:
    (a,) = operands((4, 3))
    out = np.empty(4, np.float32)
    program = einc.compile("def f(A[i, k], backend: float):\n    Y[i] = backend * A[i, k]\n    return Y\n")
    given: dict[str, Any] = {"backend": 2.0}
    assert program(a, **given, out=out) is out
    np.testing.assert_array_equal(out, program(a, 2.0))


def test_an_operand_that_is_called_out() -> None:
    a, b = operands((4,), (4,))
    program = einc.compile("def f(A[i], out[i]):\n    Y[i] = A[i] - out[i]\n    return Y\n")
    np.testing.assert_array_equal(program(a, out=b), a - b)
    with pytest.raises(einc.CallError, match="'out' is given twice"):
        program(a, b, out=b)
    into = np.empty(4, np.float32)
    assert program.run((a, b), {}, out=into) is into
    np.testing.assert_array_equal(into, a - b)


def test_keywords_are_found_as_python_writes_them() -> None:
    (a,) = operands((3,))
    program = einc.compile("def f(A[i], µ: float):\n    Y[i] = µ * A[i]\n    return Y\n")  # the sign, not the letter
    np.testing.assert_array_equal(program(a, µ=2.0), 2 * a)
    two = einc.compile("def f(A[i], ﬁ: float, fi: float):\n    Y[i] = ﬁ * A[i] + fi\n    return Y\n")
    given: dict[str, Any] = {"ﬁ": 2.0, "fi": 4.0}  # which Python would take for one
    np.testing.assert_array_equal(two(a, **given), 2 * a + 4)


def test_launchers_keep_their_parameters_apart() -> None:
    """The emitted file by itself: tile sizes, extents and the caller's names are variables of one function."""
    given = [as_torch(x) for x in operands((5, 9), (9, 300))]
    program = einc.compile("def f(A[i, k], B[k, BK]):\n    BI[i, BK] = A[i, k] * B[k, BK]\n    return BI\n")
    source = program.source(*given)
    hygienic(source)
    launcher = source[source.rindex("\ndef f(") :]
    assert "`" not in launcher.replace("`out` is", "")  # every parameter is called what it is in the program
    np.testing.assert_allclose(program(*given, backend="interpret"), given[0] @ given[1], rtol=1e-5, atol=1e-5)


def test_a_launcher_says_what_its_parameters_are() -> None:
    program = einc.compile("def f(A[i], max: float, s: float):\n    Y[i] = A[i] * max + s\n    return Y\n")
    source = program.source(*operands((4,)), 2.0, 3.0)
    assert "def f(A, max_2, s, *, out=None):" in source
    assert "`max_2` is the program's max.\n" in source


def test_scopes_share_no_name() -> None:
    file = Names(["tl"])
    one, other = Names(["grid"], around=file), Names(around=file)
    assert [one.fresh(n) for n in ("tl", "grid", "a", "a", "lambda", "__x", "ﬁ", "fi")] == [
        "tl_2", "grid_2", "a", "a_2", "lambda_", "u__x", "fi", "fi_2",
    ]  # fmt: skip
    assert other.fresh("a") == "a"
    assert file.fresh("a") == "a_3"  # neither scope means it
    assert other.fresh("a_3") == "a_3_2"


@pytest.mark.parametrize("wanted", ["", "1", "a b", "αβ", "𝒙", "__", "None", "#", "x" * 300, "\u0660"])
def test_every_text_has_an_identifier(wanted: str) -> None:
    for ascii_only in (False, True):
        name = identifier(wanted, ascii_only)
        assert name.isidentifier()
        assert name.isascii() or not ascii_only
        assert identifier(name, ascii_only) == name
