"""What is called: a program of the operands' ranks and types, the options of its compilation, and its earlier calls.

A callee has a description, a text from which any process makes the same one: this is how a program is a constant in a
graph of torch, which may be stored and loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from einc import ein
from einc.base.facts import Fact
from einc.base.types import DType
from einc.base.written import read, written
from einc.binding import Bindings, bind
from einc.driver import elaborate, given, parse
from einc.ein.batching import batched
from einc.ein.printer import print_signature
from einc.runtime.execution import Outputs, Place, place
from einc.runtime.prepared import Deciding, Options, Prepared, deciding, prepared
from einc.runtime.tensors import device_of, fact
from einc.tuning import current

if TYPE_CHECKING:
    import torch

    from einc.runtime.again import Calls, Run

Meaning = Callable[[tuple[Fact, ...]], ein.Program]
Computed = Callable[[Sequence["torch.Tensor"], Mapping[str, Any]], Sequence["torch.Tensor"]]

DECODERS: dict[str, Callable[[Any], Callee]] = {}  # by kind: what makes a callee of its description


@dataclass(frozen=True, slots=True, eq=False)
class Called:
    """A call: operands in memory, what is known of them before, scalars, where it runs, and the backend if one is
    named."""

    tensors: Sequence[torch.Tensor]
    facts: tuple[Fact, ...]
    scalars: Mapping[str, Any]
    where: Place
    backend: str | None


class Callee:
    """A program for operands of any shapes and types, by what it means for some of them.

    `deciding` are the scalars that decide how a call runs; errors quote the `signature`.
    """

    kind = "program"  # of the descriptions of those made of a text

    def __init__(
        self,
        description: str,
        operands: Sequence[str],
        scalars: Mapping[str, DType],
        deciding: Deciding,
        options: Options,
        meaning: Meaning,
        signature: str,
    ) -> None:
        self.description, self.options, self.meaning = description, options, meaning
        self.signature = signature
        self.operands, self.scalars, self.deciding = tuple(operands), dict(scalars), deciding
        self.calls: Calls | None = None
        self.derivatives: dict[Hashable, Any] = {}  # kept for `runtime.derivative`

    def bound(self, facts: tuple[Fact, ...], scalars: Mapping[str, Any]) -> tuple[ein.Program, Bindings]:
        """What it means for such operands, and every extent and scalar of the call."""
        program = self.options.meant(self.meaning(facts))
        return program, bind(program, {n: f.shape for n, f in zip(self.operands, facts, strict=True)}, scalars)

    def prepared(
        self, facts: tuple[Fact, ...], scalars: Mapping[str, Any], where: Place, tensors: Sequence[torch.Tensor] = ()
    ) -> Prepared:
        """What runs a call with such operands there, and with these layouts in memory."""
        if current() is not None:  # what runs so far is not what will
            self.calls = None
        decide = self.deciding.of(where.backend)
        kept = {n: v for n, v in scalars.items() if n in decide and isinstance(v, bool | int | float)}
        baked = decide - self.deciding.always
        lying = self.options.layouts(tensors, where)
        meaning = partial(self.bound, facts, scalars)
        held = dict(zip(self.operands, tensors, strict=True)) if len(tensors) == len(self.operands) else None
        there = None if held is None else (held, scalars)
        return prepared(self.description, facts, kept, where, self.options, meaning, baked, lying, there)

    def first(
        self,
        call: Prepared,
        tensors: Sequence[torch.Tensor],
        scalars: Mapping[str, Any],
        given: Sequence[Any],
        named: Mapping[str, Any],
        out: Any = None,
        into: Outputs = (),
    ) -> Outputs:
        """The results of a prepared call, which is kept for calls with such arguments, as given by position and name.

        `tensors` are the operands as memory, in order. If `out` is given, `into` are its tensors as memory, which the
        results are written to: they share none with operands or each other.
        """
        calls = self._calls()
        values = dict(zip(self.operands, tensors, strict=True))
        found = calls.read(given, named, out)
        if found is None:
            return call.run(values, scalars, into)
        results, again = call.first(values, scalars, calls.varying(tensors, scalars), into)
        if again is not None:
            calls.keep(found[0], again, found[1] if into else ())
        return results

    def computed(
        self, tensors: Sequence[torch.Tensor], scalars: Mapping[str, Any], backend: str | None = None
    ) -> Sequence[torch.Tensor]:
        """The results for operands in memory, apart from gradients."""
        if backend is None:
            known = self.known(tensors, scalars)
            if known is not None:
                return known
        tensors = [t.detach().resolve_conj().resolve_neg() for t in tensors]
        facts = tuple(fact(t, name) for t, name in zip(tensors, self.operands, strict=True))
        return self.anew(tensors, facts, scalars, place(device_of(tensors, self.operands), backend), backend)

    def anew(
        self,
        tensors: Sequence[torch.Tensor],
        facts: tuple[Fact, ...],
        scalars: Mapping[str, Any],
        where: Place,
        backend: str | None,
    ) -> Sequence[torch.Tensor]:
        """The results of a call that was not made before."""
        other = self.otherwise(Called(tensors, facts, scalars, where, backend))
        if other is not None:
            if backend is None:
                self.keep_for(tensors, scalars, other)
            return other(tensors, scalars)
        home = device_of(tensors, self.operands)
        call = self.prepared(facts, scalars, where, tensors)
        if backend is None:
            return self.first(call, tensors, scalars, tensors, scalars)
        values = {n: t.to(where.device) for n, t in zip(self.operands, tensors, strict=True)}
        return tuple(t.to(home) for t in call.run(values, scalars))

    def otherwise(self, _: Called, /) -> Computed | None:
        """What computes the results of such calls by other programs; None if this one is called itself."""
        return None

    def known(self, tensors: Sequence[torch.Tensor], scalars: Mapping[str, Any]) -> Sequence[torch.Tensor] | None:
        """The results of a call that was made before with such operands; None if none was."""
        found = None if self.calls is None or current() is not None else self.calls(tensors, scalars)
        return found if found is None or isinstance(found, tuple) else (found,)

    def keep(self, given: Sequence[Any], run: Run) -> None:
        """What further calls with operands like these run, which torch differentiates by itself."""
        calls = self._calls()
        found = calls.read(given, {})
        if found is not None:
            calls.keep(found[0], run)

    def keep_for(
        self,
        tensors: Sequence[torch.Tensor],
        scalars: Mapping[str, Any],
        run: Computed,
    ) -> None:
        """What further calls with such operands run, given operands and scalars by name."""
        calls = self._calls()
        found = calls.read(tensors, scalars)
        if found is None:
            return
        varying = calls.varying(tensors, scalars)
        fixed = {n: v for n, v in scalars.items() if n not in varying}
        calls.keep(found[0], lambda given, _, numbers: run(given, fixed | dict(zip(varying, numbers, strict=True))))

    def forget(self) -> None:
        """Drop the calls that were made, and the derivatives."""
        self.calls = None
        self.derivatives.clear()

    def _calls(self) -> Calls:
        from einc.runtime.again import Calls

        if self.calls is None:
            self.calls = Calls(self.operands, self.scalars, self.deciding)
        return self.calls


@lru_cache(maxsize=1024)
def callee(description: str) -> Callee:
    """The callee of a description."""
    kind, rest = json.loads(description)
    return DECODERS[kind](rest)


def described(kind: str, rest: object) -> str:
    """The description of a callee, for the decoder of its kind."""
    return json.dumps([kind, rest], sort_keys=True)


def over_batch(description: str, having: Sequence[bool]) -> str:
    """The description of the same callee where these operands have a batch as their first dimension."""
    return described("batched", [description, list(map(int, having))])


def with_batch(one: Callee, having: Sequence[bool], facts: tuple[Fact, ...]) -> tuple[ein.Program, frozenset[str]]:
    """What it means where operands have a batch as their first dimension, and the tensors that have one then."""
    alone = tuple(Fact(f.shape[1:], f.dtype) if has else f for has, f in zip(having, facts, strict=True))
    return batched(one.meaning(alone), [name for name, has in zip(one.operands, having, strict=True) if has])


def _batched(rest: tuple[str, list[int]]) -> Callee:
    one, having = callee(rest[0]), list(map(bool, rest[1]))
    return type(one)(
        described("batched", rest),
        one.operands,
        one.scalars,
        one.deciding,
        read(Options, written(one.options)),
        lambda facts: with_batch(one, having, facts)[0],
        one.signature,
    )


def of_text(text: str, name: str | None, options: Options, made: type[Callee] = Callee) -> Callee:
    """The callee of a program's text, which diagnostics call by this name; `made` is its class."""
    parsed = parse(text, name)
    meaning = elaborate(parsed)
    return made(
        described(made.kind, [text, name, written(options)]),
        parsed.operands,
        {p.name: p.dtype for p in meaning.scalars},
        deciding(meaning),
        replace(options, begin=given(parsed, meaning)),
        lambda facts: elaborate(parsed, dict(zip(parsed.operands, facts, strict=True))),
        print_signature(meaning),
    )


def of_program(rest: tuple[str, str | None, Mapping[str, Any]], made: type[Callee] = Callee) -> Callee:
    """The callee of a description, of this class."""
    text, name, options = rest
    return of_text(text, name, read(Options, options), made)


DECODERS["batched"] = _batched
DECODERS[Callee.kind] = of_program
