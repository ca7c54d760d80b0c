"""Stories, stages and figures as terminal output: plain words and lines first, colour only on top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from einc.base.words import count
from einc.explain import Story
from einc.explain.figures import Level, State
from einc.present.report import duration, quantity, ratio, report

WIDTH = 100


def console() -> Console:
    """A console of at most 100 columns, and of exactly 100 if the output is not a terminal."""
    found = Console(highlight=False)
    return Console(highlight=False, width=min(found.width, WIDTH) if found.is_terminal else WIDTH)


def as_text(what: RenderableType) -> str:
    """A rendered object as plain text."""
    plain = Console(width=WIDTH, color_system=None, force_terminal=False, highlight=False)
    with plain.capture() as capture:
        plain.print(what)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def explanation(s: Story) -> Group:
    """The whole story: what each level adds, what the program is, how it is carried, and what it costs."""
    return Group(Text(s.text.strip() + "\n"), stage_table(s), story_table([s]), Text(report(s)))


def stage_table(s: Story) -> Table:
    """The text of the program, and what the compiler adds to it at each level."""
    table = Table(show_lines=True, expand=True)
    for name, share in (("stage", 3), ("the program says", 5), ("the compiler adds", 5)):
        table.add_column(name, ratio=share, style="bold" if name == "stage" else "")
    for stage in s.stages:
        says = "the text above" if "\n" in stage.says else stage.says
        table.add_row(f"-O{stage.level} {stage.stage}", Text(says), Text(stage.adds))
    return table


def story_table(stories: Sequence[Story], titles: Sequence[str] | None = None) -> Table:
    """The characteristics of one or more programs side by side."""
    table = Table(show_lines=True, expand=True)
    table.add_column("characteristic", ratio=2, style="bold")
    for k, s in enumerate(stories):
        table.add_column(titles[k] if titles else s.name, ratio=5)
    rows = [characteristics(s) for s in stories]
    for entries in zip(*rows, strict=True):
        table.add_row(entries[0][0], *(Text(text) for _, text in entries))
    return table


def characteristics(s: Story) -> list[tuple[str, str]]:
    return [
        ("boundary", s.boundary),
        ("function, mathematical kind", s.kind),
        ("einsum form", _einsums(s)),
        ("contractions multiply in", _products(s)),
        ("internal state", _state(s.levels[-1])),
        ("what is optimised", s.optimised),
        ("parallel strategy", s.parallel),
        ("what to test", s.tested),
        ("sizes", ", ".join(f"{a}={n}" for a, n in s.sizes.items())),
        ("figures", "\n".join(_figures(same) for same in _alike(s.levels))),
    ]


def _products(s: Story) -> str:
    found = [f"{name}: {of}" for name, of in s.products.items()] or ["none"]
    return "\n".join([*found, f"the precision {s.unheeded} has no effect: none is of f32"] if s.unheeded else found)


def _state(f: Level) -> str:
    running = {s.name: s for k in f.kernels for s in k.running}
    if not running:
        return "none: every reduction depends on its inputs alone"
    each = sum(k.state_bytes_per_row for k in f.kernels if k.running)
    return f"running, in order of the walk: {', '.join(map(state_name, running.values()))}; {quantity(each)}B a row"


def state_name(s: State) -> str:
    return s.name + (f"[{', '.join(s.axes)}]" if s.axes else "")


def _einsums(s: Story) -> str:
    if not s.einsums:
        return "none"
    if len(s.einsums) == 1 and len(s.steps) == 1:
        return f"one, static: {s.einsums[0]}"
    listed = "\n".join(s.einsums)
    plural = "s" if s.dependences != 1 else ""
    return f"{listed}\n{len(s.steps)} equations with {s.dependences} dependence{plural} among them"


def _alike(levels: Sequence[Level]) -> list[list[Level]]:
    """Neighbouring levels with equal figures, grouped."""
    groups: list[list[Level]] = []
    for level in levels:
        if groups and _summed(level) == _summed(groups[-1][0]):
            groups[-1].append(level)
        else:
            groups.append([level])
    return groups


def _summed(f: Level) -> tuple[object, ...]:
    return f.equations, len(f.kernels), f.flops, f.bytes, f.sweeps, f.intermediates, f.predicted_us


def _figures(same: Sequence[Level]) -> str:
    f = same[0]
    passes = ", ".join(f"{n}× over {axis}" for axis, n in f.sweeps.items())
    lines = [
        f"{', '.join(f'-O{level.level}' for level in same)}: {count(f.equations, 'equation')}, "
        f"{count(len(f.kernels), 'kernel')}" + (f", passes: {passes}" if passes else ""),
        f"{quantity(f.flops)}FLOP, {quantity(f.bytes)}B moved, {ratio(f.intensity)} FLOP/B, "
        f"predicted {duration(f.predicted_us)}",
    ]
    if f.intermediates:
        listed = ", ".join(f"{t.name} {quantity(t.bytes)}B" for t in f.intermediates)
        lines.append(f"in memory between kernels: {listed}")
    else:
        lines.append("nothing in memory between kernels")
    return "\n".join(lines)


def listing(text: str, language: str = "text") -> RenderableType:
    """A program or source, coloured if the terminal can; long lines wrap."""
    if language == "text":
        return Text(text.rstrip("\n"))
    return Syntax(text.rstrip("\n"), language, theme="ansi_dark", background_color="default", word_wrap=True)


def section(title: str, body: RenderableType) -> Panel:
    return Panel(body, title=title, title_align="left", border_style="dim", padding=(0, 1))


def code(title: str, text: str) -> Group:
    """A Python file under its title, without a frame, so that it can be copied."""
    return Group(Rule(Text(title), align="left", style="dim"), listing(text, "python"))


def functions_table(rows: Iterable[tuple[str, str, str]]) -> Table:
    """The functions of the language: where each comes from, how it is written, and its result."""
    table = Table(expand=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("function", style="bold", ratio=3)
    table.add_column("gives", ratio=5)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def passes_table(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """The pipeline: name, level, law and reason of each pass."""
    table = Table(show_lines=True, expand=True)
    table.add_column("pass", style="bold", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("law", ratio=4)
    table.add_column("why", ratio=3)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
