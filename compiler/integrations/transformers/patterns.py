"""A mask as a function of positions, and the condition in the language that it becomes.

    visible(b, h, q, k)  with  q = i + q_offset,  k = j + kv_offset   -->   "j <= i + |j| - |i| and T1[b, j]"

Offsets change from step to step of a generation. So they are no numbers in the text: where queries are the last of the
keys' positions they follow from the extents, else they are operands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from einc.dropins import values
from einc.dropins.fingerprints import fingerprint
from einc.dropins.kinds import truth
from einc.dropins.symbols import Symbol
from einc.dropins.tracing import Tracer
from einc.dropins.values import Value, Written, apply

Visible = Callable[..., Any]  # (b, h, q, k) -> truth value
Offset = int | torch.Tensor

_MOST_KEPT = 1024
_FAR = 1 << 62  # more positions than there are
_Q, _KV = "QO", "KO"  # operands without axes: the offsets of queries and keys


@dataclass(frozen=True, slots=True)
class Condition:
    """A mask in the language: `written` reads the operands that `parameters` declare.

    `picks` says what each of them is: one of the tensors that the function captures, by number, or something else by
    name; None if it cannot be told, or the trace depends on more than types.
    """

    written: Written
    parameters: tuple[str, ...]
    picks: tuple[int | str, ...] | None = field(compare=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """A condition, and the tensors of its operands."""

    condition: Condition
    tensors: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Which keys each query sees: those that `visible` says, called with absolute positions, and `padding` (b, j).

    Either may be None, for all. `shiftless` says that `visible` is the same where both positions move by as much,
    `lonely` that a query may see no key at all.
    """

    visible: Visible | None
    batch: int
    q_length: int
    kv_length: int
    q_offset: Offset = 0
    kv_offset: int = 0
    padding: torch.Tensor | None = None
    shiftless: bool = False
    lonely: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def everything(self) -> bool:
        """Is it known that every query sees every key?"""
        return self.visible is None and self.padding is None

    def rows(self, start: int, length: int) -> Pattern:
        """The pattern of some of the queries."""
        return replace(self, q_offset=self.q_offset + start, q_length=length)

    def columns(self, length: int) -> Pattern:
        """The pattern of the first keys."""
        return replace(self, kv_length=length, padding=None if self.padding is None else self.padding[:, :length])

    def masked(self) -> Masked:
        """The condition and its operands; raises `TraceError` for what the language cannot express."""
        offsets = self._offsets()
        read = {"padding": self.padding, _Q: offsets.q if offsets.by_operand else None, _KV: offsets.kv}
        named = {name: _scalar(x, self.device) for name, x in read.items() if x is not None}
        known = fingerprint(self.visible)
        if known is None:
            return self._trace(offsets, (), named)
        key = known.key, offsets.by_operand, offsets.last, tuple(named)
        condition = _kept.get(key)
        if condition is None:
            found = self._trace(offsets, known.tensors, named)
            if found.condition.picks is not None:
                _kept[key] = found.condition
                if len(_kept) > _MOST_KEPT:
                    _kept.popitem(last=False)
            return found
        assert condition.picks is not None
        return Masked(condition, tuple(known.tensors[p] if isinstance(p, int) else named[p] for p in condition.picks))

    def _offsets(self) -> _Offsets:
        q, kv = self.q_offset, self.kv_offset
        if isinstance(q, torch.Tensor):
            return _Offsets(q, kv or None, by_operand=True)
        if self.shiftless or self.visible is None:
            q, kv = q - kv, 0
        if q == kv:
            return _Offsets(None, kv or None)
        last = q - kv == self.kv_length - self.q_length
        return _Offsets(None if last else q, kv or None, by_operand=not last, last=last)

    def _trace(self, offsets: _Offsets, captured: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> Masked:
        tracer = Tracer(dict.fromkeys("bhij"), self.device)
        b, h, i, j = tracer.axes()
        q, k = (Symbol(tracer, value, torch.int64) for value in self._positions(offsets, i.value, j.value))
        parts = [] if self.visible is None else [tracer(self.visible, b, h, q, k)]
        if self.padding is not None:
            table = self.padding
            parts.append(tracer(lambda b, j: table[b, j], b, j))
        condition = Symbol(tracer, values.number(True), torch.bool)
        for part in parts:
            condition = Symbol(tracer, apply("and", condition.value, truth(part)), torch.bool)
        written = tracer.write(condition)
        places: dict[int, int | str] = {id(t): k for k, t in enumerate(captured)}
        if self.padding is not None:
            places[id(self.padding)] = "padding"
        read = [places.get(id(t)) for t in tracer.tensors]
        own = [name for name in (_Q, _KV) if name in named]
        picks = None if None in read or not tracer.repeatable else (*(p for p in read if p is not None), *own)
        parameters = (*tracer.parameters, *(f"{name}[]" for name in own))
        return Masked(Condition(written, parameters, picks), (*tracer.tensors, *(named[name] for name in own)))

    def _positions(self, offsets: _Offsets, i: Value, j: Value) -> tuple[Value, Value]:
        """The absolute positions of a query and a key."""
        q, k = i, j
        if offsets.last:
            ahead = apply("sub", values.extent("j"), values.extent("i"))
            q = _position(apply("add", i, ahead))
        if offsets.by_operand:
            q = apply("add", i, _operand(_Q))
        if offsets.kv is not None:
            k = apply("add", j, _operand(_KV))
            q = q if offsets.by_operand else apply("add", q, _operand(_KV))
        return q, k


@dataclass(frozen=True, slots=True)
class _Offsets:
    """How positions follow from those along the axes.

    Queries begin at `q` if that is an operand, else at `kv`; if they are the `last`, as far on as there are more keys.
    """

    q: Offset | None
    kv: int | None
    by_operand: bool = False
    last: bool = False


_kept: OrderedDict[Hashable, Condition] = OrderedDict()


def _operand(name: str) -> Value:
    return _position(values.read(name, ()))


def _position(value: Value) -> Value:
    """A value that is known to be a position, from 0 on."""
    return replace(value, bounds=(0, _FAR), always=(0, _FAR))


def _scalar(x: Offset, device: torch.device) -> torch.Tensor:
    if isinstance(x, torch.Tensor):
        return x if x.ndim == 2 else x.reshape(()).to(device)
    return torch.full((), x, dtype=torch.int64, device=device)
