"""The command that measures: programs beside what one would call instead, and the cost model beside the clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einc.base.errors import CallError
from einc.cli.app import (
    DTypes,
    Expression,
    File,
    Json,
    Level,
    Scalars,
    Sizes,
    command,
    is_standard,
    keep_apart,
    program_of,
    requested,
    say,
    say_json,
)

if TYPE_CHECKING:
    from einc.trials.bench import Row

_EACH = {False: 0.3, True: 0.1}  # seconds for each way of a row, and of a quick one
_OF_MODEL = 0.05  # the same where only the model is compared
_AHEAD = 0.5  # of the time there is, that compiling beforehand may take
_DRAWS = {"cuda": 80, "cpu": 20}  # random programs of each sort that the model is compared on


@command("einc bench examples/attention.ein --size b=1,i=4096,h=8,j=4096,d=64 --against sdpa")
def bench(
    file: File = None,
    expression: Expression = None,
    size: Sizes = [],  # noqa: B006 - typer copies defaults
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; without it a GPU if there is one.")] = None,
    against: Annotated[list[str], typer.Option(metavar="PEER", help="sdpa, flex, cublas, eager or compile.")] = [],  # noqa: B006
    suite: Annotated[
        list[str],
        typer.Option(
            "--suite",
            metavar="SUITE",
            help="matmul, attention, rows, fused, decode, random, scores, gradients, convolutions; "
            "without a program, all.",
        ),
    ] = [],  # noqa: B006
    only: Annotated[str, typer.Option(metavar="TEXT", help="Of the suites, rows whose name holds this.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A few rows of each suite, and less time a row.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Compare the cost model with the clock, on programs of many kinds.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of random programs.")] = 0,
    budget: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Stop then; suites take turns till then.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=0, help="Processes that compile beforehand; as many as cores, on a GPU.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw ratios by size: .svg, or .png by matplotlib.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="BENCHMARKS.md", help="Put the tables into a file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time a program beside what one would call instead; without a program, the suites of this machine."""
    from time import perf_counter

    from einc.trials import ahead, calibration, contests, scoreboard, suites
    from einc.trials.bench import Effort
    from einc.trials.bench import bench as measure
    from einc.trials.machine import device_called, facts
    from einc.trials.peers import PEERS

    begun = perf_counter()
    keep_apart(as_json, write, "--write")
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise CallError(f"plots are not drawn as '{plot}'", fact="they are .svg or .png", hint="--plot ratios.svg")
    where = device_called(device)
    names = _known([name for word in against for name in word.split(",")] or ["eager"], PEERS, "--against")
    listed = _known([name for word in suite for name in word.split(",")], suites.SUITES, "--suite")
    if file is None and expression is None:
        if calibrate:
            make = partial(calibration.contests, where.type, seed, _DRAWS[where.type] // (4 if quick else 1))
        else:
            make = partial(suites.chosen, listed, where.type, seed, quick, only)
        chosen = make()
    else:
        program = program_of(file, expression, level)
        chosen = [contests.of_program(program, requested(size, dtype, scalar), where, names, level)]
        make = None
    words = [word if write is None else word.replace(str(write), write.name) for word in sys.argv[2:]]
    known, called = facts(where), " ".join(["einc bench", *words])

    foreseen = None
    if make is not None and where.type == "cuda" and jobs != 0:
        most = float("inf") if budget is None else _AHEAD * budget
        foreseen = ahead.compile_ahead(make, len(chosen), jobs or os.cpu_count() or 1, most)
    left = None if budget is None else budget - (perf_counter() - begun)
    effort = Effort(_OF_MODEL if calibrate else _EACH[quick], left, exact=not calibrate)
    if not as_json:
        say(scoreboard.heading(), write)
    rows: list[Row] = []
    for row in measure(chosen, where, effort, foreseen):
        rows.append(row)
        if not as_json:
            say(scoreboard.lines(row), write)
            sys.stdout.flush()
        if write is not None and not is_standard(write) and not calibrate:  # what there is, should it be cut short
            scoreboard.save(write, scoreboard.section(known, rows, called, scoreboard.missing(chosen, rows)))
    missed = scoreboard.missing(chosen, rows)
    if as_json:
        say_json(scoreboard.data(known, rows, missed) | ({"model": calibration.data(rows)} if calibrate else {}))
    else:
        for line in missed:
            say(line, write)
        if calibrate:
            say(calibration.report(rows), write)
        elif make is not None:
            for name, found in scoreboard.by_suite(rows).items():
                say(f"{name}: {scoreboard.summary(found)}", write)
    if is_standard(write):
        say(scoreboard.section(known, rows, called, missed))
    if plot is not None:
        _draw(plot, rows, known["device"])


def _known(names: Sequence[str], known: object, option: str) -> list[str]:
    """The names, which have to be known."""
    assert isinstance(known, dict)
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(known)}", param_hint=option)
    return list(names)


def _draw(plot: Path, rows: Sequence[Row], device: str) -> None:
    from einc.base.files import write
    from einc.present import curves
    from einc.trials.scoreboard import panels

    title = f"einc on {device}: the time of others over einc's, by bytes of operands and results"
    write(plot, curves.svg(panels(rows), title) if plot.suffix == ".svg" else curves.png(panels(rows), title))
