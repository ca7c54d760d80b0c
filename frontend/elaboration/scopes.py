"""What names stand for: in a program, in an expression, or in one expansion of a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from einc.base import errors
from einc.base.errors import nearest
from einc.base.source import Span
from einc.base.types import DType
from einc.frontend.elaboration.cascade import Known
from einc.frontend.elaboration.values import Value


@dataclass(frozen=True, slots=True)
class Argument:
    """What a function was given for a parameter; `axes` are the caller's axes that `x[j]` names, in order."""

    value: Value
    axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """The meaning of every name.

    `axes` gives the axes of the cascade that a written axis stands for: one, or several for the last of a function's.
    `tensors` and `arguments` grow as definitions are elaborated. `prefix` begins the names of tensors generated here.
    In the prelude `place` is the user's call, which errors point at; `calls` are the functions being expanded.
    """

    axes: Mapping[str, tuple[str, ...]]
    scalars: Mapping[str, DType]
    tensors: dict[str, Known]
    arguments: dict[str, Argument] = field(default_factory=dict)
    prefix: str = ""
    place: Span | None = None
    calls: tuple[str, ...] = ()

    def at(self, span: Span) -> Span:
        """The place that an error about this one is shown at."""
        return self.place or span

    def values(self) -> Iterable[str]:
        """Every name that has a value."""
        return (*self.tensors, *self.arguments, *self.scalars)

    def axis(self, name: str, span: Span) -> tuple[str, ...]:
        """The axes that a name stands for. Raises `AxisError` for any other name."""
        if name in self.axes:
            return self.axes[name]
        kind = "a scalar" if name in self.scalars else "a tensor" if name in self.values() else ""
        raise errors.AxisError(
            f"'{name}' is {kind}, not an axis" if kind else f"there is no axis '{name}'",
            self.at(span),
            fact=f"axes: {', '.join(self.axes)}" if self.axes else "there are no axes",
            hint=nearest(name, self.axes) or "use an axis of a tensor",
        )

    def single(self, name: str, span: Span) -> str:
        """The one axis that a name stands for."""
        axes = self.axis(name, span)
        if len(axes) == 1:
            return axes[0]
        raise errors.AxisError(
            f"'{name}' stands for {len(axes)} axes here",
            self.at(span),
            fact=f"they are {', '.join(axes)}" if axes else "it was given none",
            hint=f"reduce over all of them, sum[{name}](x), or take one axis by its own name",
        )
