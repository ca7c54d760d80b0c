"""What a traced function is called with: stand-ins for torch's scalar tensors that record what is done to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Never, Protocol

import torch

from einc.base.errors import CallError, nearest
from einc.dropins.places import user_place
from einc.dropins.values import Value


class TraceError(CallError):
    """An operation in a traced function that the language cannot express."""


class UnknownMethod(TraceError, AttributeError):
    """An attribute that a traced value does not have; also an AttributeError, so that `hasattr` answers."""


class Recorder(Protocol):
    """What symbols report to; `sized` says that what it has recorded holds for these extents of the axes only."""

    sized: bool

    @property
    def device(self) -> torch.device:
        """Where the operands of the call are."""

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An operation by its name in torch, recorded."""

    def torch_call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A call of a function of torch, recorded if a traced value is among its arguments."""

    def index(self, table: Any, index: Any) -> Any:
        """A captured tensor, or one that is indexed in part, at an index."""

    def dot(self, x: Any, y: Any) -> Any:
        """The product of two rows of captured tensors."""

    def held(self, value: Value) -> Value:
        """The value, through which no gradient passes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a function of torch gives: `make` takes its arguments, of which the first `symbols` are made symbols."""

    symbols: int
    make: Callable[..., Symbol]
    parameters: tuple[str, ...]


RULES: dict[str, Rule] = {}  # by their names in torch and NumPy; the modules `arithmetic`, `choices` and so on fill it


def rule(symbols: int, *names: str) -> Callable[[Callable[..., Symbol]], Callable[..., Symbol]]:
    """Register a rule under its names."""

    def register(make: Callable[..., Symbol]) -> Callable[..., Symbol]:
        found = Rule(symbols, make, tuple(signature(make).parameters))
        RULES.update(dict.fromkeys(names, found))
        return make

    return register


def refuse(what: str, fact: str = "", hint: str = "") -> Never:
    """Raise a `TraceError` at the user's line."""
    raise TraceError(what, user_place(), fact=fact, hint=hint)


_CHOICE = "torch.where(condition, x, y) chooses, torch.minimum and torch.maximum limit, & | ~ join truth values"


class Traced:
    """What symbolic scalars and symbolic tensors share: they cannot be turned into Python's numbers."""

    __slots__ = ()
    __array_priority__ = 1000
    requires_grad = False
    is_sparse = False

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Torch's functions come here where no mode is active: hand them to the recorder of an argument."""
        from torch.utils._pytree import tree_leaves

        first = next(x for x in tree_leaves((args, kwargs)) if isinstance(x, Symbol | Table))
        return first.recorder.torch_call(func, args, kwargs or {})

    def __bool__(self) -> bool:
        refuse("Python asks whether a traced value is true", "it differs from position to position", _CHOICE)

    def _as_python(self, *_: Any) -> Never:
        refuse("Python asks for the number behind a traced value", "it differs from position to position", INSTEAD)

    __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = item = tolist = numpy = _as_python
    __array__ = __contains__ = cpu_value = _as_python

    def __setitem__(self, *_: Any) -> None:
        refuse("a traced value cannot be assigned to", "it is computed at every position", _CHOICE)


INSTEAD = "use torch's functions, and tensors where an array is indexed: torch.exp(x), torch.as_tensor(table)[i]"


@dataclass(frozen=True, slots=True, eq=False)
class Symbol(Traced):
    """A number at every position: `value` in the language, `dtype` in torch; `number` is set for Python's own."""

    recorder: Recorder
    value: Value
    dtype: torch.dtype
    number: bool | int | float | None = None

    shape = torch.Size([])
    ndim = 0
    itemsize = 8

    @property
    def device(self) -> torch.device:
        return self.recorder.device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def dim(self) -> int:
        return 0

    def numel(self) -> int:
        return 1

    nelement = numel

    def size(self, dim: int | None = None) -> torch.Size:
        if dim is not None:
            refuse("a traced value has no dimensions", "it is a scalar tensor, as in PyTorch")
        return torch.Size([])

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def where(self, condition: Any, other: Any) -> Any:
        return self.recorder.call("where", (condition, self, other), {})

    def __getitem__(self, index: Any) -> Symbol:
        if index in ((), ...):
            return self
        refuse("a traced value has no dimensions to index", "it is a scalar tensor, as in PyTorch")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in RULES:
            return lambda *args, **kwargs: self.recorder.call(name, (self, *args), kwargs)
        hint = nearest(name, RULES) or INSTEAD
        raise UnknownMethod(f"traced values have no '{name}'", user_place(), fact="they are scalar tensors", hint=hint)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """NumPy's functions of the same names, and its scalars as left operands."""
        if method != "__call__":
            refuse(f"numpy.{ufunc.__name__}.{method} cannot be traced", hint=INSTEAD)
        return self.recorder.call(ufunc.__name__, args, kwargs)

    def __round__(self, digits: int | None = None) -> Any:
        return self.recorder.call("round", (self,), {} if digits is None else {"decimals": digits})

    def __eq__(self, other: object) -> Any:
        return False if other is None else self.recorder.call("eq", (self, other), {})

    def __ne__(self, other: object) -> Any:
        return True if other is None else self.recorder.call("ne", (self, other), {})

    __hash__ = object.__hash__


def _operator(name: str, mirrored: bool) -> Callable[..., Any]:
    def operator(self: Symbol, *others: Any) -> Any:
        return self.recorder.call(name, (*others, self) if mirrored else (self, *others), {})

    return operator


_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
_UNARY = {
    "neg": "neg", "pos": "positive", "abs": "abs", "invert": "bitwise_not",
    "floor": "floor", "ceil": "ceil", "trunc": "trunc",
}  # fmt: skip
for _python, _torch in _BINARY.items():
    setattr(Symbol, f"__{_python}__", _operator(_torch, mirrored=False))
    setattr(Symbol, f"__r{_python}__", _operator(_torch, mirrored=True))
for _python, _torch in _UNARY.items():
    setattr(Symbol, f"__{_python}__", _operator(_torch, mirrored=False))
for _python in ("lt", "le", "gt", "ge"):
    setattr(Symbol, f"__{_python}__", _operator(_python, mirrored=False))


@dataclass(frozen=True, slots=True, eq=False)
class Table(Traced):
    """A captured tensor, some of whose dimensions are indexed by traced values; `free` are the sizes of the others."""

    recorder: Recorder
    tensor: torch.Tensor
    index: tuple[Value | None, ...]

    @property
    def free(self) -> tuple[int, ...]:
        return tuple(n for n, v in zip(self.tensor.shape, self.index, strict=True) if v is None)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.free)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @property
    def ndim(self) -> int:
        return len(self.free)

    def dim(self) -> int:
        return len(self.free)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return math.prod(self.free)

    def __getitem__(self, index: Any) -> Any:
        return self.recorder.index(self, index)

    def dot(self, other: Any) -> Any:
        return self.recorder.dot(self, other)

    def __matmul__(self, other: Any) -> Any:
        return self.recorder.dot(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self.recorder.dot(other, self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnknownMethod(
            f"'{name}' is asked of a row of a tensor, where only numbers are traced",
            user_place(),
            fact=f"the row has {len(self.free)} dimensions that are not indexed",
            hint="index all dimensions: table[b, h, i]",
        )
