"""What is tuned gives the same results, is kept under what a program means, and is taken only if it is faster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc.base.errors import CallError, RoomError
from einc.base.facts import Fact, row_major
from einc.base.targets import TARGETS, cores
from einc.base.types import BF16
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.runtime import prepared
from einc.tile.asked import choice
from einc.tuning import Entry, applied, session, tables
from einc.tuning.agreement import difference
from einc.tuning.candidates import Candidate, around, plans
from einc.tuning.entries import Measured, entry, kernels_of, pinned
from einc.tuning.keys import Key, key_of

ATTENTION = """
def f(Q[i, d], K[j, d], V[j, e]):
    O[i, e] = softmax[j](where(j <= i, sum[d](Q * K), -inf)) * V[j, e]
    return O
"""
RENAMED = """
def attention(q[m, x], k[n, x], v[n, y]):
    out[m, y] = softmax[n](where(n <= m, sum[x](q * k), -inf)) * v[n, y]
    return out
"""
NORMED = "def f(X[i, j], W[j, k]):\n    Y[i, k] = layernorm[j](X) * W\n    return Y\n"
PRODUCT = "def f(A[i, k], B[k, j]):\n    C[i, j] = A[i, k] * B[k, j]\n    return C\n"
ROWS = "def f(X[i, j]):\n    Y[i, j] = softmax[j](X)\n    return Y\n"
SIZES = {"i": 512, "j": 512, "k": 512, "d": 64, "e": 64}

Clock = Callable[[Callable[[str], float]], list[str]]  # set to the seconds of each name; the names that were timed


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of any program, before a test and after it."""
    monkeypatch.delenv("EINC_TUNE", raising=False)
    tables.forget()
    prepared.forget()
    yield
    tables.forget()
    prepared.forget()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that shows what is asked for by name, and the names of all ways that were timed."""

    def set_to(seconds: Callable[[str], float]) -> list[str]:
        seen: list[str] = []

        def race(ways: Mapping[str, Any], _: torch.device, __: float) -> dict[str, float]:
            seen.extend(ways)
            return {name: seconds(name) for name in ways}

        monkeypatch.setattr(prepared, "seconds_of", race)
        return seen

    return set_to


def favouring(words: str) -> Callable[[str], float]:
    """The time of a clock by which these words are fastest, also in the end."""
    return lambda name: {"best": 1.0, "model": 2.0}.get(name, 1.0 if name == words else 3.0)


def compiled(text: str, target: str = "sm_90", **sizes: int) -> Compiled:
    script = parse(text)
    program = elaborate(script)
    facts = {p.name: Fact((2,) * len(p.dims), BF16) for p in program.operands}
    program = elaborate(script, facts if target == "sm_90" else None)
    extents = {a.name: (SIZES | sizes)[a.name] for a in program.axes}
    machine = cores(4) if target == "cpu" else TARGETS[target]
    layouts = {p.name: row_major(len(p.dims)) for p in program.operands} if target == "sm_90" else None
    return compile_program(program, 2, machine, extents, layouts=layouts)


def operands(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator) for s in shapes]


def of_attention() -> list[Tensor]:
    return operands((96, 16), (96, 16), (96, 8))


def close(x: Tensor, y: Tensor) -> bool:
    return not difference([x], [y])


# ---------------------------------------------------------------------------------------------------------------------
# Keys


def key(c: Compiled) -> Key:
    found = key_of(c.request)
    assert found is not None
    return found


def test_names_are_not_in_a_key() -> None:
    renamed = compiled(RENAMED, m=512, n=512, x=64, y=64)
    assert (key(renamed).sizes, key(renamed).call) == (key(compiled(ATTENTION)).sizes, key(compiled(ATTENTION)).call)


def test_a_tensor_may_have_the_name_of_a_function() -> None:
    """An operation is no name: one is not taken for the other."""
    texts = [f"def f(exp[i], log[i]):\n    Y[i] = {f}(exp[i]) + log[i]\n    return Y\n" for f in ("exp", "log")]
    assert len({key(compiled(t)).sizes for t in texts}) == 2


def test_what_is_computed_is_in_a_key() -> None:
    others = [
        compiled(ATTENTION.replace("<=", "<")),
        compiled(ATTENTION, i=1024),
        compiled(ATTENTION, "sm_90", e=128),
        compiled(PRODUCT),
        compiled(ROWS),
    ]
    assert len({key(c).sizes for c in [compiled(ATTENTION), *others]}) == len(others) + 1


def test_a_size_class_has_one_key() -> None:
    assert key(compiled(ATTENTION, i=500)).call == key(compiled(ATTENTION, i=512)).call


def test_how_operands_lie_is_in_the_key_of_a_call_alone() -> None:
    c = compiled(PRODUCT)
    other = compile_program(c.program, 2, c.target, SIZES | {"d": 1}, layouts={})
    bare = compile_program(c.program, 2, c.target, dict(c.sizes))
    assert key(c).sizes == key(bare).sizes
    assert key(c).call != key(bare).call
    assert other is not bare


# ---------------------------------------------------------------------------------------------------------------------
# Entries


@pytest.mark.parametrize("target", ["sm_90", "sm_80", "cpu"])
@pytest.mark.parametrize("text", [ATTENTION, NORMED, PRODUCT, ROWS])
def test_choices_by_place_give_the_same_kernels(text: str, target: str) -> None:
    c = compiled(text, target)
    found = applied(c, Entry(1, pinned(c), Measured("", 1.0), Measured("", 1.0)))
    assert kernels_of(found) == kernels_of(c)
    assert found.request.choices  # all of them are pinned


@pytest.mark.turns(2)
@pytest.mark.parametrize("target", ["sm_90", "cpu"])
@pytest.mark.parametrize("text", [ATTENTION, NORMED, PRODUCT, ROWS])
def test_every_candidate_is_found_again_by_its_entry(text: str, target: str) -> None:
    """Also under other names, and with another plan or other parts."""
    c = compiled(text, target, i=64, j=4096)
    tried = [x for x, _ in zip(around(Candidate(c), True), range(12), strict=False)] + list(plans(c, 4))
    assert tried
    for candidate in tried:
        plan = next((x.value for x in candidate.chosen if x.name == "plan"), 1)
        assert isinstance(plan, int)
        made = applied(c, Entry(plan, pinned(candidate.compiled), Measured("", 1.0), Measured("", 1.0)))
        assert kernels_of(made) == kernels_of(candidate.compiled), candidate.words


def test_an_entry_is_the_same_under_other_names() -> None:
    c = compiled(ATTENTION)
    other = next(x for x in around(Candidate(c), False) if "BJ" in x.words)
    e = Entry(1, pinned(other.compiled), Measured("", 1.0), Measured("", 1.0))
    assert pinned(applied(compiled(RENAMED, m=512, n=512, x=64, y=64), e)) == e.kernels


@pytest.mark.parametrize("lines", [("tiles=64",), ("tiles=64 warps=3",), ("nonsense",), (), ("parts=1",) * 3])
def test_an_entry_of_kernels_that_are_no_longer_made_is_passed_over(lines: tuple[str, ...]) -> None:
    c = compiled(ATTENTION)
    assert applied(c, Entry(1, lines, Measured("", 1.0), Measured("", 1.0))) is c
    assert applied(c, Entry(60, lines or ("parts=1",), Measured("", 1.0), Measured("", 1.0))) is c


def test_passes_that_are_not_run_again_would_have_done_the_same() -> None:
    c = compiled(ATTENTION, i=64, j=8192)
    for asked in ((choice("warps", 8),), (choice("O_parts.BJ", 32), choice("O.warps", 2)), (choice("parts", 3),)):
        assert c.trying(asked).state == c.choosing(asked).state


def test_candidates_of_a_product_are_in_the_order_of_the_model() -> None:
    times = [
        x.predicted for x, _ in zip(around(Candidate(compiled(PRODUCT, i=4096, j=4096)), False), range(8), strict=False)
    ]
    known = [t for t in times if t is not None]
    assert len(known) == 8
    assert known == sorted(known)


# ---------------------------------------------------------------------------------------------------------------------
# Tuning


def test_the_fastest_is_kept_and_computes_the_same(clock: Clock) -> None:
    given = of_attention()
    before = einc.compile(ATTENTION)(*given)
    clock(favouring("O.box=1048576"))
    program = einc.compile(ATTENTION)
    (outcome,) = program.tune(*given)
    assert outcome.entry.best.chosen == "O.box=1048576"
    assert (outcome.entry.best.seconds, outcome.entry.model.seconds) == (1.0, 2.0)
    assert "box=1048576" in outcome.entry.kernels[0]
    for again in (program, einc.compile(ATTENTION), einc.compile(RENAMED)):
        prepared.forget()
        assert close(before, again(*given))
        (made,) = prepared._kept.values()
        assert kernels_of(made.compiled)[-1].choices.box == 1 << 20


@pytest.mark.parametrize("text", [ATTENTION, NORMED])
def test_every_way_that_is_timed_computes_the_same(text: str, clock: Clock) -> None:
    """Nothing is left out."""
    given = of_attention() if text is ATTENTION else operands((64, 48), (48, 32))
    seen = clock(lambda name: 1.0 + len(name))
    (outcome,) = einc.compile(text).tune(*given, mode="full")
    assert outcome.skipped == ()
    assert any("workers" in name for name in seen)


def test_nothing_is_measured_twice(clock: Clock) -> None:
    seen = clock(favouring("O.box=1048576"))
    given = of_attention()
    einc.compile(ATTENTION, tune="quick")(*given)
    assert seen
    seen.clear()
    prepared.forget()
    einc.compile(ATTENTION, tune="quick")(*given)
    einc.compile(RENAMED, tune="full")(*given)
    assert seen == []
    einc.compile(ATTENTION, tune="quick")(*operands((300, 16), (300, 16), (300, 8)))
    assert seen  # another size class


def test_one_that_is_not_faster_every_time_is_not_kept(
    clock: Clock,
) -> None:
    duels = iter([1.0, 1.0, 2.5, 1.0, 1.0])
    clock(lambda name: next(duels) if name == "best" else favouring("O.box=1048576")(name))
    (outcome,) = einc.compile(ATTENTION).tune(*of_attention())
    assert outcome.entry.kernels == ()
    assert outcome.entry.best == outcome.entry.model
    assert outcome.entry.next is not None
    assert outcome.entry.next.chosen == "O.box=1048576"


def test_the_same_clock_gives_the_same_table(clock: Clock) -> None:
    def found() -> Entry:
        tables.forget()
        prepared.forget()
        clock(lambda name: 1.0 + sum(map(ord, name)) % 7)
        return einc.compile(NORMED).tune(*operands((64, 48), (48, 32)), mode="full")[0].entry

    assert found() == found()


def test_what_is_wrong_or_fails_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    from einc.runtime.execution import InTorch

    run = InTorch.run

    def broken(self: InTorch, *args: Any) -> tuple[Tensor, ...]:
        found = run(self, *args)
        box = kernels[id(self)]
        if box == 1 << 18:
            raise RuntimeError("the device is on fire\nsomewhere")
        return tuple(x + 1 for x in found) if box == 1 << 20 else found

    kernels: dict[int, int] = {}
    init = InTorch.__init__

    def noting(self: InTorch, c: Compiled, *args: Any) -> None:
        init(self, c, *args)
        kernels[id(self)] = kernels_of(c)[-1].choices.box

    monkeypatch.setattr(InTorch, "__init__", noting)
    monkeypatch.setattr(InTorch, "run", broken)
    seen = clock(lambda _: 1.0)
    (outcome,) = einc.compile(ATTENTION).tune(*of_attention())
    skipped = dict(outcome.skipped)
    assert skipped["O.box=262144"] == "the device is on fire"
    assert "differs by" in skipped["O.box=1048576"]
    assert not skipped.keys() & set(seen)


def test_without_time_the_model_chooses(clock: Clock) -> None:
    seen = clock(favouring("O.box=1048576"))
    (outcome,) = einc.compile(ATTENTION).tune(*of_attention(), budget=0)
    assert set(seen) == {"model"}
    assert outcome.entry.kernels == ()


def test_gradients_are_tuned_with_what_they_are_of(clock: Clock) -> None:
    given = [t.requires_grad_() for t in of_attention()]
    plain = torch.autograd.grad(einc.compile(ATTENTION)(*given).sum(), given)
    clock(lambda name: {"best": 1.0, "model": 2.0}.get(name, 1.5))
    program = einc.compile(ATTENTION)
    ahead, behind = program.tune(*given)
    assert ahead.entry.kernels
    assert behind.entry.kernels
    assert all(t.grad is None for t in given)
    again = torch.autograd.grad(program(*given).sum(), given)
    assert all(close(x, y) for x, y in zip(plain, again, strict=True))


def test_a_warm_call_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def empty(machine: str = "") -> bool:
        asked.append(machine)
        return True

    monkeypatch.setattr(tables, "is_empty", empty)
    program, given = einc.compile(ATTENTION), of_attention()
    program(*given)
    assert len(asked) == 1
    for seed in range(3):
        program(*operands((96, 16), (96, 16), (96, 8), seed=seed))
    assert len(asked) == 1


def test_einsums_are_tuned_as_well(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = clock(lambda _: 1.0)
    monkeypatch.setenv("EINC_TUNE", "quick")
    a, b = operands((7, 30, 20), (7, 20, 9))
    found = einc.einsum("bij,bjk,bjk->ik", a, b, b)
    assert seen
    assert close(found, torch.einsum("bij,bjk,bjk->ik", a, b, b))


def test_the_environment_asks(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    seen = clock(lambda _: 1.0)
    for asked, timed in (("", False), ("off", False), ("quick", True)):
        monkeypatch.setenv("EINC_TUNE", asked)
        prepared.forget()
        einc.compile(ATTENTION)(*of_attention())
        assert bool(seen) is timed, asked
    monkeypatch.setenv("EINC_TUNE", "often")
    prepared.forget()
    with pytest.raises(CallError, match="no way to tune called 'often'") as error:
        einc.compile(ATTENTION)(*of_attention())
    assert error.value.hint == "EINC_TUNE=quick"


def test_off_takes_nothing_from_tables(clock: Clock) -> None:
    clock(favouring("O.box=1048576"))
    einc.compile(ATTENTION).tune(*of_attention())
    prepared.forget()
    einc.compile(ATTENTION, tune="off")(*of_attention())
    (made,) = prepared._kept.values()
    assert kernels_of(made.compiled)[-1].choices.box == 0


def test_choices_that_are_made_are_left_alone(clock: Clock) -> None:
    clock(favouring("O.box=1048576"))
    einc.compile(ATTENTION).tune(*of_attention())
    einc.compile(ATTENTION, choices={"box": 4096})(*of_attention())
    assert kernels_of([*prepared._kept.values()][-1].compiled)[-1].choices.box == 4096


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (lambda: einc.compile(ATTENTION, tune="quik"), "there is no way to tune called 'quik'", "quick"),
        (lambda: einc.compile(ATTENTION, tune="quick", target="sm_90"), "nothing is left to tune", "leave out one"),
        (lambda: einc.compile(ATTENTION, tune="full", choices={"BI": 64}), "nothing is left to tune", "leave out one"),
        (lambda: einc.compile(ATTENTION).tune(), "a program is tuned for operands", "--size"),
        (lambda: einc.compile(ATTENTION).tune(*of_attention(), mode="most"), "no way to tune called 'most'", "quick"),
        (lambda: einc.compile(ATTENTION).tune(*of_attention(), mode="off"), "nothing is tuned", "quick"),
        (lambda: einc.compile(ATTENTION, splits=2).tune(*of_attention()), "nothing is left to tune", "leave them out"),
        (
            lambda: einc.compile(ATTENTION).tune(*(t.to("meta") for t in of_attention())),
            "operands without memory cannot be timed",
            "zeros",
        ),
    ],
)
def test_what_cannot_be_tuned_says_why(wrong: Callable[[], object], message: str, hint: str) -> None:
    with pytest.raises(CallError, match=message) as error:
        wrong()
    assert hint in (error.value.hint or "")


def test_a_plan_that_there_is_none_of() -> None:
    with pytest.raises(CallError, match="plan=9 is not possible"):
        einc.compile(PRODUCT, choices={"plan": 9})(*operands((8, 8), (8, 8)))
    with pytest.raises(CallError, match="plan=2 is not possible"):
        einc.compile(ATTENTION, level=0, choices={"plan": 2})(*of_attention())


@pytest.mark.parametrize("choices", [{"plan": 2}, {"box": 256, "workers": 1}, {"O.box": 1 << 22, "O.workers": 3}])
def test_what_is_chosen_computes_the_same(choices: dict[str, int]) -> None:
    given = operands((64, 48), (48, 32)) if "plan" in choices else of_attention()
    text = NORMED if "plan" in choices else ATTENTION
    assert close(einc.compile(text)(*given), einc.compile(text, choices=choices)(*given))


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def test_a_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    clock(favouring("O.box=1048576"))
    (one,) = einc.compile(ATTENTION).tune(*of_attention())
    (two,) = einc.compile(NORMED).tune(*operands((64, 48), (48, 32)))
    first = tables.text(one.machine, "cpu", {"torch": "2"}, {one.key: one.entry})
    both = tables.text(one.machine, "cpu", {"torch": "2"}, {two.key: two.entry}, first)
    assert both == tables.text(one.machine, "cpu", {"torch": "2"}, {one.key: one.entry, two.key: two.entry})
    assert both == tables.text(one.machine, "cpu", {"torch": "2"}, {one.key: one.entry}, both)
    assert len(json.loads(both)["entries"]) == 2
    monkeypatch.setattr(tables, "_SHIPPED", tmp_path)
    tables.file_of(one.machine).write_text(both)
    tables.forget()
    found = tables.find(one.machine, one.key)
    assert found is not None
    assert found.kernels == one.entry.kernels
    assert tables.find_alike(one.machine, Key(two.key.sizes, "", "")) is not None
    assert tables.targeted("cpu") == [one.machine]
    prepared.forget()
    einc.compile(RENAMED)(*of_attention())
    (made,) = prepared._kept.values()
    assert kernels_of(made.compiled)[-1].choices.box == 1 << 20


def test_entries_are_the_same_as_json() -> None:
    e = Entry(
        2, ("tiles=64 warps=4",), Measured("BI=64", 1e-3, 2e-3), Measured("", 2e-3), Measured("x", 1.5e-3), "f", 9
    )
    assert entry(json.loads(json.dumps(e.data()))) == e


def test_what_is_no_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"machine": 1}')
    with pytest.raises(CallError, match="no table of measurements"):
        tables.read(tmp_path / "x.json")


def test_tables_of_the_package_are_read() -> None:
    for path in sorted(tables._SHIPPED.glob("*.json")):
        machine, entries = tables.read(path)
        assert tables.file_of(machine) == path
        assert entries
        assert all(e.gain >= 1.0 for e in entries.values() if e.kernels)


def test_other_processes_find_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("EINC_CACHE", "1")
    monkeypatch.setenv("EINC_CACHE_DIR", str(tmp_path))
    clock(favouring("O.box=1048576"))
    (one,) = einc.compile(ATTENTION).tune(*of_attention())
    tables.forget()  # as another process knows nothing
    assert tables.find(one.machine, one.key) == one.entry


# ---------------------------------------------------------------------------------------------------------------------
# Looking


def test_explain_says_what_was_measured(clock: Clock) -> None:
    program, given = einc.compile(ATTENTION), of_attention()
    assert "by measuring" not in program.explain(*given)
    assert "chosen by the model: " in program.explain(*given)
    clock(favouring("O.box=1048576"))
    (one,) = program.tune(*given)
    for found in (program.explain(*given), einc.compile(RENAMED).explain(*given)):
        part = found.partition("what is fastest, by measuring")[2]
        assert f"on {one.machine}, {one.entry.tried} ways timed" in part
        assert "O.box=1048576, 2 times as fast" in part
        assert "by the model" in part
        assert "next: " in part
    data = json.loads(program.explain(*given, format="json"))
    assert data["measured"]["best"]["chosen"] == "O.box=1048576"


def test_a_session_tells_what_happens(clock: Clock) -> None:
    clock(lambda _: 1.0)
    said: list[tuple[str, int, int, int]] = []
    with session("quick", 60.0, lambda *words: said.append(words)) as found:
        einc.compile(ATTENTION)(*of_attention())
    assert len(found.outcomes) == 1
    assert [what for what, *_ in said[:2]] == ["compiling", "timing"]
    assert all(0 <= tried <= most for _, _, tried, most in said)


def test_results_differ_by_more_than_rounding() -> None:
    x = torch.tensor([1.0, float("inf"), float("nan")])
    assert difference([x], [x.clone()]) == ""
    assert difference([x], [torch.tensor([1.0, float("inf"), 0.0])])
    assert difference([x], [x * torch.tensor([1 + 1e-6, 1, 1])]) == ""
    assert "result 1 differs" in difference([x], [x * torch.tensor([1.01, 1, 1])])
    assert difference([x], [x * torch.tensor([1.01, 1, 1])], [x.bfloat16()]) == ""  # sides of 8 bits
    assert difference([torch.tensor([3])], [torch.tensor([4])])


# ---------------------------------------------------------------------------------------------------------------------
# Compiled ahead


@pytest.mark.aot
def test_candidates_compile_at_once_and_fail_alone() -> None:
    """One that takes more shared memory than there is has an error, and the others have none."""
    from einc.codegen.run.warm import compile_each, launches

    c = compiled(PRODUCT, i=1024, j=1024, k=1024)
    large = c.trying(tuple(choice(f"C.{n}", v) for n, v in (("BI", 256), ("BJ", 256), ("BK", 256), ("stages", 4))))
    empty = {name: torch.empty(1024, 1024, dtype=torch.bfloat16, device="meta") for name in ("A", "B")}
    groups = [launches(made.emitted, [empty["A"], empty["B"]], {}) for made in (c, large)]
    fine, failed = compile_each(groups, TARGETS["sm_90"])
    assert fine is None
    assert isinstance(failed, RoomError)
    (late,) = compile_each(groups[:1], TARGETS["sm_80"], -1.0)
    assert late is not None
