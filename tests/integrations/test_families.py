"""Models of transformers give with einc what they give with eager attention, as exactly as that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integrations.compare import Run, assert_as_good, calls, errors, without_elements
from tests.integrations.families import AUDIO, CAUSAL, ENCODERS, IMAGES, OF_THEIR_OWN, OTHERS, SEQ2SEQ, WANTED
from tests.integrations.tiny import model

LENGTH = 10
NAMES = sorted(" ".join(CAUSAL.values()).split())


def ids(length: int = LENGTH, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(4, 90, (batch, length), generator=torch.Generator().manual_seed(seed))


def counted(padding: str, length: int = LENGTH) -> Tensor:
    """Which positions of a batch of two count: the first has 4 of padding at this side."""
    found = torch.ones(2, length, dtype=torch.int64)
    found[0, :4] = 0
    return found if padding == "left" else found.flip(1)


def result(found: Any) -> Tensor:
    """What a model computes in the end."""
    for name in ("logits", "last_hidden_state"):
        if isinstance(found.get(name), Tensor):
            return found[name]  # type: ignore[no-any-return]
    return next(t for t in found.to_tuple() if isinstance(t, Tensor))


def fed(rows: Tensor | None = None, **inputs: Tensor) -> Run:
    """A model called with inputs, in its own type, and the results of those positions that count."""

    def run(m: Any) -> Tensor:
        own = {k: v.to(m.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        found = result(m(**own))
        return found if rows is None else found[rows.bool()]

    return run


@pytest.mark.parametrize("family", NAMES)
def test_prefill(family: str) -> None:
    assert_as_good(model(family, **WANTED.get(family, {})), fed(input_ids=ids()))


@pytest.mark.turns(2)
@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding(family: str, padding: str) -> None:
    rows = counted(padding)
    assert_as_good(model(family, **WANTED.get(family, {})), fed(rows, input_ids=ids(), attention_mask=rows))


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2", "llama", "llama4_text", "mistral", "qwen3"])
def test_padding_is_computed_as_eager_attention_does(family: str) -> None:
    """Queries that see nothing too, of which nobody should read the results."""
    assert_as_good(model(family), fed(input_ids=ids(), attention_mask=counted("left")))


PACKING = [n for n in NAMES if n not in {"bert", "jamba", "lfm2", "qwen3_next", "gpt_bigcode"}]


@pytest.mark.parametrize("family", PACKING)
def test_packed(family: str) -> None:
    """Positions that begin anew divide a row into sequences."""
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]])
    assert_as_good(model(family, **WANTED.get(family, {})), fed(input_ids=ids(batch=1), position_ids=positions))


@pytest.mark.parametrize("family", ENCODERS.split())
@pytest.mark.parametrize("padding", ["left", "right"])
def test_encoders(family: str, padding: str) -> None:
    rows = counted(padding)
    assert_as_good(model(family, **WANTED.get(family, {})), fed(rows, input_ids=ids(), attention_mask=rows))


@pytest.mark.parametrize("family", SEQ2SEQ.split())
def test_encoder_and_decoder(family: str) -> None:
    inputs = {"input_ids": ids(), "attention_mask": counted("right"), "decoder_input_ids": ids(7, seed=1)}
    made = model(family, whole=True, **WANTED.get(family, {}))
    assert_as_good(made, fed(**inputs))


@pytest.mark.parametrize("family", IMAGES.split())
def test_images(family: str) -> None:
    assert_as_good(model(family), fed(pixel_values=torch.randn(2, 3, 16, 16)))


@pytest.mark.parametrize("family", AUDIO.split())
def test_audio(family: str) -> None:
    made = model(family)
    inputs = {
        made.main_input_name: torch.randn(2, 1600) if made.main_input_name == "input_values" else torch.randn(2, 40, 80)
    }
    assert_as_good(made, fed(**inputs))


def test_an_image_in_a_text() -> None:
    """Text and image of one model, each with its own attention."""
    made = model("clip")
    assert_as_good(made, fed(input_ids=ids(), attention_mask=counted("right"), pixel_values=torch.randn(2, 3, 16, 16)))


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss", "llama4_text", "deepseek_v3", "bert"])
@pytest.mark.parametrize("inputs", ["alone", "left", "packed"])
def test_no_mask_has_elements(family: str, inputs: str) -> None:
    """Attention gets masks as functions, of which nobody asked for the elements on the way."""
    given: dict[str, Tensor] = {"input_ids": ids()}
    if inputs == "left":
        given["attention_mask"] = counted("left")
    if inputs == "packed":
        given |= {"input_ids": ids(batch=1), "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]])}
    made = model(family, **WANTED.get(family, {}))
    made.set_attn_implementation("einc")
    with calls() as seen, torch.no_grad():
        made(**given)
    assert len(seen) == 2
    assert without_elements(seen)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "t5"])
def test_bf16(family: str) -> None:
    """In bfloat16 the errors are those of the rest of the model."""
    made = model(family).bfloat16()
    inputs = {"input_ids": ids()} | ({"decoder_input_ids": ids(7, seed=1)} if family == "t5" else {})
    with torch.no_grad():
        exact = result(made.double()(**inputs))
        made.bfloat16()
        eager = result(made(**inputs))
        made.set_attn_implementation("einc")
        ours = result(made(**inputs))
    assert ours.dtype == torch.bfloat16
    size = exact.abs().max()
    assert (ours - exact).abs().max() <= 3 * max(float((eager - exact).abs().max()), float(size) * 2.0**-9)


def test_a_model_made_with_einc() -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from tests.integrations.tiny import config

    made = AutoModelForCausalLM.from_config(config(CONFIG_MAPPING["llama"]), attn_implementation="einc").eval()
    assert made.config._attn_implementation == "einc"
    eager, ours = errors(made, fed(input_ids=ids()))
    assert ours <= 3 * eager


@pytest.mark.parametrize("family", OF_THEIR_OWN.split())
def test_models_that_compute_attention_themselves(family: str) -> None:
    """They compute the same, with masks of which they ask for the elements."""
    made = model(family, **WANTED.get(family, {}))
    given = {"input_ids": ids(), "attention_mask": counted("right")}
    found = []
    for implementation in ("eager", "einc"):
        made.set_attn_implementation(implementation)
        with calls() as seen, torch.no_grad():
            found.append(result(made(**given)))
        assert seen == []
    assert torch.equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS.split())
@pytest.mark.parametrize("padding", ["left", "right"])
def test_others(family: str, padding: str) -> None:
    rows = counted(padding)
    assert_as_good(model(family, **WANTED.get(family, {})), fed(rows, input_ids=ids(), attention_mask=rows))
