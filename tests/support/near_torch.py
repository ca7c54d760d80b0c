"""Results and gradients of a program beside those of torch in double precision, and how far from them they may be.

What a computation is off by is in parts of the greatest exact value, or of what cancels in it. It may be some units in
the last place of its types, or some times what torch is off by in such types: in gradients of which the exact value is
small, since parts of them cancel, no computation has digits. One rounding is but a sample, so torch in f32 has two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from hypothesis import assume
from torch import Tensor

from tests.gradients.compare import EXACT, error
from tests.library.cases import EPSILON

ULPS = 64  # of a few dozen operations in f32, each rounded once
FACTOR = 3.0  # times torch's own error
LOST = 4.0  # units in the last place: what torch is off by beyond is left of parts that cancel, and a sample of that
LUCK = 8.0  # of which another may be so many times as large
Computed = Callable[[dict[str, Tensor]], Sequence[Tensor]]
Found = dict[str, Tensor]  # results by their numbers, and gradients by their operands


def differentiated(f: Computed, operands: Mapping[str, Tensor], by: Sequence[str], seeds: Sequence[Tensor]) -> Found:
    """The results of a function, and its gradients by some operands, for these cotangents."""
    leaves = {n: t.detach().requires_grad_(n in by) for n, t in operands.items()}
    results = f(leaves)
    depend = [(r, s.to(r)) for r, s in zip(results, seeds, strict=True) if r.requires_grad]
    found = torch.autograd.grad(
        [r for r, _ in depend], [leaves[n] for n in by], [s for _, s in depend], allow_unused=True
    )
    gradients = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(by, found, strict=True)}
    return {f"result {k}": r.detach() for k, r in enumerate(results)} | gradients


def converted(operands: Mapping[str, Tensor], dtype: torch.dtype, off: float = 0.0) -> dict[str, Tensor]:
    """The operands with floats of this type, each off by up to this part of it."""
    generator = torch.Generator().manual_seed(0)

    def rounded(t: Tensor) -> Tensor:
        if not off:
            return t.to(dtype)
        by = torch.rand(t.shape, generator=generator, dtype=torch.float64).to(t.device)
        return (t.double() * (1 + off * (2 * by - 1))).to(dtype)

    return {n: rounded(t) if t.is_floating_point() else t for n, t in operands.items()}


def allowed(unit: float, torchs: float) -> float:
    """What a value may be off by, if the narrowest type has this unit, of which torch in it is off by so many."""
    units = FACTOR * min(max(1.0, torchs), LOST) + LUCK * max(torchs - LOST, 0.0)
    single = EPSILON[torch.float32]
    return max(EXACT if unit < single else ULPS * single, units * unit)


def check(
    program: Callable[..., Any],
    reference: Callable[[Mapping[str, Tensor], torch.dtype], Sequence[Tensor]],
    operands: Mapping[str, Tensor],
    by: Sequence[str],
    rounded: Callable[[Mapping[str, Tensor], torch.dtype], Sequence[Tensor]],
    cancelling: Computed | None = None,
    values_alone: bool = False,
    most: float | None = None,
) -> None:
    """The program has the results of the reference, its gradients by these operands, and the same bits again.

    `rounded` is the reference as torch computes it in a narrow type; `cancelling` has gradients of the size of what
    cancels in the exact ones. A case that has greater numbers than the `most` is none.
    """
    exact_operands = converted(operands, torch.float64)
    narrowest = max({t.dtype for t in operands.values() if t.is_floating_point()}, key=lambda t: EPSILON[t])
    generator = torch.Generator().manual_seed(1)
    shapes = [(r.shape, r.device) for r in reference(exact_operands, torch.float64)]
    seeds = [torch.randn(s, generator=generator).to(narrowest).to(d, torch.float64) for s, d in shapes]

    def several(values: dict[str, Tensor]) -> Sequence[Tensor]:
        found = program(**values)
        return found if isinstance(found, tuple) else (found,)

    exact = differentiated(lambda t: reference(t, torch.float64), exact_operands, by, seeds)
    assume(most is None or all(not (t.abs() > most).any() for t in exact.values()))
    single = torch.float32
    if EPSILON[narrowest] > EPSILON[single]:
        unit = EPSILON[narrowest]
        rough = [differentiated(lambda t: rounded(t, narrowest), exact_operands, by, seeds)]
    else:
        unit = EPSILON[single]
        rough = [
            differentiated(lambda t: reference(t, single), converted(operands, single, off), by, seeds)
            for off in (0.0, unit / 2)
        ]
    found, again = (differentiated(several, operands, by, seeds) for _ in range(2))
    wholly = [n for n in by if not (exact[n].abs() > EXACT).any()]  # cancels what is as large as cotangents are
    size = {n: 1.0 if n in wholly else 0.0 for n in exact}
    if cancelling is not None:
        whole = differentiated(cancelling, exact_operands, by, seeds)
        size |= {n: whole[n].abs().max().item() for n in by}
    off: dict[str, tuple[float, float]] = {}
    for n in exact:
        ours, torchs = error(found[n], exact[n], size[n]), max(error(r[n], exact[n], size[n]) for r in rough)
        if not ours <= (most := allowed(EPSILON[narrowest], torchs / unit)) and not (values_alone and n in by):
            off[n] = ours, most
    assert not off, f"ours, and what is allowed: {off}"
    other = [n for n in exact if not torch.equal(found[n], again[n])]
    assert not other, f"other bits in a second run: {other}"
