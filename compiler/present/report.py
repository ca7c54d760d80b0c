"""The derivation and the figures of a story as plain lines of text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import assert_never

from einc.explain import Story
from einc.explain.figures import Decision, Intermediate, KernelFigures, Level
from einc.explain.saving import Saved
from einc.explain.transition import Derivation, Open, Relative
from einc.passes.scatter.ways import Way

WIDTH = 98


def report(s: Story) -> str:
    """Every section under its title."""
    sections = [
        (SAVING, list(saving(s))),
        (SENT, list(sent(s))),
        (SLICES, list(in_slices(s))),
        (f"how it is carried (-O{s.chosen})", list(derived(s))),
        ("kernels", [line for f in s.levels for line in _kernels(f)]),
        ("what the generator made of it", list(generated(s))),
        ("what is fastest, by measuring", list(measured(s))),
        ("what shares a kernel, by predicted time", list(_decided(s.level.decisions))),
    ]
    parts = [f"{title}\n{'─' * len(title)}\n" + "\n".join(lines) for title, lines in sections if lines]
    return "\n" + "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Gradients

SAVING = "what is saved of the program, and what is computed again"


def saving(s: Story) -> Iterator[str]:
    """What gradients read of the program that they are of, with bytes and reasons."""
    for t in s.saving:
        how = "saved" if t.saved else "again"
        yield from wrapped(f"{how}  {tensor(t)}, {quantity(t.bytes)}B: {t.reason}", "", "       ")
    if s.saving:
        yield f"in all {saved(s.saving)}"


def tensor(t: Saved | Intermediate) -> str:
    """`S[b, i, j] f32`"""
    return f"{t.name}[{', '.join(t.axes)}] {t.dtype}"


def saved(tensors: Sequence[Saved]) -> str:
    """The bytes that are saved, and those that are spared."""
    kept, spared = (sum(t.bytes for t in tensors if t.saved is kind) for kind in (True, False))
    return f"{quantity(kept)}B saved, {quantity(spared)}B not"


SENT = "sums whose terms data sends to their places"


def sent(s: Story) -> Iterator[str]:
    """How the terms of each such sum come to their places, what decides that, and what to try."""
    for w in s.scatters:
        yield from wrapped(f"{w.sum}: {how_sent(w)}")
        yield from wrapped(w.fact, "    ", "      ")
        yield from wrapped(f"try: {w.hint}", "    ", "      ")


def how_sent(w: Way) -> str:
    """`by sorted segments: sort of 4096 indices at the call, ...`"""
    beside = f", {quantity(w.bytes)}B beside the result" if w.bytes else ""
    match w.kind:
        case "sorted":
            return f"by sorted segments: sort of {w.positions} indices at the call, {w.places} segments{beside}"
        case "added":
            return f"by atomic additions, order not fixed: {w.positions} positions, {w.places} places{beside}"
        case "compared":
            return f"by comparing each of {w.places} places with each of {w.positions} positions"
        case _:
            assert_never(w.kind)


SLICES = "what is computed slice by slice"


def in_slices(s: Story) -> Iterator[str]:
    """The slices that gradients are computed in, why, and the bytes that this saves."""
    found = s.slices
    if found is None:
        return
    less = quantity(found.at_once - found.bytes)
    bytes_ = f"{quantity(found.bytes)}B between kernels, in place of {quantity(found.at_once)}B at once, {less}B less"
    yield from wrapped(f"{found.count} slices along {found.axis}, of {found.length} positions each: {bytes_}")
    fact = "what kernels would pass on is huge, and larger than any operand and any result"
    yield from wrapped(fact, "    ", "      ")
    yield from wrapped("try: a call of this program itself, which computes all at once", "    ", "      ")


# ---------------------------------------------------------------------------------------------------------------------
# Derivations


def derived(s: Story) -> Iterator[str]:
    """How the reductions of each kernel are carried, and which are not closed."""
    for k in s.level.kernels:
        if not k.derivations:
            continue
        yield f"kernel {k.name}: {shape_of(k)}"
        for d in k.derivations:
            yield from ("  " + line for line in derivation(d))
    for o in s.not_closed:
        yield from wrapped(f"{o.reduction} is not closed: {plain(in_words(o))}.")


def plain(text: str) -> str:
    """The notation without the braces around a single letter."""
    return re.sub(r"_\{(\w)\}", r"_\1", text)


def shape_of(k: KernelFigures) -> str:
    """`a program for each block of b, h, i; walks j; holds d whole`."""
    parts = [f"a program for each block of {', '.join(k.grid)}" if k.grid else "one program"]
    parts += [f"walks {', '.join(k.streamed)}"] if k.streamed else []
    parts += [f"within it walks {', '.join(k.within)}"] if k.within else []
    parts += [f"holds {', '.join(k.held)} whole"] if k.held else []
    return "; ".join(parts)


def derivation(d: Derivation) -> Iterator[str]:
    """One reduction as mathematics."""
    yield from wrapped(plain(d.equation), "", "      ")
    if not d.relative and len(d.accumulators) == 1:
        walk = f"in walk {d.walk}: " if d.walk > 1 else ""
        yield from wrapped(plain(f"{walk}{d.structure};  {d.step};  merge {d.merge}"), "    ", "      ")
        return
    rows = [("relative to", relative(r)) for r in d.relative]
    rows += [("carried", f"{a.symbol} = {a.total}") for a in d.accumulators]
    if d.matrix:
        names = ", ".join(r.name for r in d.relative)
        primed = ", ".join(f"{r.name}′" for r in d.relative)
        rows += [(f"C({names} → {primed})", line) for line in matrix(d.matrix)]
    rows += [("movement", m) for m in d.move]
    rows += [("step", d.step), ("merge", d.merge), ("finish", d.finish), ("that is", d.structure)]
    if d.walk > 1:
        rows.append(("walk", f"number {d.walk} over {', '.join(d.over)}"))
    before = ""
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        first = label if label != before else ""
        yield from wrapped(plain(text), f"    {first:{width}}  ", f"    {'':{width}}      ")
        before = label


def relative(r: Relative) -> str:
    """A reference, and the value that replaces it where it cannot be used."""
    what = r.name if r.name == r.value else f"{r.name} = {r.value}"
    seen = " of the positions seen so far" if r.seen else ""
    unusable = "not finite" if r.hat == 0 else "0 or not finite"
    return f"{what}{seen}, or {r.hat} where that is {unusable}"


def matrix(rows: Sequence[Sequence[str]]) -> list[str]:
    """A matrix with brackets, columns aligned."""
    shown = [["·" if x == "0" else x for x in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(f"{x:{w}}" for x, w in zip(row, widths, strict=True)) for row in shown]
    last = len(lines) - 1
    left = ["⎡" if n == 0 else "⎣" if n == last else "⎢" for n in range(len(lines))]
    right = ["⎤" if n == 0 else "⎦" if n == last else "⎥" for n in range(len(lines))]
    return [f"{a} {line} {b}" for a, line, b in zip(left, lines, right, strict=True)]


def in_words(o: Open) -> str:
    """Why a reduction is not closed."""
    values = " and ".join(o.waits_for) or "a value it reads"
    if "shifts" in o.reason:
        return (
            f"when {values} moves, {o.part} is neither shifted nor scaled by a value that is the same all along the "
            f"walk, nor is it a finite sum of parts that are. It waits for the final {values}, and takes its own walk"
        )
    return f"{o.part}: {o.reason}. It waits for final values, and takes a walk of its own"


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def _kernels(f: Level) -> Iterator[str]:
    passes = ", ".join(f"{n}× {axis}" for axis, n in f.sweeps.items()) or "none"
    yield (
        f"-O{f.level}: {quantity(f.flops)}FLOP, {quantity(f.bytes)}B, {ratio(f.intensity)} FLOP/B, "
        f"predicted {duration(f.predicted_us)} on {f.machine}; passes: {passes}"
    )
    width = max((len(k.name) for k in f.kernels), default=0)
    for k in f.kernels:
        yield f"  {k.name:{width}}  {duration(k.predicted_us):>7}, limited by {LIMITS[k.limit]:16}  {_costs(k)}"
        for line in _details(k, f.by_model):
            yield from wrapped(line, " " * (width + 4), " " * (width + 8))
    for t in f.intermediates:
        yield f"  between: {tensor(t)}, {quantity(t.bytes)}B"


LIMITS = {
    "memory": "memory",
    "matrix": "contractions",
    "vector": "arithmetic",
    "special": "exp and the like",
    "launch": "the launch",
}


def _costs(k: KernelFigures) -> str:
    intensity = f", {ratio(k.flops / k.bytes)} FLOP/B" if k.bytes else ""
    return f"{quantity(k.flops)}FLOP, {quantity(k.bytes)}B{intensity}"


def _details(k: KernelFigures, by_model: bool) -> Iterator[str]:
    if k.state:
        names = ", ".join(f"{s.name}[{', '.join(s.axes)}]" if s.axes else s.name for s in k.state)
        yield f"carries {names}: {quantity(k.state_bytes_per_row)}B a row"
    for axis, v in k.tiles.items():
        if v.visited < v.total:
            counts = f"{v.full} full, {v.mixed} mixed, {v.total - v.visited} empty"
            about = "about " if v.sample else ""
            yield f"visits {about}{v.visited} of {v.total} blocks of {axis}: {counts}"
    if k.splits > 1:
        yield f"in {k.splits} parts"
    if k.choices:
        yield f"chosen{' by the model' * by_model}: {' '.join(f'{name}={value}' for name, value in k.choices.items())}"


def generated(s: Story) -> Iterator[str]:
    """What the generator says of each kernel that it has something to say of."""
    for k in s.level.kernels:
        if k.account:
            yield f"kernel {k.name}"
            for line in k.account:
                yield from wrapped(line, "  ", "    ")


def measured(s: Story) -> Iterator[str]:
    """What was measured for such sizes: what is taken, what the model chooses, and what came closest."""
    if s.measured is None:
        return
    machine, e = s.measured
    yield f"on {machine}, {e.tried} ways timed"
    gain = f", {ratio(e.gain)} times as fast" if e.kernels else ""
    taken = (e.best, f"{e.best.chosen or 'by the model'}{gain}")
    others = [(e.model, "by the model")] if e.kernels else []
    others += [(e.next, f"next: {e.next.chosen or 'by the model'}")] if e.next is not None else []
    for m, what in (taken, *others):
        predicted = "" if m.predicted is None else f", predicted {duration(1e6 * m.predicted)}"
        yield from wrapped(f"{duration(1e6 * m.seconds):>8}  {what}{predicted}", "  ", "            ")


def _decided(decisions: Sequence[Decision]) -> Iterator[str]:
    for d in decisions:
        names = " and ".join(", ".join(kernel) for kernel in d.kernels)
        if d.joined and d.together is not None:
            times = f"{duration(1e6 * d.apart)} → {duration(1e6 * d.together)}"
            yield from wrapped(f"joined {names}: {times}{', which' * d.slower}{purpose(d)}")
        elif d.together is None:
            yield from wrapped(f"apart: {names} cannot share a kernel:")
            for reason in d.reason.split("; "):
                yield from wrapped(reason, "    ", "      ")
        else:
            times = f"{duration(1e6 * d.apart)} apart, {duration(1e6 * d.together)} together"
            yield from wrapped(f"apart: {names}: {times}")


def purpose(d: Decision) -> str:
    """The purpose of a join that takes longer."""
    if not d.slower:
        return ""
    if d.spared:
        return f" is slower, but {', '.join(d.spared)} {'is' if len(d.spared) == 1 else 'are'} then not stored"
    return " is slower by itself, and part of a larger join that pays"


# ---------------------------------------------------------------------------------------------------------------------
# Words


def wrapped(text: str, first: str = "", rest: str = "    ") -> list[str]:
    """The text in lines of at most the width."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first]


def duration(us: float) -> str:
    """`812 µs`, `1.23 ms`: a time with three digits."""
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{ratio(value)} {unit}"


def ratio(x: float) -> str:
    """`13.5`, `1050`: three digits, without an exponent as long as that is short."""
    return f"{x:.3g}" if x < 100 or x >= 1e6 else f"{x:.0f}"


def quantity(n: float) -> str:
    """`12.6 M`: a number with three digits and its unit's prefix, a space before the unit."""
    value = float(n)
    for prefix in ("", "k", "M", "G", "T"):
        if value < 1000 or prefix == "T":
            return f"{value:.3g} {prefix}"
        value /= 1000
    raise AssertionError
