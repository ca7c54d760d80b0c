"""Calls and their gradients written out for GPUs that are not here, for operands as they lie in memory.

A call for another target goes all the way of one whose operands are on such a device, to where its file would be
loaded: there its results are zeros.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc.binding import Bindings
from einc.driver import Compiled
from einc.runtime.execution import Outputs, Place
from einc.runtime.orders import Views
from einc.runtime.tensors import torch_dtype
from einc.trials.request import Request
from einc.trials.running import compile_for, gradient_for

UNBOUND = "F821,F822,F823"  # ruff's rules about names that are read where they are not bound, or not yet

Lying = Callable[[Tensor], Tensor]
Written = dict[str, tuple[Compiled, Mapping[str, int]]]  # by its text, what a file was compiled from, and extents


@contextmanager
def writing() -> Iterator[Written]:
    """Meanwhile the kernels of calls are written and not run."""
    found: Written = {}

    class Zeros:
        def __init__(self, compiled: Compiled, bindings: Bindings, _: Place, views: Views = ()) -> None:
            found[compiled.source] = compiled, bindings.extents
            self.program, self.extents, self.views = compiled.program, bindings.extents, views

        def run(self, _: Mapping[str, Tensor], __: Mapping[str, Any], out: Outputs = ()) -> Outputs:
            dims, dtypes = self.program.shapes(), self.program.dtypes()
            shapes = {n: [prod(self.extents[a] for a in d) for d in dims[n]] for n in self.program.results}
            results = out or tuple(torch.zeros(s, dtype=torch_dtype(dtypes[n])) for n, s in shapes.items())
            return tuple(t.permute(v) for t, v in zip(results, self.views, strict=True)) if self.views else results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einc.runtime.prepared.InTriton", Zeros)
        yield found


def write(
    program: einc.Program, operands: Mapping[str, Tensor], scalars: Mapping[str, Any], lying: Lying, gradients: bool
) -> Written:
    """The files of a call, and with `gradients` of those by all operands that have any; cotangents lie in memory as
    `lying` has it, too."""
    given = {n: lying(t) for n, t in operands.items()}
    with writing() as found:
        program.run((), {**given, **scalars}, backend="interpret")
        if gradients:
            leaves = [t.requires_grad_() for t in given.values() if t.is_floating_point() or t.is_complex()]
            results = program.run((), {**given, **scalars}, backend="interpret")
            several = results if isinstance(results, tuple) else (results,)
            if every := [r for r in several if r.requires_grad]:
                torch.autograd.grad(every, leaves, [lying(r) for r in every], allow_unused=True)
    return found


def check_sound(sources: Collection[str]) -> None:
    """Python reads the files, and each name that they read is bound before."""
    for source in sources:
        compile(source, "<emitted>", "exec")
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", f"--select={UNBOUND}", "-"],
            input=source, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{source}"


# ---------------------------------------------------------------------------------------------------------------------
# How operands lie in memory


def alike(t: Tensor) -> Tensor:
    """Memory for a tensor with the strides that it has."""
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)


def anyhow(random: Random) -> Lying:
    """Memory for tensors with their dimensions in any order, gaps between rows, steps within them, and an offset."""

    def lying(t: Tensor) -> Tensor:
        order = list(range(t.dim()))
        if random.random() < 0.5:
            random.shuffle(order)
        strides, step = [0] * t.dim(), random.choice((1, 1, 1, 2))
        for k in reversed(order):
            strides[k] = step
            step = step * max(t.shape[k], 1) + random.choice((0, 0, 0, 1, 8, 64))
        if order and random.random() < 0.1:
            strides[random.choice(order)] = 0
        start = random.choice((0, 0, 1, 8))
        most = sum(max(n - 1, 0) * s for n, s in zip(t.shape, strides, strict=True))
        return torch.zeros(start + most + 1, dtype=t.dtype).as_strided(t.shape, strides, start)

    return lying


def emitted(text: str, sizes: Mapping[str, int]) -> None:
    """Check that kernels of a program and of its gradients are written for Hopper at such sizes."""
    program, request = einc.compile(text, target="sm_90", generator="auto"), Request(sizes)
    assert ".jit" in compile_for(program, request).source
    assert ".jit" in gradient_for(program, request, []).together.source
