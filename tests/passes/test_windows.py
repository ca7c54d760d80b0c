"""Contractions that read an operand at sums of axes, as convolutions do: walked place by place of a window, in blocks
along what is left."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import einc
from einc import tile
from einc.base.targets import TARGETS
from einc.binding import Bindings, bind
from einc.driver import Compiled, compile_program, elaborate, parse
from einc.runtime.tensors import fact, layout
from einc.tile.asked import Choice
from einc.tile.walk import lets, loops, values_in
from tests.support.padded import run_compiled

WEIGHTS = """def f(X[n, h, w, c], D[n, y, x, o]):
    axis r = |h| - |y| + 1
    axis s = |w| - |x| + 1
    V[r, s, c, o] = D[n, y, x, o] * X[n, y + r, x + s, c]
    return V"""
SAME = """def f(X[n, h, w, c], W[r, s, c, o]):
    axis y = |h|
    axis x = |w|
    P[n, y, x, r, s, c] = where(y + r >= |r| // 2 and x + s >= |s| // 2, X[n, y + r - |r| // 2, x + s - |s| // 2, c], 0)
    Y[n, y, x, o] = P[n, y, x, r, s, c] * W[r, s, c, o]
    return Y"""

CAUSAL = """def f(X[b, n, c], W[r, c, o]):
    axis x = |n|
    Y[b, x, o] = where(x >= r, X[b, x - r, c], 0) * W[r, c, o]
    return Y"""


@dataclass(frozen=True)
class Window:
    """A convolution: its spatial extents, its window's, strides, dilations and borders, and the groups of channels."""

    shape: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    borders: tuple[int, ...]
    groups: int

    @property
    def text(self) -> str:
        ranks = range(len(self.shape))
        axes = []
        for k in ranks:
            reach = f"{self.dilations[k]} * (|r{k}| - 1) + 1"
            axes.append(f"    axis y{k} = (|h{k}| + {2 * self.borders[k]} - ({reach})) // {self.strides[k]} + 1")
        at = [f"{self.strides[k]} * y{k} + {self.dilations[k]} * r{k}" for k in ranks]
        inside = " and ".join(f"{place} >= {border}" for place, border in zip(at, self.borders, strict=True))
        read = ", ".join(f"{place} - {border}" for place, border in zip(at, self.borders, strict=True))
        h, r, y = (", ".join(f"{name}{k}" for k in ranks) for name in "hry")
        body = f"where({inside}, X[n, g, c, {read}], 0) * W[g, o, c, {r}]"
        head = f"def f(X[n, g, c, {h}], W[g, o, c, {r}]):"
        return "\n".join([head, *axes, f"    Y[n, g, o, {y}] = {body}", "    return Y"])

    def dense(self, x: Tensor, w: Tensor) -> Tensor:
        """The same by torch, in float64."""
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.shape) - 1]
        flat = (x.double().flatten(1, 2), w.double().flatten(0, 1))
        found: Tensor = conv(*flat, None, self.strides, self.borders, self.dilations, self.groups)
        return found.reshape(len(x), self.groups, -1, *found.shape[2:])


def drawn(seed: int) -> Window:
    at = random.Random(seed)
    rank = at.choice((1, 2, 2, 3))

    def each(*choices: int) -> tuple[int, ...]:
        return tuple(at.choice(choices) for _ in range(rank))

    return Window(each(5, 7, 9), each(1, 2, 3), each(1, 1, 2), each(1, 1, 2), each(0, 1, 2), at.choice((1, 1, 2)))


def compiled(text: str, tensors: Mapping[str, Tensor], *choices: Choice) -> tuple[Compiled, Bindings]:
    program = elaborate(parse(text), {name: fact(t, name) for name, t in tensors.items()})
    bindings = bind(program, {name: tuple(t.shape) for name, t in tensors.items()}, {})
    layouts = {name: layout(t) for name, t in tensors.items()}
    made = compile_program(program, 2, TARGETS["sm_90"], bindings.extents, choices=choices, layouts=layouts)
    return made, bindings


def kernels(c: Compiled) -> tuple[tile.Kernel, ...]:
    assert c.state.schedule is not None
    return c.state.schedule.kernels


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=float(wanted.abs().max()) * 2**-7)


@pytest.mark.turns(2)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_windows(seed: int, last: bool) -> None:
    torch.manual_seed(seed)
    window = drawn(seed)
    channels = random.Random(seed).choice((3, 16, 20, 40))
    x = torch.randn(2, window.groups, channels, *window.shape).bfloat16()
    w = torch.randn(window.groups, 5, channels, *window.window).bfloat16()
    if last:  # channels are neighbours in memory
        x, w = (t.movedim(2, -1).contiguous().movedim(-1, 2) for t in (x, w))
    wanted = window.dense(x, w)
    made, bindings = compiled(window.text, {"X": x, "W": w})
    (found,) = run_compiled(made, {"X": x, "W": w}, bindings)
    close(found, wanted)
    close(einc.compile(window.text)(x, w), wanted)


@pytest.mark.parametrize("parts", [1, 3, 7])
@pytest.mark.parametrize("shape", [(18, 5, 7, 6, 9, 3), (2, 20, 17, 19, 8, 2), (16, 3, 3, 3, 4, 3)])
def test_gradients_of_weights_in_parts(shape: tuple[int, ...], parts: int) -> None:
    torch.manual_seed(parts)
    n, c, h, w, o, r = shape
    x, d = torch.randn(n, h, w, c).bfloat16(), torch.randn(n, h - r + 1, w - r + 1, o).bfloat16()
    images, cotangent = (t.double().movedim(-1, 1) for t in (x, d))
    swapped = functional.conv2d(images.transpose(0, 1), cotangent.transpose(0, 1))  # c, o, r, s
    wanted = swapped.permute(2, 3, 0, 1)
    made, bindings = compiled(WEIGHTS, {"X": x, "D": d}, Choice("parts", parts))
    (found,) = run_compiled(made, {"X": x, "D": d}, bindings)
    close(found, wanted)


def test_a_window_is_walked_place_by_place() -> None:
    shape = {"X": (32, 56, 56, 64), "W": (3, 3, 64, 64)}
    made, _ = compiled(SAME, {name: torch.empty(n, dtype=torch.bfloat16, device="meta") for name, n in shape.items()})
    (kernel,) = kernels(made)
    outer, inner = loops(kernel.body)
    assert (outer.axis.axes, outer.axis.blocked) == (("r", "s"), False)
    assert (inner.axis.axes, inner.axis.blocked) == (("c",), True)
    assert made.source.count("in tl.range(") == 1  # loads go on ahead from place to place


def test_what_is_multiplied_comes_from_memory_as_it_is() -> None:
    shape = {"X": (32, 56, 56, 64), "W": (3, 3, 64, 64)}
    made, _ = compiled(SAME, {name: torch.empty(n, dtype=torch.bfloat16, device="meta") for name, n in shape.items()})
    (kernel,) = kernels(made)
    loaded = {s.names[0] for s in lets(kernel.body) if isinstance(s.value, tile.Load)}
    (dot,) = (v for v in values_in(kernel.body) if isinstance(v, tile.Dot))
    assert {x.name for x in (dot.left, dot.right) if isinstance(x, tile.Ref)} == loaded
    assert (dot.left_in, dot.right_in) == (None, None)


def test_a_weight_that_no_row_needs_is_not_read() -> None:
    x, w = torch.randn(3, 1, 16).bfloat16(), torch.full((3, 16, 4), torch.inf).bfloat16()
    w[0] = 1
    made, bindings = compiled(CAUSAL, {"X": x, "W": w})
    (found,) = run_compiled(made, {"X": x, "W": w}, bindings)
    close(found[:, 0], x[:, 0].double().sum(1, keepdim=True).expand(-1, 4))


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_gradients(backend: str) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 6, 5, 16, requires_grad=True), torch.randn(3, 3, 16, 4, requires_grad=True)
    y = einc.compile(SAME)(x, w, backend=backend)
    cotangent = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, w), cotangent)
    images, weights = x.double().permute(0, 3, 1, 2), w.double().permute(3, 2, 0, 1)
    dense = functional.conv2d(images, weights, padding=1).permute(0, 2, 3, 1)
    for a, b in zip(found, torch.autograd.grad(dense, (x, w), cotangent.double()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
