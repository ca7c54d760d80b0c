"""Kernels as text a person reads: one statement a line, tile axes in brackets, masks after `where`."""

from __future__ import annotations

from collections.abc import Iterator

from einc import tile
from einc.base.ops import ATOM, OPS, SIGN
from einc.tile import UNSIZED, WHOLE, Block, TileAxis, TileType, Value


def print_schedule(schedule: tile.Schedule) -> str:
    """Every kernel, then what lives in memory between them."""
    parts = [print_kernel(k) for k in schedule.kernels]
    if schedule.intermediates:
        shown = (f"{b.name}[{', '.join(_group(d) for d in b.dims)}]: {b.dtype}" for b in schedule.intermediates)
        parts.append("between kernels: " + ", ".join(shown))
    return "\n".join(parts)


def print_kernel(kernel: tile.Kernel) -> str:
    """The kernel's equations, its grid, and its statements."""
    lines = [f"kernel {kernel.name}"]
    lines += [f"  -- {line}" for line in kernel.title]
    sections = f" in sections of {kernel.section}" if kernel.section > 1 else ""
    lines.append("  grid " + (", ".join(_axis(a) for a in kernel.grid) or "1") + sections)
    if kernel.whole:
        lines.append("  whole " + ", ".join(_axis(a) for a in kernel.whole))
    lines += [f"    {line}" for line in _statements(kernel.body)]
    return "\n".join(lines)


def _group(dim: tuple[str, ...]) -> str:
    return dim[0] if len(dim) == 1 else f"({' '.join(dim)})"


def _axis(a: TileAxis) -> str:
    name = a.name if len(a.axes) == 1 else f"{a.name}={_group(a.axes)}"
    return name + _block(a.block)


def _block(block: Block | None) -> str:
    if block is None:
        return ""
    if block == UNSIZED:
        return "[?]"
    if block.cap == WHOLE:
        return "[whole]"
    return f"[{block.cap}]" if block.least == block.cap else f"[{block.least}..{block.cap}]"


def _statements(body: tuple[tile.Statement, ...]) -> Iterator[str]:
    for s in body:
        match s:
            case tile.Let(names=names, types=types, value=value):
                yield f"{', '.join(map(_typed, names, types))} = {_value(value)}"
            case tile.Store(tensor=tensor, index=index, value=value, mask=mask, part=part, type=type_):
                masked = "" if mask is None else f" where {_value(mask)}"
                yield f"store {tensor}{_part(part)}[{_list(index)}] = {_value(value)} as {type_.dtype}{masked}"
            case tile.Loop(axis=axis, carried=carried, body=inner, exact=exact, reverse=reverse, full=full):
                for c in carried:
                    yield f"{_typed(c.name, c.type)} = {_value(c.init)}"
                how = (" exactly" if exact else "") + (" backwards" if reverse else "")
                yield f"loop {_axis(axis)}{_span(s.start, s.stop)}{how}"
                yield from (f"  {line}" for line in _statements(inner))
                for c in carried:
                    yield f"  {c.name} = {c.after}"
                if full is not None:
                    holds = f" where {', '.join(map(_value, full.holds))}" if full.holds else ""
                    yield f"full {_axis(axis)}{_span(full.start, full.stop)}{holds}"
                    yield from (f"  {line}" for line in _statements(full.body))


def _span(start: Value | None, stop: Value | None) -> str:
    return ("" if start is None else f" from {_value(start)}") + ("" if stop is None else f" to {_value(stop)}")


def _typed(name: str, t: TileType) -> str:
    axes = f"[{', '.join(t.axes)}]" if t.axes else ""
    return f"{name}{axes}: {t.dtype}"


def _part(part: int | None) -> str:
    return "" if part is None else (".re", ".im")[part]


def _list(values: tuple[Value, ...]) -> str:
    return ", ".join(_value(v) for v in values)


def _value(v: Value, binding: int = 0) -> str:
    match v:
        case tile.Ref(name=name) | tile.ScalarArg(name=name):
            return name
        case tile.Lit(value=bool() as value):
            return "true" if value else "false"
        case tile.Lit(value=value):
            return str(value)
        case tile.ExtentOf(axis=axis):
            return f"|{axis}|"
        case tile.Convert(dtype=dtype, arg=arg):
            return f"{dtype}({_value(arg)})"
        case tile.Fill(value=value):
            return _value(value)
        case tile.Load(tensor=tensor, index=index, mask=mask, part=part, via=via, apart=apart):
            masked = "" if mask is None else f" where {_value(mask)}"
            by = f" by {via}" if via else ""
            by += " apart" if apart else ""
            return f"load {tensor}{_part(part)}[{_list(index)}]{by}{masked}"
        case tile.Dot(left=left, right=right, acc=acc, inner=inner):
            return f"{_value(acc)} + dot[{inner}]({_value(left)}, {_value(right)})"
        case tile.Fold(monoid=monoid, axis=axis, args=args):
            return f"{monoid.name}[{axis}]({_list(args)})"
        case tile.Scan(monoid=monoid, axis=axis, args=args, reverse=reverse):
            return f"{'suffixes' if reverse else 'prefixes'} {monoid.name}[{axis}]({_list(args)})"
        case tile.Elem(op=op, args=args):
            return _element(op, args, binding)


def _element(op: str, args: tuple[Value, ...], binding: int) -> str:
    spec = OPS[op]
    if not spec.infix:
        return f"{op}({_list(args)})"
    if spec.arity == 1:
        space = " " if spec.infix.isalpha() else ""
        text = f"{spec.infix}{space}{_value(args[0], SIGN if spec.infix == '-' else spec.binding)}"
    else:
        left, right = _value(args[0], spec.binding), _value(args[1], min(spec.binding + 1, ATOM))
        text = f"{left} {spec.infix} {right}"
    return f"({text})" if spec.binding < binding else text
