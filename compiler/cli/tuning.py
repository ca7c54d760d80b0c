"""The command that tunes: one program, or those that come with a table of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einc.cli.app import (
    DTypes,
    Expression,
    File,
    Gradients,
    Json,
    Level,
    Scalars,
    Sizes,
    command,
    keep_apart,
    operands_of,
    program_of,
    requested,
    say,
    say_json,
)


@command("einc tune examples/attention.ein --size b=1,i=4096,h=8,j=4096,d=64 --dtype bf16")
def tune(
    file: File = None,
    expression: Expression = None,
    size: Sizes = [],  # noqa: B006 - typer copies defaults
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    mode: Annotated[str, typer.Option(help="quick, or full for more candidates and other plans.")] = "quick",
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="The most that a program may take.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; without it a GPU if there is one.")] = None,
    gradient: Gradients = None,
    library: Annotated[
        bool, typer.Option("--library", help="Instead of a program, all that a table is made of.")
    ] = False,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Of the library, programs whose name holds this.")] = "",
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Put what was found into a table of the package.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time the choices that the model likes best, and keep the fastest for calls of such sizes on this device."""
    from einc.trials import tuning
    from einc.trials.machine import device_called, facts

    keep_apart(as_json, write, "--write")
    where = device_called(device)
    if library and (file is not None or expression is not None):
        raise typer.BadParameter("--library tunes no program that is given", param_hint="--library")
    if library:
        rows = tuning.each((w for w in tuning.library(where.type) if only in w.name), mode, budget)
    else:
        program = program_of(file, expression, level)
        one = tuning.of_program(program, requested(size, dtype, scalar), where, operands_of(gradient))
        rows = iter([tuning.tuned(one, mode, budget)])
    found = []
    for row in rows:
        found.append(row)
        if not as_json:
            say(tuning.lines(row), write)
    if write is not None:
        tuning.save(write, where, facts(where), found)
    if as_json:
        say_json([r.data() for r in found])
