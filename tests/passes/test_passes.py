"""Every pass on equations keeps the meaning of random programs, leaves them well-formed, and has nothing left to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from einc.base.targets import INTERPRETER
from einc.base.types import BF16, F16, F32, F64, I32, I64, U8, U32
from einc.codegen import TRITON
from einc.driver import compile_program, elaborate, parse
from einc.ein import (
    Apply,
    AxisDecl,
    AxisValue,
    Cast,
    Const,
    Equation,
    Expr,
    Extent,
    Operand,
    Program,
    Read,
    Tensor,
    substitute,
)
from einc.ein.monoids import MONOIDS
from einc.ein.printer import print_program
from einc.ein.rewriting import bottom_up, depth, unused
from einc.evaluate import evaluate
from einc.passes import pipeline
from einc.passes.algebra.identities import simplify_expression, widens
from einc.passes.algebra.scope import Scope
from einc.passes.algebra.signs import is_finite, not_negative
from einc.passes.equations.order_contractions import order_contractions
from einc.pipeline import Context, Pass, State, forms
from tests.support.random_programs import Case, cases

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


def stages(case: Case, level: int) -> Iterator[tuple[Pass, State, State]]:
    """The passes before there are kernels, with the state before and after each."""
    context = Context(TRITON, level, sizes=case.sizes)
    state = State(case.program)
    for stage in pipeline(TRITON):
        if stage.level > level:
            continue
        after = stage.run(state, context)
        if after.schedule is not None:
            return
        yield stage, state, after
        state = after


def agree(case: Case, before: Program, after: Program) -> None:
    """Equal results, except where they were infinite or NaN before."""
    wanted = evaluate(before, case.operands, case.scalars)
    found = evaluate(after, case.operands, case.scalars)
    assert before.results == after.results
    for x, y in zip(wanted, found, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        sure = np.isfinite(x)
        np.testing.assert_allclose(y[sure], x[sure], rtol=1e-9, atol=1e-9)


def check(case: Case) -> None:
    held: list[str] = []
    for stage, before, after in stages(case, 2):
        try:
            forms.check(stage, before, after, held)
            held += stage.gives
            agree(case, before.program, after.program)
        except Exception as error:
            error.add_note(f"{stage.name}\n{print_program(before.program)}-->\n{print_program(after.program)}")
            raise


@given(cases())
@settings(ANY, max_examples=100)
def test_every_pass_keeps_the_meaning(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("_batch", range(80))
@given(case=cases(most=6))
@settings(ANY, max_examples=125, derandomize=False)
def test_every_pass_keeps_the_meaning_of_many(_batch: int, case: Case) -> None:
    check(case)


def test_a_factor_that_all_terms_have_takes_no_sum_apart() -> None:
    """Though it depends on a reduction: it leaves the sum as it is, whose terms alone are no contractions of two."""
    text = """def f(a[l, i, j], t[j], z[k]):
    s[] = prod[j](t[j])
    T[] = sum[l, j, k, i](s[] * a[l, i, j] * (i + j + k) * z[k])
    return T
"""
    done = compile_program(elaborate(parse(text)), 2, INTERPRETER)
    assert not done.stage("distribute").changed


@given(cases())
@settings(ANY, max_examples=60)
def test_a_second_run_changes_nothing(case: Case) -> None:
    for stage, _, after in stages(case, 2):
        if stage.name in ("inline", "simplify", "order-contractions", "distribute", "hoist"):
            assert stage.run(after, Context(TRITON, 2, sizes=case.sizes)) == after, stage.name


@given(cases())
@settings(ANY, max_examples=50)
def test_random_programs_are_well_formed(case: Case) -> None:
    forms.verify(case.program)
    evaluate(case.program, case.operands, case.scalars)


# ---------------------------------------------------------------------------------------------------------------------
# Laws of scalars

P, Q = AxisValue("i"), AxisValue("j")
X, N = Read("X", (P,)), Read("N", (P,))
SCOPE = Scope(
    {"X": F32, "N": I32, "H": BF16},
    dict.fromkeys("XNH", (("i",),)),
)


def op(name: str, *args: Expr) -> Expr:
    return Apply(name, args)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (op("mul", Const(1.0), N), op("mul", Const(1.0), N)),  # would turn a float into an integer
        (op("sub", X, X), op("sub", X, X)),  # NaN - NaN is no 0
        (op("eq", X, X), op("eq", X, X)),
        (op("mul", X, Const(0)), op("mul", X, Const(0))),
        (op("exp", op("log", X)), op("exp", op("log", X))),  # X may be negative
        (op("pow", Const(10), Const(1000)), op("pow", Const(10), Const(1000))),  # leaves 64 bits
        (op("floordiv", Const(1), Const(0)), op("floordiv", Const(1), Const(0))),  # an error at the call
        (op("sub", Const(float("inf")), Const(float("inf"))), op("sub", Const(float("inf")), Const(float("inf")))),
        (op("add", Const(1 << 62), Const(1 << 62)), op("add", Const(1 << 62), Const(1 << 62))),
        (op("lt", op("sub", P, Const(1)), Extent("i")), Const(True)),
        (op("le", Const(0), op("sub", P, Const(1))), op("ge", P, Const(1))),
        (op("le", Const(0), op("sub", N, Const(1))), op("ge", op("sub", N, Const(1)), Const(0))),  # it may wrap
        (Cast(F32, Cast(BF16, X)), Cast(F32, Cast(BF16, X))),  # rounds
        (Cast(F32, Cast(F64, X)), X),
        (Cast(BF16, Cast(F32, Read("H", (P,)))), Read("H", (P,))),
        (op("max", X, Const(float("-inf"))), X),
        (op("where", op("not", op("lt", X, Const(0))), X, Const(0)), op("where", op("lt", X, Const(0)), Const(0), X)),
        (op("rand", Const(1), Const(2)), op("rand", Const(1), Const(2))),
    ],
)
def test_scalar_laws(before: Expr, after: Expr) -> None:
    assert simplify_expression(before, SCOPE) == after


def test_widening() -> None:
    assert widens(BF16, F32)
    assert not widens(F16, BF16)
    assert not widens(BF16, BF16)  # arithmetic on it is wider
    assert not widens(F64, F32)
    assert widens(U8, I32)
    assert not widens(U32, I32)
    assert not widens(I64, F64)


def test_signs_and_bounds_that_are_provable() -> None:
    assert not_negative(op("sqrt", Extent("i")))
    assert not not_negative(op("sub", P, Const(1)))
    assert not not_negative(X)
    assert is_finite(op("sqrt", Extent("i")))
    assert not is_finite(op("rsqrt", Extent("i")))
    assert not is_finite(X)


# ---------------------------------------------------------------------------------------------------------------------
# Sizes


def deep(levels: int) -> Expr:
    e: Expr = X
    for k in range(levels):
        e = op("add", e, op("mul", Const(k % 7 + 2), X)) if k % 2 else op("max", e, op("abs", X))
    return e


def vector(equations: tuple[Equation, ...]) -> Program:
    operand = Operand("X", (("i",),), F32)
    return Program("f", (operand,), (AxisDecl("i"),), equations, (equations[-1].name,))


def run(program: Program) -> Program:
    state, context = State(program), Context(TRITON, 1)
    for stage in pipeline(TRITON)[:4]:
        state = stage.run(state, context)
    return state.program


def test_deep_expressions() -> None:
    program = vector((Equation((Tensor("T", F32),), (("i",),), (deep(200),)),))
    assert run(program).results == ("T",)


def test_a_long_chain_of_definitions_is_stored_now_and_then() -> None:
    """Read once each, they would become one expression that nothing could walk."""
    equations = []
    for k in range(600):
        before: Expr = Read(f"T{k - 1}", (P,)) if k else X
        equations.append(Equation((Tensor(f"T{k}", F32),), (("i",),), (op("tanh", op("add", before, Const(1))),)))
    program = run(vector(tuple(equations)))
    assert 1 < len(program.equations) < 60
    assert max(depth(e.body) for e in program.equations) < 200


def test_doubling_definitions_do_not_explode() -> None:
    equations = []
    for k in range(60):
        before: Expr = Read(f"T{k - 1}", (P,)) if k else X
        equations.append(Equation((Tensor(f"T{k}", F32),), (("i",),), (op("sub", before, op("mul", before, before)),)))
    program = run(vector(tuple(equations)))
    assert len(print_program(program)) < 10_000


def test_many_factors_are_contracted_in_a_good_order() -> None:
    """A chain of thirty matrices: every intermediate is a matrix."""
    axes = [f"a{k}" for k in range(31)]
    params = tuple(Operand(f"M{k}", ((axes[k],), (axes[k + 1],)), F32) for k in range(30))
    body: Expr = Const(1)
    for k in range(30):
        body = op("mul", body, Read(f"M{k}", (AxisValue(axes[k]), AxisValue(axes[k + 1]))))
    e = Equation((Tensor("O", F32),), (("a0",), ("a30",)), (body,), MONOIDS["sum"], tuple(axes[1:30]))
    program = Program("f", params, tuple(AxisDecl(a) for a in axes), (e,), ("O",))
    found = order_contractions(program, Context(TRITON, sizes=dict.fromkeys(axes, 64)))
    forms.verify(found, "binary-contractions")
    assert len(found.equations) == 29
    assert all(len(e.axes) <= 2 for e in found.equations)


def test_rewriting() -> None:
    e = deep(10)
    assert bottom_up(e, lambda n: n) is e
    assert bottom_up(e, lambda n: Q if n == P else n) == substitute(e, {"i": Q})
    assert unused("S", {"S", "S_2"}) == "S_3"
