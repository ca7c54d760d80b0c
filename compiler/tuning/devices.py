"""Candidates tried on the device of a call, with its own operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from einc.base.errors import Error
from einc.driver import Compiled
from einc.tuning.agreement import difference
from einc.tuning.search import Way

if TYPE_CHECKING:
    import torch

Race = Callable[[Mapping[str, Way], "torch.device", float], dict[str, float]]


class Launch(Protocol):
    """What runs a program that was compiled."""

    def run(self, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """The results in order."""
        ...


def can_time(tensors: Iterable[torch.Tensor]) -> bool:
    """Are operands in memory, and is nothing recorded that runs must not be part of?"""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    every = list(tensors)
    if any(t.device.type not in ("cpu", "cuda") or isinstance(t, FakeTensor) for t in every):
        return False
    return not (any(t.is_cuda for t in every) and torch.cuda.is_current_stream_capturing())


@dataclass(frozen=True, slots=True, eq=False)
class OnDevice:
    """Trials of one call: `launched` makes what runs a candidate, `race` is the clock."""

    launched: Callable[[Compiled], Launch]
    device: torch.device
    operands: Mapping[str, torch.Tensor]
    scalars: Mapping[str, Any]
    race_on: Race

    def ready(self, wanted: Sequence[Compiled], seconds: float) -> list[Error | None]:
        """Compile all of them at once on a GPU; torch compiles nothing."""
        if self.device.type != "cuda":
            return [None] * len(wanted)
        from einc.codegen.run.warm import compile_each, launches

        empty = {**{name: _empty(t) for name, t in self.operands.items()}, **self.scalars}
        errors: list[Error | None] = [None] * len(wanted)
        groups = []
        for n, compiled in enumerate(wanted):
            try:
                launch: Any = self.launched(compiled)
                device = {"device": self.device.__class__("meta")} if launch.device else {}
                groups.append((n, launches(launch.fitting.emitted, [empty.get(p) for p in launch.order], device)))
            except Error as error:
                errors[n] = error
        found = compile_each([group for _, group in groups], self.device, seconds)
        for (n, _), failed in zip(groups, found, strict=True):
            errors[n] = failed
        return errors

    def way(self, compiled: Compiled) -> Way:
        """What computes the results, in memory of their own."""
        launch = self.launched(compiled)
        return lambda: launch.run(self.operands, self.scalars)

    def difference(self, expected: Any, found: Any) -> str:
        """Why results differ by more than rounding; nothing if they do not."""
        return difference(expected, found, [*self.operands.values()])

    def race(self, ways: Mapping[str, Way], seconds: float) -> dict[str, float]:
        """The seconds of each way, timed in turns."""
        return self.race_on(ways, self.device, seconds)


def _empty(t: torch.Tensor) -> torch.Tensor:
    """A tensor of the same layout without memory."""
    import torch

    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
