"""The command line: run, dump, emit, explain, check, time and tune programs; list passes and functions; tidy the cache;
demo.

Exit status: 0; 1 where the program or its operands are wrong, with the diagnostic on stderr; 2 for wrong usage.
"""

from __future__ import annotations

from typing import Annotated

import typer

import einc.cli.programs  # whose commands come first in the help

import einc.cli.measuring  # isort: skip
import einc.cli.tuning  # noqa: F401  # isort: skip
from einc.cli.app import Json, Level, command, say, say_json
from einc.cli.app import app as app


@command("einc passes --level 0")
def passes(
    level: Level = 2,
    laws: Annotated[bool, typer.Option("--laws", help="Instead, those by which gradients are found.")] = False,
    as_json: Json = False,
) -> None:
    """List the passes in the order they run, each with its law."""
    from einc.passes.adjoint.differentiate import LAWS
    from einc.present.terminal import console, passes_table
    from einc.stages import passes as passes_of

    found = LAWS if laws else passes_of(level)
    if as_json:
        say_json([{"name": p.name, "level": p.level, "law": p.law, "why": p.why} for p in found])
    else:
        console().print(passes_table((p.name, str(p.level), p.law, p.why) for p in found))


@command("einc functions")
def functions(as_json: Json = False) -> None:
    """List the functions that a program may call, each with what it gives."""
    from einc.explain.vocabulary import vocabulary
    from einc.present.terminal import console, functions_table

    found = vocabulary()
    if as_json:
        say_json([{"name": w.name, "form": w.form, "says": w.says, "kind": w.kind} for w in found])
    else:
        console().print(functions_table((w.kind, w.form, w.says) for w in found))


@command("einc cache prune --older 30")
def cache(
    action: Annotated[str, typer.Argument(metavar="[show|prune|clear]", help="What to do; without it, show.")] = "show",
    older: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Remove what was not used for so long.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="512MiB", help="Remove what was used longest ago, until so much is left.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is kept on disk of programs that were compiled, or remove some or all of it."""
    from einc.cache.contents import contents
    from einc.cli import keeping

    if action not in keeping.ACTIONS:
        raise typer.BadParameter(f"'{action}' is none of {', '.join(keeping.ACTIONS)}", param_hint="ACTION")
    if action != "prune" and (older is not None or to is not None):
        raise typer.BadParameter("only prune chooses what to remove", param_hint="--older" if to is None else "--to")
    where = keeping.directory()
    if action == "show":
        say_json(keeping.shown_data(where)) if as_json else say(keeping.shown(where))
        return
    gone = keeping.taken(keeping.removed(where, action, older, to))
    left = keeping.taken(contents(where))
    if as_json:
        say_json({"removed": gone.data(), "left": left.data()})
    else:
        say(f"removed {gone}; left {left}")


@command("einc demo")
def demo() -> None:
    """Compile a matrix product and attention, show every stage, run both here and compare with float64."""
    from einc.cli.demo import main as show

    show()


def main() -> None:
    """The `einc` command."""
    app()
