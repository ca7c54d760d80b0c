"""A program run on the operands of a request, compared with its evaluation in double precision."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from einc.api import Gradient, Program
from einc.base.errors import CallError
from einc.base.files import STANDARD, write
from einc.binding import bind
from einc.driver import Compiled, elaborate
from einc.ein import Program as Meaning
from einc.explain import Story
from einc.explain.sizes import likely
from einc.runtime.tensors import as_numpy, dtype_of, is_torch
from einc.stages import Stage
from einc.trials.request import Request


@dataclass(frozen=True, slots=True)
class Result:
    """One result: its values, their norm, and their error against the evaluation in double precision.

    `error` is the greatest difference over the greatest magnitude; None if nothing was compared.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    norm: float
    error: float | None
    seconds: float
    values: np.ndarray[Any, Any] = field(repr=False)

    def data(self) -> dict[str, object]:
        found = asdict(self)
        del found["values"]
        return found


def meaning(program: Program, request: Request) -> Meaning:
    """The program for operands of the requested types and, if ranks decide its meaning, shapes."""
    first = elaborate(program.text)
    request.check(first)
    return elaborate(program.text, request.facts(first))


def compile_for(program: Program, request: Request, gradient: Sequence[str] | None = None) -> Compiled:
    """The program compiled for the requested types and sizes; given sizes are checked, and likely ones taken for those
    that are not given.

    With operands named by `gradient`, which are all of floats if it names none, its gradients instead.
    """
    if gradient is not None:
        return gradient_for(program, request, gradient).compiled()
    found, request = _checked(program, request)
    return program.compiled_for(request.facts(found), request.extents(found))


def stages_for(program: Program, request: Request, gradient: Sequence[str] | None = None) -> tuple[Stage, ...]:
    """Every stage of the program for the requested types and sizes; or of its gradients, as for `compile_for`."""
    if gradient is not None:
        return gradient_for(program, request, gradient).stages()
    return compile_for(program, request).stages


def gradient_for(program: Program, request: Request, names: Sequence[str]) -> Gradient:
    """The gradients of the program for the requested types and sizes, and likely sizes of axes that are given none.

    Raises `CallError` for choices, which are of kernels: those of the gradients have none.
    """
    if program.options.choices:
        raise CallError(
            "kernels of gradients are chosen by the heuristics",
            fact="choices and splits were asked for",
            hint="dump --gradient --after elaborate, and choices for the program that it prints",
        )
    found, request = _checked(program, request)
    return program.gradient_for(request.facts(found), request.extents(found), names)


def _checked(program: Program, request: Request) -> tuple[Meaning, Request]:
    """The program for a request, whose sizes fit it, and the request with sizes of all axes that have no formula."""
    found = meaning(program, request)
    if request.sizes and request.complete(found):
        bind(found, {name: f.shape for name, f in request.facts(found).items()}, request.scalars)
    return found, replace(request, sizes=likely(found, request.sizes))


def story_for(program: Program, request: Request, gradient: Sequence[str] | None = None) -> Story:
    """What the program is and costs for the requested types and sizes; or its gradients, as for `compile_for`."""
    if gradient is not None:
        return gradient_for(program, request, gradient).story()
    found = meaning(program, request)
    return program.story_for(request.facts(found), request.extents(found), request.scalars)


def run_program(
    program: Program, request: Request, seed: int = 0, backend: str | None = None, reference: bool = True
) -> list[Result]:
    """The results for the requested operands, on a GPU if there is one and no backend is named."""
    import torch

    found = meaning(program, request)
    operands: dict[str, Any] = {
        name: t if is_torch(t) else torch.from_numpy(t) for name, t in request.operands(found, seed).items()
    }
    if backend is None and torch.cuda.is_available():
        operands = {name: t.cuda() for name, t in operands.items()}
    start = time.perf_counter()
    results = _several(program.run((), {**operands, **request.scalars}, backend=backend))
    seconds = time.perf_counter() - start
    exact = _several(program.run((), {**operands, **request.scalars}, backend="evaluate")) if reference else None
    return [
        _result(name, value, None if exact is None else exact[k], seconds)
        for k, (name, value) in enumerate(zip(found.results, results, strict=True))
    ]


def _several(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _result(name: str, value: Any, exact: Any, seconds: float) -> Result:
    array = as_numpy(value.cpu()) if is_torch(value) else np.asarray(value)
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    norm = float(np.linalg.norm(wide.ravel()))
    error = None if exact is None else relative_error(array, exact)
    return Result(name, tuple(array.shape), dtype_of(value, name).name, norm, error, seconds, array)


def relative_error(value: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """The greatest difference over the greatest magnitude; equal infinities, and NaNs, do not differ."""
    wide = np.complex128 if exact.dtype.kind == "c" else np.float64
    a, b = np.asarray(value).astype(wide), np.asarray(exact).astype(wide)
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not differ.any():
        return 0.0
    finite = np.abs(b[np.isfinite(b)])
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(a - b)[differ]) / (finite.max(initial=0) or 1.0))


def report(results: Sequence[Result]) -> str:
    """One line for each result."""
    lines = []
    for r in results:
        error = "" if r.error is None else f", error {r.error:.2g} against float64"
        lines.append(f"{r.name}: {r.dtype}{list(r.shape)}, norm {r.norm:.6g}{error}")
    return "\n".join(lines) + "\n"


def save(path: Path, results: Sequence[Result]) -> None:
    """Save the results as `.npz`, by name, or a single one as `.npy` if the path ends so or is `-`, standard output."""
    form = path.suffix
    if str(path) == STANDARD:
        form = ".npy" if len(results) == 1 else ".npz"
    if form == ".npy" and len(results) > 1:
        fact = f"results: {', '.join(r.name for r in results)}"
        raise CallError("a .npy file holds one result", fact=fact, hint=f"-o {path.with_suffix('.npz')}")
    if form not in (".npy", ".npz"):
        fact = "it is a folder" if path.is_dir() else "the name ends in neither .npz nor .npy"
        instead = path / "results.npz" if path.is_dir() else path.with_suffix(".npz")
        raise CallError(f"results cannot be saved as '{path}'", fact=fact, hint=f"-o {instead}")
    file = io.BytesIO()
    if form == ".npy":
        np.save(file, results[0].values)
    else:
        np.savez(file, **{r.name: r.values for r in results})  # type: ignore[arg-type]  # an option's name
    write(path, file.getvalue())
