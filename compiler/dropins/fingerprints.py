"""What the trace of a function depends on, as a key: its code and what it captures, found without calling it.

Two functions with equal fingerprints have the same code, equal numbers and tensors of the same ranks and types, so
that one trace serves both: the second call of a closure that is made anew each time costs no trace.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

_LIBRARIES = ("torch", "math", "numpy", "operator", "_operator", "functools", "builtins")
_PLAIN = (type(None), bool, int, str, torch.dtype, torch.device)  # what is compared by value, and never changes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The key, and the tensors that the functions capture; a trace is kept if those that it reads are among them."""

    key: Hashable
    tensors: tuple[torch.Tensor, ...]

    def positions(self, read: tuple[torch.Tensor, ...]) -> tuple[int, ...] | None:
        """Where these tensors are among the captured ones, or None if one of them is not."""
        known = {id(t): k for k, t in enumerate(self.tensors)}
        found = tuple(known.get(id(t), -1) for t in read)
        return None if -1 in found else found


def fingerprint(*functions: object) -> Fingerprint | None:
    """The fingerprint of functions, each possibly None; None where they capture something that may change unseen."""
    reader = _Reader()
    try:
        key = tuple(map(reader.read, functions))
    except _Opaque:
        return None
    return Fingerprint(key, tuple(reader.tensors))


class _Opaque(Exception):
    """An object whose state a key cannot hold: an instance of a class, a module of the user's."""


class _Reader:
    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.seen: dict[int, int] = {}  # functions and tensors, by identity

    def read(self, x: Any) -> Hashable:
        """The key of one object."""
        if isinstance(x, _PLAIN):
            return type(x), x
        if isinstance(x, float | np.generic):
            return type(x), repr(x)
        if id(x) in self.seen:
            return "again", self.seen[id(x)]
        if isinstance(x, torch.Tensor):
            return self._tensor(x)
        if isinstance(x, FunctionType):
            return self._function(x)
        if isinstance(x, tuple | list):
            return type(x), tuple(map(self.read, x))
        if isinstance(x, dict):
            return dict, tuple((self.read(k), self.read(v)) for k, v in x.items())
        if isinstance(x, functools.partial):
            return functools.partial, self.read(x.func), self.read(x.args), self.read(x.keywords)
        if isinstance(x, ModuleType) and _of_a_library(x.__name__):
            return ModuleType, x.__name__
        if isinstance(x, type | BuiltinFunctionType) and _of_a_library(x.__module__ or ""):
            return x
        raise _Opaque

    def _tensor(self, x: torch.Tensor) -> Hashable:
        self.seen[id(x)] = len(self.seen)
        self.tensors.append(x)
        return torch.Tensor, x.dtype, x.ndim

    def _function(self, x: FunctionType) -> Hashable:
        self.seen[id(x)] = len(self.seen)
        library = _of_a_library(x.__module__ or "")
        if library and x.__closure__ is None:
            return FunctionType, x
        cells = tuple(self.read(cell.cell_contents) for cell in x.__closure__ or ())
        given = self.read(x.__defaults__), self.read(x.__kwdefaults__)
        space = {} if library else x.__globals__
        read = tuple(self.read(space[name]) for name in _globals(x.__code__) if name in space)
        return x.__code__, cells, given, read


def _of_a_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


@functools.lru_cache(maxsize=4096)
def _globals(code: CodeType) -> tuple[str, ...]:
    """The names that the code, or code inside of it, may look up outside; those of attributes are among them."""
    inner = (name for const in code.co_consts if isinstance(const, CodeType) for name in _globals(const))
    return tuple(dict.fromkeys((*code.co_names, *inner)))
