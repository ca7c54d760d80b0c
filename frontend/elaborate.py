"""A parsed text into the program that it means, for operands of given ranks and types."""

from __future__ import annotations

from collections.abc import Mapping

from einc import ein
from einc.base.facts import Fact
from einc.frontend.parse import Text
from einc.frontend.programs.outline import Outline
from einc.frontend.programs.programs import elaborate_program
from einc.frontend.strings.einsum import elaborate_einsum
from einc.frontend.strings.expressions import Expression, elaborate_expression
from einc.frontend.strings.layout import operand_name


def elaborate(text: Text, facts: Mapping[str, Fact] | None = None) -> ein.Program:
    """The program of a text; its kernels are checked against it. Without facts operands are f32, and an ellipsis
    stands for no axes.

    Raises `Error` at the place in the text that is wrong. The program of an einsum string or an expression holds for
    all extents that are 1 where those of the facts are 1.
    """
    match text.content:
        case Outline():
            program = elaborate_program(text.content, facts)
            if text.kernels is not None:
                from einc.frontend.tiles.check import check_kernels

                check_kernels(text.kernels, program)
            return program
        case Expression():
            return elaborate_expression(text.content, facts)
        case _:
            return elaborate_einsum(text.content, None if facts is None else _in_order(facts))


def _in_order(facts: Mapping[str, Fact]) -> list[Fact]:
    """The facts of operands A, B, C, ..., in this order; the string says how many operands there must be."""
    names = [operand_name(k) for k in range(len(facts))]
    return [facts[name] for name in names if name in facts]
