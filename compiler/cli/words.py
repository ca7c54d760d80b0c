"""Words of a command line, read: sizes, dtypes, scalars, and tensors in files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from einc.base import types
from einc.base.errors import CallError
from einc.base.files import reason
from einc.base.types import DType
from einc.ein.arithmetic import ScalarValue
from einc.runtime.tensors import dtype_of


def pairs(words: list[str]) -> list[tuple[str, str]]:
    """`a=1,b=2` as pairs; a word without `=` has the empty name."""
    found = []
    for word in words:
        for part in word.split(","):
            name, equals, value = part.partition("=")
            found.append((name.strip(), value.strip()) if equals else ("", part.strip()))
    return found


def read_sizes(words: list[str]) -> dict[str, int]:
    """`i=4096,d=128`; raises `ValueError` saying what is wrong."""
    found = {}
    for name, value in pairs(words):
        if not name or not value.isdecimal():
            raise ValueError(f"'{name or value}' needs an extent: i=4096,d=128")
        found[name] = int(value)
        if found[name] >= 1 << 40:
            raise ValueError(f"the extent of '{name}' is too large")
    return found


def read_dtypes(words: list[str]) -> dict[str, DType]:
    """`bf16`, or `Q=bf16,K=f32`; raises `ValueError` saying what is wrong."""
    found = {}
    for name, value in pairs(words):
        found[name] = _dtype_called(value)
    return found


def _dtype_called(name: str) -> DType:
    """A type by the language's name for it, or by torch's: f32, float32, float, fp32."""
    if name in types.BY_NAME:
        return types.BY_NAME[name]
    import torch

    known = getattr(torch, re.sub(r"^fp(?=\d)", "float", name), None)
    if not isinstance(known, torch.dtype):
        raise ValueError(f"'{name}' is not a type: {', '.join(types.BY_NAME)}")
    return dtype_of(torch.empty(0, dtype=known), name)


def read_scalars(words: list[str]) -> dict[str, ScalarValue]:
    """`window=128,scale=0.5,causal=true`; raises `ValueError` saying what is wrong."""
    found: dict[str, ScalarValue] = {}
    for name, value in pairs(words):
        if not name:
            raise ValueError(f"'{value}' needs a name: window=128")
        if value in ("true", "false"):
            found[name] = value == "true"
        else:
            try:
                found[name] = int(value) if value.lstrip("-").isdecimal() else float(value)
            except ValueError:
                raise ValueError(f"'{value}' is not a number, true or false") from None
    return found


def read_tensors(words: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """`Q=q.npy`, `Q=all.npz` (the array called Q in it), or `all.npz` (every array in it)."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        loaded = _load(Path(path if equals else word))
        if isinstance(loaded, np.ndarray):
            if not equals:
                raise ValueError(f"whose values are in '{word}'? Q={word}")
            found[name] = loaded
        elif not equals:
            found |= loaded
        elif name in loaded:
            found[name] = loaded[name]
        else:
            raise ValueError(f"'{path}' holds no '{name}': it has {', '.join(loaded)}")
    return found


def _load(path: Path) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
    """The arrays of a `.npy` or `.npz` file."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise CallError(f"cannot read '{path}'", fact=reason(error), hint="pass a .npy or .npz file") from None
    except Exception as error:  # NumPy and zipfile raise what they like for a file that is damaged
        raise CallError(f"'{path}' holds no arrays", fact=str(error)[:100], hint="pass a .npy or .npz file") from None
