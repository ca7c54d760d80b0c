"""What is timed: a program on operands, against functions of PyTorch that compute the same.

Each peer must give the same values before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from einc.api import Program
from einc.ein.arithmetic import ScalarValue
from einc.runtime.tensors import is_torch
from einc.trials.peers import PEERS, Peer, Tensors, Way, gradients
from einc.trials.request import Request
from einc.trials.running import meaning

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Contest:
    """A program on operands, against peers by name. `operands` makes the operands when its turn comes.

    `flops` are those that every implementation must do, without masked positions; 0 if only bytes matter, None to take
    those of the cost model. `exact` computes the same of operands in double precision. With `gradient`, what is timed
    is the way from the results' cotangents to those of all floats that require one. `kind` names what it resembles in
    summaries, and `suite` where it is listed.
    """

    name: str
    text: str
    operands: Callable[[], dict[str, torch.Tensor]]
    peers: Mapping[str, Peer] = field(default_factory=dict)
    flops: float | None = 0.0
    scalars: Mapping[str, ScalarValue] = field(default_factory=dict)
    level: int = 2
    exact: Peer | None = None
    gradient: bool = False
    kind: str = ""
    suite: str = ""

    def own(self, program: Program) -> Peer:
        """The program itself as a peer."""

        def ready(tensors: Tensors) -> Sequence[Way]:
            given: dict[str, Any] = {**tensors, **self.scalars}
            return [lambda: program(**given)]

        return gradients(ready) if self.gradient else ready


def backward(contest: Contest) -> Contest:
    """The gradients of a contest's program, against those of its peers."""
    return replace(
        contest, name=f"gradients of {contest.name}", gradient=True, flops=0.0, kind="gradients",
        peers={name: gradients(peer) for name, peer in contest.peers.items()},
        exact=None if contest.exact is None else gradients(contest.exact),
    )  # fmt: skip


_SHORT = 40  # the most characters of a text that serves as a name


def of_program(program: Program, request: Request, device: torch.device, names: Sequence[str], level: int) -> Contest:
    """A program of the user's on the operands that a request asks for."""
    found = meaning(program, request)

    def operands() -> dict[str, torch.Tensor]:
        import torch

        given: dict[str, Any] = request.operands(found)
        return {name: (t if is_torch(t) else torch.from_numpy(t)).to(device) for name, t in given.items()}

    text = program.text.source.text.strip()
    sizes = ", ".join(f"{axis}={n}" for axis, n in request.extents(found).items())
    peers = {name: PEERS[name](text) for name in names}
    called = text if len(text) < _SHORT and "\n" not in text else found.name
    return Contest(f"{called} {sizes}", text, operands, peers, None, request.scalars, level, kind="program")


def normal(device: str, dtype: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Normal numbers, the same in every run."""
    import torch

    from einc.base.types import BY_NAME
    from einc.runtime.tensors import torch_dtype

    own = torch_dtype(BY_NAME[dtype])
    if device == "meta":
        return {name: torch.empty(s, device=device, dtype=own) for name, s in shapes.items()}
    generator = torch.Generator(device).manual_seed(0)
    return {name: torch.randn(s, generator=generator, device=device, dtype=own) for name, s in shapes.items()}
