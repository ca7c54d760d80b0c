"""Contests of attention, in forms by name or of any scores and masks."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from einc.trials.contests import Contest, normal
from einc.trials.peers import Peer, flex, naive, sdpa, turned
from einc.trials.scores import FORMS, Form, Sizes

_TEXT = """
def attention({q}, {k}, {v}{params}):
    S[b, h, i, j] = rsqrt(|d|) * {q} * {k_read}
    A[b, h, i, j] = {score}
    {o} = {softmax} * {v_read}
    return O
"""


def text(form: Form, behind: bool = False) -> str:
    """The program of a form, with heads before positions or `behind` them."""

    def at(name: str, head: str, *axes: str) -> str:
        rows, width = axes
        return f"{name}[{', '.join(['b', *((rows, head) if behind else (head, rows)), width])}]"

    kv, read = ("g", "h // (|h| // |g|)") if form.group > 1 else ("h", "h")
    return _TEXT.format(
        q=at("Q", "h", "i", "d"), k=at("K", kv, "j", "d"), v=at("V", kv, "j", "e"), o=at("O", "h", "i", "e"),
        k_read=at("K", read, "j", "d"), v_read=at("V", read, "j", "e"), params=form.params, score=form.score,
        softmax="softmax_sink[j](A, Z[h])" if form.sinks else "softmax[j](A)",
    )  # fmt: skip


def attention(name: str, device: str, dtype: str, sizes: tuple[int, int, int, int], kind: str = "attention") -> Contest:
    """Attention of a form over b batches, h heads, n positions and width d."""
    return of_form(name, FORMS[name], device, dtype, sizes, kind)


def of_form(
    name: str, form: Form, device: str, dtype: str, sizes: tuple[int, int, int, int], kind: str = "attention",
    behind: bool = False,
) -> Contest:  # fmt: skip
    """Attention with such scores and masks, over b batches, h heads, n positions and width d."""
    b, h, n, d = sizes
    if h % form.group:
        form = replace(form, group=1)
    there, held = Sizes(b, h, n, device), h // form.group

    def operands() -> dict[str, Tensor]:
        shapes = {
            x: (b, n, many, d) if behind else (b, many, n, d) for x, many in {"Q": h, "K": held, "V": held}.items()
        }
        found = normal(device, dtype, shapes)
        extra = form.tensors(there).items()
        return found | {x: t.to(found["Q"].dtype) if t.is_floating_point() else t for x, t in extra}

    plain = not form.terms and not form.sinks
    peers: dict[str, Peer] = {"flex" if device == "cuda" else "naive": (flex if device == "cuda" else naive)(form)}
    if plain:
        peers["sdpa"] = sdpa(form.causal, form=None if form.causal else form)
        if device == "cuda" and (form.causal or not form.masks):
            peers["cudnn"] = sdpa(form.causal, backend="CUDNN_ATTENTION")
    exact: Peer = naive(form)
    if behind:
        peers, exact = {x: turned(p) for x, p in peers.items()}, turned(exact)
    heads = f"{h}/{held}" if form.group > 1 else f"{h}"
    return Contest(
        f"attention {dtype} {name}, b{b} h{heads} n{n} d{d}{' bihd' if behind else ''}",
        text(form, behind), operands, peers, 4.0 * b * h * n * n * d * form.share(there), exact=exact, kind=kind,
    )  # fmt: skip


def decoding(device: str, dtype: str, b: int, heads: int, groups: int, n: int, d: int) -> Contest:
    """One query a head, whose keys and values groups of heads share."""
    text = """
def decode(Q[b, (g r), i, d], K[b, g, j, d], V[b, g, j, e]):
    S[b, g, r, i, j] = rsqrt(|d|) * Q[b, (g r), i, d] * K[b, g, j, d]
    O[b, (g r), i, e] = softmax[j](S) * V[b, g, j, e]
    return O
"""
    held = (b, groups, n, d)
    return Contest(
        f"decoding {dtype}, b{b} h{heads}/{groups} n{n} d{d}", text,
        lambda: normal(device, dtype, {"Q": (b, heads, 1, d), "K": held, "V": held}),
        {"sdpa": sdpa(), **({"flex": flex()} if device == "cuda" else {})}, exact=naive(FORMS["full"]), kind="decode",
    )  # fmt: skip
