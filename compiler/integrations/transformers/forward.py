"""`attention`, as transformers' attention interface calls it."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from einc.dropins.kinds import language_type
from einc.integrations.transformers.masks import Mask
from einc.integrations.transformers.patterns import Masked
from einc.integrations.transformers.program import NAME, Form, program, text
from einc.runtime.tensors import compiling

_TYPES = {t: language_type(t) for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | Tensor | None = None,
    dropout: float = 0.0,
    *,
    is_causal: bool | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    sinks: Tensor | None = None,
    indices: Tensor | None = None,
    block_indices: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    output_attentions: bool | None = False,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """What each query (b, h, i, d) attends to by the keys (b, h, j, d), of the values (b, h, j, e): (b, i, h, e).

    Keys and values may have fewer heads, which divide those of the queries, and a batch of one serves all.
    `attention_mask` is a `Mask`, or a tensor that broadcasts to the scores (b, h, i, j): truth values say what is
    seen, numbers are added. Where a `Mask` lets a query see nothing, it gets the average of all values, as in eager
    attention. Without a mask, attention is causal if `is_causal`, or else the module's attribute, says so and there are
    several queries. `scaling` is 1 / sqrt(d) if None. `softcap` bounds the scores, then `position_bias` is added, and
    the sinks, `s_aux` (h) or `sinks` (b, h, i, n), are normalised over too. `indices` (b, i, t) names the only keys
    that count, `block_indices` (b, g, i, t) the only blocks of as many keys as the module's indexer has in one.
    `cu_seq_lens_q` and `cu_seq_lens_k` bound the sequences that are packed into a batch of one, if there is no mask.
    The second result is the weights (b, h, i, j) if `output_attentions`, else None. Raises `einc.Error` for shapes and
    types that do not fit.
    """
    call = _Call(query, key, value)
    if attention_mask is not None:
        call.mask(attention_mask)
    else:
        own = getattr(module, "is_causal", False)
        causal = query.shape[2] > 1 and bool(own if is_causal is None else is_causal)
        if cu_seq_lens_q is not None and cu_seq_lens_k is not None:
            call.documents(cu_seq_lens_q, cu_seq_lens_k, causal)
        else:
            call.causal = causal
    if block_indices is not None:
        call.blocks(block_indices, cast("Any", module).indexer.block_size)
    if indices is not None:
        call.mask(_chosen(indices, key.shape[2]))
    if position_bias is not None:
        call.bias(position_bias)
    call.sinks(s_aux if sinks is None else sinks)
    return call.run(scaling, softcap, dropout, bool(output_attentions))


class _Call:
    """The form and the operands of a call, as its arguments make them."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        self.query, self.key, self.value = query, key, value
        self.causal = self.lonely = self.documented = False
        self.masked: Masked | None = None
        self.masks: list[tuple[str, Tensor]] = []
        self.biases: list[tuple[str, Tensor]] = []
        self.positions: tuple[Tensor, ...] = ()
        self.sink: tuple[str, Tensor] | None = None
        self.chosen: tuple[Tensor, int] | None = None

    def mask(self, mask: Tensor) -> None:
        """A mask of any kind."""
        length = self.key.shape[2]
        if isinstance(mask, Mask):
            shorter = mask if mask.changed else mask.of_keys(length)
            found = shorter.masked()
            if isinstance(found, Masked):
                self.masked, self.lonely = found, shorter.pattern.lonely
                return
            mask = found
        if mask.dtype == torch.bool:
            self.masks.append(self._operand(mask))
        else:
            self.bias(mask)

    def bias(self, bias: Tensor) -> None:
        """Numbers that are added to the scores."""
        self.biases.append(self._operand(bias))

    def _operand(self, tensor: Tensor) -> tuple[str, Tensor]:
        """The axes along which a tensor that broadcasts to the scores differs, and the tensor without the others."""
        if tensor.shape[-1] > self.key.shape[2]:
            tensor = tensor[..., : self.key.shape[2]]
        return _axes("bhij", tensor)

    def documents(self, of_queries: Tensor, of_keys: Tensor, causal: bool) -> None:
        """Sequences that are packed one after another, and bounded by these positions."""
        same = of_queries is of_keys
        tables = [_documents(t, n) for t, n in ((of_queries, self.query.shape[2]), (of_keys, self.key.shape[2]))]
        (documents, remaining), (key_documents, key_remaining) = tables
        self.documented, self.causal = True, causal and same
        self.positions = (documents, key_documents)
        if causal and not same:
            self.positions += (remaining, key_remaining)

    def blocks(self, indices: Tensor, size: int) -> None:
        """The only blocks of so many keys that count, by their indices (b, g, i, t); a negative one is none."""
        count = -(-self.key.shape[2] // size)
        chosen = torch.zeros((*indices.shape[:3], count + 1), dtype=torch.bool, device=indices.device)
        chosen.scatter_(-1, indices.masked_fill(indices < 0, count), True)
        self.chosen = chosen[..., :count], size

    def sinks(self, sinks: Tensor | None) -> None:
        """What is normalised over besides the scores: (h), or (b, h, i, n)."""
        if sinks is None:
            return
        if sinks.ndim == 4:
            self.sink = _axes("bhi", sinks[..., 0] if sinks.shape[-1] == 1 else sinks.logsumexp(-1))
        else:
            self.sink = _axes("h", sinks.reshape(-1))

    def run(
        self, scaling: float | Tensor | None, softcap: float | None, dropout: float, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The values, and the weights if they are wanted."""
        query, key, value = self.query, self.key, self.value
        batches = query.shape[0], key.shape[0]
        if isinstance(scaling, Tensor):
            query, scaling = query * scaling, 1.0
        form = Form(
            dtype=_TYPES.get(query.dtype) or language_type(query.dtype),
            query=batches[0] >= batches[1],
            key=batches[1] >= batches[0],
            grouped=query.shape[1] != key.shape[1],
            causal=self.causal,
            condition=None if self.masked is None else self.masked.condition,
            masks=tuple(axes for axes, _ in self.masks),
            biases=tuple(axes for axes, _ in self.biases),
            documents=len(self.positions) // 2,
            lonely=self.lonely,
            softcap=softcap is not None,
            blocks=0 if self.chosen is None else self.chosen[1],
            sink=None if self.sink is None else self.sink[0],
            dropout=dropout > 0,
            weights=weights,
        )
        operands = (
            query if form.query else query[0],
            *((key, value) if form.key else (key[0], value[0])),
            *(() if self.masked is None else self.masked.tensors),
            *(t for _, t in self.masks),
            *(t for _, t in self.biases),
            *self.positions,
            *(() if self.chosen is None else self.chosen[:1]),
            *(() if self.sink is None else (self.sink[1],)),
        )
        numbers: dict[str, float] = {"scale": 1 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)}
        if softcap is not None:
            numbers["cap"] = float(softcap)
        if dropout > 0:
            numbers |= {"drop": float(dropout), "seed": _seed()}
        if compiling():
            from einc.dropins.graphs import called

            seed = {n: int(x) for n, x in numbers.items() if n == "seed"}
            floats = {n: x for n, x in numbers.items() if n not in seed}
            found = called(text(form), NAME, operands, floats, seed)
        else:
            found = program(form)(*operands, *numbers.values())
        return found if weights else (found, None)


def _axes(axes: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The last of these axes, along which a tensor differs, and the tensor with only those."""
    named = axes[len(axes) - tensor.ndim :]
    index = tuple(slice(None) if n != 1 else 0 for n in tensor.shape)
    return "".join(a for a, n in zip(named, tensor.shape, strict=True) if n != 1), tensor[index]


def _documents(bounds: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Which sequence each position is in, and how many positions of it come after."""
    positions = torch.arange(length, device=bounds.device)
    documents = torch.bucketize(positions, bounds[1:], right=True)
    return documents, bounds[1:][documents.clamp(max=bounds.shape[0] - 2)] - positions


def _chosen(indices: Tensor, length: int) -> Tensor:
    """A mask (b, 1, i, j) of the keys with these indices (b, i, t)."""
    shape = (*indices.shape[:2], length)
    return torch.zeros(shape, dtype=torch.bool, device=indices.device).scatter_(-1, indices.long(), True)[:, None]


def _seed() -> int:
    """A seed for the numbers that decide what is dropped, by torch's own generator."""
    return int(torch.empty((), dtype=torch.int64).random_().item())
