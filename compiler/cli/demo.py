"""The main job, shown: a matrix product and attention from text to kernels that run here, and what sets them apart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

import einc
from einc.api import compile
from einc.base.errors import Error
from einc.driver import Compiled
from einc.explain import Story
from einc.inspection import LEVELS
from einc.present.terminal import code, console, listing, section, story_table
from einc.runtime.execution import target_of
from einc.stages import Stage
from einc.trials.running import relative_error

if TYPE_CHECKING:
    import torch

MATMUL = "bik,bkj->bij"
ATTENTION = 'softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"'


@dataclass(frozen=True, slots=True)
class Show:
    """A program of the demonstration and the shapes it is run with."""

    title: str
    text: str
    shapes: tuple[tuple[int, ...], ...]


SHOWS = (
    Show("MatMul", MATMUL, ((2, 256, 192), (2, 192, 320))),
    Show("attention", ATTENTION, ((2, 256, 4, 64), (2, 320, 4, 64), (2, 320, 4, 64))),
)


def main() -> None:
    """Print the demonstration."""
    out = console()
    where = _where()
    out.print(Rule(Text(f"einc {einc.__version__}: einsum to kernel", style="bold")))
    out.print(f"Programs run here {where}.\n")
    stories = [_show(out, show) for show in SHOWS]
    out.print(Rule(Text("what sets them apart", style="bold")))
    out.print(story_table(stories, [show.title for show in SHOWS]))
    out.print("einc explain prints this table for any program, einc dump its stages, einc emit its kernels.")


def _on_gpu() -> bool:
    """Is there a GPU that code is made for?"""
    import torch

    try:
        return torch.cuda.is_available() and target_of(torch.device("cuda")).vendor != "cpu"
    except Error:
        return False


def _where() -> str:
    import torch

    if not torch.cuda.is_available():
        return "on the CPU: their tiles by torch operations, and their kernels' source in Triton's interpreter"
    if not _on_gpu():
        return "on the CPU: this GPU is not a target"
    return f"on {torch.cuda.get_device_name()} ({target_of(torch.device('cuda')).name})"


def _show(out: Console, show: Show) -> Story:
    import torch

    out.print(Rule(Text(show.title, style="bold")))
    out.print(section("the program", listing(show.text)))
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(shape, generator=generator) for shape in show.shapes]
    if _on_gpu():
        operands = [t.cuda() for t in operands]
    program = compile(show.text)
    compiled = program.compiled(*operands)
    for title, text in _stages(compiled):
        out.print(section(title, listing(text)))
    out.print(code("the Triton file", compiled.source))
    shapes = ", ".join(str(tuple(t.shape)) for t in operands)
    lines = [f"on tensors of shapes {shapes}:"]
    ways = ["triton"] if operands[0].is_cuda else ["torch", "interpret"]
    lines += [_ran(level, way, show.text, operands) for way in ways for level in LEVELS if level in (0, max(LEVELS))]
    out.print(section("run here", listing("\n".join(lines))))
    return program.story(*operands)


def _ran(level: int, backend: str, text: str, operands: Sequence[torch.Tensor]) -> str:
    """How many kernels a level makes, how long they take, and how far the result is from double precision."""
    program = compile(text, level=level)
    program(*operands, backend=backend)
    start = time.perf_counter()
    result = program(*operands, backend=backend)
    seconds = time.perf_counter() - start
    error = relative_error(np.asarray(result.cpu()), program(*operands, backend="evaluate"))
    schedule = program.compiled(*operands).state.schedule
    kernels = 0 if schedule is None else len(schedule.kernels)
    count = f"{kernels} kernel{'s' * (kernels != 1)}"
    return f"{backend:9} -O{level}: {count:9} {1e3 * seconds:7.1f} ms, error against float64 {error:.1e}"


def _stages(compiled: Compiled) -> Iterator[tuple[str, str]]:
    """The stages that changed the program: equations and the first kernels in full, then the lines that changed."""
    before: Stage | None = None
    for stage in compiled.stages:
        if not stage.changed:
            continue
        if before is None:
            yield f"the equations ({stage.name})", stage.brief
        elif stage.state.program != before.state.program:
            yield f"the equations after {stage.name}", stage.brief
        elif stage.state.schedule is None:
            yield f"the kernels planned ({stage.name})", changes(before.brief, stage.brief)
        elif before.state.schedule is None:
            yield f"the kernels ({stage.name})", stage.brief
        else:
            yield f"after {stage.name}: the lines it changed", changes(before.brief, stage.brief)
        before = stage


def changes(before: str, after: str) -> str:
    """The lines of the second text that the first lacks, each kernel's under its name."""
    old, new = before.splitlines(), after.splitlines()
    fresh = {
        n
        for tag, _, _, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if tag in ("replace", "insert")
        for n in range(start, end)
    }
    lines: list[str] = []
    heading = ""
    for n, line in enumerate(new):
        if not line.startswith(" "):
            heading = line
        if n in fresh:
            if heading and line != heading:
                lines.append(heading)
            heading = ""
            lines.append(line)
    return "\n".join(lines)
