"""The suites of contests, for a GPU and for a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from einc.trials import draws
from einc.trials.attention import attention, decoding
from einc.trials.contests import Contest, backward
from einc.trials.layers import FUSED, ROWS, Sizes, convolution, depthwise, matmul, reduced

Suite = Callable[[str], list[Contest]]

_LAYER: Sizes = {"n": 8192, "d": 4096, "k": 4096, "r": 16}
_SMALL_LAYER: Sizes = {"n": 512, "d": 512, "k": 512, "r": 16}
_VOCABULARY = 128256
_FORWARD = ("full", "causal", "window 1024", "documents of 700", "softcap")
_BACKWARD = ("full", "causal", "sinks", "GQA", "ALiBi", "pair bias", "relative table", "buckets of 32")


def _type(device: str) -> str:
    return "f32" if device == "cpu" else "bf16"


def _matmul(device: str) -> list[Contest]:
    sizes = (256, 512, 1024, 2048) if device == "cpu" else (512, 1024, 2048, 4096, 8192)
    return [matmul(device, _type(device), n) for n in sizes]


def _attention(device: str) -> list[Contest]:
    if device == "cpu":
        return [attention(name, device, "f32", (1, 8, n, 64)) for n in (512, 2048) for name in _FORWARD[:3]]
    shapes = [(4, 16, 4096, 128), (4, 16, 4096, 64), (1, 16, 16384, 128), (16, 16, 1024, 128)]
    return [attention(name, device, "bf16", shape) for shape in shapes for name in _FORWARD]


def _rows(device: str) -> list[Contest]:
    if device == "cpu":
        return [reduced(name, device, "f32", 1024, width) for width in (256, 4096) for name in ROWS]
    sizes = [(8192, 4096), (65536, 512), (512, 65536)]
    return [reduced(name, device, "bf16", *size) for size in sizes for name in ROWS]


def _fused(device: str) -> list[Contest]:
    if device == "cpu":
        return [make(device, "f32", _SMALL_LAYER) for make in FUSED.values()]
    wide = {"linear cross-entropy": {**_LAYER, "k": _VOCABULARY}, "swiglu": {**_LAYER, "k": 14336}}
    found = [make(device, "bf16", wide.get(name, _LAYER)) for name, make in FUSED.items()]
    return [*found, *(make(device, "bf16", {**_LAYER, "n": 512}) for make in FUSED.values())]


def _decode(device: str) -> list[Contest]:
    if device == "cpu":
        return [decoding(device, "f32", 1, 8, 2, n, 64) for n in (1024, 8192)]
    shapes = [(8, 32768), (8, 8192), (1, 65536), (64, 2048), (1, 1000)]
    return [decoding(device, "bf16", b, 32, 8, n, 128) for b, n in shapes]


def _gradients(device: str) -> list[Contest]:
    if device == "cpu":
        layers = [reduced(name, device, "f32", 512, 1024) for name in ("layernorm", "rmsnorm")]
        return [
            backward(c) for c in (*(attention(name, device, "f32", (1, 4, 512, 64)) for name in _FORWARD[:2]), *layers)
        ]
    forms = [attention(name, device, "bf16", (4, 16, 4096, 128)) for name in _BACKWARD]
    forms += [attention(name, device, "bf16", (4, 16, 4096, 64)) for name in _FORWARD]
    forms += [attention(name, device, "bf16", (1, 16, 16384, 128)) for name in _FORWARD[:2]]
    layers = [reduced(name, device, "bf16", 8192, 4096) for name in ("layernorm", "rmsnorm")]
    loss = FUSED["linear cross-entropy"](device, "bf16", {**_LAYER, "k": _VOCABULARY})
    return [backward(c) for c in (*forms, *layers, loss)]


def _convolutions(device: str) -> list[Contest]:
    if device == "cpu":
        return [convolution(device, "f32", 1, 64, 32, 32, 3), depthwise(device, "f32", 2, 2048, 256, 4)]
    shapes = [(32, 56, 64, 64, 3), (32, 28, 128, 128, 3), (32, 14, 256, 256, 3), (32, 56, 256, 64, 1)]
    return [*(convolution(device, "bf16", *shape) for shape in shapes), depthwise(device, "bf16", 4, 4096, 4096, 4)]


def random(device: str, seed: int = 0, count: int = 100) -> list[Contest]:
    """So many random contractions, and half as many reductions."""
    within = draws.bounds(device)
    return interleaved([draws.contractions(count, seed, within), draws.reductions(count // 2, seed, within)])


def scores(device: str, seed: int = 0, count: int = 100) -> list[Contest]:
    """Attention with random scores and masks, and its gradients."""
    return draws.scores(count if device == "cuda" else count // 4, seed, draws.bounds(device))


SUITES: dict[str, Suite] = {
    "matmul": _matmul,
    "attention": _attention,
    "rows": _rows,
    "fused": _fused,
    "decode": _decode,
    "random": random,
    "scores": scores,
    "gradients": _gradients,
    "convolutions": _convolutions,
}

DRAWN = {"random": random, "scores": scores}  # from a seed

_FEW = 2  # contests of each suite, of those that resemble each other


def chosen(names: Sequence[str], device: str, seed: int = 0, quick: bool = False, only: str = "") -> list[Contest]:
    """The contests of suites, all if none is named, whose names hold some text; in turns, so that none comes last."""
    found = []
    for name in names or SUITES:
        made = DRAWN[name](device, seed) if name in DRAWN else SUITES[name](device)
        kept = [replace(c, suite=name) for c in made if only in c.name]
        found.append(kept[:_FEW] if quick else kept)
    return interleaved(found)


def interleaved(suites: Iterable[Sequence[Contest]]) -> list[Contest]:
    """The contests of suites in turns, so that each has its turn early."""
    return [c for row in zip_longest(*suites) for c in row if c is not None]
