"""einc compiles mathematics written as index equations into fused Triton kernels.

    einc.einsum("bik,bkj->bij", A, B)
    attention = einc.compile('softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"')
    O = attention(Q, K, V)

Every name is imported when first used, so that `import einc` costs nothing; torch and triton load when a kernel runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from einc import integrations
    from einc.api import Program, compile
    from einc.base.errors import (
        AxisError,
        CallError,
        DTypeError,
        Error,
        NameError,
        ShapeError,
        SyntaxError,
        TargetError,
    )
    from einc.dropins.attention import scaled_dot_product_attention
    from einc.dropins.flex import flex_attention, flex_program
    from einc.einsums import einsum

    __version__: str

__all__ = [
    "AxisError",
    "CallError",
    "DTypeError",
    "Error",
    "NameError",
    "Program",
    "ShapeError",
    "SyntaxError",
    "TargetError",
    "__version__",
    "compile",
    "einsum",
    "flex_attention",
    "flex_program",
    "integrations",
    "scaled_dot_product_attention",
]

_HOME = {
    "einsum": "einc.einsums",
    "compile": "einc.api",
    "Program": "einc.api",
    "flex_attention": "einc.dropins.flex",
    "flex_program": "einc.dropins.flex",
    "scaled_dot_product_attention": "einc.dropins.attention",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("einc")
    if name == "integrations":
        return import_module("einc.integrations")
    if name not in __all__:
        raise AttributeError(f"module 'einc' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME.get(name, "einc.base.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
