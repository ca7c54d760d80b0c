"""What a user would call instead: PyTorch's own functions, prepared for operands, to be compared and timed.

A peer may have several ways to take the operands, with positions before or after heads: the one that gives the
program's values is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
Way = Callable[[], "torch.Tensor"]
Peer = Callable[[Tensors], Sequence[Way]]

Visible = Callable[[Any, Any], Any]  # of a query's and a key's position


def direct(f: Callable[..., torch.Tensor]) -> Peer:
    """A function of the operands in order."""
    return lambda tensors: [lambda: f(*tensors.values())]


def compiled(f: Callable[..., torch.Tensor]) -> Peer:
    """The same through torch.compile."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch

        torch._dynamo.reset()
        found = torch.compile(f, dynamic=False)
        return [lambda: found(*tensors.values())]

    return ready


def sdpa(causal: bool = False, backend: str = "", visible: Callable[[Tensors], Visible] | None = None) -> Peer:
    """`scaled_dot_product_attention`, on torch's choice of backend or a given one; a mask that is not causal is made in
    memory beforehand."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        q, k, v = list(tensors.values())[:3]
        grouped, mask = q.shape[1] != k.shape[1], None
        if visible is not None:
            i, j = (torch.arange(n, device=q.device) for n in (q.shape[2], k.shape[2]))
            mask = visible(tensors)(i[:, None], j[None, :])

        def attend() -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
            )

        if not backend:
            return [attend]

        def chosen() -> torch.Tensor:
            with sdpa_kernel(getattr(SDPBackend, backend)):
                return attend()

        return [chosen]

    return ready


def naive(visible: Callable[[Tensors], Visible] | None = None) -> Peer:
    """Scores and weights in memory: two products and a softmax."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch

        q, k, v = list(tensors.values())[:3]
        i, j = (torch.arange(n, device=q.device) for n in (q.shape[2], k.shape[2]))
        hidden = None if visible is None else ~visible(tensors)(i[:, None], j[None, :])

        def attend() -> torch.Tensor:
            s = q @ k.mT * q.shape[-1] ** -0.5
            return torch.softmax(s if hidden is None else s.masked_fill_(hidden, float("-inf")), -1) @ v

        return [attend]

    return ready


def flex(visible: Callable[[Tensors], Visible] | None = None, score: Callable[[Any], Any] | None = None) -> Peer:
    """Compiled `flex_attention`, with a block mask made beforehand; not compiled where there is no GPU."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q, k, v = list(tensors.values())[:3]
        found: Callable[..., Any] = flex_attention
        if q.is_cuda:
            torch._dynamo.reset()
            found = torch.compile(flex_attention, dynamic=False)
        blocks = None
        if visible is not None:
            sees = visible(tensors)
            blocks = create_block_mask(
                lambda _b, _h, i, j: sees(i, j), None, None, q.shape[2], k.shape[2], device=str(q.device)
            )
        change = None if score is None else lambda s, *_: score(s)
        grouped = q.shape[1] != k.shape[1]

        def attend() -> torch.Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about not being compiled
                result: torch.Tensor = found(q, k, v, score_mod=change, block_mask=blocks, enable_gqa=grouped)
                return result

        return [attend]

    return ready


def attentions(attend: Callable[[bool], Peer]) -> Peer:
    """A peer for any attention that the operands may mean: heads before or after positions, causal or not."""

    def ready(tensors: Tensors) -> list[Way]:
        if len(tensors) < 3 or any(t.ndim != 4 for t in list(tensors.values())[:3]):
            raise ValueError("it takes three operands with four dimensions each")
        turned = {name: t.transpose(1, 2) if t.ndim == 4 else t for name, t in tensors.items()}
        found: list[Way] = []
        for causal in (False, True):
            found += attend(causal)(tensors)
            found += [_turned(way) for way in attend(causal)(turned)]
        return found

    return ready


def _turned(way: Way) -> Way:
    return lambda: way().transpose(1, 2)


def _before(_: Tensors) -> Visible:
    return lambda i, j: i >= j


def _einsum(text: str) -> Callable[..., torch.Tensor]:
    import torch

    return lambda *operands: torch.einsum(text, *operands)


# The peers of a program by name; each is made from the program's text.
PEERS: dict[str, Callable[[str], Peer]] = {
    "sdpa": lambda _: attentions(sdpa),
    "flex": lambda _: attentions(lambda causal: flex(_before if causal else None)),
    "cublas": lambda text: direct(_einsum(text)),
    "eager": lambda text: direct(_einsum(text)),
    "compile": lambda text: compiled(_einsum(text)),
}
