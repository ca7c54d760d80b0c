"""Attention from its text to a kernel, one stage at a time: python examples/walkthrough.py"""

from pathlib import Path
from typing import Any

import numpy as np

import einc
from einc.base.facts import Fact
from einc.base.targets import INTERPRETER, TARGETS
from einc.base.types import BF16, F32
from einc.binding import bind
from einc.driver import compile_program, elaborate, parse
from einc.ein.printer import print_program
from einc.evaluate import evaluate
from einc.explain import story
from einc.present.terminal import as_text, story_table

HERE = Path(__file__).parent


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


title("1. The text")
path = HERE / "attention_program.ein"
print(path.read_text())

title("2. Parsed: the operands and scalars that a call gives")
text = parse(path.read_text(), path.name)
print(f"{text.form}: operands {', '.join(text.operands)}; scalars {', '.join(text.scalars)}")

title("3. Elaborated: equations with one reduction each, for operands of these shapes and types")
shapes = {"Q": (1, 2, 48, 32), "K": (1, 2, 80, 32), "V": (1, 2, 80, 16)}
program = elaborate(text, {name: Fact(shape, F32) for name, shape in shapes.items()})
print(print_program(program))

title("4. What it means: the evaluator, in double precision")
generator = np.random.default_rng(0)
operands: dict[str, Any] = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
exact, _ = evaluate(program, operands)
print(f"O[0, 0, 0, :4] = {exact[0, 0, 0, :4]}")

title("5. Bound: the extents of a call, every shape checked")
bindings = bind(program, shapes)
print(bindings.extents)
try:
    bind(program, shapes | {"K": (1, 2, 80, 31)})
except einc.ShapeError as error:
    print(f"and a wrong one:\n{error}")

title("6. The passes, each with its law; what did nothing says so")
compiled = compile_program(program, 2, INTERPRETER, bindings.extents)
for stage in compiled.stages[1:]:
    print(f"-- {stage.name}\n{stage.text}")

title("7. The Triton file")
print(compiled.source)

title("8. Run here: the tiles by torch, and the kernels' source in Triton's interpreter")
for backend in ("torch", "interpret"):
    result, _ = einc.compile(path)(**operands, backend=backend)
    print(f"{backend}: greatest difference from double precision: {np.max(np.abs(result - exact)):.1e}")

title("9. Compiled ahead of time for a GPU that is not here")
half = elaborate(text, {name: Fact(shape, BF16) for name, shape in shapes.items()})
ahead = compile_program(half, 2, TARGETS["sm_90"], bindings.extents)
try:
    from einc.codegen.run.aot import artifact, compile_ahead

    for kernel in compile_ahead(ahead.emitted, TARGETS["sm_90"], bindings.extents):
        lines = str(artifact(kernel, "ptx")).count("\n")
        print(f"{kernel.name}: {lines} lines of PTX, {kernel.registers} registers, {kernel.shared} bytes shared")
except ImportError as error:
    print(f"not here: {error}")

title("10. The story")
levels = [compile_program(program, level, INTERPRETER, bindings.extents) for level in (0, 1, 2)]
print(as_text(story_table([story(text.source.text, levels, bindings.extents)])))
