"""How long a training step of a GPT takes with attention and norms of einc, and with those of torch, on a GPU.

    python bench/step.py

Eight layers, width 1024, 16 heads, bf16: forward, backward and AdamW. Everything but attention and norms is the same
torch code. Times are the median of ten steps; a ratio is the time of torch's step, compiled, over that of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import einc

ATTENTION = einc.compile("""def attention(Q[b, i, h, d], K[b, j, h, d], V[b, j, h, e], scale: float = rsqrt(|d|)):
    S[b, h, i, j] = scale * Q[b, i, h, d] * K[b, j, h, d]
    O[b, i, h, e] = softmax[j](where(j <= i, S, -inf)) * V[b, j, h, e]
    return O
""")
NORM = einc.compile("""def rmsnorm(X[b, n, c], gain[c], eps: float = 1e-6):
    Y[b, n, c] = X[b, n, c] * rsqrt(sum[c](X[b, n, c] ** 2) / |c| + eps) * gain[c]
    return Y
""")


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.rms_norm(x, gain.shape, gain, 1e-6)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model is made of: attention of queries, keys and values `[b, n, h, d]`, and the norm of rows."""

    attention: Callable[[Tensor, Tensor, Tensor], Tensor]
    norm: Callable[[Tensor, Tensor], Tensor]


EINC, TORCH = Parts(ATTENTION, NORM), Parts(sdpa, rms_norm)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, parts: Parts) -> None:
        super().__init__()
        self.heads, self.parts = heads, parts
        self.before, self.between = (nn.Parameter(torch.ones(width)) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.parts.norm(x, self.before)).unflatten(-1, (3, self.heads, -1))
        x = x + self.out(self.parts.attention(*qkv.unbind(2)).flatten(2))
        wide = F.gelu(self.up(self.parts.norm(x, self.between)), approximate="tanh")
        return x.add(self.down(wide))


class GPT(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, parts: Parts) -> None:
        super().__init__()
        self.embedding, self.parts = nn.Embedding(vocabulary, width), parts
        self.blocks = nn.ModuleList(Block(width, heads, parts) for _ in range(layers))
        self.last, self.head = nn.Parameter(torch.ones(width)), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.parts.norm(x, self.last))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def steps(parts: Parts, compiled: bool, tokens: Tensor, vocabulary: int) -> Callable[[], Tensor]:
    """A function that takes one step and gives its loss."""
    torch.manual_seed(0)
    model: nn.Module = GPT(8, 1024, 16, vocabulary, parts).to("cuda", torch.bfloat16)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)
    run = torch.compile(model) if compiled else model

    def step() -> Tensor:
        optimiser.zero_grad()
        loss: Tensor = run(tokens[:, :-1], tokens[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss

    return step


def main() -> None:
    import triton

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=4096)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    vocabulary = 32768
    torch.manual_seed(1)
    tokens = torch.randint(vocabulary, (options.batch, options.length + 1), device="cuda")
    contestants = {
        "SDPA, torch.compile": (TORCH, True),
        "einc, torch.compile": (EINC, True),
        "SDPA, eager": (TORCH, False),
        "einc, eager": (EINC, False),
    }
    taken: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    for name, (parts, compiled) in contestants.items():
        torch.compiler.reset()
        torch.cuda.empty_cache()
        step = steps(parts, compiled, tokens, vocabulary)
        losses[name] = [step().item() for _ in range(4)]
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(10):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        taken[name], memory[name] = times, torch.cuda.max_memory_allocated() / 1e9
    print(
        f"{torch.cuda.get_device_name()}, {date.today()}; einc {einc.__version__}, torch {torch.__version__}, triton "
        f"{triton.__version__}; 8 layers, width 1024, 16 heads, b{options.batch} n{options.length}, bf16\n"
    )
    print("| step | ms | ratio | GB | losses |\n|---|---:|---:|---:|---|")
    first = median(taken["SDPA, torch.compile"])
    for name, times in taken.items():
        ms = median(times)
        shown = ", ".join(f"{x:.4f}" for x in losses[name])
        print(f"| {name} | {ms:.1f} | {first / ms:.2f} | {memory[name]:.1f} | {shown} |")


if __name__ == "__main__":
    main()
