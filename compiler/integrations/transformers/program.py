"""Attention in the language, with the parts that a call has.

S[b, h, i, j] = scale * Q[b, h, i, d] * K[b, h // (|h| / |g|), j, d]
A[b, h, i, j] = where(MASK, softcap(S, cap) + BIAS, -inf)
O[b, i, h, e] = softmax[j](A) * V[b, h // (|h| / |g|), j, e]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from einc.api import Program
from einc.dropins.programs import compiled
from einc.integrations.transformers.patterns import Condition

NAME = "attention"  # what diagnostics call it


@dataclass(frozen=True, slots=True)
class Form:
    """What the text depends on.

    `query` and `key` say that these have the batch of the result, and one for all otherwise; `grouped`, that several
    heads of queries share one of the keys. `masks` and `biases` are the axes of boolean and of additive operands,
    `sink` those of the sinks. `documents` counts the conditions on packed sequences, which are: in the same one, and
    not after the query, counted from its end. `blocks` is the size of the blocks of keys of which only some count.
    `lonely` says that a query which sees no key gets the average of all values.
    """

    dtype: str
    query: bool = True
    key: bool = True
    grouped: bool = False
    causal: bool = False
    condition: Condition | None = None
    masks: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    documents: int = 0
    blocks: int = 0
    lonely: bool = False
    softcap: bool = False
    sink: str | None = None
    dropout: bool = False
    weights: bool = False


@lru_cache(maxsize=1024)
def program(form: Form) -> Program:
    """The program of a form.

    Its operands are Q, K, V, those of the condition, masks, biases, what says which document a position is in, blocks
    and sinks; then the numbers scale, cap, drop and seed, as far as the form has them.
    """
    return compiled(text(form), NAME)


def text(form: Form) -> str:
    """The text of the program."""
    lines = [f"def attention({', '.join(_parameters(form))}):", *_scores(form), *_results(form)]
    return "\n    ".join(lines) + "\n"


def _parameters(form: Form) -> list[str]:
    heads, batch = ("g" if form.grouped else "h"), ("b, " if form.key else "")
    return [
        f"Q[{'b, ' if form.query else ''}h, i, d]",
        f"K[{batch}{heads}, j, d]",
        f"V[{batch}{heads}, j, e]",
        *(form.condition.parameters if form.condition else ()),
        *(f"M{k}[{_listed(axes)}]" for k, axes in enumerate(form.masks)),
        *(f"B{k}[{_listed(axes)}]" for k, axes in enumerate(form.biases)),
        *("DI[i] DJ[j] RI[i] RJ[j]".split()[: 2 * form.documents]),
        *(("C[b, x, i, n]",) if form.blocks else ()),
        *(() if form.sink is None else (f"Z[{_listed(form.sink)}]",)),
        "scale: float",
        *(("cap: float",) if form.softcap else ()),
        *(("drop: float", "seed: int") if form.dropout else ()),
    ]


def _listed(axes: str) -> str:
    return ", ".join(axes)


def _at(form: Form, last: str) -> str:
    """The position of keys and values of a query's head."""
    return f"{'b, ' if form.key else ''}{'h // (|h| / |g|)' if form.grouped else 'h'}, j, {last}"


def _scores(form: Form) -> list[str]:
    """The scores, and the condition, as lines that define A."""
    score = "softcap(S, cap)" if form.softcap else "S"
    for k, axes in enumerate(form.biases):
        score += f" + B{k}[{_listed(axes)}]"
    seen = ["j <= i"] if form.causal else []
    definitions: tuple[str, ...] = ()
    if form.condition is not None:
        definitions = form.condition.written.definitions
        seen += form.condition.written.expressions
    seen += [f"M{k}[{_listed(axes)}]" for k, axes in enumerate(form.masks)]
    seen += ["DI[i] == DJ[j]", "RI[i] <= RJ[j]"][: form.documents]
    seen += [f"C[b, h // (|h| / |x|), i, j // {form.blocks}]"] if form.blocks else []
    seen = [f"({c})" if " or " in c and len(seen) > 1 else c for c in seen if c != "true"]
    if seen:
        score = f"where({' and '.join(seen)}, {score}, -inf)"
    query = f"Q[{'b, ' if form.query else ''}h, i, d]"
    return [f"S[b, h, i, j] = scale * {query} * K[{_at(form, 'd')}]", *definitions, f"A[b, h, i, j] = {score}"]


def _results(form: Form) -> list[str]:
    weights = "softmax[j](A)" if form.sink is None else f"softmax_sink[j](A, Z[{_listed(form.sink)}])"
    lines = []
    if form.dropout:
        lines.append(f"W[b, h, i, j]: {form.dtype} = where(rand(seed, b, h, i, j) < drop, 0, {weights} / (1 - drop))")
        weights = "W"
    elif form.weights:
        lines.append(f"W[b, h, i, j]: {form.dtype} = {weights}")
    value = f"{weights} * V[{_at(form, 'e')}]"
    if form.lonely and form.sink is None:
        batch = "b, " if form.key else ""
        heads = "g" if form.grouped else "h"
        lines.append(f"E[{batch}{heads}, e] = mean[j](V[{batch}{heads}, j, e])")
        lines.append("L[b, h, i] = max[j](A)")
        lines.append(f"U[b, h, i, e] = {value}")
        value = f"where(L[b, h, i] == -inf, E[{_at(form, 'e').replace('j, ', '')}], U[b, h, i, e])"
    lines.append(f"O[b, i, h, e]: {form.dtype} = {value}")
    return [*lines, "return O, W" if form.weights else "return O"]
