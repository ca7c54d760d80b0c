"""A Python function of positions becomes an expression of the language, by calling it once with stand-ins.

    tracer = Tracer({"b": 2, "h": 8, "i": 1024, "j": 1024})
    mask = tracer(lambda b, h, q, k: table[b, q] == table[b, k], *tracer.axes())
    tracer.write(mask)       # "T1[b, i] == T1[b, j]", and no definitions before it
    tracer.parameters        # ("T1[m1, n1]",), the operands that it reads: tracer.tensors

Python's numbers become literals, captured tensors operands, named in the order in which they are met. A trace depends
on no tensor's values, so that equal functions give equal texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from einc.base.errors import Error, nearest
from einc.base.intervals import Interval
from einc.dropins import arithmetic, bits, choices, values
from einc.dropins.kinds import constant, joined, language_type, literal
from einc.dropins.places import defined_at
from einc.dropins.symbols import INSTEAD, RULES, Rule, Symbol, Table, Traced, TraceError, refuse
from einc.dropins.values import Value, Written, apply, number

_TABLES = (arithmetic, bits, choices)  # imported for the rules that they register
_LETTERS = "mnopqrstuv"  # of the dimensions of captured tensors
_PRODUCTS = frozenset("dot vdot inner matmul __matmul__ __rmatmul__".split())  # of two rows
_KEYWORDS = {"self": "x", "input": "x", "other": "y", "exponent": "y", "min": "low", "max": "high"}
_FACTS = frozenset("dtype device ndim is_cuda requires_grad".split())  # of tensors, on which a trace may depend
_MAKERS = frozenset(
    "tensor scalar_tensor as_tensor full ones zeros empty new_ones new_zeros new_full new_tensor".split()
)


@dataclass(frozen=True, slots=True)
class Captured:
    """A tensor that a traced function reads: its name in the text, and its axes; a held one gets no gradient."""

    name: str
    axes: tuple[str, ...]
    tensor: torch.Tensor
    held: bool = False

    @property
    def operand(self) -> torch.Tensor:
        """What the program takes."""
        return self.tensor.detach() if self.held else self.tensor


class Tracer:
    """Calls functions with symbols and keeps what they capture; `extents` are of the axes, if they are known.

    Known extents decide which computed subscripts may be negative, and so wrap around as in torch.
    """

    def __init__(self, extents: Mapping[str, int | None], device: torch.device | None = None) -> None:
        self.extents = dict(extents)
        self.device = torch.device("cpu") if device is None else device
        self.captured: list[Captured] = []
        self.defined: dict[str, bool] = {}  # tensors that the text defines: are they read without gradients?
        self.repeatable = True  # does the trace depend on nothing of a tensor but its rank and type?
        self.sized = False

    def __call__(self, function: Callable[..., Any], *arguments: Symbol) -> Symbol:
        """What the function gives for these symbols; raises `TraceError` for what the language cannot express."""
        function = getattr(function, "_torchdynamo_orig_callable", function)
        with _Mode(self):
            result = function(*arguments)
        if result is None or isinstance(result, tuple | list | dict | Table):
            kind = "a row of a tensor" if isinstance(result, Table) else type(result).__name__
            raise TraceError(
                "a traced function returns one value",
                defined_at(function),
                fact=f"this one returns {kind}",
                hint="return the score, or the truth value",
            )
        return self.lift(result)

    def axes(self) -> tuple[Symbol, ...]:
        """The positions along the axes, in order: scalar tensors of type int64 to the function."""
        return tuple(Symbol(self, values.axis(name, extent), torch.int64) for name, extent in self.extents.items())

    def named(self, tensor: str, axes: Sequence[str], dtype: torch.dtype) -> Symbol:
        """The value of a tensor that the text defines, at its own axes; as `S_held` if it is held."""
        self.defined[tensor] = False
        return Symbol(self, values.read(tensor, [values.axis(a, self.extents[a]) for a in axes]), dtype)

    def write(self, *symbols: Symbol) -> Written:
        """The values as expressions, after the definitions of what they have in common."""
        return values.write([s.value for s in symbols], tuple(self.extents))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The captured tensors as parameters of a program."""
        return tuple(f"{c.name}[{', '.join(c.axes)}]" for c in self.captured)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return tuple(c.operand for c in self.captured)

    # -----------------------------------------------------------------------------------------------------------------
    # Operations

    def lift(self, x: Any) -> Symbol:
        """A symbol for an argument: a Python or NumPy number, a captured tensor without dimensions, a symbol."""
        if isinstance(x, Symbol):
            return x
        if isinstance(x, np.generic):
            x = x.item()
        if isinstance(x, bool | int | float):
            return literal(Symbol(self, number(x), torch.bool), x)
        if isinstance(x, Table):
            refuse(
                "a row of a tensor is used as a number",
                f"{len(x.free)} of its dimensions are not indexed",
                "index all of them: table[b, h, i]",
            )
        if not isinstance(x, torch.Tensor):
            refuse(f"a traced value meets a {type(x).__name__}", "it is neither a number nor a tensor", INSTEAD)
        if x.ndim:
            shape = tuple(x.shape)
            refuse("a traced value meets a tensor that is not indexed", f"its shape is {shape}", "index it: table[i]")
        return self._read(self._capture(x), ())

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Symbol:
        rule = RULES.get(name)
        if rule is None:
            hint = nearest(name, RULES) or INSTEAD
            refuse(f"torch.{name} cannot be traced", "the language has no such operation of one number", hint)
        given, options = self._arguments(rule, args, kwargs)
        try:
            return rule.make(*given, **options)
        except TypeError as error:
            if isinstance(error, Error):
                raise
            refuse(f"torch.{name} is called with arguments that cannot be traced", str(error).partition("() ")[2])

    def _arguments(
        self, rule: Rule, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by position, and those by name; those that are values of the language as symbols."""
        options: dict[str, Any] = {}
        for name, value in kwargs.items():
            own = name if name in rule.parameters or name not in _KEYWORDS else _KEYWORDS[name]
            if name != "out" or value is not None:
                options[own] = value
        lifted = rule.parameters[: rule.symbols]
        given = [self._optional(a) if k < rule.symbols else a for k, a in enumerate(args)]
        return given, {n: self._optional(v) if n in lifted else v for n, v in options.items()}

    def _optional(self, x: Any) -> Symbol | None:
        return None if x is None else self.lift(x)

    def torch_call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A call of a function of torch: recorded if a symbol is among its arguments, else made."""
        name = getattr(func, "__name__", str(func)).partition(".")[0]  # of an operator, without its overload
        if func is torch.Tensor.__getitem__ and _symbolic(args[1:]):
            return self.index(args[0], args[1])
        if not _symbolic((args, kwargs)):
            made = func(*args, **kwargs)
            if name in _MAKERS and _is_constant(made, args):
                return constant(self.lift(0), made.item(), made.dtype)
            self.repeatable = self.repeatable and _asks_for(func) in _FACTS
            return made
        if name in _PRODUCTS and len(args) == 2 and not any(isinstance(a, Symbol) for a in args):
            return self.dot(*args)
        if func is torch.Tensor.where:
            args = (args[1], args[0], *args[2:])
        plain = name.removeprefix("special_").strip("_") if name.startswith("__") else name.removeprefix("special_")
        return self.call(plain, args, kwargs)

    # -----------------------------------------------------------------------------------------------------------------
    # Captured tensors

    def index(self, table: torch.Tensor | Table, index: Any) -> Symbol | Table:
        """A captured tensor at an index that has traced values in it."""
        items = list(index) if isinstance(index, tuple) else [index]
        start = table if isinstance(table, Table) else Table(self, self._captured(table), (None,) * table.ndim)
        free = [dim for dim, at in enumerate(start.index) if at is None]
        if ... in [i for i in items if i is ...]:
            at = next(k for k, i in enumerate(items) if i is ...)
            items[at : at + 1] = [slice(None)] * (len(free) - len(items) + 1)
        if len(items) > len(free):
            refuse("too many subscripts", f"the tensor has {len(free)} dimensions that are not indexed")
        found = list(start.index)
        for dim, item in zip(free, items, strict=False):
            found[dim] = self._position(start.tensor, dim, item)
        if None in found:
            return Table(self, start.tensor, tuple(found))
        return self._read(self._capture(start.tensor), tuple(v for v in found if v is not None))

    def _captured(self, table: torch.Tensor) -> torch.Tensor:
        if table.ndim == 0:
            refuse("a tensor without dimensions is indexed", hint="leave the subscript out")
        return table

    def _position(self, tensor: torch.Tensor, dim: int, item: Any) -> Value | None:
        """One subscript: None for `:`, else a position from 0; a negative one counts from the end, as in torch."""
        if isinstance(item, slice) and all(end is None for end in (item.start, item.stop, item.step)):
            return None
        if item is None or isinstance(item, slice | list | bool) or (isinstance(item, torch.Tensor) and item.ndim):
            refuse(
                "a traced index has a subscript that is no position",
                f"{item!r:.60}",
                "index by traced values, integers and ':'; take slices before the function",
            )
        at = self.lift(item)
        if at.dtype.is_floating_point or at.dtype == torch.bool:
            refuse("a subscript is no integer", f"it is {at.dtype}", "x.int(), or torch.where for a choice")
        low, high = at.value.bounds or (-1, 1)
        self.sized = self.sized or _signs(at.value.bounds) != _signs(at.value.always)
        if low >= 0:
            return at.value
        end = values.extent(self._capture(tensor).axes[dim])
        if isinstance(at.number, int):
            return apply("sub", end, number(-at.number))
        wrapped = apply("add", at.value, end)
        return wrapped if high < 0 else apply("where", apply("lt", at.value, number(0)), wrapped, at.value)

    def dot(self, x: Any, y: Any) -> Symbol:
        """The product of two rows of captured tensors: a sum over their axis."""
        rows = [r if isinstance(r, Table) else Table(self, r, (None,) * r.ndim) for r in (x, y)]
        if any(len(r.free) != 1 for r in rows) or rows[0].free != rows[1].free:
            shapes = ", ".join(str(r.free) for r in rows)
            refuse(
                "a product is not of two rows of equal length", f"their shapes are {shapes}", "torch.dot(x[i], y[j])"
            )
        known = [self._capture(r.tensor) for r in rows]
        name = known[0].axes[rows[0].index.index(None)]
        at = values.axis(name, rows[0].free[0])
        left, right = (
            self._read(c, tuple(at if v is None else v for v in r.index)) for c, r in zip(known, rows, strict=True)
        )
        return Symbol(self, values.total(name, apply("mul", left.value, right.value)), joined(left, right))

    def held(self, value: Value) -> Value:
        """The value, of the same tensors as operands that get no gradient."""
        captured = {c.name: c for c in self.captured}

        def instead(read: Value) -> Value:
            if read.text in self.defined:
                self.defined[read.text] = True
                return replace(read, text=f"{read.text}_held")
            known = captured.get(read.text)
            if known is None or not known.tensor.dtype.is_floating_point:
                return read
            return replace(read, text=self._capture(known.tensor, held=True).name)

        return values.reading(value, instead)

    def _capture(self, tensor: torch.Tensor, held: bool = False) -> Captured:
        for known in self.captured:
            if known.tensor is tensor and known.held == held:
                return known
        language_type(tensor.dtype)
        k = len(self.captured) + 1
        names = (f"{letter}{k}" for letter in _LETTERS)
        axes = tuple(next(names, f"{_LETTERS[-1]}{k}_{dim}") for dim in range(tensor.ndim))
        self.captured.append(Captured(f"T{k}", axes, tensor, held))
        return self.captured[-1]

    def _read(self, captured: Captured, index: tuple[Value, ...]) -> Symbol:
        dtype = captured.tensor.dtype
        return Symbol(self, values.read(captured.name, index, truth=dtype == torch.bool), dtype)


def _symbolic(arguments: object) -> bool:
    """Is a traced value among the arguments?"""
    return any(isinstance(x, Traced) or (isinstance(x, slice) and _symbolic((x.start, x.stop, x.step)))
               for x in tree_leaves(arguments))  # fmt: skip


def _signs(bounds: Interval | None) -> tuple[bool, bool]:
    """Is an integer with these bounds never negative, is it always?"""
    return bounds is not None and bounds[0] >= 0, bounds is not None and bounds[1] < 0


def _asks_for(func: Callable[..., Any]) -> str:
    """The attribute of a tensor that a call reads, if it does."""
    return getattr(getattr(func, "__self__", None), "__name__", "") if func.__name__ == "__get__" else ""


def _is_constant(made: Any, args: Sequence[Any]) -> bool:
    """Was this scalar tensor made of a number alone?"""
    return isinstance(made, torch.Tensor) and made.ndim == 0 and not any(made is a for a in args)


@dataclass(frozen=True, slots=True)
class Trace:
    """A function as an expression: after `definitions`, of the operands `parameters`, which are `tensors`."""

    definitions: tuple[str, ...]
    expression: str
    parameters: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]


def trace(function: Callable[..., Any], axes: Mapping[str, int | None] | Sequence[str]) -> Trace:
    """A function of the positions along these axes as an expression of the language; extents may be given."""
    tracer = Tracer(axes if isinstance(axes, Mapping) else dict.fromkeys(axes))
    written = tracer.write(tracer(function, *tracer.axes()))
    return Trace(written.definitions, written.expressions[0], tracer.parameters, tracer.tensors)


class _Mode(TorchFunctionMode):
    """Sees every call of torch, that of a tensor which is indexed by a traced value included."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.tracer.torch_call(func, args, kwargs or {})
