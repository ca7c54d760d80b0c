"""What is written for GPUs that are not here, for operands as they lie in memory: every call and gradient has a file.

A file that Python reads, and whose names are bound before they are read. Every program of the library is written for a
draw of its type, sizes, and layouts, for a machine and a generator in turns, every eighth one with its gradients. The
slow tier draws others, has gradients of all, and random programs.
"""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import einc
from einc import driver
from einc.base.errors import Error
from einc.base.targets import TARGETS
from einc.binding import bind
from einc.codegen.run.aot import compile_ahead
from einc.ein.printer import print_program
from einc.runtime.tensors import fact
from tests.library.cases import Case, Sizes
from tests.support.compiled import tensors
from tests.support.emitting import Written, alike, anyhow, check_sound, write
from tests.support.random_cascades import Cascade, cascades
from tests.support.random_programs import Case as Drawn
from tests.support.random_programs import cases
from tests.whole.test_library import CASES, every_case

WAYS = (("sm_90", "auto"), ("sm_90", "triton"), ("sm_90", "gluon"), ("sm_80", "auto"), ("sm_80", "triton"))
EXTENTS = (1, 3, 8, 16, 40, 64, 100)
ANY = settings(deadline=None, derandomize=False, suppress_health_check=list(HealthCheck))

every_way = pytest.mark.parametrize(("target", "generator"), WAYS)
randoms = st.integers(0, 2**32).map(Random)


def resized(case: Case, random: Random) -> Sizes:
    """The sizes of a case with others for some axes, if its operands can have those."""
    for _ in range(8):
        sizes = {a: random.choice(EXTENTS) for a in case.sizes if random.random() < 0.5}
        try:
            facts = {n: fact(t, n) for n, t in given_as(case, sizes, case.dtypes[0]).items()}
            program = driver.elaborate(driver.parse(case.path.read_text(), case.name), facts)
            bind(program, {n: f.shape for n, f in facts.items()}, case.scalars)
        except (Error, RuntimeError, ValueError, IndexError):
            continue
        return sizes
    return {}


def given_as(case: Case, sizes: Sizes, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Operands that have no memory."""
    with FakeTensorMode():
        return case.given(sizes, dtype)


def written(case: Case, random: Random, target: str, generator: str, gradients: bool) -> Written:
    """The files of a program, for one draw of its type, sizes and layouts."""
    sizes = random.choice(({}, case.long, resized(case, random)))
    operands = given_as(case, sizes, random.choice(case.dtypes))
    program = einc.compile(case.path, target=target, generator=generator)
    lying = random.choice((alike, anyhow(random), anyhow(random)))
    return write(program, operands, case.scalars, lying, gradients)


@pytest.mark.parametrize(
    ("case", "way", "gradients"),
    [pytest.param(c, WAYS[n % len(WAYS)], n % 8 == 3, id=c.name) for n, c in enumerate(CASES)],
)
def test_library(case: Case, way: tuple[str, str], gradients: bool) -> None:
    check_sound(written(case, Random(case.name), *way, gradients))


def test_what_is_joined_again_is_not_divided_again() -> None:
    """A result that has a kernel of its own only until the search joins both again: that would go on without end."""
    case = next(c for c in CASES if c.name == "attention/mqa")
    program = einc.compile(case.path, target="sm_90")
    files = write(program, given_as(case, {}, torch.float16), case.scalars, alike, gradients=True)
    names = {t.name for compiled, _ in files.values() for e in compiled.state.program.equations for t in e.outputs}
    assert any(n.endswith("_again") for n in names)
    assert not any("_again_again_again" in n for n in names)


@pytest.mark.slow
@every_way
@every_case
@settings(ANY, max_examples=8)
@given(random=randoms)
def test_library_at_length(case: Case, target: str, generator: str, random: Random) -> None:
    check_sound(written(case, random, target, generator, gradients=True))


def of_program(case: Drawn, random: Random, target: str, generator: str) -> Written:
    """The files of a random program and its gradients, for one draw of layouts."""
    text = print_program(case.program)
    operands = dict(zip((p.name for p in case.program.operands), tensors(case), strict=True))
    program = einc.compile(text, random.choice((1, 2)), target, generator=generator)
    return write(program, operands, case.scalars, anyhow(random), gradients=True)


def of_cascade(case: Cascade, random: Random, target: str, generator: str) -> Written:
    """The files of a random cascade and its gradients, for one draw of types and layouts."""
    dtype = random.choice((torch.bfloat16, torch.float16, torch.float32))
    operands = {n: torch.as_tensor(x) for n, x in case.operands.items()}
    operands = {n: t.to(dtype) if t.is_floating_point() else t for n, t in operands.items()}
    program = einc.compile(case.text, random.choice((1, 2)), target, generator=generator)
    return write(program, operands, {}, anyhow(random), gradients=True)


@pytest.mark.slow
@every_way
@settings(ANY, max_examples=100)
@given(case=cases(most=6), random=randoms)
def test_random_programs(target: str, generator: str, case: Drawn, random: Random) -> None:
    check_sound(of_program(case, random, target, generator))


@pytest.mark.slow
@every_way
@settings(ANY, max_examples=100)
@given(case=cascades(), random=randoms)
def test_random_cascades(target: str, generator: str, case: Cascade, random: Random) -> None:
    check_sound(of_cascade(case, random, target, generator))


@pytest.mark.slow
@pytest.mark.aot
@every_way
@settings(ANY, max_examples=10)
@given(case=st.sampled_from(CASES), random=randoms)
def test_some_compile_ahead(target: str, generator: str, case: Case, random: Random) -> None:
    for compiled, extents in written(case, random, target, generator, gradients=True).values():
        compile_ahead(compiled.emitted, TARGETS[target], extents)
