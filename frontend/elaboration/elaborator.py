"""What the parts of elaboration ask of each other: the translation of a node, in a scope, into a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from einc.base.source import Span
from einc.ein import Expr
from einc.frontend.elaboration.cascade import Cascade
from einc.frontend.elaboration.library import Library
from einc.frontend.elaboration.scopes import Scope
from einc.frontend.elaboration.values import Reduction, Result, Value
from einc.frontend.syntax.nodes import Call, Node


class Elaborator(Protocol):
    """Elaborates the nodes of one scope, appending to a cascade what needs an equation of its own."""

    @property
    def cascade(self) -> Cascade: ...

    @property
    def scope(self) -> Scope: ...

    @property
    def library(self) -> Library: ...

    def within(self, scope: Scope, library: Library | None = None) -> Elaborator:
        """An elaborator of a function's body: for another scope of the same cascade, and other functions if given."""

    def result(self, node: Node, guard: Expr | None = None) -> Result:
        """What a node means under a guard: a value, or a reduction that has no name yet."""

    def value(self, node: Node, guard: Expr | None = None) -> Value:
        """The scalar expression of a node under a guard; a reduction is bound to a tensor and read."""

    def bound(self, r: Reduction) -> Value:
        """A reduction as a tensor of its own, read at its own axes."""

    def named(self, label: str) -> str:
        """The name for a tensor that is generated here."""

    def apply(self, op: str, values: Sequence[Value], span: Span) -> Value:
        """An operation on values."""

    def cast(self, node: Call, result: Result) -> Result:
        """The result under the cast that a call writes."""

    def axes_for(self, node: Call, guard: Expr | None) -> Call:
        """The call with its axes filled in, where they may be left out."""

    def is_function(self, name: str) -> bool:
        """Can the name be called?"""
