"""What a pass leaves as it was is not checked again, and what it breaks elsewhere is found nevertheless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from einc.base.targets import TARGETS
from einc.base.types import F64, DType
from einc.codegen.triton.backend import TRITON
from einc.driver import elaborate, parse
from einc.pipeline import Context, Pass, State
from einc.pipeline.forms import IllegalIR, check
from einc.stages import run_passes, stage
from einc.tile import Elem, Let, Ref, Statement, Value
from einc.tile.faults import Axes, Checker
from einc.tile.verifier import verify
from einc.tile.walk import lets

TEXT = """
def scaled(A[i, j], B[i, j]):
    S[i, j] = A * B
    T[i, j] = exp(S) / (S + 1)
    return T
"""
Change = Callable[[list[Statement]], list[Statement]]
PASS = Pass("spoil", "x --> y", "it is a test", lambda state, _: state)


def lowered() -> State:
    context = Context(TRITON, 2, TARGETS["sm_90"], {"i": 64, "j": 64})
    return stage(run_passes(elaborate(parse(TEXT, "<test>")), context), "segment-loops").state


def with_body(state: State, change: Change) -> State:
    assert state.schedule is not None
    (kernel,) = state.schedule.kernels
    changed = replace(kernel, body=tuple(change([*kernel.body])))
    return replace(state, schedule=replace(state.schedule, kernels=(changed,)))


def reader(body: list[Statement]) -> tuple[int, int]:
    """The places of a binding whose value is an operation, and of the first that it reads."""
    places = {s.names[0]: n for n, s in enumerate(body) if isinstance(s, Let)}
    for n, s in enumerate(body):
        args = s.value.args if isinstance(s, Let) and isinstance(s.value, Elem) else ()
        read = [places[a.name] for a in args if isinstance(a, Ref) and a.name in places]
        if read:
            return n, read[0]
    raise AssertionError("no binding reads another")


def widened(body: list[Statement]) -> list[Statement]:
    _, read = reader(body)
    s = body[read]
    assert isinstance(s, Let)
    body[read] = replace(s, types=(replace(s.types[0], dtype=F64),))
    return body


def gone(body: list[Statement]) -> list[Statement]:
    del body[reader(body)[1]]
    return body


def late(body: list[Statement]) -> list[Statement]:
    n, read = reader(body)
    body.insert(n, body.pop(read))
    return body


@pytest.mark.parametrize("spoil", [widened, gone, late])
def test_a_value_that_was_legal_is_not_where_what_it_reads_has_changed(spoil: Change) -> None:
    before = lowered()
    after = with_body(before, spoil)
    with pytest.raises(IllegalIR):
        check(PASS, before, after)


def test_values_that_a_pass_leaves_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lowered()
    assert before.schedule is not None
    (kernel,) = before.schedule.kernels
    after = replace(before, schedule=replace(before.schedule, kernels=(replace(kernel, title=("another",)),)))
    bound = {id(s.value) for s in lets(kernel.body)}
    seen: list[int] = []
    value = Checker.value

    def watched(self: Checker, v: Value) -> tuple[DType, Axes]:
        seen.append(id(v))
        return value(self, v)

    monkeypatch.setattr(Checker, "value", watched)
    check(PASS, before, after)
    assert bound.isdisjoint(seen)
    assert after.schedule is not None
    verify(replace(after.schedule, kernels=(replace(kernel),)))
    assert bound <= {*seen}
