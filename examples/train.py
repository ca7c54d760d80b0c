"""A small GPT whose every step is a program of the language, trained on this repository's own text.

    python examples/train.py --steps 300 --svg loss.svg

The same model in plain PyTorch, with the same weights and batches, is trained beside it, and both losses are shown.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import einc

ROOT = Path(__file__).parent.parent
TEXTS = ("README.md", "LANGUAGE.md", "ARCHITECTURE.md", "docs/pytorch.md")

# ---------------------------------------------------------------------------------------------------------------------
# The model, as equations

EMBEDDING = einc.compile("""
def embedding(table[v, c], text[b, n]: i64):
    X[b, n, c] = table[text[b, n], c]
    return X
""")

HEADS = einc.compile("""
# Root-mean-square normalisation, and the queries, keys and values after it: h heads share g of keys.
def heads(X[b, n, c], gain[c], query[h, d, c], key[g, d, c], value[g, d, c]):
    N[b, n, c] = rmsnorm[c](X) * gain[c]
    Q[b, h, n, d] = N[b, n, c] * query[h, d, c]
    K[b, g, n, d] = N[b, n, c] * key[g, d, c]
    V[b, g, n, d] = N[b, n, c] * value[g, d, c]
    return Q, K, V
""")

ROTATION = einc.compile("""
# Rotary embedding: d and d + |d| / 2 are a pair, turned by an angle that grows with the position.
def rotation(X[b, h, n, d], base: float = 10000):
    angle[n, d] = n * base ** -(d % (|d| / 2) / (|d| / 2))
    across[b, h, n, d] = where(d < |d| / 2, -X[b, h, n, d + |d| / 2], X[b, h, n, d - |d| / 2])
    Y[b, h, n, d] = X * cos(angle[n, d]) + across * sin(angle[n, d])
    return Y
""")

ATTENTION = einc.compile("""
# Causal attention with grouped heads, the projection after it, and what goes around both.
def attention(X[b, i, c], Q[b, h, i, d], K[b, g, j, d], V[b, g, j, d], out[c, h, d]):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]
    A[b, h, i, j] = where(j <= i, S, -inf)
    O[b, h, i, d] = softmax[j](A) * V[b, h // (|h| / |g|), j, d]
    Y[b, i, c] = X[b, i, c] + O[b, h, i, d] * out[c, h, d]
    return Y
""")

GATED = einc.compile("""
# The gated layer, SwiGLU, with its normalisation and what goes around it.
def gated(X[b, n, c], gain[c], gate[m, c], up[m, c], down[c, m]):
    N[b, n, c] = rmsnorm[c](X) * gain[c]
    G[b, n, m] = N[b, n, c] * gate[m, c]
    U[b, n, m] = N[b, n, c] * up[m, c]
    Y[b, n, c] = X[b, n, c] + sum[m](silu(G) * U * down[c, m])
    return Y
""")

LOSS = einc.compile("""
# Cross-entropy of what comes next; the logits Z of all positions are never in memory.
def loss(X[b, n, c], gain[c], table[v, c], following[b, n]: i64):
    N[b, n, c] = rmsnorm[c](X) * gain[c]
    Z[b, n, v] = N[b, n, c] * table[v, c]
    T[b, n] = N[b, n, c] * table[following[b, n], c]
    L[] = mean[b, n](logsumexp[v](Z) - T)
    return L
""")

Weights = Mapping[str, Tensor]
Model = Callable[["Sizes", Weights, Tensor, Tensor], Tensor]  # the loss for texts and what follows at each position


@dataclass(frozen=True)
class Sizes:
    """Of the model: layers, channels, heads of queries and of keys, channels of the gated layer, length, batch."""

    layers: int = 2
    channels: int = 64
    heads: int = 4
    groups: int = 2
    hidden: int = 160
    length: int = 96
    batch: int = 8


def in_einc(sizes: Sizes, weights: Weights, text: Tensor, following: Tensor) -> Tensor:
    """The loss, by programs of the language."""
    x = EMBEDDING(weights["table"], text)
    for layer in range(sizes.layers):
        w = of_layer(weights, layer)
        q, k, v = HEADS(x, w["gain"], w["query"], w["key"], w["value"])
        x = ATTENTION(x, ROTATION(q), ROTATION(k), v, w["out"])
        x = GATED(x, w["gated gain"], w["gate"], w["up"], w["down"])
    loss: Tensor = LOSS(x, weights["gain"], weights["table"], following)
    return loss


def in_torch(sizes: Sizes, weights: Weights, text: Tensor, following: Tensor) -> Tensor:
    """The loss, by PyTorch's functions."""
    x = functional.embedding(text, weights["table"])
    for layer in range(sizes.layers):
        w = of_layer(weights, layer)
        n = functional.rms_norm(x, x.shape[-1:], w["gain"], 1e-6)
        q, k, v = (turned(n, w[name]) for name in ("query", "key", "value"))
        o = functional.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True, enable_gqa=True)
        x = x + o.transpose(1, 2).flatten(2) @ w["out"].flatten(1).mT
        n = functional.rms_norm(x, x.shape[-1:], w["gated gain"], 1e-6)
        x = x + (functional.silu(n @ w["gate"].mT) * (n @ w["up"].mT)) @ w["down"].mT
    n = functional.rms_norm(x, x.shape[-1:], weights["gain"], 1e-6)
    return functional.cross_entropy((n @ weights["table"].mT).flatten(0, 1), following.flatten())


def turned(x: Tensor, weight: Tensor) -> Tensor:
    """A projection (h, d, c) of (b, n, c) as heads: (b, h, n, d)."""
    return (x @ weight.flatten(0, 1).mT).view(*x.shape[:2], *weight.shape[:2]).transpose(1, 2)


def rotated(x: Tensor) -> Tensor:
    """Rotary embedding of (b, h, n, d)."""
    half = x.shape[-1] // 2
    turns = 10000 ** -(torch.arange(half, dtype=x.dtype) / half)
    angle = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), turns).repeat(1, 2)
    across = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angle.cos() + across * angle.sin()


def of_layer(weights: Weights, layer: int) -> dict[str, Tensor]:
    """The weights of a layer by their names in it."""
    start = f"{layer}."
    return {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}


def fresh(sizes: Sizes, letters: int, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """Weights to begin with."""
    c, d, m = sizes.channels, sizes.channels // sizes.heads, sizes.hidden
    layer = {
        "gain": (c,),
        "query": (sizes.heads, d, c),
        "key": (sizes.groups, d, c),
        "value": (sizes.groups, d, c),
        "out": (c, sizes.heads, d),
        "gated gain": (c,),
        "gate": (m, c),
        "up": (m, c),
        "down": (c, m),
    }
    shapes = {f"{k}.{name}": shape for k in range(sizes.layers) for name, shape in layer.items()}
    shapes |= {"gain": (c,), "table": (letters, c)}
    generator = torch.Generator().manual_seed(seed)

    def made(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("gain"):
            return torch.ones(shape, dtype=dtype)
        return torch.randn(shape, dtype=dtype, generator=generator) * 0.05

    return {name: made(name, shape).requires_grad_() for name, shape in shapes.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Training


def letters_of(paths: tuple[str, ...] = TEXTS) -> tuple[str, Tensor]:
    """The letters that occur, and the text as their numbers."""
    text = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in paths)
    letters = "".join(sorted(set(text)))
    places = {letter: k for k, letter in enumerate(letters)}
    return letters, torch.tensor([places[letter] for letter in text])


def batches(text: Tensor, sizes: Sizes, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of the text, and what follows each letter, for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - sizes.length, (sizes.batch, 1), generator=generator)
        pieces = text[starts + torch.arange(sizes.length + 1)]
        yield pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()


@dataclass(frozen=True)
class Run:
    """The loss of every step, the seconds that the steps took, and those of the first one, which compiles."""

    losses: list[float]
    seconds: float
    first: float


def train(model: Model, sizes: Sizes, text: Tensor, letters: int, steps: int, dtype: torch.dtype, seed: int = 0) -> Run:
    """Train a model with fresh weights."""
    weights = fresh(sizes, letters, dtype, seed)
    optimiser = torch.optim.AdamW(weights.values(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.01)
    losses: list[float] = []
    first, start = 0.0, time.perf_counter()
    for step, (pieces, following) in zip(range(steps), batches(text, sizes, seed), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps)
        loss = model(sizes, weights, pieces, following)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        first = first or time.perf_counter() - start
    return Run(losses, time.perf_counter() - start, first)


def rate(step: int, steps: int, most: float = 4e-3) -> float:
    """The step size: rising at first, then falling along a cosine."""
    warm = min(20, steps // 4 + 1)
    rising = min(1.0, (step + 1) / warm)
    return most * rising * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


# ---------------------------------------------------------------------------------------------------------------------
# What is shown


def table(runs: Mapping[str, Run], rows: int = 12) -> str:
    """Losses at some steps and how far they are apart, and the times."""
    (mine, other), steps = runs.values(), len(next(iter(runs.values())).losses)
    lines = [f"{'step':>6}  " + "  ".join(f"{name:>10}" for name in runs) + "  difference"]
    for k in sorted({round(r * (steps - 1) / (rows - 1)) for r in range(rows)}):
        a, b = mine.losses[k], other.losses[k]
        lines.append(f"{k + 1:6}  {a:10.6f}  {b:10.6f}  {abs(a - b):10.1e}")
    lines.append("")
    for name, run in runs.items():
        each = (run.seconds - run.first) / max(1, steps - 1)
        took = f"{run.seconds:.1f} s: {run.first:.1f} s for the first step, then {1e3 * each:.0f} ms for each"
        lines.append(f"{name:6} {took}")
    apart = [abs(a - b) for a, b in zip(mine.losses, other.losses, strict=True)]
    lines.append(f"greatest difference of two losses: {max(apart):.1e}")
    return "\n".join(lines)


STYLE = """
svg { color-scheme: light dark; --text: #1b2127; --muted: #55616c; --rule: #d5dbe0; --wide: #f0b27a; --thin: #1c5bb8; }
@media (prefers-color-scheme: dark) {
  svg { --text: #e7ebef; --muted: #a3afba; --rule: #364049; --wide: #8a5424; --thin: #8ab8ff; }
}
text { fill: var(--muted); font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
text.name { fill: var(--text); font-weight: 700; }
path { fill: none; stroke-linejoin: round; }
.rule { stroke: var(--rule); } .wide { stroke: var(--wide); stroke-width: 6; }
.thin { stroke: var(--thin); stroke-width: 1.6; }
"""
WIDTH, LEFT, RIGHT = 760, 62, 744  # of the picture, and of what is drawn in it


@dataclass(frozen=True)
class Panel:
    """Curves over the steps, between two heights of the picture and two values."""

    top: float
    bottom: float
    low: float
    high: float

    def height(self, value: float) -> float:
        """Where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)

    def curve(self, values: list[float], kind: str) -> str:
        """A line through values, one for each step."""
        step = (RIGHT - LEFT) / max(1, len(values) - 1)
        points = [f"{LEFT + step * k:.1f},{self.height(v):.1f}" for k, v in enumerate(values)]
        return f'<path class="{kind}" d="M{" ".join(points)}"/>'

    def rules(self, marks: Mapping[float, str]) -> str:
        """Horizontal lines at values, and what stands beside them."""
        drawn = ""
        for value, mark in marks.items():
            y = self.height(value)
            drawn += f'<path class="rule" d="M{LEFT},{y:.1f}H{RIGHT}"/>'
            drawn += f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark}</text>'
        return drawn


def picture(runs: Mapping[str, Run]) -> str:
    """The losses of both runs as curves, one over the other, and below them how far they are apart: an SVG."""
    (mine, other), names = runs.values(), tuple(runs)
    whole = mine.losses + other.losses
    above = Panel(40, 300, math.floor(min(whole)), math.ceil(max(whole)))
    apart = [math.log10(max(abs(a - b), 1e-17)) for a, b in zip(mine.losses, other.losses, strict=True)]
    seen = [a for a in apart if a > -17] or [-17.0]
    below = Panel(342, 420, math.floor(min(seen)) - 1, math.ceil(max(seen)) + 1)
    powers = range(int(below.low) + 1, int(below.high), max(1, round((below.high - below.low) / 4)))
    steps, foot = len(mine.losses), below.bottom + 20
    parts = [
        above.rules({v: str(v) for v in range(int(above.low), int(above.high) + 1)}),
        above.curve(other.losses, "wide") + above.curve(mine.losses, "thin"),
        below.rules({p: f"1e{p}" for p in powers}),
        below.curve([max(a, below.low) for a in apart], "thin"),
        f'<text class="name" x="{LEFT}" y="24">loss of each step</text>',
        f'<text x="{RIGHT}" y="24" text-anchor="end">{names[0]}: the thin line; {names[1]}: the wide one</text>',
        f'<text class="name" x="{LEFT}" y="{below.top - 12}">difference of the two</text>',
        f'<text x="{LEFT}" y="{foot}">1</text><text x="{RIGHT}" y="{foot}" text-anchor="end">step {steps}</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 450" role="img">'
        f"<title>Losses in training: {names[0]} and {names[1]}</title><style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=300, help="steps of training")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32", help="the type of weights")
    parser.add_argument("--threads", type=int, default=1, help="cores for each operation, of which few are large")
    parser.add_argument("--svg", type=Path, help="where the curves of losses are drawn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    letters, text = letters_of()
    sizes, dtype = Sizes(), {"f32": torch.float32, "f64": torch.float64}[options.dtype]
    count = sum(w.numel() for w in fresh(sizes, len(letters), dtype, 0).values())
    print(f"{len(text)} letters of {len(letters)} kinds; {count} weights; {options.steps} steps\n")
    models: dict[str, Model] = {"einc": in_einc, "torch": in_torch}
    runs = {name: train(m, sizes, text, len(letters), options.steps, dtype) for name, m in models.items()}
    print(table(runs))
    if options.svg is not None:
        options.svg.write_text(picture(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
