"""The commands on a program: run, dump, emit, explain and check it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from einc.base.errors import Error
from einc.cli.app import (
    Chosen,
    Deterministic,
    DTypes,
    Expression,
    File,
    Generator,
    Gradients,
    Json,
    Level,
    Precision,
    Scalars,
    Sizes,
    Splits,
    TargetName,
    command,
    keep_apart,
    operands_of,
    program_of,
    requested,
    say,
    say_json,
)


@command("einc run examples/attention.ein --size i=256,j=256,d=64 --dtype bf16")
def run(
    file: File = None,
    expression: Expression = None,
    size: Sizes = [],  # noqa: B006 - typer copies defaults
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    operand: Annotated[
        list[str], typer.Option("--operand", metavar="Q=q.npy", help="Operands from .npy and .npz files.")
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Of the random operands.")] = 0,
    level: Level = 2,
    splits: Splits = None,
    choices: Chosen = [],  # noqa: B006
    precision: Precision = "exact",
    target: TargetName = None,
    backend: Annotated[
        str | None,
        typer.Option(help="triton, torch, interpret or evaluate; without it triton on a GPU, else torch."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Save the results: .npz, or .npy for a single one; - prints them so."),
    ] = None,
    reference: Annotated[bool, typer.Option(help="Compare with the evaluation in float64.")] = True,
    deterministic: Deterministic = True,
    as_json: Json = False,
) -> None:
    """Run a program on random or given operands; print the results' shapes, norms and errors against float64."""
    from einc.trials.running import report, run_program, save

    keep_apart(as_json, output, "--output")
    wanted = requested(size, dtype, scalar, operand)
    program = program_of(
        file, expression, level, target, splits, choices, deterministic=deterministic, precision=precision
    )
    found = run_program(program, wanted, seed, backend, reference)
    if output is not None:
        save(output, found)
    if as_json:
        say_json([r.data() for r in found])
    else:
        say(report(found), output)


@command("einc dump examples/attention.ein --after hoist")
def dump(
    file: File = None,
    expression: Expression = None,
    after: Annotated[list[str], typer.Option("--after", metavar="PASS", help="Only after this pass.")] = [],  # noqa: B006
    all_stages: Annotated[bool, typer.Option("--all", help="After every pass, changed or not.")] = False,
    size: Sizes = [],  # noqa: B006
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    splits: Splits = None,
    choices: Chosen = [],  # noqa: B006
    precision: Precision = "exact",
    target: TargetName = None,
    generator: Generator = "triton",
    deterministic: Deterministic = True,
    gradient: Gradients = None,
    as_json: Json = False,
) -> None:
    """Print the program after the passes that changed it.

    With `--gradient`, the program on the way to its gradients comes before, after each of the laws that they are found
    by.
    """
    from einc.stages import stage
    from einc.trials.running import stages_for

    program = program_of(file, expression, level, target, splits, choices, generator, deterministic, precision)
    stages = stages_for(program, requested(size, dtype, scalar), operands_of(gradient))
    chosen = [stage(stages, name) for name in after] or [s for s in stages if s.changed or all_stages]
    if as_json:
        say_json([{"stage": s.name, "changed": s.changed, "text": s.full} for s in chosen])
    elif len(after) == 1:
        say(chosen[0].full)
    else:
        say("\n".join(f"-- {s.name}\n{s.text}" for s in chosen))


@command("einc emit examples/attention.ein --dtype bf16 --size d=128 --target sm_90 --format ptx -o attention.ptx")
def emit(
    file: File = None,
    expression: Expression = None,
    form: Annotated[
        str,
        typer.Option("--format", help="triton, or a stage of the target: ttir ttgir llir ptx cubin amdgcn hsaco."),
    ] = "triton",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file, - for standard output, or a folder, which gets one file a kernel.",
        ),
    ] = None,
    size: Sizes = [],  # noqa: B006
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    splits: Splits = None,
    choices: Chosen = [],  # noqa: B006
    precision: Precision = "exact",
    target: Annotated[str, typer.Option(metavar="sm_90", help="The machine to make code for.")] = "sm_90",
    generator: Generator = "triton",
    deterministic: Deterministic = True,
    gradient: Gradients = None,
    as_json: Json = False,
) -> None:
    """Write the Triton file, or what it compiles to for a target; no GPU is needed.

    The file takes operands of any sizes. Its tiles suit those that are given, and long axes where none is.

    With `--gradient`, the file also gives the gradients, by a function that torch differentiates.
    """
    from einc.cli.emission import FORMATS, aot, place

    if form not in FORMATS:
        raise typer.BadParameter(f"'{form}' is none of {', '.join(FORMATS)}", param_hint="--format")
    keep_apart(as_json, output, "--output")
    wanted = requested(size, dtype, scalar)
    program = program_of(file, expression, level, target, splits, choices, generator, deterministic, precision)
    parts, notes = aot(program, wanted, form, operands_of(gradient))
    if as_json:
        say_json(notes)
    elif notes:
        print(*(f"{n['kernel']}: {n['resources']}" for n in notes), sep="\n", file=sys.stderr)
    if not as_json or output is not None:
        place(parts, output)


@command("einc explain examples/attention.ein --size i=4096,j=4096,d=64 --html attention.html")
def explain(
    file: File = None,
    expression: Expression = None,
    size: Sizes = [],  # noqa: B006
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    splits: Splits = None,
    choices: Chosen = [],  # noqa: B006
    precision: Precision = "exact",
    target: TargetName = None,
    generator: Generator = "triton",
    deterministic: Deterministic = True,
    gradient: Gradients = None,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with pictures instead.")
    ] = None,
) -> None:
    """Print what a program is as a system, how it is streamed, and what it costs at each optimisation level."""
    from einc.present.terminal import console, explanation
    from einc.trials.running import story_for

    keep_apart(as_json, html, "--html")
    program = program_of(file, expression, level, target, splits, choices, generator, deterministic, precision)
    found = story_for(program, requested(size, dtype, scalar), operands_of(gradient))
    if html is not None:
        from einc.base.files import write
        from einc.present.page import page

        write(html, page(found))
    if as_json:
        from einc.present.data import story_data

        say_json(story_data(found))
    elif html is None:
        console().print(explanation(found))


@command("einc check examples/attention.ein --size i=100,j=50")
def check(
    file: File = None,
    expression: Expression = None,
    size: Sizes = [],  # noqa: B006
    dtype: DTypes = [],  # noqa: B006
    scalar: Scalars = [],  # noqa: B006
    level: Level = 2,
    as_json: Json = False,
) -> None:
    """Say whether a program is right, and print its signature; with sizes, whether it fits operands of them."""
    from einc.trials.running import compile_for

    try:
        program = program_of(file, expression, level)
        compile_for(program, requested(size, dtype, scalar))
    except Error as error:
        if not as_json:
            raise
        say_json(diagnostic(error))
        raise typer.Exit(1) from None
    if as_json:
        say_json({"ok": True, "signature": str(program)})
    else:
        say(f"ok: {program}")


def diagnostic(error: Error) -> dict[str, Any]:
    """An error as data."""
    place = None
    if error.span is not None:
        span = error.span
        place = {"file": span.source.name, "line": span.line, "column": span.column, "text": span.text}
    kind = type(error).__name__
    return {"ok": False, "kind": kind, "message": error.message, "at": place, "fact": error.fact, "hint": error.hint}
