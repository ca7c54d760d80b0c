"""Programs whose results have gradients, as functions that torch differentiates.

    program(Q, K, V)  -->  ahead(Q, K, V) -> O, saved;    dO, saved  -->  behind(...) -> dQ, dK, dV

Both halves are programs with a text of their own, and are called like any other; so the derivative has one too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from einc.base.errors import Error
from einc.base.facts import Fact
from einc.base.targets import INTERPRETER
from einc.runtime.callee import Callee
from einc.runtime.execution import ON_CPU, Place, place
from einc.runtime.halves import called
from einc.runtime.tensors import device_of, fact
from einc.tile.blocks import size_class

if TYPE_CHECKING:
    import torch

    from einc.derive import Ahead, Behind
    from einc.ein import Program

Tensors = Sequence["torch.Tensor"]
Compute = Callable[[Callee, Tensors, Mapping[str, Any]], Sequence["torch.Tensor"]]


class Derivative:
    """A program for operands of some types, with its halves; `callee` is the one that runs ahead."""

    def __init__(self, run: Ahead, origin: Callee) -> None:
        self.run, self.origin = run, origin
        self.callee = self._called(run.program)
        self.halves: dict[tuple[str, ...], tuple[Behind, Callee | None]] = {}
        differentiable = [r for k, r in enumerate(run.program.results) if k not in run.fixed]
        self.whole = tuple(differentiable)
        self.saved = self.behind(self.whole)[0].sources

    def _called(self, program: Program) -> Callee:
        return called(program, self.origin.options)

    def behind(self, cotangents: tuple[str, ...]) -> tuple[Behind, Callee | None]:
        """The gradients, given cotangents of these outputs; no callee if there are none."""
        from einc.derive import behind

        found = self.halves.get(cotangents)
        if found is None:
            half = behind(self.run, cotangents)
            found = half, self._called(half.program) if half.program.results else None
            self.halves[cotangents] = found
        return found

    def given(self, cotangents: Sequence[Any]) -> tuple[str, ...]:
        """The outputs that have a cotangent."""
        names = self.run.program.results
        return tuple(n for n, g in zip(names, cotangents, strict=True) if g is not None and n in self.whole)


_MOST_KEPT = 256  # derivatives of one program


def derivative(
    found: Callee, facts: tuple[Fact, ...], scalars: Mapping[str, Any], needing: Sequence[bool], where: Place | None
) -> Derivative:
    """The derivative of a program by the operands that need one; without a place, for operands of no known size."""
    from einc.derive import ahead
    from einc.passes.algebra.grouping import divides

    exact = divides(found.meaning(facts))
    sizes = tuple(f.shape if exact else tuple(map(size_class, f.shape)) for f in facts if where is not None)
    ones = tuple((f.dtype, tuple(n == 1 for n in f.shape)) for f in facts)
    key = (ones, sizes, tuple(needing), where)
    known: Derivative | None = found.derivatives.get(key)
    if known is None:
        if len(found.derivatives) >= _MOST_KEPT:
            found.derivatives.clear()
        wanted = [n for n, needs in zip(found.operands, needing, strict=True) if needs]
        if where is None:
            program, extents = found.options.meant(found.meaning(facts)), None
        else:
            program, bindings = found.bound(facts, scalars)
            extents = bindings.extents
        target = found.options.target or (INTERPRETER if where is None else where.target)
        run = ahead(program, wanted, found.options.level, target, extents)
        known = found.derivatives[key] = Derivative(run, found)
    return known


def needed(tensors: Sequence[Any]) -> bool:
    """Does torch ask for gradients of what is computed from these?"""
    import torch

    refuse_tangents(tensors)
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def refuse_tangents(tensors: Sequence[Any]) -> None:
    """Raise the error of operands that have a tangent, which would be lost."""
    import torch

    forward: Any = torch.autograd.forward_ad
    if forward._current_level >= 0 and any(forward.unpack_dual(t).tangent is not None for t in tensors):
        raise _no_tangents()


def _no_tangents() -> Error:
    return Error(
        "programs have no forward-mode derivative",
        fact="torch asks for a product of the Jacobian and a tangent",
        hint="torch.func.vjp or jacrev in place of jvp or jacfwd",
    )


def call(found: Callee, tensors: Tensors, scalars: Mapping[str, Any], backend: str | None = None) -> Tensors:
    """The results of a program for operands in memory, which torch can differentiate if one needs it."""
    if not needed(tensors):
        return found.computed(tensors, scalars, backend)
    run = _differentiable(found, tensors, scalars, backend)
    if backend is None:
        found.keep_for(tensors, scalars, run)
    return run(tensors, scalars)


def _differentiable(
    found: Callee, tensors: Tensors, scalars: Mapping[str, Any], backend: str | None
) -> Callable[[Tensors, Mapping[str, Any]], Tensors]:
    """What computes the results for such operands: one operation of torch, which has its own gradient, or a program
    and its derivative."""
    facts = tuple(fact(t, name) for t, name in zip(tensors, found.operands, strict=True))
    where = place(device_of(tensors, found.operands), backend)
    if where.backend == ON_CPU and backend is None and found.options.level >= 2:
        from einc.codegen.operation import operation

        single = operation(found.bound(facts, scalars)[0])
        if single is not None:
            return lambda given, _: (single(list(given)),)
    made = derivative(found, facts, scalars, [t.requires_grad for t in tensors], where)
    return lambda given, values: differentiated(made, given, values, partial(call, backend=backend))


@cache
def _function() -> Any:
    import torch

    class Differentiable(torch.autograd.Function):
        """The results of a program, and the gradients that its derivative gives."""

        generate_vmap_rule = True

        @staticmethod
        def forward(
            found: Derivative, scalars: Mapping[str, Any], compute: Compute, *tensors: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            return tuple(compute(found.callee, [t.detach() for t in tensors], scalars))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
            found, scalars, compute, *tensors = inputs
            ctx.call = found, scalars, compute, len(tensors)
            ctx.like = [(t.shape, t.dtype, t.device) for t in output]
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*(output[k] for k in found.run.fixed))
            of = {"operand": tensors, "output": output}
            ctx.save_for_backward(*(of[kind][k] for kind, k in found.saved if kind != "cotangent"))

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
            found, scalars, compute, count = ctx.call
            given = _sufficient(found, ctx.like, cotangents)
            with torch.autocast(ctx.like[0][2].type, enabled=False):
                return None, None, None, *_gradients(found, scalars, compute, count, ctx.saved_tensors, given)

        @staticmethod
        def jvp(_: Any, *__: Any) -> Any:
            raise _no_tangents()

    return Differentiable


def _sufficient(found: Derivative, like: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    """The cotangents, with zeros for those that are missing if the derivative without them reads what is not saved."""
    given = found.given(cotangents)
    if not given or set(found.behind(given)[0].sources) <= {*found.saved}:
        return list(cotangents)
    import torch

    zeros = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in like]
    return [
        z if g is None and n in found.whole else g
        for n, g, z in zip(found.run.program.results, cotangents, zeros, strict=True)
    ]


def _gradients(
    found: Derivative,
    scalars: Mapping[str, Any],
    compute: Compute,
    count: int,
    saved: Tensors,
    cotangents: Sequence[Any],
) -> list[Any]:
    """The gradients of the operands, None where there is none."""
    there = dict(zip([s for s in found.saved if s[0] != "cotangent"], saved, strict=True))
    given = found.given(cotangents)
    half, called = found.behind(given) if given else (None, None)
    if half is None or called is None:
        return [None] * count
    values = [cotangents[k] if kind == "cotangent" else there[kind, k] for kind, k in half.sources]
    named = {n: v for n, v in scalars.items() if n in called.scalars}
    results = compute(called, values, named)
    return [None if k is None else results[k] for k in half.gradients]


def differentiate(results: Any, tensors: Tensors) -> None:
    """Have the gradients of results by tensors computed, for cotangents that are not constant."""
    import torch

    every = [r for r in (results if isinstance(results, tuple) else (results,)) if r.requires_grad]
    torch.autograd.grad(every, [t for t in tensors if t.requires_grad], [torch.randn_like(r) for r in every])


def differentiated(
    found: Derivative, tensors: Tensors, scalars: Mapping[str, Any], compute: Compute
) -> tuple[torch.Tensor, ...]:
    """The program's results, which torch can differentiate; `compute` runs what is ahead, and what is behind."""
    outputs = _function().apply(found, scalars, compute, *tensors)
    return tuple(outputs[: found.run.results])
