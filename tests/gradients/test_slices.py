"""Programs over one slice of an axis after the other give what the whole gives, and pass on no more than a slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from einc import driver
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16, I64
from einc.derive import ahead, backward
from einc.ein import Program
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.passes.streaming.slices import sliced
from einc.runtime import halves
from einc.runtime.callee import callee
from einc.runtime.execution import Place
from einc.runtime.prepared import Options
from einc.runtime.tensors import fact, torch_dtype

SM_90 = TARGETS["sm_90"]
PICKED = """def f(X[n, d], W[v, d], t[n] : i64):
    Z[n, v] = X[n, d] * W[v, d]
    L[n] = logsumexp[v](Z) - Z[n, t[n]]
    return L
"""
BESIDE = PICKED.replace("- Z[n, t[n]]", "- sum[d](X[n, d] * W[t[n], d])")
SMALL = {"n": 7, "d": 5, "v": 23}
LARGE = {"n": 8192, "d": 4096, "v": 128256}

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def gradients(text: str, sizes: Mapping[str, int], dtype: str = "f32") -> Program:
    """The program of the gradients by X and W."""
    program = driver.elaborate(driver.parse(text.replace("d],", f"d] : {dtype},"), "<test>"))
    return backward(ahead(program, ("X", "W"), 2, SM_90, sizes)).program


def operands(program: Program, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Numbers for operands; a third of the targets, and of the rows of statistics, are out of range, or invalid."""
    random = np.random.default_rng(0)
    shapes = {p.name: tuple(sizes[a] for dim in p.dims for a in dim) for p in program.operands}
    made: dict[str, Array] = {n: random.standard_normal(shape) for n, shape in shapes.items()}
    made["t"] = random.integers(-sizes["v"] // 4, sizes["v"] + sizes["v"] // 4, shapes["t"])
    made["L_sum"] = np.abs(made["L_sum"])
    made["L_max"][2], made["L_sum"][3] = np.inf, 0.0
    return made


def in_slices(program: Program, axis: str, length: int, given: Arrays, extent: int) -> dict[str, Array]:
    """The results by the meaning of the program over slices."""
    made = sliced(program, axis)
    assert made is not None
    again = driver.elaborate(driver.parse(print_program(made.program), "<test>"))
    assert print_program(again) == print_program(made.program)  # it is what its text says
    whole = evaluate(program, given)
    shapes = dict(zip(program.results, (r.shape for r in whole), strict=True))
    sums = {before: np.zeros(shapes[name]) for name, before in made.sums.items()}
    parts: dict[str, list[Array]] = {name: [] for name in program.results if name not in made.sums}
    for first in range(0, extent, length):
        here = range(first, min(first + length, extent))
        own = {n: x.take(here, made.along[n]) if n in made.along else x for n, x in {**given, **sums}.items()}
        found = evaluate(made.program, own, {} if made.first is None else {made.first: first})
        for name, value in zip(program.results, found, strict=True):
            if name in made.sums:
                sums[made.sums[name]] = value
            else:
                parts[name].append(value)
    joined = {name: np.concatenate(values, made.along[name]) for name, values in parts.items()}
    return joined | {name: sums[before] for name, before in made.sums.items()}


@pytest.mark.parametrize("length", [1, 4, 23])
@pytest.mark.parametrize("axis", ["v", "n"])
@pytest.mark.parametrize("text", [PICKED, BESIDE], ids=["picked", "beside"])
def test_slices_add_up_to_the_whole(text: str, axis: str, length: int) -> None:
    program = gradients(text, LARGE, "f64")
    given = operands(program, SMALL)
    found = in_slices(program, axis, length, given, SMALL[axis])
    for name, wanted in zip(program.results, evaluate(program, given), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "R[i, e] = softmax[j](A[i, j]) * B[j, e]",
        "S[j] = sum[i](A[i, j])\nR[e] = S[j] * B[j, e] / |j|",
        "S[i, j] = A[i, j] * 2\nR[i, j] = S[i, j] * S[i, t[i]]",
        "R[i] = max[j](A[i, j])",
        "R[i] = sum[j](A[i, |j| - 1 - j])",
        "M[e] = sum[i](C[i, e])\nR[j, e] = A[0, j] * M[e]",
    ],
    ids=["read by another", "extent", "told by data", "no sum", "other position", "anew for each"],
)
def test_what_has_to_know_the_whole_is_not_sliced(text: str) -> None:
    dims = {"A": "i, j", "B": "j, e", "C": "i, e", "t": "i"}
    taken = [f"{n}[{d}]{' : i64' if n == 't' else ''}" for n, d in dims.items() if f"{n}[" in text]
    body = "".join(f"    {line}\n" for line in text.splitlines())
    program = driver.elaborate(driver.parse(f"def f({', '.join(taken)}):\n{body}    return R\n", "<test>"))
    assert sliced(program, "j") is None


def decided(program: Program, sizes: Mapping[str, int]) -> halves._InSlices | None:
    """How a call with operands of these sizes would run on a GPU; no memory is needed."""
    found = halves.called(program, Options(target=SM_90))
    assert isinstance(found, halves.Slicing)
    shapes = {p.name: tuple(sizes[a] for dim in p.dims for a in dim) for p in program.operands}
    given = [torch.empty(shapes[p.name], dtype=torch_dtype(p.dtype), device="meta") for p in program.operands]
    facts = tuple(fact(t, p.name) for t, p in zip(given, program.operands, strict=True))
    return found._slices(given, facts, {}, Place("interpret", torch.device("cpu")))


@pytest.mark.parametrize("text", [PICKED, BESIDE], ids=["picked", "beside"])
def test_logits_of_a_large_vocabulary_are_passed_on_in_slices_of_it(text: str) -> None:
    """So the gradients of the weights are whole slices, and sums are those of the tokens' gradients alone."""
    program = gradients(text, LARGE, "bf16")
    found = decided(program, LARGE)
    assert found is not None
    assert (found.axis, set(found.sliced.sums)) == ("v", {"dX"})
    facts = {p.name: Fact(tuple(LARGE[a] for dim in p.dims for a in dim), p.dtype) for p in program.operands}
    assert {facts["X"].dtype, facts["t"].dtype} == {BF16, I64}
    sizes = LARGE | {"v": found.length}
    one = driver.compile_program(found.sliced.program, 2, SM_90, sizes).state.schedule
    assert one is not None
    passed = sum(b.dtype.size * np.prod([sizes[a] for dim in b.dims for a in dim]) for b in one.intermediates)
    assert passed < 2 * LARGE["n"] * LARGE["v"] / 16
    assert decided(program, LARGE | {"n": 64}) is None  # which is no more than it is given


def test_a_call_in_slices() -> None:
    program = gradients(PICKED, LARGE)
    made = sliced(program, "v")
    assert made is not None
    one = callee(halves._described("program", made.program, Options()))
    run = halves._InSlices(made, one, "v", 9, program, Place("interpret", torch.device("cpu"))).run
    given = operands(program, SMALL)
    tensors = [torch.from_numpy(given[p.name]).to(torch_dtype(p.dtype)) for p in program.operands]
    for found, wanted in zip(run(tensors, {}), evaluate(program, given), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    (empty, none) = run([t[:0] if p.name == "W" else t for t, p in zip(tensors, program.operands, strict=True)], {})
    assert not empty.any()
    assert none.shape == (0, SMALL["d"])
