"""Names that nothing declares: operands and scalars of statements without a `def`, and misspelt names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from einc.base import errors
from einc.base.source import Span
from einc.frontend.syntax.nodes import Group, Name, Node, OperandDecl, Read, ScalarDecl, walk


def read_operands(nodes: Sequence[Node], targets: Mapping[str, object], axes: dict[str, Span]) -> Iterator[OperandDecl]:
    """The tensors that are read and never defined, with the axes of their first read at plain, distinct axes."""
    reads: dict[str, list[Read]] = {}
    for n in nodes:
        if isinstance(n, Read) and n.tensor not in targets:
            reads.setdefault(n.tensor, []).append(n)
    for name, found in reads.items():
        plain = next((r for r in found if all(_plain_dims(r, axes))), found[0])
        dims = tuple(
            dim if own else _new_axis(f"{name}_{k}", plain, axes)
            for k, (dim, own) in enumerate(zip(plain.index, _plain_dims(plain, axes), strict=True))
        )
        yield OperandDecl(name, tuple(d for d in dims if isinstance(d, Name | Group)), None, plain.span)


def _plain_dims(r: Read, axes: Mapping[str, Span]) -> list[bool]:
    """Which subscripts are axes, or composite axes, that the read has not had before."""
    seen: set[str] = set()
    plain = []
    for dim in r.index:
        names = [n.name for n in walk(dim) if isinstance(n, Name)]
        fits = isinstance(dim, Name | Group) and all(n in axes for n in names)
        plain.append(fits and len(set(names)) == len(names) and not seen & set(names))
        seen.update(names)
    return plain


def _new_axis(name: str, r: Read, axes: dict[str, Span]) -> Name:
    while name in axes:
        name += "_"
    axes[name] = r.span
    return Name(name, r.span)


def free_scalars(nodes: Sequence[Node], known: set[str]) -> Iterator[ScalarDecl]:
    """Names that are neither tensors nor axes are numbers that the caller gives."""
    seen = set(known)
    for n in nodes:
        if isinstance(n, Name) and n.name not in seen:
            check_scalar(n, known)
            seen.add(n.name)
            yield ScalarDecl(n.name, "float", None, n.span)


def check_scalar(n: Name, known: Iterable[str]) -> None:
    """A name that nothing defines is a scalar that the caller gives, unless it is nearly a known name."""
    hint = errors.misspelt(n.name, known)
    if hint:
        raise errors.NameError(f"'{n.name}' is not defined", n.span, fact=f"names here: {', '.join(known)}", hint=hint)


def check_misspelt(n: Name, others: set[str]) -> None:
    """A name that only subscripts have is an axis, unless it is nearly the name of a scalar or tensor."""
    hint = errors.misspelt(n.name, sorted(others)) if len(n.name) > 2 else ""
    if hint:
        raise errors.NameError(f"'{n.name}' is not defined", n.span, fact="it appears only in subscripts", hint=hint)
