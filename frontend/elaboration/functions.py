"""Functions written out at their calls: arguments bound, axes renamed, local definitions as equations of their own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from einc import ein
from einc.base import errors
from einc.base.errors import AxisError, CallError, nearest
from einc.base.source import Span
from einc.frontend.elaboration import sums
from einc.frontend.elaboration.cascade import Known, default_dtype
from einc.frontend.elaboration.elaborator import Elaborator
from einc.frontend.elaboration.library import Entry, prelude
from einc.frontend.elaboration.scopes import Argument, Scope
from einc.frontend.elaboration.targets import apart, check_stored, written_dims
from einc.frontend.elaboration.values import Dims, Obstacle, Result, Value, flatten, merge
from einc.frontend.syntax.mistakes import recurrence
from einc.frontend.syntax.nodes import Call, Definition, Function, FunctionParam, Target

_LONGEST_CHAIN = 64  # functions that call each other


def expand(t: Elaborator, node: Call, guard: ein.Expr | None) -> tuple[Result, ...]:
    """What a call gives: the results of the function's body for these axes and arguments."""
    known = t.library[node.function]
    node = t.axes_for(node, guard)
    span = t.scope.at(node.span)
    chained = f"{node.function} of the prelude" if known.prelude else node.function
    _check_chain(t, chained, span)
    axes = _axes(t, known.function, node, span)
    named = flatten(axes.values())
    outer = None if guard is None or set(ein.axes_of(guard)) & set(named) else guard
    args = _arguments(t, known, node, outer, span)
    given = merge(*(a.dims for a in args), *(((x,),) for a in args for x in a.positions))
    _check_axes(node, named, flatten(given), span)
    local = {name: (t.cascade.fresh(name),) for name in known.axes}
    t.cascade.places.update((axis, span) for (axis,) in local.values())
    scope = Scope(
        axes={**axes, **local},
        scalars={},
        tensors={},
        arguments={p.name: _bind(t, known, p, a, axes) for p, a in zip(known.function.params, args, strict=True)},
        prefix=t.scope.prefix,
        place=span if known.prelude else t.scope.place,
        calls=(*t.scope.calls, chained),
    )
    inner = t.within(scope, prelude() if known.prelude else None)  # no program changes the prelude
    for s in known.function.body[:-1]:
        assert isinstance(s, Definition)
        define_local(inner, s)
    results = tuple(inner.result(v) for v in known.results)
    return tuple(_returned(r, node, named, given, span, local) for r in results)


def _check_chain(t: Elaborator, name: str, span: Span) -> None:
    chain = (*t.scope.calls, name)
    if name in t.scope.calls:
        cycle = " calls ".join(f"'{f}'" for f in chain[chain.index(name) :])
        raise errors.NameError(
            f"the function '{name}' calls itself",
            span,
            fact=cycle,
            hint=recurrence("a recurrence"),
        )
    if len(chain) > _LONGEST_CHAIN:
        raise errors.NameError(
            f"more than {_LONGEST_CHAIN} functions call each other", span, hint="write some of them out"
        )


def _axes(t: Elaborator, f: Function, node: Call, span: Span) -> dict[str, tuple[str, ...]]:
    """The caller's axes that each axis of the function stands for."""
    given = [a for name in node.axes or () for a in t.scope.axis(name.name, name.span)]
    single = len(f.axes) - f.variadic
    if len(given) < single + f.variadic or (len(given) > single and not f.variadic):
        wanted = ", ".join(("*" if f.variadic and k == single else "") + a.name for k, a in enumerate(f.axes))
        if not f.axes:
            raise CallError(f"'{f.name}' takes no axes", span, hint=f"{f.name}(…)")
        needs = f"at least {len(f.axes)}" if f.variadic else str(len(f.axes))
        raise CallError(
            f"'{f.name}' takes {needs} ax{'is' if needs.endswith('1') else 'es'}, not {len(given)}",
            span,
            fact=f"it is {f.name}[{wanted}](…)",
            hint=f"{f.name}[j](…)" if len(f.axes) == 1 else f"name {needs}",
        )
    for k, axis in enumerate(given):
        if axis in given[:k]:
            raise AxisError(f"'{f.name}' is given axis '{axis}' twice", span, hint="name each axis once")
    axes = {a.name: (given[k],) for k, a in enumerate(f.axes[:single])}
    return axes | ({f.axes[-1].name: tuple(given[single:])} if f.variadic else {})


def _arguments(t: Elaborator, known: Entry, node: Call, guard: ein.Expr | None, span: Span) -> list[Value]:
    """The values of the arguments, defaults in place of those left out."""
    f = known.function
    least = sum(p.default is None for p in f.params)
    if not least <= len(node.args) <= len(f.params):
        wanted = f"{least}" if least == len(f.params) else f"{least} to {len(f.params)}"
        params = ", ".join(p.name for p in f.params)
        raise CallError(
            f"'{f.name}' takes {wanted} argument{'s' * (wanted != '1')}, not {len(node.args)}",
            span,
            fact=f"it is {f.name}({params})",
            hint=f"{f.name}({', '.join(p.name for p in f.params[: max(least, 1)])})",
        )
    values = [t.value(a, guard) for a in node.args]
    bare = t.within(Scope({}, {}, {}, place=span))
    for p in f.params[len(values) :]:
        assert p.default is not None
        values.append(bare.value(p.default))
    return values


def _check_axes(node: Call, named: Sequence[str], given: Sequence[str], span: Span) -> None:
    for axis in named:
        if axis not in given:
            raise AxisError(
                f"'{node.function}' is over axis '{axis}', but its argument does not have that axis",
                span,
                fact=f"the axes of the argument are {', '.join(given)}" if given else "the argument has no axes",
                hint=nearest(axis, given) or "name one of its axes",
            )


def _bind(t: Elaborator, known: Entry, p: FunctionParam, value: Value, axes: Mapping[str, tuple[str, ...]]) -> Argument:
    """The argument as the body sees it: an expression used more than once is a tensor of its own."""
    if known.uses.get(p.name, 0) > 1 and not is_plain(value.expr):
        value = t.cascade.bind(t.named(p.name), value, value.span)
    return Argument(replace(value, obstacles={}), tuple(axes[a.name][0] for a in p.axes))


def is_plain(e: ein.Expr) -> bool:
    """Is computing it again as cheap as reading it?"""
    match e:
        case ein.Const() | ein.AxisValue() | ein.Extent() | ein.Scalar():
            return True
        case ein.Read(index=index, guard=None):
            return not any(ein.reads(i) for i in index)
        case _:
            return not ein.reads(e) and not ein.axes_of(e)


def _returned(
    result: Result,
    node: Call,
    named: Sequence[str],
    given: Dims,
    span: Span,
    local: Mapping[str, tuple[str, ...]],
) -> Result:
    """A result as the caller sees it: its axes in the order of the arguments', and those named free to be summed."""
    for name, (axis,) in local.items():
        if axis in result.axes:
            raise AxisError(
                f"'{node.function}' leaves its own axis '{name}' in its result",
                span,
                fact="its callers cannot name it",
                hint=f"reduce over it in the function: sum[{name}](…)",
            )
    if not isinstance(result, Value):
        return result
    order = [dim for dim in given if set(dim) & set(flatten(result.dims))]
    left = set(flatten(result.dims))
    ordered = merge(tuple(tuple(a for a in dim if a in left) for dim in order), result.dims)
    inside = f"{node.function}(…)"
    obstacles = {a: Obstacle(inside, span) for a in result.axes if a not in named}
    return replace(result, dims=ordered, obstacles=obstacles, span=span)


@dataclass(frozen=True, slots=True)
class _AllBut:
    """Every axis except these."""

    axes: frozenset[str]

    def __contains__(self, axis: object) -> bool:
        return axis not in self.axes


def define_local(t: Elaborator, d: Definition) -> None:
    """A definition in a function. Axes that the function does not see are carried along, before those it lists."""
    if len(d.targets) > 1:
        raise CallError("a definition in a function has one name", t.scope.at(d.span), hint="define them one by one")
    (target,) = d.targets
    if target.index is None:
        result = t.result(d.value)
        if isinstance(result, Value) and target.dtype is None and is_plain(result.expr):
            t.scope.arguments[target.name] = Argument(replace(result, obstacles={}))
            return
        known = _give_local(t, target, result.shape, result, d.span)
        t.scope.tensors[target.name] = replace(known, whole=True)
        return
    listed = written_dims(t, target)
    visible = frozenset(flatten(t.scope.axes.values())) - set(flatten(listed))
    kept: Container[str] = _AllBut(visible)
    result = sums.total(t, d.value, kept)
    hidden = tuple(dim for dim in result.shape if dim and not set(dim) & set(flatten(listed)))
    known = _give_local(t, target, (*hidden, *listed), result, d.span)
    t.scope.tensors[target.name] = replace(known, hidden=len(hidden))


def _give_local(t: Elaborator, target: Target, dims: Dims, result: Result, span: Span) -> Known:
    dtype = target.dtype or default_dtype(result)
    check_stored(target, dtype, result, t.scope.at(span))
    dims = tuple(dim for dim in dims if dim)
    result = apart(t, result, dims)
    name = t.cascade.fresh(t.named(target.name))
    return t.cascade.give(name, dims, result, dtype, t.scope.at(span), written=target.dtype is not None)
