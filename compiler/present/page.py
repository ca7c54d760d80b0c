"""A story as one self-contained page: the cascade before and after, derivations, tiles and figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from einc.base.words import count
from einc.explain import Story
from einc.explain.figures import Decision, KernelFigures, Level
from einc.explain.notation import markup
from einc.explain.transition import Derivation
from einc.present.picture import cascade
from einc.present.report import (
    LIMITS,
    SAVING,
    SENT,
    SLICES,
    duration,
    how_sent,
    in_slices,
    in_words,
    purpose,
    quantity,
    ratio,
    relative,
    saved,
    shape_of,
    tensor,
)
from einc.present.style import CSS
from einc.present.terminal import characteristics
from einc.present.tilemap import tile_map


def page(s: Story) -> str:
    """The page as text."""
    mathematics = (_cascades(s), _stages(s), _saving(s), _sent(s), _derivations(s))
    sections = (_head(s), *mathematics, _tiles(s), _figures(s), _decisions(s), _system(s))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(s.name)} · einc explain</title><style>{CSS}</style></head><body><main>\n"
        + "\n".join(part for part in sections if part)
        + "\n</main></body></html>\n"
    )


def _section(title: str, parts: Iterable[str]) -> str:
    inside = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""


def _head(s: Story) -> str:
    f, below = s.level, s.levels[0]
    numbers = [
        ("kernels", str(len(f.kernels)), f"{len(below.kernels)} at -O0"),
        ("moved through memory", f"{quantity(f.bytes)}B", f"{quantity(below.bytes)}B at -O0"),
        ("arithmetic", f"{quantity(f.flops)}FLOP", f"{ratio(f.intensity)} FLOP a byte"),
        ("predicted", duration(f.predicted_us), f"{duration(below.predicted_us)} at -O0"),
        ("limited by", LIMITS[_slowest(f).limit], f"at the rates of {f.machine}"),
    ]
    cells = "".join(f"<div><dt>{a}</dt><dd>{escape(b)}<small>{escape(c)}</small></dd></div>" for a, b, c in numbers)
    sizes = ", ".join(f"{a} = {n}" for a, n in s.sizes.items())
    return (
        f"<header><h1>{escape(s.name)}</h1><pre>{escape(s.text.strip())}</pre>"
        f'<p class="note">At -O{s.chosen}, for {escape(sizes)}. It is {escape(s.kind)}.</p>'
        f'<dl class="numbers">{cells}</dl></header>'
    )


def _slowest(f: Level) -> KernelFigures:
    return max(f.kernels, key=lambda k: k.predicted_us)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def _cascades(s: Story) -> str:
    before, after = s.levels[0], s.level
    shown = [("before", before)] + ([("after", after)] if after is not before else [])
    figures = "".join(
        f"<figure><figcaption>{when}: -O{f.level}<small>{count(len(f.kernels), 'kernel')}, "
        f"{quantity(f.bytes)}B through memory, predicted {duration(f.predicted_us)}</small></figcaption>"
        + cascade(f, s.operands, s.results, f"the cascade {when}, at -O{f.level}", f"cascade-{when}")
        + "</figure>"
        for when, f in shown
    )
    legend = (
        '<ul class="legend"><li><i class="operand"></i>operand</li><li><i class="between"></i>written between '
        'kernels</li><li><i class="result"></i>result</li></ul>'
    )
    note = (
        '<p class="note">A frame is a kernel, a box an equation. Arrows on the left go through memory and say how many '
        "bytes; lines inside a frame stay in registers.</p>"
    )
    return _section("The cascade before and after", [legend, f'<div class="pair">{figures}</div>', note])


def _tiles(s: Story) -> str:
    parts = []
    for n, k in enumerate(s.level.kernels):
        for axis in k.domains:
            v = k.tiles[axis]
            if v.visited == v.total and not (v.full and v.mixed) and axis not in k.part_starts:
                continue
            share = f"{'about ' if v.sample else ''}{100 * v.share:.3g}% of {v.total} blocks"
            cut = f"; in {k.splits} parts" if axis in k.part_starts else ""
            caption = f"kernel {k.name}, walk over {axis}<small>{share}: {v.full} full, {v.mixed} mixed{cut}</small>"
            parts.append(
                f"<figure><figcaption>{caption}</figcaption>{tile_map(k, axis, f'tiles-{n}-{_ident(axis)}')}</figure>"
            )
    legend = (
        '<ul class="legend"><li><i class="full"></i>full: no mask is computed</li><li><i class="mixed"></i>mixed: '
        'masked</li><li><i class="empty"></i>empty: never visited</li></ul>'
    )
    return _section("Which tiles are visited", [legend, f'<div class="pair">{"".join(parts)}</div>'] if parts else [])


def _ident(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}" for c in name)


# ---------------------------------------------------------------------------------------------------------------------
# Mathematics


def _derivations(s: Story) -> str:
    parts = []
    for k in s.level.kernels:
        cards = "".join(map(_derivation, k.derivations))
        if cards:
            parts.append(f'<h3>kernel {escape(k.name)}</h3><p class="note">{escape(shape_of(k))}</p>{cards}')
    for o in s.not_closed:
        words = f"{escape(o.reduction)} is not closed: <span class='math'>{markup(in_words(o))}.</span>"
        parts.append(f'<div class="card open">{words}</div>')
    return _section("How it is carried along its axes", parts)


def _derivation(d: Derivation) -> str:
    title = f'<h3 class="math">{markup(d.equation)}</h3>'
    if not d.relative and len(d.accumulators) == 1:
        words = f"{escape(_walk(d))}{escape(d.structure)} · <span class='math'>{markup(d.step)}</span> · merge "
        return f"<div class='card'>{title}<p>{words}<span class='math'>{markup(d.merge)}</span></p></div>"
    rows = [("relative to", markup(relative(r))) for r in d.relative]
    rows += [("carried", "<br>".join(markup(f"{a.symbol} = {a.total}") for a in d.accumulators))]
    if d.matrix:
        names, primed = (", ".join(r.name + p for r in d.relative) for p in ("", "′"))
        rows.append((escape(f"C({names} → {primed})"), _matrix(d.matrix)))
    if d.move:
        rows.append(("movement", "<br>".join(map(markup, d.move))))
    rows += [("step", markup(d.step)), ("merge", markup(d.merge)), ("finish", markup(d.finish))]
    rows.append(("that is", escape(d.structure)))
    if d.walk > 1:
        rows.append(("walk", f"number {d.walk} over {escape(', '.join(d.over))}"))
    listed = "".join(f'<dt>{a}</dt><dd class="math">{b}</dd>' for a, b in rows)
    return f'<div class="card">{title}<dl class="rows">{listed}</dl></div>'


def _walk(d: Derivation) -> str:
    return f"in walk {d.walk} over {', '.join(d.over)}: " if d.walk > 1 else ""


def _matrix(rows: Sequence[Sequence[str]]) -> str:
    shown = "".join(
        "<tr>" + "".join(f"<td>{'·' if x == '0' else markup(x)}</td>" for x in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table class="matrix">{shown}</table></div>'


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """A table of cells in HTML; with style `stack` each cell has its own line on a narrow page."""
    top = "".join(f"<th scope='col'>{h}</th>" for h in head)
    body = "".join("<tr>" + "".join(row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>".replace("\n", "<br>")


def _number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'


def _stages(s: Story) -> str:
    first = _cell("the text above") if "\n" in s.text.strip() else f'<td class="code">{escape(s.text)}</td>'
    says = [first] + [_cell(t.says) for t in s.stages[1:]]
    rows = [(_cell(f"-O{t.level} {t.stage}"), said, _cell(t.adds)) for t, said in zip(s.stages, says, strict=True)]
    return _section("What each level adds", [_table(("stage", "the program says", "the compiler adds"), rows)])


def _saving(s: Story) -> str:
    head = ("tensor", "bytes", "", "since it is")
    rows = [
        (_cell(tensor(t)), _number(f"{quantity(t.bytes)}B"), _cell("saved" if t.saved else "again"), _cell(t.reason))
        for t in s.saving
    ]
    note = f'<p class="note">In all {saved(s.saving)}.</p>'
    return _section(SAVING.capitalize(), [_table(head, rows), note] if rows else [])


def _sent(s: Story) -> str:
    """How data sends terms to their places, and in which slices gradients are computed."""
    rows = [(_cell(w.sum), _cell(how_sent(w)), _cell(w.fact), _cell(w.hint)) for w in s.scatters]
    parts = [_table(("sum", "how", "since", "try"), rows)] if rows else []
    parts += [f'<p class="note">{escape(" ".join(" ".join(in_slices(s)).split()))}.</p>'] if s.slices else []
    return _section((SENT if rows else SLICES).capitalize(), parts)


def _system(s: Story) -> str:
    rows = [(f"<th scope='row'>{escape(a)}</th>", _cell(b)) for a, b in characteristics(s)]
    return _section("As a system under test", [_table(("characteristic", escape(s.name)), rows, "stack")])


def _figures(s: Story) -> str:
    return _section("Figures by level and kernel", [_level(f) for f in s.levels])


def _level(f: Level) -> str:
    passes = ", ".join(f"{n}× {axis}" for axis, n in f.sweeps.items()) or "none"
    between = ", ".join(f"{t.name}[{', '.join(t.axes)}] {quantity(t.bytes)}B" for t in f.intermediates) or "nothing"
    head = ("kernel", "carries", "a row", "FLOP", "bytes", "FLOP/B", "predicted", "limited by")
    rows = [
        (
            _cell(k.name),
            _cell(", ".join(x.name for x in k.state) or "nothing"),
            _number(f"{quantity(k.state_bytes_per_row)}B"),
            _number(quantity(k.flops)),
            _number(quantity(k.bytes)),
            _number(ratio(k.flops / k.bytes) if k.bytes else ""),
            _number(duration(k.predicted_us)),
            _cell(LIMITS[k.limit]),
        )
        for k in f.kernels
    ]
    total = [
        _cell("total"), _cell(""), _number(""), _number(quantity(f.flops)), _number(quantity(f.bytes)),
        _number(ratio(f.intensity)), _number(duration(f.predicted_us)), _cell(""),
    ]  # fmt: skip
    note = f'<p class="note">Passes: {escape(passes)}. In memory between kernels: {escape(between)}.</p>'
    return f"<h3>-O{f.level}</h3>{_table(head, [*rows, total] if len(rows) > 1 else rows)}{note}"


def _decisions(s: Story) -> str:
    return _section("What shares a kernel, by predicted time", _decided(s.level.decisions))


def _decided(decisions: Sequence[Decision]) -> Iterator[str]:
    for d in decisions:
        names = " and ".join(", ".join(kernel) for kernel in d.kernels)
        title = f"<h3>{'joined' if d.joined else 'left apart'}: {escape(names)}</h3>"
        if d.together is None:
            reasons = "".join(f"<li>{escape(reason)}</li>" for reason in d.reason.split("; "))
            yield f'<div class="card">{title}<p class="note">They cannot share a kernel:</p><ul>{reasons}</ul></div>'
            continue
        longest = max(d.apart, d.together)
        bars = "".join(
            f'<span>{label}</span><span class="bar{" chosen" * chosen}" style="width:{100 * t / longest:.1f}%"></span>'
            f"<span>{duration(1e6 * t)}</span>"
            for label, t, chosen in (("apart", d.apart, not d.joined), ("together", d.together, d.joined))
        )
        note = f'<p class="note">{escape(f"Together{purpose(d)}.")}</p>' if d.joined and d.slower else ""
        yield f'<div class="card">{title}<div class="bars">{bars}</div>{note}</div>'
