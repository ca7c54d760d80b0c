"""Arrays of other libraries (CuPy, JAX, …), taken and given by DLPack, without a copy.

The exchange follows the Python array API standard: `__dlpack__` on the array, `from_dlpack` in its namespace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from einc.base.errors import CallError
from einc.runtime.tensors import is_torch

Array = Any


def is_foreign(value: object) -> bool:
    """Is it an array of another library than torch and NumPy, which DLPack can pass on?"""
    return hasattr(value, "__dlpack__") and not is_torch(value) and not isinstance(value, np.ndarray | np.generic)


def exchanged(
    call: Callable[..., Any], operands: Sequence[Any], named: Mapping[str, Any], out: Any = None, **options: Any
) -> Any:
    """The results of a call as arrays of the library that the first such argument is of; torch computes in between.

    `call` takes operands, keywords and `out`. Raises `CallError` for an array that cannot be passed on.
    """
    first = next(a for a in (*operands, *named.values()) if is_foreign(a))
    into = tuple(map(_taken, out)) if isinstance(out, tuple | list) else _taken(out)
    found = call([_taken(a) for a in operands], {name: _taken(a) for name, a in named.items()}, into, **options)
    if out is not None:
        return out
    give = _namespace(first).from_dlpack
    if is_torch(found):
        return give(found)
    return tuple(map(give, found))


def any_foreign(values: Iterable[object]) -> bool:
    return any(map(is_foreign, values))


def _taken(value: Any) -> Any:
    """An array of another library as a torch tensor on the same memory; anything else as it is."""
    if not is_foreign(value):
        return value
    from torch.utils.dlpack import from_dlpack

    try:
        return from_dlpack(value)
    except Exception as error:  # a foreign library may raise anything
        raise CallError(
            "an array could not be taken over by DLPack",
            fact=f"it is a {type(value).__module__}.{type(value).__name__}: {error}",
            hint="pass a torch tensor or a NumPy array",
        ) from error


def _namespace(array: Any) -> Any:
    """The library that an array belongs to."""
    named = getattr(array, "__array_namespace__", None)
    return named() if named is not None else sys.modules[type(array).__module__.partition(".")[0]]
