"""A call's arguments as operands and scalars, by position or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np

from einc.base.errors import CallError, nearest
from einc.base.facts import Fact
from einc.base.words import count
from einc.runtime.tensors import as_array, fact, is_torch, wants_gradient

Array = Any  # a torch tensor or a NumPy array


@dataclass(frozen=True, slots=True)
class Arguments:
    """The operands in order, as torch tensors or NumPy arrays with their facts, and the scalars that were given."""

    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    facts: tuple[Fact, ...]
    scalars: dict[str, Any]


def arrange(
    operands: Sequence[str],
    scalars: Sequence[str],
    signature: str,
    given: Sequence[object],
    named: Mapping[str, object],
    shaped: bool = False,
) -> Arguments:
    """The arguments of a call, for these operands and scalars; by position, scalars follow the operands.

    Raises `CallError` for too many arguments, and a missing, unknown or repeated one; messages quote `signature`.
    `shaped` allows operands that have a shape and no memory.
    """
    if len(given) > len(operands) + len(scalars):
        what = count(len(operands), "operand") + (f" and {count(len(scalars), 'scalar')}" * bool(scalars))
        raise CallError(
            f"{len(given)} arguments are given, but the program takes {what}", fact=signature, hint="leave out the rest"
        )
    values = _by_name((*operands, *scalars), signature, given, named)
    missing = [name for name in operands if name not in values]
    if missing:
        takes = count(len(operands), "operand")
        raise CallError(
            f"operand '{missing[0]}' is missing: the program takes {takes}, given {len(operands) - len(missing)}",
            fact=signature,
            hint=f"pass {', '.join(missing)}",
        )
    arrays = tuple(as_array(values[name], name, shaped=shaped) for name in operands)
    facts = tuple(fact(a, name) for name, a in zip(operands, arrays, strict=True))
    plain = {name: number(values[name], name) for name in scalars if name in values}
    return Arguments(tuple(operands), arrays, facts, plain)


def _by_name(
    known: Sequence[str], signature: str, given: Sequence[object], named: Mapping[str, object]
) -> dict[str, object]:
    """Each argument by the name of its parameter, those given by position first."""
    values = dict(zip(known, given, strict=False))
    for keyword, value in named.items():
        name = _meant(keyword, known)
        if name not in known:
            hint = nearest(name, known) or "leave it out"
            raise CallError(f"the program has no operand or scalar '{name}'", fact=signature, hint=hint)
        if name in values:
            raise CallError(
                f"'{name}' is given twice, by position and by name", fact=signature, hint="leave out one of them"
            )
        values[name] = value
    return values


def _meant(keyword: str, known: Sequence[str]) -> str:
    """The parameter of this name; Python normalises the letters of a keyword (NFKC), a program keeps them."""
    if keyword in known:
        return keyword
    alike = [name for name in known if normalize("NFKC", name) == keyword]
    return alike[0] if len(alike) == 1 else keyword


def number(value: object, name: str) -> object:
    """A scalar of NumPy or torch, or an array of one element without dimensions, as a Python number.

    Raises `CallError` for one that asks for a gradient, which a number cannot carry.
    """
    if isinstance(value, np.ndarray | np.generic) or is_torch(value):
        array: Any = value
        if wants_gradient(array):
            raise CallError(
                f"scalar '{name}' has no gradient, and its tensor asks for one",
                fact="gradients are of operands",
                hint=f"make it an operand of the program, {name}[], or pass {name}=….item()",
            )
        return array.item() if array.ndim == 0 else value
    return value
