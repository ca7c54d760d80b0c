"""Golden files: flags on the first line, a text, a rule, and what the text must give.

    # after=hoist level=1 size i=16,j=32
    def f(...): ...
    ---
    def f(...): ...

`after=PASS` expects the dump after that pass of the pipeline (`(unchanged)` if the pass changed nothing), with the
passes before it run at `level`, for the extents `size`, the machine `target` and the `generator`, and with the
`precision` of f32; `pass=PASS` runs that pass alone, on the kernels of a text that has some, in a `.tile` file;
`operands A=f32[2,3]` gives facts about operands, and `lies A=1,0:16` says that the steps in memory of an operand are
the longer the earlier a dimension is named, and multiples of 16 bytes, but for the last; `dtype=bf16` is that of
operands of which nothing else is known. `check` expects the error of parsing and elaborating the text, and
`call A=f32[2,3] window=3` that of a call with these operands and scalars; `ok` where there is none. `explain` expects
how the reductions are carried, for the extents `size`, and `generated` what the generator says of each kernel.
`gradient A=f32[2,3]` expects the two halves of the derivative of a program, for these operands and the machine
`target`, and `laws A=f32[2,3]` what each law of differentiation makes of the first half. `unordered` says that sums may
be added up in any order. `sent A=f32[2,3]` expects what `einc explain` says of the gradients' sums whose terms data
sends to their places, and of slices. `saving A=f32[2,3]` expects what it says of the tensors that the second half reads
of the first. A program may be given by the name of an example.
`pytest --bless` writes what the text gives; a person reads the difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from einc.base.errors import Error
from einc.base.facts import Fact, Layout
from einc.base.source import Source
from einc.base.targets import target
from einc.base.types import BY_NAME, PRECISIONS
from einc.binding import bind
from einc.codegen import BACKENDS
from einc.derive import Ahead
from einc.explain import Story
from einc.frontend.parse import Text
from einc.passes import pipeline
from einc.pipeline import Context, State
from einc.present.report import in_slices, saving, sent
from tests.support.places import EXAMPLES, GOLDEN

RULE = "---"
_OPERAND = re.compile(r"(\w+)=(\w+)\[([\d,]*)\]")
_LAYOUT = re.compile(r"(\w+)=([\d,]+):(\d+)")
_SCALAR = re.compile(r"(\w+)=(-?[\w.]+)")

ScalarValue = bool | int | float


@dataclass(frozen=True)
class Flags:
    """The first line, taken apart."""

    verb: str = ""
    stage: str = ""
    level: int = 2
    target: str = "interpret"
    generator: str = "triton"
    dtype: str = ""
    precision: str = "exact"
    sizes: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    scalars: dict[str, ScalarValue] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    deterministic: bool = True


@dataclass(frozen=True)
class Golden:
    """One file."""

    path: Path
    first: str
    text: str
    expected: str

    @property
    def flags(self) -> Flags:
        return parse_flags(self.first)


def collect() -> list[Path]:
    """Every golden file under `tests`."""
    found = [p for suffix in ("txt", "ein", "tile") for p in GOLDEN.rglob(f"*.{suffix}")]
    return sorted(p for p in found if _split(p) is not None)


def read(path: Path) -> Golden:
    parts = _split(path)
    if parts is None:
        raise ValueError(f"{path}: no flags on the first line, or no '{RULE}'")
    return Golden(path, *parts)


def _split(path: Path) -> tuple[str, str, str] | None:
    """The first line, the text and the expectation, or None where the file is no golden file."""
    whole = path.read_text(encoding="utf-8")
    first, _, rest = whole.partition("\n")
    if not first.startswith("# ") or f"{RULE}\n" not in rest:
        return None
    text, _, expected = rest.rpartition(f"{RULE}\n")
    return first, text.removesuffix("\n"), expected


def bless(golden: Golden) -> None:
    """Write what the text gives as what it must give."""
    golden.path.write_text(f"{golden.first}\n{golden.text}\n{RULE}\n{outcome(golden)}", encoding="utf-8")


def parse_flags(line: str) -> Flags:
    """`# after=hoist level=1 size i=16,j=32 operands A=f32[2,3]`; raises `ValueError` for anything else."""
    words = line.removeprefix("#").split()
    verb, stage, level, deterministic = "", "", 2, True
    named = {"target": "interpret", "generator": "triton", "dtype": "", "precision": "exact"}
    sizes: dict[str, int] = {}
    facts: dict[str, Fact] = {}
    scalars: dict[str, ScalarValue] = {}
    layouts: dict[str, Layout] = {}
    for word in words:
        key, _, value = word.partition("=")
        if word in ("check", "call", "explain", "generated", "gradient", "laws", "saving", "sent"):
            verb = word
        elif key in ("after", "pass"):
            verb, stage = key, value
        elif key == "level":
            level = int(value)
        elif word == "unordered":
            deterministic = False
        elif key in named:
            named[key] = value
        elif operand := _OPERAND.fullmatch(word):
            shape = tuple(int(n) for n in operand[3].split(",") if n)
            facts[operand[1]] = Fact(shape, BY_NAME[operand[2]])
        elif verb in ("call", "gradient", "laws", "saving", "sent") and (scalar := _SCALAR.fullmatch(word)):
            scalars[scalar[1]] = _scalar(scalar[2])
        elif "lies" in words[: words.index(word)] and (lying := _LAYOUT.fullmatch(word)):
            order = tuple(int(n) for n in lying[2].split(","))
            layouts[lying[1]] = Layout(order, True, int(lying[3]), (False,) * (len(order) - 1))
        elif "size" in words[: words.index(word)] and re.fullmatch(r"\w+=\d+(,\w+=\d+)*", word):
            sizes |= {name: int(n) for name, _, n in (part.partition("=") for part in word.split(","))}
        elif word not in ("size", "operands", "lies"):
            raise ValueError(f"unknown flag '{word}' in '{line}'")
    if not verb:
        verbs = "after=, pass=, check, call, explain, generated, gradient, saving or sent"
        raise ValueError(f"'{line}' says nothing to do: {verbs}")
    machine, generator, dtype, precision = named.values()
    return Flags(
        verb, stage, level, machine, generator, dtype, precision, sizes, facts, scalars, layouts, deterministic
    )


def _scalar(text: str) -> ScalarValue:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def outcome(golden: Golden) -> str:
    """What the text gives: a dump or an error, ending in a line break."""
    flags = golden.flags
    if flags.verb in ("after", "pass"):
        return dump(golden.text, golden.path.name, flags)
    if flags.verb == "explain":
        return derivation(golden.text, golden.path.name, flags)
    if flags.verb == "generated":
        return generated(golden.text, golden.path.name, flags)
    if flags.verb == "gradient":
        return gradient(golden.text, golden.path.name, flags)
    if flags.verb == "laws":
        return laws(golden.text, golden.path.name, flags)
    if flags.verb == "saving":
        return "\n".join(saving(story_of_gradients(golden.text, golden.path.name, flags))) + "\n"
    if flags.verb == "sent":
        found = story_of_gradients(golden.text, golden.path.name, flags)
        return "\n".join([*sent(found), *in_slices(found)]) + "\n"
    return complaint(golden.text, golden.path.name, flags)


def dump(text: str, name: str, flags: Flags) -> str:
    """The program or schedule after a stage; `(unchanged)` where the stage changed nothing."""
    from einc.frontend import elaborate, parse

    generator, machine, ordered = BACKENDS[flags.generator], target(flags.target), flags.deterministic
    context = Context(generator, flags.level, machine, flags.sizes, layouts=flags.layouts, deterministic=ordered)
    parsed = parse(Source(name, _example(text)))
    kernels = None if parsed.kernels is None else parsed.kernels.schedule
    program = replace(elaborate(parsed, known(parsed, flags)), precision=PRECISIONS[flags.precision])
    before = after = State(program, kernels)
    for stage in pipeline(generator):
        last = stage.name == flags.stage
        if last or (flags.verb == "after" and stage.level <= flags.level):
            before, after = after, stage.run(after, context)
        if last:
            return "(unchanged)\n" if before == after else show(after)
    raise ValueError(f"no pass is named '{flags.stage}'")


def known(text: Text, flags: Flags) -> dict[str, Fact] | None:
    """What is known of the operands: of those that nothing else is said of, the type, if there is one."""
    from einc.frontend import elaborate

    if not flags.dtype:
        return flags.facts or None
    types = {p.name: BY_NAME[flags.dtype] if p.dtype.is_float else p.dtype for p in elaborate(text).operands}
    return {p.name: Fact((2,) * len(p.dims), types[p.name]) for p in elaborate(text).operands} | flags.facts


def generated(text: str, name: str, flags: Flags) -> str:
    """What the generator says of each kernel, as `einc explain` prints it."""
    import einc
    from einc.present import report
    from einc.trials.request import Request
    from einc.trials.running import story_for

    program = einc.compile(_example(text), flags.level, flags.target, name, generator=flags.generator)
    request = Request(flags.sizes, {"": BY_NAME[flags.dtype]} if flags.dtype else {})
    return "\n".join(report.generated(story_for(program, request))) + "\n"


def derivation(text: str, name: str, flags: Flags) -> str:
    """How the reductions of a program are carried, as `einc explain` prints it."""
    import einc
    from einc.present.report import derived
    from einc.trials.request import Request
    from einc.trials.running import story_for

    program = einc.compile(text, flags.level, flags.target, name)
    return "\n".join(derived(story_for(program, Request(flags.sizes)))) + "\n"


def gradient(text: str, name: str, flags: Flags) -> str:
    """What runs ahead of a program's derivative, and the gradients of all its operands of floats."""
    from einc.derive import backward
    from einc.ein.printer import print_program

    run = _ahead(text, name, flags)
    return "\n".join(print_program(p).rstrip("\n") + "\n" for p in (run.program, backward(run).program))


def laws(text: str, name: str, flags: Flags) -> str:
    """What each law makes of what runs ahead."""
    from einc.derive import derivation

    return "\n".join(f"-- {s.name}\n{s.text}" for s in derivation(_ahead(text, name, flags)))


def _ahead(text: str, name: str, flags: Flags) -> Ahead:
    from einc.derive import ahead
    from einc.frontend import elaborate, parse

    program = elaborate(parse(Source(name, _example(text))), flags.facts)
    extents = bind(program, {n: f.shape for n, f in flags.facts.items()}, flags.scalars).extents
    operands = [p.name for p in program.operands if p.dtype.is_float]
    return ahead(program, operands, flags.level, target(flags.target), extents)


def story_of_gradients(text: str, name: str, flags: Flags) -> Story:
    """What the gradients of all operands of floats are, and what they cost."""
    import einc
    from einc.driver import elaborate

    program = einc.compile(_example(text), flags.level, flags.target, name, deterministic=flags.deterministic)
    meaning = elaborate(program.text, flags.facts)
    extents = bind(meaning, {n: f.shape for n, f in flags.facts.items()}, flags.scalars).extents
    return program.gradient_for(flags.facts, extents, ()).story()


def _example(text: str) -> str:
    """The text, or that of the example that it names."""
    return (EXAMPLES / f"{text.strip()}.ein").read_text() if re.fullmatch(r"[\w/]+\s*", text) else text


def show(state: State) -> str:
    """The equations with the plans of their kernels, or the kernels once there are any."""
    from einc.stages import Stage

    return Stage("", state, True).brief.rstrip("\n") + "\n"


def complaint(text: str, name: str, flags: Flags) -> str:
    """The error that the text or a call of it ends in."""
    from einc.frontend import elaborate, parse
    from einc.stages import given

    try:
        parsed = parse(Source(name, text))
        program = elaborate(parsed, flags.facts or None)
        if parsed.kernels is not None:
            given(parsed.kernels, program)
        if flags.verb == "call":
            bind(program, {name: fact.shape for name, fact in flags.facts.items()}, flags.scalars)
    except Error as error:
        return f"{error}\n"
    return "ok\n"
