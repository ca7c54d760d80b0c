"""Attention in its many forms, as papers define them: scores, a mask or a bias, a normalisation, a product with V."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.library.cases import Case, Draw, Maker, Result, Sizes

# ruff: noqa: N803, N806 - queries, keys and values have capital letters everywhere

INF = float("inf")
HEADS: dict[str, Maker] = {"Q": "b h i d", "K": "b h j d", "V": "b h j e"}
GROUPS: dict[str, Maker] = {"Q": "b (g r) i d", "K": "b g j d", "V": "b g j e"}
SIZES = {"b": 2, "h": 3, "g": 2, "r": 3, "i": 37, "j": 153, "d": 16, "e": 24}
TINY = {"b": 1, "h": 2, "g": 1, "r": 2, "i": 7, "j": 21, "d": 8, "e": 8}
LONG = {"b": 4, "h": 16, "g": 4, "r": 4, "i": 4096, "j": 4096, "d": 128, "e": 128}
SQUARE = SIZES | {"i": 153}
TINY_SQUARE = TINY | {"i": 21}

Mask = Callable[..., Tensor]


def scores(Q: Tensor, K: Tensor) -> Tensor:
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def softmax(S: Tensor) -> Tensor:
    """Over the last axis; 0 in a row that is wholly masked."""
    return S.softmax(-1).nan_to_num(0.0)


def positions(S: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key positions, as a column and a row."""
    i, j = S.shape[-2:]
    return torch.arange(i, device=S.device)[:, None], torch.arange(j, device=S.device)


def before(S: Tensor) -> Tensor:
    """The scores of keys up to the query's own position; -inf for the others."""
    i, j = positions(S)
    return S.masked_fill(j > i, -INF)


def grouped(Q: Tensor, K: Tensor) -> Tensor:
    """Keys or values of each query head: r heads in turn share one."""
    return K.repeat_interleave(Q.shape[1] // K.shape[1], 1)


def mha(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax(scores(Q, K)) @ V


def mqa(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax(scores(Q, K[:, None])) @ V[:, None]


def gqa(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax(scores(Q, grouped(Q, K))) @ grouped(Q, V)


def masked(visible: Mask) -> Callable[..., Tensor]:
    """Attention to the keys for which `visible(i, j, ...)`, given what else the program takes."""

    def reference(Q: Tensor, K: Tensor, V: Tensor, **more: Tensor | int) -> Tensor:
        S = scores(Q, K)
        return softmax(S.masked_fill(~visible(*positions(S), **more), -INF)) @ V

    return reference


def causal_cache(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    S = scores(Q, K)
    i, j = positions(S)
    return softmax(S.masked_fill(j > i + (S.shape[-1] - S.shape[-2]), -INF)) @ V


def varlen(Q: Tensor, K: Tensor, V: Tensor, first: Tensor, first_key: Tensor) -> Tensor:
    """Sequence by sequence; the last queries stand at the last keys."""
    bounds = zip(first, first[1:], first_key, first_key[1:], strict=False)
    parts = [
        causal_cache(*(x[a:b].transpose(0, 1) for x, a, b in ((Q, p, q), (K, r, s), (V, r, s)))).transpose(0, 1)
        for p, q, r, s in bounds
    ]
    return torch.cat(parts)


def alibi(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    S = scores(Q, K)
    i, j = positions(S)
    n = S.shape[1]
    slope = torch.tensor([2.0 ** (-8.0 * k / n) for k in range(1, n + 1)], dtype=S.dtype, device=S.device)
    return softmax(before(S + slope[:, None, None] * (j - i))) @ V


def t5_buckets(distance: Tensor, buckets: int = 32, furthest: int = 128) -> Tensor:
    """T5's buckets of j - i, for attention to both sides: half of them exact, half in logarithmic steps."""
    half = buckets // 2
    n = distance.abs()
    exact = half // 2
    steps = (n.double().clamp(min=1) / exact).log() / math.log(furthest / exact) * (half - exact)
    large = (exact + steps.long()).clamp(max=half - 1)
    return (distance > 0) * half + torch.where(n < exact, n, large)


def t5_bucket_table(draw: Draw) -> Tensor:
    return t5_buckets(torch.arange(1 - draw["i"], draw["j"])).to(torch.int32)


def t5_bias(Q: Tensor, K: Tensor, V: Tensor, table: Tensor, bucket: Tensor) -> Tensor:
    S = Q @ K.mT
    i, j = positions(S)
    return softmax(S + table[bucket[j - i + Q.shape[-2] - 1]].permute(2, 0, 1)) @ V


def learned_bias(Q: Tensor, K: Tensor, V: Tensor, bias: Tensor) -> Tensor:
    return softmax(scores(Q, K) + bias) @ V


def windows(Q: Tensor, K: Tensor, V: Tensor, bias: Tensor) -> Tensor:
    n = bias.shape[-1]
    q, k, v = (x.reshape(*x.shape[:2], -1, n, x.shape[-1]) for x in (Q, K, V))
    return torch.flatten(softmax(scores(q, k) + bias[:, None]) @ v, 2, 3)


def softcap(Q: Tensor, K: Tensor, V: Tensor, cap: float) -> Tensor:
    return softmax(before(cap * (scores(Q, K) / cap).tanh())) @ V


def sink_logits(Q: Tensor, K: Tensor, V: Tensor, sink: Tensor) -> Tensor:
    S = before(scores(Q, K))
    column = sink[:, None, None].expand(*S.shape[:-1], 1)
    return torch.cat([S, column], -1).softmax(-1)[..., :-1] @ V


def softmax1(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return F.pad(scores(Q, K), (0, 1)).softmax(-1)[..., :-1] @ V


def qk_norm(Q: Tensor, K: Tensor, V: Tensor, gain_q: Tensor, gain_k: Tensor) -> Tensor:
    q, k = (F.rms_norm(x, x.shape[-1:], g, 1e-6) for x, g in ((Q, gain_q), (K, gain_k)))
    return softmax(before(scores(q, k))) @ V


def angles(of: Callable[[Tensor], Tensor]) -> Callable[[Draw], Tensor]:
    """A table of the angles' sines or cosines by position, the same for d and d + |d| / 2."""

    def table(draw: Draw) -> Tensor:
        half = draw["d"] // 2
        pair = torch.arange(half).repeat(2) / half
        return of(torch.arange(draw["n"])[:, None] * 10000.0**-pair).to(draw.dtype)

    return table


def rotate(X: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = X.chunk(2, -1)
    c, s = (t[: X.shape[-2]].chunk(2, -1)[0] for t in (cos, sin))
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def rotary(Q: Tensor, K: Tensor, V: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return softmax(before(scores(rotate(Q, cos, sin), rotate(K, cos, sin)))) @ V


def sigmoid(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return (scores(Q, K) - math.log(K.shape[-2])).sigmoid() @ V


def relu(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return scores(Q, K).relu() / K.shape[-2] @ V


def cosine(Q: Tensor, K: Tensor, V: Tensor, temperature: Tensor) -> Tensor:
    S = F.normalize(Q, dim=-1) @ F.normalize(K, dim=-1).mT
    return softmax(S / temperature.clamp(min=0.01)[:, None, None]) @ V


def differential(Q: Tensor, K: Tensor, V: Tensor, weight: Tensor) -> Tensor:
    A = softmax(before(scores(Q, K)))
    return (A[:, :, 0] - weight[:, None, None] * A[:, :, 1]) @ V


def evoformer(Q: Tensor, K: Tensor, V: Tensor, G: Tensor, pair: Tensor, present: Tensor) -> Tensor:
    S = torch.einsum("bsihc,bsjhc->bshij", Q, K) / math.sqrt(Q.shape[-1]) + pair[:, None]
    A = softmax(S.masked_fill(~present[:, :, None, None], -INF))
    return G.sigmoid() * torch.einsum("bshij,bsjhc->bsihc", A, V)


def triangle(Q: Tensor, K: Tensor, V: Tensor, G: Tensor, edge: Tensor) -> Tensor:
    S = torch.einsum("bijhc,bikhc->bhijk", Q, K) / math.sqrt(Q.shape[-1]) + edge[:, :, None]
    return G.sigmoid() * torch.einsum("bhijk,bikhc->bijhc", softmax(S), V)


def forgetting(Q: Tensor, K: Tensor, V: Tensor, F: Tensor) -> Tensor:
    C = torch.nn.functional.logsigmoid(F).cumsum(-1)
    return softmax(before(scores(Q, K) + C[:, :, : Q.shape[-2], None] - C[:, :, None])) @ V


def int8_cache(Q: Tensor, K: Tensor, V: Tensor, scale_k: Tensor, scale_v: Tensor) -> Tensor:
    return mha(Q, K.double() * scale_k[..., None], V.double() * scale_v[..., None])


def talking_heads(Q: Tensor, K: Tensor, V: Tensor, before: Tensor, after: Tensor) -> Tensor:
    S = torch.einsum("bhij,hk->bkij", scores(Q, K), before)
    return torch.einsum("bkij,kl->blij", softmax(S), after) @ V


def mla(Q: Tensor, P: Tensor, C: Tensor, R: Tensor) -> Tensor:
    S = torch.cat([Q, P], -1) @ torch.cat([C, R], -1)[:, None].mT / math.sqrt(192)
    i, j = positions(S)
    return softmax(S.masked_fill(j > i + (S.shape[-1] - S.shape[-2]), -INF)) @ C[:, None]


def neighbourhood_2d(Q: Tensor, K: Tensor, V: Tensor, radius: int) -> Tensor:
    """Position by position, as in NATTEN: the window's first row and column are kept within the image."""
    rows, columns = Q.shape[2:4]
    O = torch.empty_like(Q[..., :1]).expand(*Q.shape[:-1], V.shape[-1]).clone()  # noqa: E741
    for y in range(rows):
        for x in range(columns):
            u, v = (min(max(p - radius, 0), n - 2 * radius - 1) for p, n in ((y, rows), (x, columns)))
            k, w = (t[:, :, u : u + 2 * radius + 1, v : v + 2 * radius + 1].flatten(2, 3) for t in (K, V))
            O[:, :, y, x] = (softmax(scores(Q[:, :, y, x, None], k)) @ w)[:, :, 0]
    return O


def tree(Q: Tensor, K: Tensor, V: Tensor, continues: Tensor) -> Tensor:
    S = scores(Q, K)
    visible = F.pad(continues, (K.shape[-2] - continues.shape[-1], 0), value=True)
    return softmax(S.masked_fill(~visible[:, None], -INF)) @ V


def drafts(draw: Draw) -> Tensor:
    """Which drafts each draft continues, itself included: each one's parent is a random earlier one, or none."""
    i = draw["i"]
    parent = draw.uniform("b i").float() * torch.arange(i + 1)[:i]
    own = torch.eye(i, dtype=torch.bool).expand(draw["b"], i, i)
    edges = own | (parent.long()[..., None] == torch.arange(i))
    closed = edges.double()
    for _ in range(max(i, 2).bit_length()):
        closed = (closed @ closed > 0).double()
    return closed > 0


def block_sparse(Q: Tensor, K: Tensor, V: Tensor, table: Tensor, size: int) -> Tensor:
    S = scores(Q, K)
    visible = table.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, : S.shape[-2], : S.shape[-1]]
    return softmax(S.masked_fill(~visible, -INF)) @ V


def block_list(Q: Tensor, K: Tensor, V: Tensor, list: Tensor, size: int) -> Tensor:  # noqa: A002 - the program's
    """The same by the lists; no block is listed twice."""
    m, n = list.shape[1], K.shape[2] // size
    table = (list[..., None] == torch.arange(n, device=list.device)).any(2)
    S = scores(Q, K)
    visible = table.repeat_interleave(Q.shape[2] // m, 1).repeat_interleave(size, 2)
    return softmax(S.masked_fill(~visible, -INF)) @ V


def listed(draw: Draw) -> Tensor:
    """Some blocks of keys for each block of queries, none twice, and -1 where a list has ended."""
    chosen = torch.rand(draw.shape("h m n"), generator=draw.generator).argsort(-1)[..., : draw["l"]]
    length = draw.integers("h m 1", 0, draw["l"] + 1)
    return torch.where(torch.arange(draw["l"]) < length, chosen, -1).to(torch.int32)


def decoding(Q: Tensor, K: Tensor, V: Tensor, length: Tensor) -> Tensor:
    S = scores(Q[:, :, None], grouped(Q, K))
    visible = torch.arange(K.shape[2], device=K.device) < length[:, None]
    return (softmax(S.masked_fill(~visible[:, None, None], -INF)) @ grouped(Q, V))[:, :, 0]


def paged(Q: Tensor, K: Tensor, V: Tensor, page: Tensor, length: Tensor) -> Tensor:
    k, v = (x[page].flatten(1, 2).transpose(1, 2) for x in (K, V))
    return decoding(Q, k, v, length)


def pages(draw: Draw) -> Tensor:
    """Which page holds each part of each sequence; no page is used twice."""
    return draw.order(draw["p"])[: draw["b"] * draw["m"]].reshape(draw["b"], draw["m"]).to(torch.int32)


def linear(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    q, k = (F.elu(x) + 1 for x in (Q, K))
    A = (q @ k.mT).tril()
    return A @ V / A.sum(-1, keepdim=True)


def retention(Q: Tensor, K: Tensor, V: Tensor, decay: Tensor) -> Tensor:
    S = scores(Q, K)
    i, j = positions(S)
    return (S * decay[:, None, None] ** (i - j).clamp(min=0)).tril() @ V


def philox(seed: int, *counter: Tensor) -> Tensor:
    """The first word of Philox4x32-10 as a number in [0, 1), by the paper's definition, in 64-bit integers."""
    word = 0xFFFFFFFF
    c = [x & word for x in counter]
    k0, k1 = seed & word, seed >> 32 & word

    def times(a: int, x: Tensor) -> tuple[Tensor, Tensor]:  # high and low word; 16 bits at a time stay within 64
        low, high = a * (x & 0xFFFF), a * (x >> 16)
        total = low + ((high & 0xFFFF) << 16)
        return (high >> 16) + (total >> 32) & word, total & word

    for _ in range(10):
        (ah, al), (bh, bl) = times(0xD2511F53, c[0]), times(0xCD9E8D57, c[2])
        c = [bh ^ c[1] ^ k0, bl, ah ^ c[3] ^ k1, al]
        k0, k1 = k0 + 0x9E3779B9 & word, k1 + 0xBB67AE85 & word
    signed = torch.where(c[0] >= 1 << 31, word - c[0], c[0])
    return signed.float() * 4.6566127342e-10


def dropout(Q: Tensor, K: Tensor, V: Tensor, seed: int, p: float) -> Tensor:
    A = softmax(scores(Q, K))
    index = torch.meshgrid(*(torch.arange(n, device=A.device) for n in A.shape), indexing="ij")
    return A.masked_fill(philox(seed, *index) < torch.tensor(p), 0) / (1 - p) @ V


def statistics(Q: Tensor, K: Tensor, V: Tensor) -> tuple[Tensor, ...]:
    S = before(scores(Q, K))
    A = S.softmax(-1)
    return A @ V, S.logsumexp(-1), torch.special.entr(A).sum(-1)


def row_maximum(Q: Tensor, K: Tensor, V: Tensor) -> tuple[Tensor, ...]:
    S = before(scores(Q, K))
    return softmax(S) @ V, S.amax(-1)


def starts(axis: str) -> Callable[[Draw], Tensor]:
    """Where each of s - 1 sequences begins along an axis, and where the last ends; early ones are short or empty."""
    return lambda draw: (torch.arange(draw["s"]) ** 2 * draw[axis] // (draw["s"] - 1) ** 2).to(torch.int32)


def attention(
    name: str,
    reference: Callable[..., Result],
    more: Mapping[str, Maker] | None = None,
    *,
    operands: Mapping[str, Maker] = HEADS,
    sizes: Sizes = SIZES,
    tiny: Sizes = TINY,
    long: Sizes = LONG,
    **fields: Any,
) -> Case:
    """Attention of queries i to keys j, with `more` operands than Q, K and V."""
    return Case(f"attention/{name}", {**operands, **(more or {})}, reference, sizes, ("j",), tiny, long, **fields)


def square(name: str, reference: Callable[..., Result], more: Mapping[str, Maker] | None = None, **fields: Any) -> Case:
    """The same with as many queries as keys."""
    n, tiny, long = (SIZES["j"], TINY["j"], LONG["j"])
    given = {"sizes": SIZES, "tiny": TINY, "long": LONG} | fields
    for key, extent in (("sizes", n), ("tiny", tiny), ("long", long)):
        given[key] = {"n": extent, **given[key], "i": given[key]["j"]}
    return attention(name, reference, more, **given)


def mask(name: str, visible: Mask, more: Mapping[str, Maker] | None = None, **fields: Any) -> Case:
    """The same with some keys hidden."""
    return square(name, masked(visible), more, **fields)


PACKED: dict[str, Maker] = {"Q": "i h d", "K": "j h d", "V": "j h e", "first": starts("i"), "first_key": starts("j")}
PAIRS: dict[str, Maker] = {"Q": "b h p i d", "K": "b h p j d", "V": "b h j e", "weight": "h"}
ALIGNMENT: dict[str, Maker] = {
    "Q": "b s i h c", "K": "b s j h c", "V": "b s j h c", "G": "b s i h c",
    "pair": "b h i j", "present": lambda draw: draw.uniform("b s j") < 0.7,
}  # fmt: skip
TRIANGLE: dict[str, Maker] = {
    "Q": "b i j h c", "K": "b i k h c", "V": "b i k h c", "G": "b i j h c", "edge": "b h j k",
}  # fmt: skip
EIGHT_BITS: dict[str, Maker] = {
    "Q": "b h i d",
    "K": lambda draw: draw.integers("b h j d", -127, 128, torch.int8),
    "V": lambda draw: draw.integers("b h j e", -127, 128, torch.int8),
    "scale_k": lambda draw: draw.uniform("b h j", 0.001, 0.02).float(),
    "scale_v": lambda draw: draw.uniform("b h j", 0.001, 0.02).float(),
}
LATENT: dict[str, Maker] = {"Q": "b h i c", "P": "b h i r", "C": "b j c", "R": "b j r"}
IMAGE: dict[str, Maker] = {"Q": "b h y x d", "K": "b h y x d", "V": "b h y x e"}
BLOCKS: dict[str, Maker] = {"Q": "b h (m r) d", "K": "b h (n s) d", "V": "b h (n s) e", "list": listed}
LAST: dict[str, Maker] = {"Q": "b (g r) d", "K": "b g j d", "V": "b g j e"}
LENGTH: dict[str, Maker] = {"length": lambda draw: draw.integers("b", 1, draw["j"] + 1)}
PAGED: dict[str, Maker] = {
    "Q": "b (g r) d", "K": "p s g d", "V": "p s g e", "page": pages,
    "length": lambda draw: draw.integers("b", 1, draw["m"] * draw["s"] + 1),
}  # fmt: skip
LONG_DECODING = LONG | {"j": 65536}


def table(draw: Draw) -> Tensor:
    """Which blocks of 16 see which, a third of them."""
    m, n = (-(-draw[axis] // 16) for axis in ("i", "j"))
    return torch.rand((draw["h"], m, n), generator=draw.generator) < 0.3


CASES = (
    attention("mha", mha),
    attention("mqa", mqa, operands={"Q": "b h i d", "K": "b j d", "V": "b j e"}),
    attention("gqa", gqa, operands=GROUPS),
    attention("gqa_composite", gqa, operands=GROUPS),
    mask("causal", lambda i, j: j <= i),
    attention("causal_cache", causal_cache),
    mask("sliding_window", lambda i, j, window: (j <= i) & (i - j < window), scalars={"window": 40}),
    mask(
        "sink_tokens",
        lambda i, j, window, sinks: (j <= i) & ((i - j < window) | (j < sinks)),
        scalars={"window": 20, "sinks": 3},
    ),
    mask(
        "prefix_lm",
        lambda i, j, prefix: (j <= i) | (j < prefix[:, None, None, None]),
        {"prefix": lambda draw: draw.integers("b", 0, draw["j"])},
    ),
    mask(
        "documents",
        lambda i, j, document: ((j <= i) & (document[:, i] == document[:, None, j]))[:, None],
        {"document": lambda draw: draw.integers("b n", 0, 4).sort(-1).values},
        kernels=2,  # the first finds where each document's keys are
    ),
    attention("varlen", varlen, operands=PACKED, sizes=SIZES | {"s": 6}),
    square("alibi", alibi),
    attention("t5_bias", t5_bias, {"table": "n h", "bucket": t5_bucket_table}, sizes=SIZES | {"n": 32}),
    attention("learned_bias", learned_bias, {"bias": "h i j"}),
    attention(
        "windows",
        windows,
        operands={"Q": "b h (w i) d", "K": "b h (w j) d", "V": "b h (w j) e", "bias": "h i j"},
        sizes=SIZES | {"w": 3, "i": 49, "j": 49},
        tiny=TINY | {"w": 3, "i": 7, "j": 7},
        long=LONG | {"w": 64, "i": 64, "j": 64},
    ),
    square("softcap", softcap, scalars={"cap": 1.5}),
    square("sink_logits", sink_logits, {"sink": "h"}),
    attention("softmax1", softmax1),
    square("qk_norm", qk_norm, {"gain_q": "d", "gain_k": "d"}),
    square("rotary", rotary, {"cos": angles(torch.cos), "sin": angles(torch.sin)}),
    attention("sigmoid", sigmoid),
    attention("relu", relu),
    attention("cosine", cosine, {"temperature": lambda draw: draw.uniform("h", 0.0, 0.5)}),
    square("differential", differential, operands=PAIRS, sizes=SIZES | {"p": 2}),
    attention(
        "evoformer",
        evoformer,
        operands=ALIGNMENT,
        sizes=SIZES | {"s": 3, "c": 8},
        long=LONG | {"b": 1, "s": 128, "i": 1024, "j": 1024, "c": 32},
        kernels=2,  # the first finds the bounds of what is present
    ),
    Case(
        "attention/triangle",
        TRIANGLE,
        triangle,
        {"b": 1, "h": 2, "i": 19, "j": 37, "k": 41, "c": 16},
        ("k",),
        {"i": 3, "j": 7, "k": 9},
        {"i": 1024, "j": 1024, "k": 1024, "h": 4, "c": 32},
    ),
    square("forgetting", forgetting, {"F": lambda draw: draw.normal("b h n") + 3}, kernels=2),
    attention("int8_cache", int8_cache, operands=EIGHT_BITS),
    attention(
        "talking_heads",
        talking_heads,
        {"V": "b l j e", "before": "h k", "after": "k l"},
        sizes=SIZES | {"k": 3, "l": 4},
        tiny=TINY | {"k": 2, "l": 2},
        long=LONG | {"k": 16, "l": 16},
    ),
    attention(
        "mla",
        mla,
        operands=LATENT,
        sizes=SIZES | {"i": 3, "c": 512, "r": 64},
        tiny={"b": 1, "h": 2, "i": 3, "j": 21},
        long=LONG | {"h": 128, "i": 1, "j": 65536, "r": 64},
    ),
    Case(
        "attention/neighbourhood_2d",
        IMAGE,
        neighbourhood_2d,
        {"b": 2, "h": 2, "y": 11, "x": 13, "d": 16, "e": 24},
        ("y", "x"),
        {"b": 1, "y": 5, "x": 6, "d": 8, "e": 8},
        {"b": 4, "h": 16, "y": 64, "x": 64, "d": 64, "e": 64},
        {"radius": 2},
    ),
    mask(
        "dilated",
        lambda i, j, window, dilation: (j <= i) & (i - j < window * dilation) & ((i - j) % dilation == 0),
        scalars={"window": 9, "dilation": 3},
    ),
    mask("chunked", lambda i, j, chunk: (j <= i) & (i // chunk == j // chunk), scalars={"chunk": 50}),
    mask(
        "global_local",
        lambda i, j, radius, globals: ((i - j).abs() <= radius) | (i < globals) | (j < globals),  # noqa: A006
        scalars={"radius": 9, "globals": 3},
    ),
    attention("tree", tree, {"continues": drafts}, tiny=TINY, long=LONG | {"i": 64}),
    attention("block_sparse", block_sparse, {"table": table}, scalars={"size": 16}),
    attention(
        "block_list",
        block_list,
        operands=BLOCKS,
        sizes=SIZES | {"m": 4, "r": 11, "n": 9, "s": 16, "l": 4, "j": 64},
        tiny=TINY | {"m": 2, "r": 3, "n": 3, "l": 2},
        long=LONG | {"m": 64, "r": 64, "n": 256, "l": 32},
        scalars={"size": 16},
    ),
    attention("decoding", decoding, LENGTH, operands=LAST, long=LONG_DECODING),
    attention(
        "paged",
        paged,
        operands=PAGED,
        sizes=SIZES | {"p": 41, "s": 8, "m": 19},
        tiny=TINY | {"p": 5, "s": 4, "m": 4},
        long=LONG | {"p": 1 << 14, "s": 16, "m": 1 << 12, "j": 1 << 16},
    ),
    square("linear", linear),
    square("retention", retention, {"decay": lambda draw: draw.uniform("h", 0.8, 0.99)}),
    attention("dropout", dropout, scalars={"seed": 1 << 40 | 7, "p": 0.25}),
    square("statistics", statistics),
    square("row_maximum", row_maximum),
)
