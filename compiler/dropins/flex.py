"""`einc.flex_attention`: PyTorch's call, of which the functions are traced into a program of the language.

    S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h, j, d]
    A[b, h, i, j] = where(MASK, SCORE, -inf)
    O[b, h, i, e] = softmax[j](A) * V[b, h, j, e]

The manual is `torch/nn/attention/flex_attention.py`. Of a `BlockMask` only its `mask_mod` is used: which blocks of
scores a mask leaves is derived from the program.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from einc.api import Program
from einc.base.errors import CallError, DTypeError, ShapeError
from einc.dropins.fingerprints import fingerprint
from einc.dropins.kinds import language_type, truth
from einc.dropins.programs import compiled
from einc.dropins.symbols import Symbol
from einc.dropins.tracing import Tracer
from einc.runtime.tensors import compiling, is_torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.attention.flex_attention import AuxRequest, BlockMask

ScoreMod = Callable[..., Any]  # (score, b, h, q_idx, kv_idx) -> score
MaskMod = Callable[..., Any]  # (b, h, q_idx, kv_idx) -> truth value

Shape = tuple[int, ...]

_NAME = "flex_attention"
_MOST_KNOWN = 4096
_KNOWN: OrderedDict[Hashable, tuple[Program, tuple[tuple[int, bool], ...]]] = (
    OrderedDict()
)  # by fingerprint: the program, and which captured tensors it takes, and whether without gradients
_NO_BLOCKS = 1 << 30  # the block size of a mask that torch makes where none is given


@dataclass(frozen=True, slots=True)
class Form:
    """What the text depends on besides the functions; types are torch's.

    `grouped`: several heads of queries share one of the keys. `shared`: all batches share one of the keys.
    """

    dtype: torch.dtype = torch.float32
    value_dtype: torch.dtype = torch.float32
    grouped: bool = False
    shared: bool = False
    lse: bool = False
    maximum: bool = False

    @property
    def working(self) -> torch.dtype:
        """The type of the scores."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: ScoreMod | None = None,
    block_mask: BlockMask | MaskMod | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Mapping[str, Any] | None = None,  # noqa: ARG001
    *,
    return_aux: AuxRequest | None = None,
) -> Any:
    """Attention with a function of scores and a mask, called as `torch.nn.attention.flex_attention.flex_attention`.

    `query` (B, Hq, L, E), `key` (B, Hkv, S, E) and `value` (B, Hkv, S, Ev). Keys and values may have one batch for all
    if there is a mask, and with `enable_gqa` fewer heads, which divide those of the queries. The result has the shape
    (B, Hq, L, Ev) and the queries' type; rows that see nothing are 0. `score_mod(score, b, h, q_idx, kv_idx)` gives the
    score, which is f32 (f64 for queries of f64); `block_mask` is a `BlockMask`, of which `mask_mod` is used, or such a
    function itself: `mask_mod(b, h, q_idx, kv_idx)` says whether the position counts. Both are called with symbols.
    `scale` is 1 / sqrt(E) if None. `kernel_options` are for torch's kernels, and make no difference.

    With `return_lse`, a pair with the natural logarithm of the sum of the exponentials of each row's scores, of shape
    (B, Hq, L) and type f32 or f64, -inf for a row that sees nothing; with `return_aux`, a pair with an `AuxOutput` of
    what is asked for, of which the greatest scores have no gradient. Captured tensors get gradients, tables and numbers
    alike, unless the function detaches them. Raises `einc.Error` for shapes and types that do not fit, and, with the
    user's line, for what cannot be traced.
    """
    if compiling():
        from einc.dropins import graphs

        attention = graphs.flex_attention
    else:
        attention = traced_attention
    if return_lse and return_aux is not None:
        raise CallError(
            "return_lse and return_aux are both given",
            fact="return_lse is the older way",
            hint="return_aux=AuxRequest(lse=True)",
        )
    wanted = (return_lse, False) if return_aux is None else (return_aux[0], return_aux[1])
    found = attention(query, key, value, score_mod, block_mask, scale, enable_gqa, wanted)
    if return_aux is None:
        return found[:2] if return_lse else found[0]
    from torch.nn.attention.flex_attention import AuxOutput

    return found[0], AuxOutput(lse=found[1], max_scores=found[2])


def traced_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: ScoreMod | None,
    block_mask: BlockMask | MaskMod | None,
    scale: float | None,
    enable_gqa: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The result, and the logarithms of the sums and the greatest scores where they are wanted."""
    _check_tensors(query=query, key=key, value=value)
    mask_mod = _mask_of(block_mask, query, key)
    types = query.dtype, value.dtype
    form = _form(query.shape, key.shape, value.shape, types, mask_mod is not None, enable_gqa)
    if wanted != (False, False):
        form = replace(form, lse=wanted[0], maximum=wanted[1])
    extents = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    program, tensors = _program(score_mod, mask_mod, form, extents, query.device)
    keys = (key[0], value[0]) if form.shared else (key, value)
    held = (query.detach(), keys[0].detach()) if "Q_held" in program.text.operands else ()
    captured = (t if t.ndim else t.to(query.device) for t in tensors)
    scalars = () if scale is None else (float(scale),)
    found = program(query, *keys, *held, *captured, *scalars)
    results = iter(found if isinstance(found, tuple) else (found,))
    return next(results), next(results) if wanted[0] else None, next(results).detach() if wanted[1] else None


def flex_program(
    score_mod: ScoreMod | None = None,
    mask_mod: MaskMod | BlockMask | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    enable_gqa: bool = False,
    return_lse: bool = False,
    extents: Mapping[str, int] | None = None,
) -> Program:
    """The program that `flex_attention` runs for these functions and queries of a type; `print` its `text.source.text`.

    Its operands are Q[b, h, i, d], K and V, then Q and K once more, as Q_held and K_held, if the function detaches the
    score, then the tensors that the functions capture, in the order in which they are met. `extents` of b, h, i and j,
    if given, show that a subscript is never negative, which spares a choice.
    """
    tracer = Tracer(dict.fromkeys("bhij") | dict(extents or {}))
    given: Any = mask_mod
    mask: MaskMod | None = getattr(given, "mask_mod", given)
    text = _traced(tracer, score_mod, mask, Form(dtype, dtype, grouped=enable_gqa, lse=return_lse))
    return compiled(text, _NAME)


def _program(
    score_mod: ScoreMod | None, mask_mod: MaskMod | None, form: Form, extents: Shape, device: torch.device
) -> tuple[Program, Sequence[Tensor]]:
    """The program, and the captured tensors that it takes. Functions like those of an earlier call are not traced."""
    mark = fingerprint(score_mod, mask_mod)
    key = None if mark is None else (mark.key, form, device, torch.get_default_dtype())
    if mark is not None and (known := _KNOWN.get(key) or _KNOWN.get((key, extents))) is not None:
        program, order = known
        return program, [mark.tensors[k].detach() if held else mark.tensors[k] for k, held in order]
    tracer = Tracer(dict(zip("bhij", extents, strict=True)), device)
    program = compiled(_traced(tracer, score_mod, mask_mod, form), _NAME)
    read = tuple(c.tensor for c in tracer.captured)
    if mark is not None and tracer.repeatable and (found := mark.positions(read)) is not None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.popitem(last=False)
        order = tuple(zip(found, (c.held for c in tracer.captured), strict=True))
        _KNOWN[(key, extents) if tracer.sized else key] = program, order
    return program, tracer.tensors


# ---------------------------------------------------------------------------------------------------------------------
# The text


def _traced(tracer: Tracer, score_mod: ScoreMod | None, mask_mod: MaskMod | None, form: Form) -> str:
    """The program for these functions; the tracer then has what they capture."""
    axes = tracer.axes()
    score = tracer.named("S", "bhij", form.working)
    if score_mod is not None:
        score = tracer(score_mod, score, *axes)
    mask = None if mask_mod is None else tracer(mask_mod, *axes)
    return _text(tracer, score, mask, form)


def _text(tracer: Tracer, score: Symbol, mask: Symbol | None, form: Form) -> str:
    parts = [score] if mask is None else [score, Symbol(tracer, truth(mask), torch.bool)]
    written = tracer.write(*parts)
    body = written.expressions[0]
    if mask is not None and written.expressions[1] != "true":
        body = f"where({written.expressions[1]}, {body}, -inf)"
    head = "" if form.shared else "b, "
    heads, at = ("g", "h // (|h| / |g|)") if form.grouped else ("h", "h")
    query, key = "Q[b, h, i, d]", f"K[{head}{heads}, j, d]"
    held = (_held(query), _held(key)) if tracer.defined["S"] else ()
    operands = (query, key, f"V[{head}{heads}, j, e]", *held, *tracer.parameters)
    value = f"V[{head}{at}, j, e]"
    if form.value_dtype != form.dtype:
        value = f"{language_type(form.dtype)}({value})"
    statistic = language_type(form.working)
    scores = f"S[b, h, i, j] = scale * {query} * K[{head}{at}, j, d]"
    lines = [
        f"def flex_attention({', '.join(operands)}, scale: float = rsqrt(|d|)):",
        scores,
        *([_held(scores)] if held else []),
        *written.definitions,
        f"A[b, h, i, j] = {body}",
        f"O[b, h, i, e]{_result_type(tracer, form)} = softmax[j](A) * {value}",
    ]
    results = ["O"]
    if form.lse:
        lines.append(f"L[b, h, i]: {statistic} = logsumexp[j](A)")
        results.append("L")
    if form.maximum:
        lines.append(f"M[b, h, i]: {statistic} = max[j](A)")
        results.append("M")
    lines.append(f"return {', '.join(results)}")
    return "\n    ".join(lines) + "\n"


def _held(text: str) -> str:
    """The same of the tensors that get no gradient."""
    return re.sub(r"\b([SQK])\[", r"\1_held[", text)


def _result_type(tracer: Tracer, form: Form) -> str:
    """The queries' type, where what the score is made of would widen it."""
    others = {form.value_dtype, *(t.dtype for t in tracer.tensors if t.dtype.is_floating_point)}
    return f": {language_type(form.dtype)}" if others - {form.dtype} else ""


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and results


def _mask_of(block_mask: Any, query: Tensor, key: Tensor) -> MaskMod | None:
    """The function of a mask; raises `ShapeError` if its blocks were made for other lengths."""
    mask_mod: MaskMod | None = getattr(block_mask, "mask_mod", None)
    if mask_mod is None:
        if block_mask is None or callable(block_mask):
            return block_mask  # type: ignore[no-any-return]  # a function, as far as can be known
        raise CallError(
            "block_mask is neither a BlockMask nor a function",
            fact=f"it is a {type(block_mask).__name__}",
            hint="block_mask=lambda b, h, q, k: q >= k",
        )
    made, used = tuple(block_mask.shape[-2:]), (query.shape[-2], key.shape[-2])
    if tuple(block_mask.BLOCK_SIZE) != (_NO_BLOCKS, _NO_BLOCKS) and made != used:
        raise ShapeError(
            "block_mask was created for other lengths",
            fact=f"it is for {made[0]} queries and {made[1]} keys, there are {used[0]} and {used[1]}",
            hint="create_block_mask for these lengths, or pass its mask_mod alone",
        )
    return mask_mod


def _check_tensors(**named: Any) -> None:
    for name, tensor in named.items():
        if not is_torch(tensor):
            kind = type(tensor).__name__
            raise CallError(f"{name} is no torch tensor", fact=f"it is a {kind}", hint="torch.as_tensor")
        if tensor.ndim != 4:
            fact = f"its shape is {tuple(tensor.shape)}"
            raise ShapeError(f"{name} does not have 4 dimensions", fact=fact, hint="pass (batch, heads, length, width)")
        if not tensor.dtype.is_floating_point:
            fact = "attention is of floats"
            raise DTypeError(f"{name} has elements of type {tensor.dtype}", fact=fact, hint=".float()")


@lru_cache(maxsize=4096)
def _form(
    query: Shape, key: Shape, value: Shape, types: tuple[torch.dtype, torch.dtype], masked: bool, gqa: bool
) -> Form:
    """The types and the sharing of keys; raises `ShapeError` for shapes that torch does not take."""
    (batch, heads, _, width), (key_batch, key_heads, _, key_width) = query, key
    shapes = f"query {tuple(query)}, key {tuple(key)}, value {tuple(value)}"
    if key_width != width:
        raise ShapeError("query and key have different widths", fact=shapes, hint="the last dimensions must agree")
    if value[:3] != key[:3]:
        raise ShapeError("key and value differ in batch, heads or length", fact=shapes, hint="only widths may differ")
    if heads != key_heads and not (gqa and key_heads and heads % key_heads == 0):
        hint = "heads of queries are a multiple of those of keys" if gqa else "enable_gqa=True"
        raise ShapeError("query and key have different numbers of heads", fact=shapes, hint=hint)
    if batch != key_batch and not (masked and key_batch == 1):
        hint = "one batch of keys serves all if there is a mask"
        raise ShapeError("query and key have different batches", fact=shapes, hint=hint)
    return Form(types[0], types[1], grouped=heads != key_heads, shared=batch != key_batch)
