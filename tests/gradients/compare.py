"""Gradients of one program in several ways: by torch of the dense computation, by the evaluator, by kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import einc
from einc import derive
from einc.base.source import Source
from einc.base.targets import INTERPRETER
from einc.binding import bind
from einc.ein import Program
from einc.evaluate import evaluate
from einc.frontend import elaborate, parse
from einc.passes.adjoint.differentiate import differentiate
from einc.runtime.tensors import fact, torch_dtype
from tests.support.dense import dense

Gradients = dict[str, Tensor]
EXACT = 1e-9  # of the largest gradient: what two computations in double precision may differ by
_SEED = 1


def inexact(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in double precision, integers as they are."""
    return {n: t.to(torch.promote_types(t.dtype, torch.float64)) if inexact(t) else t for n, t in tensors.items()}


@dataclass
class Call:
    """A program and what it is called with; gradients are wanted of the operands `by`, of all inexact ones unless said.

    `cotangents` has one for each result that is inexact, by its name, of the results' types; None where it is none.
    """

    text: str
    operands: Mapping[str, Tensor]
    scalars: Mapping[str, Any] = field(default_factory=dict)
    by: Sequence[str] = ()
    program: Program = field(init=False)
    cotangents: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.by = tuple(self.by or (n for n, t in self.operands.items() if inexact(t)))
        facts = {n: fact(t, n) for n, t in self.operands.items()}
        self.program = elaborate(parse(Source("<program>", self.text)), facts)
        generator = torch.Generator().manual_seed(_SEED)
        found = evaluate(self.program, {n: t.numpy() for n, t in widened(self.operands).items()}, self.scalars)
        results = dict(zip(self.program.results, map(torch.as_tensor, found), strict=True))
        dtypes = self.program.dtypes()
        self.cotangents = {
            n: torch.randn(r.shape, dtype=r.dtype, generator=generator).to(torch_dtype(dtypes[n]))
            for n, r in results.items()
            if inexact(r)
        }

    def in_torch(self, real: torch.dtype = torch.float64) -> Gradients:
        """By torch, which differentiates the dense computation; zeros where nothing depends on an operand."""
        return self.through(*self.dense(real))

    def compiled(self, level: int = 2, backend: str | None = None) -> Gradients:
        """By torch, through the compiled program."""
        return self.through(self.program_at(level, backend), self.operands)

    def dense(self, real: torch.dtype) -> tuple[Callable[[dict[str, Tensor]], Any], dict[str, Tensor]]:
        """The dense computation in this type, and the operands in it."""
        to = {True: torch.promote_types(real, torch.complex64), False: real}
        given = {n: t.to(to[t.is_complex()]) if inexact(t) else t for n, t in self.operands.items()}
        return lambda values: dense(self.program, values, self.scalars, real), given

    def program_at(self, level: int, backend: str | None = None) -> Callable[[dict[str, Tensor]], Any]:
        """The compiled program, as a function of its operands."""
        program = einc.compile(self.text, level=level)
        return lambda values: program(**values, **self.scalars, backend=backend)

    def through(self, f: Callable[[dict[str, Tensor]], Any], given: Mapping[str, Tensor]) -> Gradients:
        """By torch, of what a function makes of these operands."""
        (found,) = self.repeatedly(f, given, [self.cotangents])
        return found

    def repeatedly(
        self,
        f: Callable[[dict[str, Tensor]], Any],
        given: Mapping[str, Tensor],
        cotangents: Sequence[Mapping[str, Tensor]],
        by: Sequence[str] | None = None,
    ) -> list[Gradients]:
        """The same for several cotangents of one computation, by some of the operands alone if they are named."""
        by = self.by if by is None else by
        leaves = {n: t.detach().clone().requires_grad_(n in by) for n, t in given.items()}
        found = f(leaves)
        results = dict(zip(self.program.results, found if isinstance(found, tuple | list) else (found,), strict=True))
        there = {n: results[n] for n in self.cotangents if results[n].requires_grad}
        wanted = [leaves[n] for n in by]
        several = []
        for own in cotangents:
            seeds = [own[n].to(t.dtype) for n, t in there.items()]
            gradients = (
                torch.autograd.grad([*there.values()], wanted, seeds, allow_unused=True, retain_graph=True)
                if there
                else [None] * len(wanted)
            )
            pairs = zip(by, gradients, strict=True)
            several.append({n: torch.zeros_like(leaves[n]) if g is None else g for n, g in pairs})
        return several

    def drawn(self, count: int) -> list[dict[str, Tensor]]:
        """So many cotangents."""
        generator = torch.Generator().manual_seed(_SEED + 1)
        others = [
            {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in self.cotangents.items()}
            for _ in range(count - 1)
        ]
        return [self.cotangents, *others]

    def evaluated(self) -> Gradients:
        """By the evaluator, of the program of gradients, forward equations and all."""
        made = differentiate(self.program, self.by)
        given = {**self.operands, **{made.cotangents[n]: t for n, t in self.cotangents.items() if n in made.cotangents}}
        found = evaluate(made.program, {n: t.numpy() for n, t in widened(given).items()}, self.scalars)
        return self._whole(dict(zip(made.gradients, found, strict=True)))

    def halved(self, level: int = 2) -> Gradients:
        """By the evaluator, of the program of gradients that reads what the one ahead has saved."""
        bindings = bind(self.program, {n: tuple(t.shape) for n, t in self.operands.items()}, self.scalars)
        ahead = derive.ahead(self.program, self.by, level, INTERPRETER, bindings.extents)
        given = {n: t.numpy() for n, t in widened(self.operands).items()}
        outputs = evaluate(ahead.program, given, self.scalars)
        wanted = [n for k, n in enumerate(ahead.program.results) if k not in ahead.fixed and n in self.cotangents]
        behind = derive.behind(ahead, tuple(wanted))
        wide = widened(self.cotangents)
        there: dict[tuple[str, int], Any] = {("output", k): x for k, x in enumerate(outputs)}
        there |= {("operand", k): given[p.name] for k, p in enumerate(self.program.operands)}
        there |= {("cotangent", k): wide[n].numpy() for k, n in enumerate(ahead.program.results) if n in wide}
        values = {p.name: there[source] for p, source in zip(behind.program.operands, behind.sources, strict=True)}
        scalars = {p.name: self.scalars[p.name] for p in behind.program.scalars if p.name in self.scalars}
        found = evaluate(behind.program, values, scalars)
        names = [p.name for p in ahead.program.operands]
        return self._whole({n: found[k] for n, k in zip(names, behind.gradients, strict=True) if k is not None})

    def _whole(self, found: Mapping[str, Any]) -> Gradients:
        wide = widened(self.operands)
        return {n: torch.as_tensor(found[n]) if n in found else torch.zeros_like(wide[n]) for n in self.by}


def error(found: Tensor, exact: Tensor, least: float = 0.0) -> float:
    """The greatest difference, in parts of the greatest gradient, but of no less than `least`.

    Infinite where one has NaN or an infinity and the other has none.
    """
    assert found.shape == exact.shape
    if not exact.numel():
        return 0.0
    wide = torch.promote_types(exact.dtype, torch.float64)
    found, exact = found.detach().to(wide), exact.detach().to(wide)
    if not (found.isfinite() | (found == exact) | (found.isnan() & exact.isnan())).all():
        return float("inf")
    same = found.isfinite() & exact.isfinite()
    most = max(least, exact[same].abs().max().item() if same.any() else 0.0)
    off = (found - exact)[same].abs().max().item() if same.any() else 0.0
    return off / most if most else (0.0 if not off else float("inf"))


def assert_equal(found: Gradients, exact: Gradients, within: float = EXACT, least: float = 0.0) -> None:
    assert found.keys() == exact.keys()
    off = {n: error(found[n], exact[n], least) for n in exact}
    assert {n: e for n, e in off.items() if not e <= within} == {}


def call(text: str, /, scalars: Mapping[str, Any] | None = None, **operands: Any) -> Call:
    """A call of a program with these operands."""
    return Call(text, operands, dict(scalars or {}))


def doubled(c: Call) -> Call:
    """The same call in double precision."""
    return replace(c, operands=widened(c.operands))
