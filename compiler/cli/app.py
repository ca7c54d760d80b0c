"""What commands of the command line have in common: options, what is asked for, and how failures end."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from typer.core import TyperCommand

from einc.api import Program, compile
from einc.base.errors import Error, IllegalIR
from einc.base.files import STANDARD, decoded, read_text
from einc.tile.asked import MOST_PARTS
from einc.trials.request import Request

P = ParamSpec("P")

app = typer.Typer(
    name="einc",
    help="Compile mathematics written as index equations into fused Triton kernels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[str | None, typer.Argument(metavar="FILE", help="A program's file, or - for standard input.")]
Expression = Annotated[str | None, typer.Option("--expression", "-e", metavar="TEXT", help="The program itself.")]
Sizes = Annotated[list[str], typer.Option("--size", "-s", metavar="i=4096,d=128", help="Extents of axes.")]
DTypes = Annotated[
    list[str],
    typer.Option(
        "--dtype", metavar="TYPE|Q=TYPE", help="Type of one operand, or of all floats that have none in the text."
    ),
]
Scalars = Annotated[list[str], typer.Option("--scalar", metavar="window=128", help="Values of scalar parameters.")]
Level = Annotated[int, typer.Option("--level", "-O", min=0, max=2, help="Optimisation level.")]
Splits = Annotated[
    int | None, typer.Option("--splits", min=1, max=MOST_PARTS, help="Parts of walks; without it, as many as pay.")
]
Chosen = Annotated[
    list[str],
    typer.Option(
        "--choice", metavar="BI=64,O.warps=8", help="In place of what the heuristics choose; explain prints all."
    ),
]
Generator = Annotated[
    str,
    typer.Option(
        "--generator",
        metavar="gluon",
        help="The generator of kernels: triton; gluon, on Hopper; or auto, as einc.compile, which gives warps roles"
        " where that pays.",
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        help="The same bits in every run; without it, sums whose terms data sends to their places, as the gradients of"
        " embeddings are, may be added up in any order, without sorting."
    ),
]
Precision = Annotated[
    str, typer.Option("--precision", metavar="tf32", help="Of products of f32: exact, tf32, tf32x3 or bf16x3.")
]
TargetName = Annotated[str | None, typer.Option("--target", metavar="sm_90", help="The machine to make code for.")]
GRADIENT = "--gradient"
Gradients = Annotated[
    str | None,
    typer.Option(GRADIENT, metavar="[Q,K]", help="Of the gradients by these operands, or by all of floats."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class _Command(TyperCommand):
    """A command whose option `--gradient` may stand without names: what follows it are names if it is words alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelt = []
        for word, after in pairwise((*args, "")):
            bare = word == GRADIENT and re.fullmatch(r"\w+(,\w+)*", after) is None
            spelt.append(f"{GRADIENT}=" if bare else word)
        return super().parse_args(ctx, spelt)


def command(example: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a command whose help ends in an example, and whose failures are one diagnostic and a status."""

    def register(f: Callable[P, None]) -> Callable[P, None]:
        @app.command(cls=_Command, epilog=f"Example: {example}")
        @functools.wraps(f)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                f(*args, **kwargs)
                sys.stdout.flush()
            except Error as error:
                sys.stdout.flush()
                print(error, file=sys.stderr)
                raise typer.Exit(1) from None
            except IllegalIR as bug:
                print(f"einc has a bug, which your program shows; please report both.\n  {bug}", file=sys.stderr)
                raise typer.Exit(1) from None
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
            except (MemoryError, RuntimeError) as error:  # NumPy's and torch's words for it
                if not (isinstance(error, MemoryError) or "memory" in str(error)):
                    raise
                reason = str(error).partition("\n")[0]
                print(f"there is not enough memory\n  {reason}\n  try: smaller extents: --size i=64", file=sys.stderr)
                raise typer.Exit(1) from None
            except BrokenPipeError:  # the reader has gone: nothing to say, nowhere to say it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from None

        return guarded

    return register


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for


def program_of(
    file: str | None,
    text: str | None,
    level: int = 2,
    target: str | None = None,
    splits: int | None = None,
    choices: list[str] | None = None,
    generator: str = "triton",
    deterministic: bool = True,
    precision: str = "exact",
) -> Program:
    """The program that a file, standard input or `-e` holds."""
    if (file is None) == (text is None):
        raise typer.BadParameter("give a file, - for standard input, or -e TEXT" + "; not both" * (file is not None))
    name = None if text is not None else "<stdin>" if file == STANDARD else file
    if text is None:
        assert file is not None
        text = decoded(sys.stdin.buffer.read(), "<stdin>") if file == STANDARD else read_text(Path(file))
    return compile(
        text,
        level,
        target,
        name,
        splits=splits,
        choices=chosen(choices or []),
        generator=generator,
        deterministic=deterministic,
        precision=precision,
    )


def operands_of(gradient: str | None) -> tuple[str, ...] | None:
    """The operands that `--gradient` names, none for all of floats; None where the option is not given."""
    return None if gradient is None else tuple(name for name in gradient.split(",") if name)


def chosen(words: list[str]) -> dict[str, str]:
    """Choices by name."""
    found = {}
    for word in (w for several in words for w in several.split(",")):
        name, given, value = word.partition("=")
        if not given:
            raise typer.BadParameter(f"'{word}' has no value, as in BI=64", param_hint="--choice")
        found[name.strip()] = value
    return found


def requested(
    sizes: list[str], dtypes: list[str], scalars: list[str] | None = None, operands: list[str] | None = None
) -> Request:
    from einc.cli import words

    try:
        return Request(
            words.read_sizes(sizes),
            words.read_dtypes(dtypes),
            words.read_scalars(scalars or []),
            words.read_tensors(operands or []),
        )
    except Error:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def say(text: str, beside: Path | str | None = None) -> None:
    """Print to standard output, or to standard error where a file that goes there is written beside it."""
    to = sys.stderr if is_standard(beside) else sys.stdout
    to.write(text if text.endswith("\n") else text + "\n")


def is_standard(output: Path | str | None) -> bool:
    return output is not None and str(output) == STANDARD


def keep_apart(as_json: bool, output: Path | str | None, option: str) -> None:
    """See that standard output is not asked to hold JSON and a file as well."""
    if as_json and is_standard(output):
        raise typer.BadParameter(f"--json and {option} - would both go to standard output", param_hint=option)


def say_json(data: object) -> None:
    say(json.dumps(data, indent=2, ensure_ascii=False))
