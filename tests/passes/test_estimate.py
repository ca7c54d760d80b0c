"""What kernels are predicted to take: which work counts, what hides behind what, and what nothing hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from einc import ein
from einc.base.ops import TRANSCENDENTAL
from einc.base.targets import TARGETS, cores
from einc.codegen.triton.backend import TRITON
from einc.driver import elaborate, parse
from einc.passes.estimate.cost import Model
from einc.passes.estimate.instructions import counted
from einc.passes.estimate.parts import parts
from einc.passes.estimate.products import cost_of, product_of
from einc.passes.estimate.single import alone
from einc.passes.estimate.units import arithmetic, reached
from einc.passes.estimate.visited import masked_axes, share
from einc.passes.estimate.waits import elements, is_hidden, loading, multiplying, walking
from einc.pipeline import Context
from einc.pipeline.plan import Planned

H100 = TARGETS["sm_90"]
SIZES = {"i": 4096, "j": 4096, "k": 4096, "d": 128, "e": 128}


def model(text: str, sizes: Mapping[str, int] = SIZES, **changes: Any) -> Model:
    program = elaborate(parse(text, "<test>"))
    context = Context(level=2, target=H100, backend=TRITON, sizes=dict(sizes))
    return Model(program, replace(context, **changes))


def expression(body: str) -> ein.Expr:
    text = f"def f(x[i]):\n    Y[i] = {body}\n    return Y\n"
    return elaborate(parse(text, "<test>")).equations[-1].body


def first(m: Model) -> Planned:
    return alone(m.program.equations[0], m.program, m.context)


def test_functions_take_the_instructions_that_are_made_of_them() -> None:
    gpu = Context(level=2, target=H100, backend=TRITON, sizes={"i": 10})
    cpu = replace(gpu, target=cores(1))
    assert counted([expression("x[i] + 1")], gpu) == (10, 0)
    assert counted([expression("x[i] / 30")], gpu) == (10, 0)  # a product with what is known
    assert counted([expression("30 / x[i]")], gpu) == (80, 10)
    assert counted([expression("x[i] ** 3")], gpu) == (20, 0)
    assert counted([expression("tanh(x[i])")], gpu) > counted([expression("exp(x[i])")], gpu)
    for name in TRANSCENDENTAL - {"atan2"}:
        vector, special = counted([expression(f"{name}(x[i])")], gpu)
        assert vector + special > 0
        assert counted([expression(f"{name}(x[i])")], cpu) == (0, 10)  # one call of a library each


def test_what_is_made_of_a_dot_takes_turns_with_dots_and_units_beside_each_other() -> None:
    rates = H100.rates
    dots, vector, special = (arithmetic(rates, *work)[0] for work in ((1e12, 0, 0), (0, 1e9, 0), (0, 0, 1e9)))
    both, limit = arithmetic(rates, 1e12, 1e9, 1e9)
    assert both == pytest.approx(dots + max(vector, special))
    assert limit == "matrix"
    assert dots > 1e12 / rates.matrix  # data sheets are of clocks that do not last
    assert reached(rates) < rates.memory
    cpu = cores(2).rates
    assert arithmetic(cpu, 1e9, 1e9, 1e9)[0] == pytest.approx(1e9 / cpu.matrix + 1e9 / cpu.vector + 1e9 / cpu.special)
    assert reached(cpu) == cpu.memory


def test_a_product_and_what_follows_it_is_predicted_by_the_generator() -> None:
    plain = model("def f(A[i, k]: bf16, B[k, j]: bf16):\n    C[i, j] = sum[k](A * B)\n    return C\n")
    plan = first(plain)
    found = product_of(plan, plain)
    assert found is not None
    assert TRITON.seconds is not None
    assert cost_of(plan, plain).seconds == pytest.approx(TRITON.seconds(found.product, H100))
    text = "def f(A[i, k]: bf16, B[k, j]: bf16):\n    C[i, j] = sum[k](A * B)\n    D[i, j] = erf(C)\n    return D\n"
    later = model(text)
    both = replace(first(later), equations=later.program.equations, stores=("D",))
    assert product_of(both, later) is not None
    assert cost_of(both, later).seconds > cost_of(plan, plain).seconds
    exact = model("def f(A[i, k], B[k, j]):\n    C[i, j] = sum[k](A * B)\n    return C\n")
    assert product_of(first(exact), exact) is None  # what vector units multiply, the generator has no model of
    assert cost_of(first(exact), exact) == exact.cost(first(exact))


def test_sides_that_are_computed_wait_for_their_loads() -> None:
    read = model("def f(A[i, k]: bf16, B[k, j]: bf16):\n    C[i, j] = sum[k](A * B)\n    return C\n")
    made = model("def f(A[i, k]: bf16, g[k]: bf16, B[k, j]: bf16):\n    C[i, j] = sum[k](A * g * B)\n    return C\n")
    assert is_hidden(first(read), read.context)
    assert not is_hidden(first(made), made.context)
    assert made.cost(first(made)).seconds > 1.5 * read.cost(first(read)).seconds


STEPPED = (
    "def f(A[b, i, d]: bf16, B[b, j, d]: bf16, T[i, j]: bf16):\n    S[b, i, j] = sum[d](A * B)\n"
    "    Y[i, j] = sum[b](where(i - j < 100 and j - i < 100, exp(S[b, i, j] + T[i, j]), 0))\n    return Y\n"
)
STEPS = Planned((), stores=("Y",), rows=("i",), columns=("j",), walked=("b",), whole=("d",))


def stepping(b: int, n: int = 4096) -> tuple[Model, Planned]:
    m = model(STEPPED, {"b": b, "i": n, "j": n, "d": 64})
    return m, replace(STEPS, equations=m.program.equations)


def test_nothing_is_on_its_way_in_a_walk_of_one_step() -> None:
    """Each of many programs waits for its loads, if masks leave it any."""
    (one, plan), (two, walk), (few, small) = stepping(1), stepping(2), stepping(1, 512)
    assert not one.hides(plan)
    assert two.hides(walk)
    assert few.hides(small)
    visited = share(plan, one.context)
    assert visited < 0.1
    assert one.cost(plan, visited).seconds < 0.75 * one.cost(plan).seconds


def test_what_has_an_element_for_every_pair_of_positions_is_read_where_masks_leave_any() -> None:
    m, plan = stepping(4)
    assert masked_axes(plan, m.context) == {"i", "j"}
    whole, some = m.traffic(plan, 1), m.traffic(plan, 1, 0.25)
    assert some == whole | {"T": whole["T"] / 4}


def test_what_goes_over_both_sides_of_a_result_is_read_element_by_element() -> None:
    """A number for each of its rows is not, though rows and the walk both have it."""
    text = (
        "def f(A[b, i, d]: bf16, B[b, j, d]: bf16, {}: bf16):\n    S[b, i, j] = sum[d](A * B)\n"
        "    P[b, i, j] = exp(S - {})\n    Y[i, j] = sum[b](P)\n    return Y\n"
    )
    steps = Planned((), stores=("Y",), rows=("i",), columns=("j",), walked=("b",), whole=("d",))

    def seconds(read: str) -> float:
        m = model(text.format(read, read))
        plan = replace(steps, equations=m.program.equations)
        return elements(plan, m.contracted(plan), 1.0, m.context)

    assert seconds("T[b, i]") == seconds("T[i, j]") == 0
    assert seconds("T[b, i, j]") > 0


def test_few_programs_leave_processors_idle_and_each_waits_for_itself() -> None:
    m = model("def f(A[i, k]: bf16, B[k, j]: bf16):\n    C[i, j] = sum[k](A * B)\n    return C\n")
    plan, processors = first(m), H100.rates.processors

    def taken(programs: int) -> float:
        """Seconds of so many programs of a millisecond's work for a processor each."""
        return multiplying(plan, programs, 1, 1e-3 * programs / processors, True, 0.0, 1.0, m.context)

    assert taken(1) == taken(processors) > 1e-3
    assert taken(processors + 1) == pytest.approx(taken(2 * processors), rel=1e-2)  # a second round, for one
    assert taken(20 * processors) == pytest.approx(20e-3, rel=1e-2)  # many fill it


def test_long_rows_of_few_programs_take_their_steps_one_by_one() -> None:
    m = model("def f(X[i, j]):\n    Y[i] = max[j](X)\n    return Y\n", {"i": 64, "j": 1 << 19})
    plan = first(m)
    alone_seconds = m.cost(plan).seconds
    assert alone_seconds > 2 * m.cost(plan).bytes / H100.rates.memory  # latencies, and not memory
    count, together = parts(m, plan)
    assert count > 1
    assert together < alone_seconds
    assert walking(1, 64, m.context) == 64 * walking(1, 1, m.context) == walking(H100.rates.processors, 64, m.context)


def test_what_does_not_lie_at_multiples_of_16_bytes_is_loaded_in_smaller_parts() -> None:
    from einc.base.facts import Layout

    text = "def f(X[i, j]: bf16):\n    Y[i] = max[j](X)\n    return Y\n"
    m = model(text, {"i": 4096, "j": 4095})
    odd = Context(
        level=2, target=H100, backend=TRITON, sizes=dict(m.context.sizes), layouts={"X": Layout((0, 1), True, 2)}
    )
    taken = [loading(first(m), c, m.shapes, m.dtypes) for c in (m.context, odd)]
    assert taken[1] == pytest.approx(8 * taken[0], rel=1e-2)


def test_masks_that_cut_blocks_cost_their_instructions() -> None:
    text = (
        "def f(Q[i, d]: bf16, K[j, d]: bf16, V[j, e]: bf16):\n    S[i, j] = sum[d](Q * K)\n"
        "    O[i, e] = sum[j](exp(tanh(S)) * V)\n    return O\n"
    )
    m = model(text)
    plan = Planned(m.program.equations, stores=("O",), rows=("i",), walked=("j",), whole=("d", "e"))
    costs = [m.cost(plan, 0.5, masked).seconds for masked in (0.0, 0.25, 0.5)]
    assert costs[0] < costs[1] < costs[2] < 2 * costs[0]
    processor = replace(m.context, target=cores(1))
    on_cpu = Model(m.program, processor)
    assert on_cpu.cost(plan, 0.5, 0.5) == on_cpu.cost(plan, 0.5)  # torch's operations are the same on any block


def test_a_single_value_has_no_fastest_axis() -> None:
    from einc.base.facts import row_major

    m = model("def f(X[i, j], c[]):\n    Y[i] = max[j](X * c[])\n    return Y\n")
    lying = {"X": row_major(2), "c": row_major(0)}
    known = Context(level=2, target=H100, backend=TRITON, sizes=dict(m.context.sizes), layouts=lying)
    assert loading(first(m), known, m.shapes, m.dtypes) == loading(first(m), m.context, m.shapes, m.dtypes)
