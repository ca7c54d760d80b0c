"""Do two computations of one thing differ by no more than rounding?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# By bytes of an element: how much sums in another order may differ, in units of the last place of the greatest value.
_ULPS = {1: 4, 2: 4, 4: 128, 8: 128}


def difference(
    expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], operands: Sequence[torch.Tensor] = ()
) -> str:
    """Why results differ by more than rounding in their types, or in the narrowest of floats that operands have;
    nothing if they do not. Equal infinities do not differ, nor do NaNs."""
    import torch

    narrowest = max((allowed(t) for t in operands if t.is_floating_point()), default=0.0)
    for k, (x, y) in enumerate(zip(expected, found, strict=True)):
        same = x == y
        if x.is_floating_point() or x.is_complex():
            same |= x.isnan() & y.isnan()
        if bool(same.all()):
            continue
        wide = torch.complex128 if x.is_complex() else torch.float64
        apart = (x.to(wide) - y.to(wide)).abs()[~same]
        finite = x.to(wide).abs()[torch.isfinite(x)] if x.is_floating_point() or x.is_complex() else x.to(wide).abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        worst = float(apart.max()) / (scale or 1.0)
        most = max(allowed(x), narrowest) if x.is_floating_point() or x.is_complex() else 0.0
        if not worst <= most:
            return f"result {k + 1} differs by {worst:.1e} of the greatest, more than {most:.1e}"
    return ""


def allowed(t: torch.Tensor) -> float:
    """How much values of a tensor may differ by rounding, as a part of the greatest: nothing for integers."""
    import torch

    if not (t.is_floating_point() or t.is_complex()):
        return 0.0
    dtype = t.dtype.to_real() if t.is_complex() else t.dtype
    return _ULPS[dtype.itemsize] * torch.finfo(dtype).eps
