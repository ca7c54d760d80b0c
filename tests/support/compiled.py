"""Compiled programs run, and their results beside what they mean: as near as the types on the way allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from einc import tile
from einc.base.targets import TARGETS, Target
from einc.binding import Bindings, bind
from einc.codegen import TRITON
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.ein import Program
from einc.ein.origins import contractions
from einc.pipeline import SIZED_AFTER, Backend, Context, Pass, on_kernels
from einc.runtime.execution import InTorch, InTriton, Outputs, Place, place
from einc.runtime.prepared import Options, prepared
from einc.runtime.tensors import fact
from einc.tile.asked import Choice
from tests.support.backends import TORCH
from tests.support.random_programs import Case

Array = np.ndarray[Any, Any]

_TORCH = TORCH | {"c64": torch.complex64, "c128": torch.complex128}
_NARROW = {"f16": 2.0**-10, "bf16": 2.0**-7}
# Relative error of a few dozen operations, each rounded once: 64 units in the last place of the stored type.
_ULPS = 64


def tensors(case: Case) -> list[torch.Tensor]:
    """The operands as torch tensors of their declared types."""
    return [torch.from_numpy(np.asarray(case.operands[p.name])).to(_TORCH[p.dtype.name]) for p in case.program.operands]


def precision(program: Program, name: str) -> float:
    """One unit in the last place, relative: of the result's type, or of the narrowest arithmetic on the way to it."""
    dtypes = program.dtypes()
    narrow = {t for _, product in contractions(program) if (t := product.dtype.name) in _NARROW}
    floats = [t for t in dtypes.values() if (t.is_float or t.is_complex) and t.bits > 0]
    wide = all(t.part.bits == 64 for t in floats)
    own = _NARROW.get(dtypes[name].name, 2.0**-52 if wide else 2.0**-23)
    return max(own, *(_NARROW[t] for t in narrow)) if narrow else own


def magnitude(value: np.ndarray[Any, Any]) -> float:
    """The size of the largest finite value, at least that of the values programs are drawn with."""
    finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind in "fc" else np.zeros(0)
    return float(max(finite.max(initial=0.0), 16.0))


def agree(got: torch.Tensor, wanted: np.ndarray[Any, Any], ulp: float, scale: float) -> None:
    """Equal, or as near as units in the last place and the magnitudes in the program allow."""
    if got.is_floating_point() or got.is_complex():
        found = got.to(torch.complex128 if got.is_complex() else torch.float64).numpy()
        np.testing.assert_allclose(found, wanted, rtol=_ULPS * ulp, atol=_ULPS * ulp * scale)
    else:
        np.testing.assert_array_equal(got.numpy(), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# Compiling


def in_parts(n: int | None) -> tuple[Choice, ...]:
    """Walks in so many parts, wherever that is possible; as many as pay without a number."""
    return () if n is None else (Choice("parts", n),)


def definition(text: str) -> str:
    """The program of some lines, the first of which is its signature."""
    first, *lines = [line.strip() for line in text.strip().splitlines()]
    return f"def f({first}):\n" + "".join(f"    {line}\n" for line in lines)


def compiled(
    text: str, level: int = 2, target: str | Target = "interpret", splits: int | None = None, **sizes: int
) -> Compiled:
    """A program compiled for a target, as if its axes were so long; once, for tests that run it on several operands."""
    return _compiled(text, level, TARGETS[target] if isinstance(target, str) else target, splits, tuple(sizes.items()))


@lru_cache(maxsize=64)
def _compiled(
    text: str, level: int, target: Target, splits: int | None, sizes: tuple[tuple[str, int], ...]
) -> Compiled:
    return compile_program(elaborate(parse(text, "<test>")), level, target, dict(sizes), choices=in_parts(splits))


def in_small_tiles(most: int) -> Backend:
    """Triton with so few positions in a tile along each axis that is not held whole, so that a test has many tiles."""

    def smaller(kernel: tile.Kernel, _: Context) -> tile.Kernel:
        sizes = {
            a: tile.Block(min(b.least, most), min(b.cap, most)) for a, b in kernel.choices.tiles if b.cap < tile.WHOLE
        }
        return replace(kernel, choices=kernel.choices.sized(sizes))

    shrink = Pass("shrink-tiles", "t[m .. n]  -->  t[m .. few]", "a test has many tiles", on_kernels(smaller))
    return replace(TRITON, passes={**TRITON.passes, SIZED_AFTER: (*TRITON.passes[SIZED_AFTER], shrink)})


# ---------------------------------------------------------------------------------------------------------------------
# Runs

CPU = torch.device("cpu")


def run_in_torch(
    compiled: Compiled, tensors: Mapping[str, torch.Tensor], bindings: Bindings, out: Outputs | None = None
) -> Outputs:
    """The results of compiled kernels, by torch operations."""
    return InTorch(compiled, bindings, Place("torch", CPU), tiled=True).run(tensors, bindings.scalars, out or ())


def runner(compiled: Compiled) -> Callable[..., Outputs]:
    """The emitted file in Triton's interpreter, as a function of the parameters; None stands for a default."""
    launch = InTriton(compiled, Bindings({}, {}), Place("interpret", CPU)).run
    names = [p.name for p in compiled.program.params]

    def run(*args: Any, out: Outputs | None = None) -> Outputs:
        return launch(dict(zip(names, args, strict=True)), {}, out or ())

    return run


def run(compiled: Compiled, backend: str, operands: Mapping[str, Array], **scalars: int) -> list[Array]:
    """The results of a compiled program on arrays, by torch or in Triton's interpreter."""
    given = {name: torch.from_numpy(x) for name, x in operands.items()}
    if backend == "torch":
        bindings = bind(compiled.program, {name: x.shape for name, x in operands.items()}, scalars)
        found = run_in_torch(compiled, given, bindings)
    else:
        params = (p.name for p in compiled.program.params)
        found = runner(compiled)(*(given[name] if name in given else scalars[name] for name in params))
    return [x.numpy() for x in found]


def execute(
    program: Program,
    tensors: Sequence[torch.Tensor],
    scalars: Mapping[str, Any] | None = None,
    level: int = 2,
    backend: str | None = None,
) -> Outputs:
    """The results of a program on its operands, in order, as a call of it runs."""
    given = dict(zip((p.name for p in program.operands), tensors, strict=True))
    where = place(tensors[0].device if tensors else CPU, backend)
    shapes = {name: tuple(x.shape) for name, x in given.items()}
    facts = tuple(fact(t, name) for name, t in given.items())

    def meaning() -> tuple[Program, Bindings]:
        return program, bind(program, shapes, scalars)

    return prepared(program, facts, scalars or {}, where, Options(level), meaning).run(given, scalars)
