"""The operations of torch that a computation makes, written down once and then made again for other tensors.

    run(A, B)   -->   t0 = bmm(A, B); if bool(isfinite(t0).all()) is not True: return None; t1 = exp2(t0); ...

Between its operations a computation decides much that comes out the same for tensors of the same shapes: what remains
is a function without decisions. Where the computation looked at values, the function looks too, and gives up if it
sees something else. What depends on no input is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Computation = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Again = Callable[..., "tuple[Tensor, ...] | None"]
"""Gives the results for inputs of the same shapes, types and strides, or None where values decide otherwise."""

_EMPTY: Callable[..., Tensor] | None = getattr(torch._C._dynamo.guards, "_empty_strided_cpu", None)
MOST_STEPS = 2000  # of a function: as many take a tenth of a second to write and compile
_FRESH = {torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty}  # whose memory is to be written


@dataclass(frozen=True, slots=True)
class _Step:
    """A call of torch: the tensors that it gives, and that it writes to. `truth` is what a look at a value showed."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gives: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    truth: bool | None = None

    def tensors(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return list(_tensors((self.args, self.kwargs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


class _Recorder(TorchFunctionMode):
    """Writes down the calls of torch in its context; `fails` if one of them cannot be made again."""

    def __init__(self, inputs: Sequence[Tensor], most: int) -> None:
        super().__init__()
        self.room = most
        self.steps: list[_Step] = []
        self.varies = set(map(_memory, inputs))  # memory whose contents depend on an input
        self.fails = False

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(func, args, kwargs or {}, result)
        return result

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Keep a call, with all of its tensors, so that no other takes their place in memory, which has to suffice."""
        if self.fails:
            return
        gives = tuple(_tensors(result))
        before = list(_tensors((args, kwargs)))
        varies = any(_memory(t) in self.varies for t in before)
        if varies:
            self.varies |= set(map(_memory, gives))
        if func is Tensor.__bool__:
            self.steps.append(_Step(func, args, kwargs, (), (), result))
        elif func is Tensor.__setitem__:
            self.varies |= {_memory(args[0])} if varies else set()
            self.steps.append(_Step(func, args, kwargs, (), (args[0],)))
        elif gives:
            writes = tuple(t for t in gives if any(t is b for b in before))
            if not writes or _writes(func, kwargs):  # else it gave an argument as it is, as `to` may
                self.steps.append(_Step(func, args, kwargs, gives, writes))
            self.room -= sum(t.nbytes for t in gives if not any(_memory(t) == _memory(b) for b in before))
        elif varies and func not in _ABOUT and getattr(func, "__name__", "") != "__get__":
            self.fails = True
        if self.fails or self.room < 0 or len(self.steps) > MOST_STEPS:
            self.fails = True
            self.steps.clear()


def _writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Does a function of torch write to the argument that it returns?"""
    name = getattr(func, "__name__", "")
    return kwargs.get("out") is not None or name in _INTO or (name.endswith("_") and not name.startswith("__"))


_INTO = {f"__i{op}__" for op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")}
_ABOUT = {
    Tensor.size, Tensor.stride, Tensor.dim, Tensor.numel, Tensor.element_size, Tensor.data_ptr, Tensor.storage_offset,
    Tensor.untyped_storage, Tensor.is_floating_point, Tensor.is_complex, Tensor.is_contiguous, Tensor.__len__,
    torch.is_floating_point, torch.is_complex,
}  # fmt: skip


def record(
    run: Computation, inputs: Sequence[Tensor], beside: Sequence[object] = (), most: int = 1 << 28
) -> tuple[tuple[Tensor, ...], Again | None]:
    """The results of a computation, and a function that computes them again; None if there is no such function.

    Inputs may be written to, if they share no memory with others. The function takes more inputs `beside` tensors:
    what functions of the computation are given whole. None of them is a number. There is no function either of what
    makes tensors of more than so many bytes, or takes more than `MOST_STEPS`.
    """
    given = [t.view_as(t) for t in inputs]  # told apart, even if a call passes a tensor twice
    inference = torch.is_inference_mode_enabled() and any(
        t.is_inference() for t in inputs
    )  # may be written there alone
    with torch.inference_mode(inference), torch.no_grad(), _Recorder(given, most) as recorder:
        results = tuple(run(given))
    if recorder.fails:
        return results, None
    return results, _Writer(recorder.steps, given, results, beside).function()


class _Writer:
    """Writes the steps as a function of Python."""

    def __init__(
        self, steps: Sequence[_Step], inputs: Sequence[Tensor], results: Sequence[Tensor], beside: Sequence[object]
    ) -> None:
        self.steps, self.inputs, self.results, self.beside = steps, inputs, results, beside
        self.names = {id(t): f"x{k}" for k, t in enumerate((*inputs, *beside))}
        self.known: dict[str, Any] = {}  # by name, what does not differ between calls
        self.written = {_memory(t) for s in steps for t in s.writes}

    def function(self) -> Again:
        """The function of the inputs, or of none where nothing depends on them."""
        lines = [line for s in self.needed() for line in self.lines(s)]
        offset = self.bound(Tensor.storage_offset, "f")  # views are of places in a storage
        checks = [f"{offset}({self.name(t)}) != {t.storage_offset()}" for t in self.inputs]
        if checks:
            lines = [f"if {' or '.join(checks)}:", "    return None", *lines]
        returned = "".join(f"{self.name(t)}, " for t in self.results)
        parameters = ", ".join(self.names[id(t)] for t in (*self.inputs, *self.beside))
        source = "\n    ".join([f"def again({parameters}):", *lines, f"return ({returned})"])
        exec(compile(source, "<operations>", "exec", dont_inherit=True), self.known)
        found: Again = self.known["again"]
        return found

    def needed(self) -> list[_Step]:
        """The steps that depend on an input, and that a result, or a look at a value, depends on."""
        kept = []
        for s in self.steps:
            if self.is_fixed(s):
                for t in s.gives:
                    self.constant(t)
            elif not self.is_neutral(s):
                kept.append(s)
                for t in s.gives:
                    self.names.setdefault(id(t), f"t{len(self.names)}")
        used = {id(t) for t in self.results}
        needed: list[_Step] = []
        for s in reversed(_merged(kept, self.beside)):
            if s.writes or s.truth is not None or any(id(t) in used for t in s.gives):
                used |= {id(t) for t in s.tensors()}
                needed.append(s)
        return needed[::-1]

    def is_fixed(self, s: _Step) -> bool:
        """Does a step give the same in every call, in memory that nothing else is written to?"""
        if s.writes or s.function in _FRESH or any(_memory(t) in self.written for t in s.gives):
            return False
        return all(t is not r for t in s.gives for r in self.results) and all(map(self.is_constant, s.tensors()))

    def is_neutral(self, s: _Step) -> bool:
        """Does a step leave its tensor as it is: the greater of it and -inf, written to itself?"""
        least = {torch.maximum: -inf, torch.minimum: inf}.get(s.function)
        if least is None or len(s.args) != 2 or not any(s.args[1] is w for w in s.writes):
            return False
        start = s.args[0]
        return start.ndim == 0 and start.dtype == s.args[1].dtype and self.is_constant(start) and float(start) == least

    def is_constant(self, t: Tensor) -> bool:
        """Is a tensor older than the computation, or computed from such tensors alone?"""
        return self.names.get(id(t), "c").startswith("c") and _memory(t) not in self.written

    def lines(self, s: _Step) -> Iterator[str]:
        if s.function in _FRESH and _EMPTY is not None and s.gives[0].is_cpu:
            (t,) = s.gives
            sizes = f"{tuple(t.shape)}, {t.stride()}, {self.bound(t.dtype, 'k')}"
            yield f"{self.name(t)} = {self.bound(_EMPTY, 'f')}({sizes})"
            return
        called = f"{self.bound(s.function, 'f')}({self.arguments(s)})"
        if s.truth is not None:
            if not all(map(self.is_constant, s.tensors())):
                yield f"if {called} is not {s.truth}:"
                yield "    return None"
            return
        if not s.gives or all(any(t is w for w in s.writes) for t in s.gives):
            yield called
        else:
            yield f"{', '.join(map(self.name, s.gives))}{',' if len(s.gives) > 1 else ''} = {called}"

    def arguments(self, s: _Step) -> str:
        named = [f"{key}={self.value(v)}" for key, v in s.kwargs.items()]
        return ", ".join([*map(self.value, s.args), *named])

    def value(self, v: Any) -> str:
        """A value as an expression."""
        if isinstance(v, Tensor):
            return self.name(v)
        if any(v is b for b in self.beside):
            return self.names[id(v)]
        if isinstance(v, list):
            return f"[{', '.join(map(self.value, v))}]"
        if isinstance(v, tuple) and any(True for _ in _tensors(v)):
            return f"({''.join(f'{self.value(x)}, ' for x in v)})"
        if v is None or isinstance(v, bool) or type(v) is int:
            return repr(v)
        return self.bound(v, "k")

    def name(self, t: Tensor) -> str:
        return self.names.get(id(t)) or self.constant(t)

    def constant(self, t: Tensor) -> str:
        """The name of a tensor that does not differ between calls."""
        if id(t) not in self.names:
            self.names[id(t)] = f"c{len(self.names)}"
        self.known[self.names[id(t)]] = t
        return self.names[id(t)]

    def bound(self, value: object, letter: str) -> str:
        """A name for a function, or for another value that is no tensor."""
        found = next((n for n, v in self.known.items() if v is value), None)
        if found is None:
            found = f"{letter}{len(self.known)}"
            self.known[found] = value
        return found


def _merged(steps: Sequence[_Step], beside: Sequence[object]) -> list[_Step]:
    """The steps with a view of a view as one view of the tensor below, unless what is beside decides where that is."""
    moved = {id(t) for s in steps if any(a is b for a in s.args for b in beside) for t in s.gives}
    made: dict[int, _Step] = {}
    found = []
    for s in steps:
        if s.function is Tensor.as_strided and not s.kwargs:
            below = made.get(id(s.args[0]))
            if below is not None and id(below.args[0]) not in moved:
                (view,) = s.gives
                s = replace(s, args=(below.args[0], tuple(view.shape), view.stride(), view.storage_offset()))
            made[id(s.gives[0])] = s
        found.append(s)
    return found


def _memory(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)
