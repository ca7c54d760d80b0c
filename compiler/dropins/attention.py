"""`einc.scaled_dot_product_attention`: PyTorch's call, as a program of the language with the parts that it asks for.

    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(j <= i, S, -inf)                          is_causal
                    where(M[i, j], S, -inf), S + M[b, i, j]         attn_mask, read at the axes that it has
    D[b, h, i, j] = where(rand(seed, b, h, i, j) < p, 0, softmax[j](A) / (1 - p))
    O[b, h, i, e] = D * V[b, h, j, e]

What is broadcast is read without that axis, and never expanded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from einc.api import Program
from einc.base.errors import CallError, DTypeError, ShapeError
from einc.dropins.kinds import language_type
from einc.dropins.programs import compiled
from einc.runtime.tensors import compiling

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

_NAME = "scaled_dot_product_attention"
_SEEDS = 1 << 62


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention, called as `torch.nn.functional.scaled_dot_product_attention`.

    `query` (…, L, E), `key` (…, S, E) and `value` (…, S, Ev), of one float type, with any leading dimensions that
    broadcast; the result has the shape (…, L, Ev) and the same type. `attn_mask`, of a shape that broadcasts to
    (…, L, S), is of truth values, true where a position counts, or is added to the scores, and then of the queries'
    type or f32. `is_causal` lets row i see the columns up to i. Rows that see nothing are 0. `scale` is 1 / sqrt(E) if
    None. With `enable_gqa`, keys and values may have fewer heads (dimension -3), which divide those of the queries.

    `dropout_p` sets that part of the weights to 0, and divides the others by 1 - p; which ones follows by Philox from a
    seed that is drawn from torch's default generator, so that `torch.manual_seed` repeats it. All operands that are
    floats get gradients where torch asks for them, an additive mask too; dropout is the same in them.
    Raises `einc.Error` for what torch does not take.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value), ("attn_mask", attn_mask)):
        if not (isinstance(tensor, torch.Tensor) or (name == "attn_mask" and tensor is None)):
            raise CallError(
                f"{name} is no torch tensor", fact=f"it is a {type(tensor).__name__}", hint="torch.as_tensor"
            )
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = _lowered(query), _lowered(key), _lowered(value)
        attn_mask = None if attn_mask is None else _lowered(attn_mask)
    masked = None if attn_mask is None else (attn_mask.shape, _strides(attn_mask), attn_mask.dtype)
    types = (query.dtype, key.dtype, value.dtype)
    shapes = query.shape, key.shape, value.shape
    form = types, masked, bool(is_causal), dropout_p > 0, bool(enable_gqa)
    tensors = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
    if compiling() and not dropout_p > 0:
        from einc.dropins.graphs import called

        text, dropped = _planned(shapes, *form)
        named = {} if scale is None else {"scale": float(scale)}
        traced: Tensor = called(text, _NAME, [_without(t, d) for t, d in zip(tensors, dropped, strict=True)], named)
        return traced
    program, dropped = _plan(shapes, *form)
    numbers = [] if scale is None else [float(scale)]
    if dropout_p > 0:
        numbers[:0] = _drawn(dropout_p)
    result: Tensor = program(*(_without(t, d) for t, d in zip(tensors, dropped, strict=True)), *numbers)
    return result


def _strides(mask: Tensor) -> Shape:
    """The strides of a mask, of which 0 says that one element serves all; not so if each gets a gradient of its own."""
    if mask.requires_grad and mask.is_leaf:
        return (1,) * mask.ndim
    return mask.stride()


def _lowered(tensor: Tensor) -> Tensor:
    """The tensor in the type of autocast, as torch's attention takes it; integers, truth values and f64 as they are."""
    if not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _drawn(dropout_p: float) -> list[float]:
    """The seed and the probability of a call; raises `CallError` if it is none."""
    if dropout_p > 1:
        raise CallError("dropout_p is no probability", fact=f"it is {dropout_p}", hint="a number from 0 to 1")
    return [int(torch.randint(_SEEDS, (), device="cpu")), float(dropout_p)]


def _without(tensor: Tensor, dropped: Shape) -> Tensor:
    """The tensor at position 0 of these dimensions, the last first."""
    for dim in dropped:
        tensor = tensor.select(dim, 0)
    return tensor


Mask = tuple[Shape, Shape, torch.dtype]  # its shape, strides and type


def _planned(
    shapes: tuple[Shape, Shape, Shape],
    types: tuple[torch.dtype, torch.dtype, torch.dtype],
    mask: Mask | None,
    causal: bool,
    dropout: bool,
    gqa: bool,
) -> tuple[str, tuple[Shape, ...]]:
    """The text for a call, and the dimensions of each operand that it does not read, the last first.

    Raises `einc.Error` where the arguments do not fit together.
    """
    _check(shapes, types, mask, causal, gqa)
    lead = _lead(shapes, gqa)
    names = _names(len(lead))
    read: list[tuple[str, ...]] = []
    dropped: list[Shape] = []
    for shape, group in zip(shapes, ("", "g", "g" if shapes[1][-3:-2] == shapes[2][-3:-2] else "f"), strict=True):
        axes, drop = _reading(shape, lead, names)
        if gqa and group and 1 < shape[-3] < lead[-1]:
            axes = (*axes[:-1], group)
        read.append(axes)
        dropped.append(drop)
    bias: tuple[str, ...] | None = None
    if mask is not None:
        bias, drop = _bias(mask, (*lead, shapes[0][-2], shapes[1][-2]), (*names, "i", "j"))
        dropped.append(drop)
    text = _text(names, read, Parts(bias, mask is not None and mask[2] == torch.bool, causal, dropout))
    if mask is not None and mask[2] not in (torch.bool, types[0]):
        text = text.replace("e] =", f"e]: {language_type(types[0])} =")  # where the mask would widen it
    return text, tuple(dropped)


@lru_cache(maxsize=4096)
def _plan(*call: Any) -> tuple[Program, tuple[Shape, ...]]:
    """The program instead of the text, kept for calls with operands of the same shapes."""
    text, dropped = _planned(*call)
    return compiled(text, _NAME), dropped


# ---------------------------------------------------------------------------------------------------------------------
# The text


@dataclass(frozen=True, slots=True)
class Parts:
    """The optional parts of the text: the axes of a mask, if there is one, and whether it is of truth values."""

    mask: tuple[str, ...] | None
    choice: bool
    causal: bool
    dropout: bool


def _text(names: Sequence[str], read: Sequence[tuple[str, ...]], parts: Parts) -> str:
    """The program, for operands that are read at these leading axes; g and f are heads of keys and of values."""
    q, k, v = read
    query, key, value = (f"Q[{_list(*q, 'i', 'd')}]", f"K[{_list(*k, 'j', 'd')}]", f"V[{_list(*v, 'j', 'e')}]")
    mask = None if parts.mask is None else f"M[{_list(*parts.mask)}]"
    operands = [query, key, value, *([] if mask is None else [mask])]
    scored = [axis for axis in names if axis in q or axis in k or (axis == "h" and "g" in k)]
    limited = [axis for axis in names if axis in scored or (parts.mask is not None and axis in parts.mask)]
    lines = [
        f"def attention({', '.join(operands)}, {'seed: int, p: float, ' * parts.dropout}scale: float = rsqrt(|d|)):",
        f"S[{_list(*scored, 'i', 'j')}] = scale * {query} * {_grouped(key)}",
    ]
    weights = "softmax[j](S)"
    if parts.causal or mask is not None:
        choice = "where(j <= i, S, -inf)" if parts.causal else f"where({mask}, S, -inf)"
        lines.append(f"A[{_list(*limited, 'i', 'j')}] = {choice if parts.causal or parts.choice else f'S + {mask}'}")
        weights = "softmax[j](A)"
    if parts.dropout:
        at = _list(*names, "i", "j")
        lines.append(f"D[{at}] = where(rand(seed, {at}) < p, 0, {weights} / (1 - p))")
        weights = "D"
    lines += [f"O[{_list(*names, 'i', 'e')}] = {weights} * {_grouped(value)}", "return O"]
    return "\n    ".join(lines) + "\n"


def _list(*axes: str) -> str:
    return ", ".join(axes)


def _grouped(read: str) -> str:
    """A read by the heads of the queries, of which several share one of the keys'."""
    return read.replace("g,", "h // (|h| / |g|),").replace("f,", "h // (|h| / |f|),")


def _names(count: int) -> tuple[str, ...]:
    return (*(f"a{k}" for k in range(1, count - 1)), "b", "h")[-count:] if count else ()


def _reading(shape: Shape, lead: Shape, names: Sequence[str]) -> tuple[tuple[str, ...], Shape]:
    """The leading axes that an operand is read at, and the dimensions that are broadcast, the last first."""
    count = len(shape) - 2
    skipped = len(lead) - count
    dropped = tuple(d for d in reversed(range(count)) if shape[d] == 1 != lead[skipped + d])
    return tuple(names[skipped + d] for d in range(count) if d not in dropped), dropped


def _bias(mask: Mask, whole: Shape, names: Sequence[str]) -> tuple[tuple[str, ...], Shape]:
    """The axes that a mask varies along, and the dimensions that are broadcast, the last first."""
    shape, strides, _ = mask
    skipped = len(whole) - len(shape)
    dropped = tuple(d for d in reversed(range(len(shape))) if shape[d] == 1 or (strides[d] == 0 and shape[d]))
    return tuple(names[skipped + d] for d in range(len(shape)) if d not in dropped), dropped


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _lead(shapes: Sequence[Shape], gqa: bool) -> Shape:
    """The leading dimensions that those of the operands broadcast to, keys repeated for the heads of the queries."""
    heads = shapes[0][-3] if gqa else 0
    leads = [s[:-2] if not gqa or k == 0 else (*s[:-3], heads) for k, s in enumerate(shapes)]
    try:
        return tuple(torch.broadcast_shapes(*leads))  # type: ignore[no-untyped-call]  # torch's own
    except RuntimeError:
        hint = "enable_gqa=True" if _groups(shapes) and not gqa else "they must be equal, or 1"
        raise ShapeError("the leading dimensions do not broadcast", fact=_listed(shapes), hint=hint) from None


def _groups(shapes: Sequence[Shape]) -> bool:
    """Do the heads of keys and values divide those of the queries?"""
    return all(len(s) > 2 and s[-3] and shapes[0][-3] % s[-3] == 0 for s in shapes)


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(f"{name} {tuple(s)}" for name, s in zip(("query", "key", "value"), shapes, strict=True))


def _check(
    shapes: tuple[Shape, Shape, Shape],
    types: tuple[torch.dtype, torch.dtype, torch.dtype],
    mask: Mask | None,
    causal: bool,
    gqa: bool,
) -> None:
    q, k, v = shapes
    if min(map(len, shapes)) < 2:
        raise ShapeError("an operand has fewer than 2 dimensions", fact=_listed(shapes), hint="(…, length, width)")
    if len(set(types)) > 1:
        fact = ", ".join(map(str, types))
        raise DTypeError("query, key and value have different types", fact=fact, hint="convert them to one")
    if not types[0].is_floating_point:
        raise DTypeError(f"attention is of floats, not of {types[0]}", fact=_listed(shapes), hint=".float()")
    if q[-1] != k[-1]:
        raise ShapeError("query and key have different widths", fact=_listed(shapes), hint="the last must agree")
    if k[-2] != v[-2]:
        raise ShapeError("key and value have different lengths", fact=_listed(shapes), hint="one value for each key")
    if gqa and not _groups(shapes):
        hint = "heads are dimension -3; those of keys and values divide those of the queries"
        raise ShapeError("the heads do not make groups", fact=_listed(shapes), hint=hint)
    if mask is not None:
        _check_mask(mask, shapes, types[0], causal, gqa)


def _check_mask(mask: Mask, shapes: Sequence[Shape], dtype: torch.dtype, causal: bool, gqa: bool) -> None:
    if causal:
        raise CallError(
            "attn_mask and is_causal are both given",
            fact="torch takes one of them",
            hint="mask & torch.ones(L, S, dtype=torch.bool).tril()",
        )
    if mask[2] not in (torch.bool, torch.float32, dtype):
        fact = f"it is {mask[2]}, the query {dtype}"
        raise DTypeError("attn_mask is neither bool, nor f32, nor of the query's type", fact=fact, hint="mask.bool()")
    whole = (*_lead(shapes, gqa), shapes[0][-2], shapes[1][-2])
    own = tuple(mask[0])
    skipped = len(whole) - len(own)
    if skipped < 0 or any(n != 1 and n != m for n, m in zip(own, whole[skipped:], strict=True)):
        fact = f"its shape is {own}, that of the scores {whole}"
        raise ShapeError("attn_mask does not broadcast to the scores", fact=fact, hint="its dimensions are equal, or 1")
