"""What a user would call instead: PyTorch's own functions, prepared for operands, to be compared and timed.

A peer may have several ways to take the operands, with positions before or after heads: the one that gives the
program's values is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from einc.trials.scores import Form

Tensors = Mapping[str, "torch.Tensor"]
Way = Callable[[], Any]
Peer = Callable[[Tensors], Sequence[Way]]


def direct(f: Callable[..., torch.Tensor]) -> Peer:
    """A function of the operands in order."""
    return lambda tensors: [lambda: f(*tensors.values())]


def compiled(f: Callable[..., torch.Tensor]) -> Peer:
    """The same through torch.compile, once for all operands."""
    made = cache(_compiled)
    return lambda tensors: [lambda: made(f)(*tensors.values())]


def _compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    return torch.compile(f, dynamic=False)


def gradients(peer: Peer) -> Peer:
    """A peer's way back: from one cotangent of its result, the same for all, to those of all operands of floats.

    The results are computed when it is first taken, and what leads back from them is kept.
    """

    def ready(tensors: Tensors) -> list[Way]:
        leaves = {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}
        wanted = [t for t in leaves.values() if t.requires_grad]
        return [_back(way, wanted) for way in peer(leaves)]

    return ready


def _back(way: Way, wanted: Sequence[torch.Tensor]) -> Way:
    import torch

    found: list[torch.Tensor] = []

    def run() -> Any:
        if not found:
            result = way()
            generator = torch.Generator(result.device).manual_seed(2)
            noise = torch.randn(result.shape, generator=generator, device=result.device)
            found.extend((result, noise.bfloat16().to(result.dtype)))  # the same numbers in every type
        result, cotangent = found
        return torch.autograd.grad(result, wanted, cotangent, retain_graph=True, allow_unused=True)

    return run


def sdpa(causal: bool = False, backend: str = "", form: Form | None = None) -> Peer:
    """`scaled_dot_product_attention`, on torch's choice of backend or a given one; the mask of a form is made in memory
    beforehand."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        q, k, v = list(tensors.values())[:3]
        grouped, mask = q.shape[1] != k.shape[1], None
        sees = None if form is None else form.visible(tensors)
        if sees is not None:
            b, i, j = (torch.arange(n, device=q.device) for n in (q.shape[0], q.shape[2], k.shape[2]))
            mask = sees(b[:, None, None, None], i[:, None], j)

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


def naive(form: Form) -> Peer:
    """Scores and weights in memory: two products and a softmax, for every row of the batch in turn."""

    def ready(tensors: Tensors) -> list[Way]:
        import torch

        q, k, v = list(tensors.values())[:3]
        i, j = (torch.arange(n, device=q.device) for n in (q.shape[2], k.shape[2]))
        i, j = i[:, None], j[None, :]
        heads = torch.arange(q.shape[1], device=q.device)[:, None, None]
        sees, change = form.visible(tensors), form.change(tensors)
        group = q.shape[1] // k.shape[1]

        def attend(b: int) -> torch.Tensor:
            keys, values = (t[b].repeat_interleave(group, 0) if group > 1 else t[b] for t in (k, v))
            s = q[b] @ keys.mT * q.shape[-1] ** -0.5
            s = s if change is None else change(s, b, heads, i, j)
            s = s if sees is None else s.masked_fill(~sees(b, i, j), float("-inf"))
            if not form.sinks:
                return torch.softmax(s, -1) @ values
            sink = tensors["Z"][:, None, None].expand(*s.shape[:2], 1).to(s.dtype)
            return torch.softmax(torch.cat([s, sink], -1), -1)[..., :-1] @ values

        return [lambda: torch.stack([attend(b) for b in range(q.shape[0])])]

    return ready


def flex(form: Form | None = None) -> Peer:
    """Compiled `flex_attention` with the scores of a form, and a block mask made beforehand; not compiled where there
    is no GPU."""
    made = cache(_compiled)

    def ready(tensors: Tensors) -> list[Way]:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q, k, v = list(tensors.values())[:3]
        eager: Callable[..., Any] = flex_attention
        found = made(eager) if q.is_cuda else eager
        sees, changed = (None, None) if form is None else (form.visible(tensors), form.change(tensors))
        blocks = None
        if sees is not None:
            blocks = create_block_mask(
                lambda b, _h, i, j: sees(b, i, j), q.shape[0] if form is not None and form.batched else None, None,
                q.shape[2], k.shape[2], device=str(q.device),
            )  # fmt: skip
        grouped, sinks = q.shape[1] != k.shape[1], form is not None and form.sinks

        def attend() -> torch.Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about not being compiled
                result = found(q, k, v, score_mod=changed, block_mask=blocks, enable_gqa=grouped, return_lse=sinks)
                if sinks:
                    out, lse = result
                    result = out * torch.sigmoid(lse - tensors["Z"][None, :, None])[..., None].to(out.dtype)
                return result  # type: ignore[no-any-return]

        return [attend]

    return ready


def turned(peer: Peer) -> Peer:
    """A peer whose tensors of four dimensions, and result, have their second and third exchanged."""

    def ready(tensors: Tensors) -> list[Way]:
        found = {name: t.transpose(1, 2) if t.ndim == 4 else t for name, t in tensors.items()}
        return [_turned(way) for way in peer(found)]

    return ready


def attentions(attend: Callable[[bool], Peer]) -> Peer:
    """A peer for any attention that the operands may mean: heads before or after positions, causal or not."""

    def ready(tensors: Tensors) -> list[Way]:
        if len(tensors) < 3 or any(t.ndim != 4 for t in list(tensors.values())[:3]):
            raise ValueError("it takes three operands with four dimensions each")
        found: list[Way] = []
        for causal in (False, True):
            found += attend(causal)(tensors)
            found += turned(attend(causal))(tensors)
        return found

    return ready


def _turned(way: Way) -> Way:
    return lambda: way().transpose(1, 2)


def _flex(causal: bool) -> Peer:
    from einc.trials.scores import FORMS

    return flex(FORMS["causal" if causal else "full"])


def einsum(text: str) -> Callable[..., torch.Tensor]:
    """A string as a function of operands."""
    import torch

    return lambda *operands: torch.einsum(text, *operands)


# The peers of a program by name; each is made from the program's text.
PEERS: dict[str, Callable[[str], Peer]] = {
    "sdpa": lambda _: attentions(sdpa),
    "flex": lambda _: attentions(_flex),
    "cublas": lambda text: direct(einsum(text)),
    "eager": lambda text: direct(einsum(text)),
    "compile": lambda text: compiled(einsum(text)),
}
