"""Programs tuned on operands that are made up: one of the user's, or those that a table of the package is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einc.api import Program, compile
from einc.base.errors import CallError, Error
from einc.base.files import read_text, write
from einc.ein.arithmetic import ScalarValue
from einc.present.report import duration, ratio
from einc.runtime.execution import target_of
from einc.runtime.tensors import is_torch
from einc.trials import suites
from einc.trials.request import Request
from einc.trials.running import meaning
from einc.tuning import tables
from einc.tuning.modes import checked
from einc.tuning.progress import shown
from einc.tuning.search import Outcome

if TYPE_CHECKING:
    import torch

# Extents of plain products, rows and inner and columns, and of batches of them before these.
_PRODUCTS = (
    (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192),
    (1, 4096, 4096), (16, 4096, 16384), (64, 8192, 8192), (128, 16384, 128), (256, 2048, 4096),
    (4096, 16384, 512), (8192, 64, 8192), (16384, 1024, 1024), (300, 1000, 777), (1000, 4096, 1000),
)  # fmt: skip
_BATCHED = ((16, 16, 4096, 4096), (32, 1024, 1024, 1024), (64, 512, 64, 512), (128, 128, 128, 128))
_OTHER_WAYS = ("ji,jk->ik", "ij,kj->ik")
_SUITES = ("attention", "rows", "decode")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program to be tuned, on operands that are made when its turn comes."""

    name: str
    program: Program
    operands: Callable[[], Mapping[str, Any]]
    scalars: Mapping[str, ScalarValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a program: an outcome for each of its calls, gradients among them, or why there is none."""

    name: str
    outcomes: tuple[Outcome, ...] = ()
    error: str = ""

    def data(self) -> dict[str, Any]:
        """The row as data for JSON."""
        calls = [
            {
                "machine": o.machine,
                **o.entry.data(),
                "timed": [{"chosen": m.chosen, "us": 1e6 * m.seconds} for m in o.timed],
                "skipped": [{"chosen": name, "reason": reason} for name, reason in o.skipped],
            }
            for o in self.outcomes
        ]
        return {"name": self.name, "calls": calls, "error": self.error}


def of_program(
    program: Program, request: Request, device: torch.device, gradient: Sequence[str] | None = None
) -> Wanted:
    """A program of the user's for the sizes that are asked for, with its gradients by these operands, by all of floats
    if none are named. Raises `CallError` without sizes."""
    found = meaning(program, request)
    axes = [a.name for a in found.axes if a.extent is None]
    if axes and not request.sizes:
        hint = f"--size {','.join(f'{a}=1024' for a in axes)}"
        raise CallError("a program is tuned for sizes", fact=f"its axes are {', '.join(axes)}", hint=hint)

    def operands() -> dict[str, Any]:
        import torch

        given: dict[str, Any] = request.operands(found)
        there = {name: (t if is_torch(t) else torch.from_numpy(t)).to(device) for name, t in given.items()}
        for name in () if gradient is None else gradient or [n for n, t in there.items() if t.is_floating_point()]:
            there[name].requires_grad_()
        return there

    return Wanted(found.name, program, operands, request.scalars)


def library(device: str) -> list[Wanted]:
    """What a table is made of: plain products of many shapes, and the programs of the standard table of a device."""
    found = [_product(device, shape, "ij,jk->ik") for shape in _PRODUCTS]
    found += [_product(device, shape, "bij,bjk->bik") for shape in _BATCHED]
    found += [_product(device, (4096, 4096, 4096), text) for text in _OTHER_WAYS]
    if device == "cpu":
        found = []  # which the library of torch computes
    return found + [
        Wanted(c.name, compile(c.text, c.level), c.operands, c.scalars) for c in suites.chosen(_SUITES, device)
    ]


def _product(device: str, shape: tuple[int, ...], text: str) -> Wanted:
    def operands() -> dict[str, Any]:
        import torch

        letters = dict(zip("bijk"[-len(shape) :], shape, strict=True))
        terms = text.partition("->")[0].split(",")
        made = (torch.randn([letters[a] for a in term], device=device, dtype=torch.bfloat16) for term in terms)
        return dict(zip(program.text.operands, made, strict=True))

    program = compile(text)
    return Wanted(f"{text} {'x'.join(map(str, shape))}", program, operands)


def tuned(w: Wanted, mode: str, budget: float | None) -> Row:
    """What comes of tuning a program. Raises what its calls raise, and `CallError` for a mode that is none."""
    with shown(w.name) as said:
        outcomes = w.program.tuned(((), {**w.operands(), **w.scalars}), checked(mode, "--mode quick"), budget, said)
    return Row(w.name, outcomes, "" if outcomes else "there is nothing to choose")


def each(wanted: Iterable[Wanted], mode: str, budget: float | None) -> Iterator[Row]:
    """A row for each program, as soon as it is tuned; one that fails says why, and the others go on."""
    checked(mode, "--mode quick")
    for w in wanted:
        try:
            yield tuned(w, mode, budget)
        except (Error, RuntimeError) as error:  # the compiler, or a driver
            yield Row(w.name, error=str(error).strip().partition("\n")[0] or type(error).__name__)


def lines(row: Row) -> str:
    """A row as it is printed: what is taken, what the model chose, and what was left out."""
    if row.error:
        return f"{row.name}: {row.error}"
    found = []
    for o in row.outcomes:
        e = o.entry
        gain = f", {ratio(e.gain)} times as fast as" if e.kernels else ", which is"
        found.append(f"{e.of}, on {o.machine}")
        chosen = e.best.chosen or "as the model chooses"
        found.append(f"  {duration(1e6 * e.best.seconds)}{gain} the model's choice, of {e.tried} timed: {chosen}")
        found += [f"  left out {name}: {reason}" for name, reason in o.skipped]
    return "\n".join(found)


def save(path: Path, device: torch.device, facts: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Put what was found into the table of a file, which need not exist."""
    outcomes = [o for row in rows for o in row.outcomes]
    if not outcomes:
        raise CallError("there is nothing to write", fact="no program was tuned", hint="einc tune --library")
    before = read_text(path) if path.exists() else ""
    entries = {o.key: o.entry for o in outcomes}
    write(path, tables.text(outcomes[0].machine, target_of(device).name, facts, entries, before))
