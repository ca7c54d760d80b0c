"""Generation: caches that grow, that are as long as they will ever be, and that keep a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from einc import driver
from einc.integrations.transformers.patterns import Masked, Pattern
from tests.integrations.compare import Run, assert_as_good, calls, without_elements
from tests.integrations.families import OTHERS, WANTED
from tests.integrations.tiny import cached, model

LENGTHS = (6, 1, 1, 3, 1, 2)  # of what is read at a time: past a window of 4, then past it again
MOST = 20  # that a static cache holds


def growing(config: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=config)


def static(config: Any) -> Any:
    from transformers import StaticCache

    return StaticCache(config=config, max_cache_len=MOST)


def read_in_parts(cache: Callable[[Any], Any], padded: bool) -> Run:
    """A model that reads a text part by part: what it says at every position that counts."""
    texts = torch.randint(4, 90, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    counting = torch.ones_like(texts)
    if padded:
        counting[0, :3] = 0
    places = (counting.cumsum(-1) - 1).clamp(min=0)

    def run(m: Any) -> Tensor:
        ids, counted, positions = (t.to(m.device) for t in (texts, counting, places))
        held, at, found = cache(m.config), 0, []
        for length in LENGTHS:
            part = slice(at, at + length)
            mask = {"attention_mask": counted[:, : at + length]} if padded else {}
            said = m(input_ids=ids[:, part], position_ids=positions[:, part], **cached(m, held), **mask)
            found.append(said.logits[counted[:, part].bool()])
            at += length
        return torch.cat(found)

    return run


FAMILIES = "llama mistral gemma2 gemma3_text gpt_oss llama4_text deepseek_v3 qwen3 cohere2 doge gpt2".split()


@pytest.mark.parametrize(
    ("padded", "cache", "family"),
    [
        pytest.param(
            padded,
            cache,
            family,
            id=f"{'padded' if padded else 'whole'}-{cache.__name__}-{family}",
            marks=[pytest.mark.slow] * ((n + padded + (cache is static)) % 2),
        )
        for padded in (False, True)
        for cache in (growing, static)
        for n, family in enumerate(FAMILIES)
    ],
)
def test_parts_of_a_text(family: str, cache: Callable[[Any], Any], padded: bool) -> None:
    """Of padding, cache and family any two meet; the slow tier has every three."""
    assert_as_good(model(family, **WANTED.get(family, {})), read_in_parts(cache, padded))


@pytest.mark.parametrize("family", ["qwen3_next", "jamba", "lfm2"])
def test_hybrid_models(family: str) -> None:
    """Of which some layers keep a state instead of keys."""
    assert_as_good(model(family, **WANTED.get(family, {})), read_in_parts(growing, padded=True))


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "llama4_text"])
@pytest.mark.parametrize("cache", [growing, static], ids=["growing", "static"])
def test_no_mask_has_elements(family: str, cache: Callable[[Any], Any]) -> None:
    made = model(family)
    made.set_attn_implementation("einc")
    with calls() as seen, torch.no_grad():
        read_in_parts(cache, padded=True)(made)
    assert len(seen) == 2 * len(LENGTHS)
    assert without_elements(seen)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=["greedy", "beams", "static"]
)
def test_generates_the_same_text(family: str, how: dict[str, Any]) -> None:
    made = model(family)
    ids, counted = torch.randint(4, 90, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    counted[0, :2] = 0
    found = []
    for implementation in ("eager", "einc"):
        made.set_attn_implementation(implementation)
        found.append(
            made.generate(ids, attention_mask=counted, max_new_tokens=8, do_sample=False, disable_compile=True, **how)
        )
    assert torch.equal(*found)


@pytest.mark.parametrize("family", ["t5", "bart", "whisper"])
def test_encoder_and_decoder(family: str) -> None:
    made = model(family, whole=True)
    inputs: dict[str, Any] = {"input_features": torch.randn(2, 80, 128)}
    if family != "whisper":
        counted = torch.ones(2, 6, dtype=torch.int64)
        counted[0, 4:] = 0
        inputs = {"input_ids": torch.randint(4, 90, (2, 6)), "attention_mask": counted}
    found = []
    for implementation in ("eager", "einc"):
        made.set_attn_implementation(implementation)
        found.append(_decoded(made, inputs))
    assert (found[0] - found[1]).abs().max() <= 1e-5 * found[0].abs().max()


def _decoded(made: Any, inputs: dict[str, Any]) -> Tensor:
    """The hidden states of a decoder that reads one position after another."""
    from transformers import DynamicCache, EncoderDecoderCache

    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ids = torch.randint(4, 90, (2, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoded = made.get_encoder()(**inputs)
        given = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
        steps = [
            made(encoder_outputs=encoded, decoder_input_ids=ids[:, k : k + 1], **cached(made, cache), **given)
            for k in range(ids.shape[1])
        ]
    return torch.cat([s[0] for s in steps], 1)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "llama4_text"])
@pytest.mark.parametrize("cache", [growing, static], ids=["growing", "static"])
def test_a_step_compiles_nothing(family: str, cache: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between powers of two of the length, kernels and the texts of masks are those of the step before."""
    made = model(family)
    made.set_attn_implementation("einc")
    ids, counted = torch.randint(4, 90, (2, MOST)), torch.ones(2, MOST, dtype=torch.int64)
    counted[0, :2] = 0
    held, traced = cache(made.config), []
    trace = Pattern._trace

    def seen(*given: Any) -> Masked:
        traced.append(given)
        return trace(*given)

    monkeypatch.setattr(Pattern, "_trace", seen)

    def read(start: int, stop: int) -> None:
        with torch.no_grad():
            made(input_ids=ids[:, start:stop], attention_mask=counted[:, :stop], **cached(made, held))

    read(0, 9)
    read(9, 10)
    read(10, 11)
    traced.clear()
    compiled = driver._compile.cache_info().misses
    for k in range(11, 16):
        read(k, k + 1)
    assert traced == []
    assert driver._compile.cache_info().misses == compiled


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted({*OTHERS.split()} - {"minimax"}))  # which has a cache of its own kind
def test_others(family: str) -> None:
    assert_as_good(model(family, **WANTED.get(family, {})), read_in_parts(growing, padded=True))
