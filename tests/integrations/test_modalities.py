"""Models of images, sound and text together: windows, patches of several images, and attention across them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integrations.compare import assert_as_good
from tests.integrations.test_families import counted, fed, ids
from tests.integrations.tiny import config

Made = tuple[Any, dict[str, Tensor]]  # a model and its inputs


def _images_in_a_text() -> Made:
    """Tokens of an image see each other in both directions."""
    import transformers as t

    made = config(t.Gemma3Config)
    made.mm_tokens_per_image = 4
    kinds = torch.zeros(2, 10, dtype=torch.int64)
    kinds[:, 3:7] = 1
    return t.Gemma3Model(made), {"input_ids": ids(), "attention_mask": counted("right"), "token_type_ids": kinds}


def _across() -> Made:
    """A text that looks at an image from its third token on."""
    import transformers as t

    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "cross_attention_layers": [1], "pad_token_id": 0}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 64}
    image = {"image_size": 16, "patch_size": 4, "attention_heads": 4, "hidden_size": 32, "intermediate_size": 48}
    depth = {
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "intermediate_layers_indices": [1],
        "vision_output_dim": 64,
    }
    tiles = {"max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]}
    text = {"num_hidden_layers": 3, **sizes, **heads, **rope}
    made = t.MllamaConfig(vision_config={**image, **depth, **tiles}, text_config=text, image_token_index=98)
    seen = torch.ones(2, 10, 1, 1, dtype=torch.int64)
    seen[:, :2] = 0
    pictures = {"pixel_values": torch.randn(2, 1, 1, 3, 16, 16), "cross_attention_mask": seen}
    ratios = {
        n: torch.ones(2, 1, *s, dtype=torch.int64) for n, s in (("aspect_ratio_ids", ()), ("aspect_ratio_mask", (1,)))
    }
    return t.MllamaForConditionalGeneration(made), {"input_ids": ids(), **pictures, **ratios}


def _shifted_windows() -> Made:
    import transformers as t

    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "window_size": 4}
    made = t.SwinConfig(depths=[2, 2], num_heads=[2, 2], **sizes)
    return t.SwinModel(made), {"pixel_values": torch.randn(2, 3, 32, 32)}


def _films() -> Made:
    import transformers as t

    made = config(t.VivitConfig, num_frames=2, tubelet_size=[2, 4, 4])
    return t.VivitModel(made), {"pixel_values": torch.randn(2, 2, 3, 16, 16)}


def _images_of_several_sizes() -> Made:
    """All patches in one row, of which each image is its own sequence."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as t

    sizes = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 4}
    made = t.Qwen2_5_VLVisionConfig(depth=2, window_size=16, fullatt_block_indexes=[1], **sizes)
    shapes = torch.tensor([[1, 4, 4], [1, 2, 4]])
    inputs = {"hidden_states": torch.randn(16 + 8, 3 * 2 * 16), "grid_thw": shapes}
    return t.Qwen2_5_VisionTransformerPretrainedModel(made), inputs


def _speech() -> Made:
    import transformers as t

    made = config(t.WhisperConfig, max_source_positions=32)
    return t.WhisperModel(made), {"input_features": torch.randn(2, 80, 64), "decoder_input_ids": ids()}


def _waves() -> Made:
    import transformers as t

    layers = {"conv_dim": (32, 32), "conv_stride": (4, 4), "conv_kernel": (4, 4), "num_feat_extract_layers": 2}
    padded = torch.ones(2, 400, dtype=torch.int64)
    padded[0, 300:] = 0
    made = config(t.Wav2Vec2Config, **layers)
    return t.Wav2Vec2Model(made), {"input_values": torch.randn(2, 400), "attention_mask": padded}


def _queries() -> Made:
    """A few learned queries for all that an image has."""
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    made = t.Blip2QFormerConfig(encoder_hidden_size=24, **sizes)
    return t.Blip2QFormerModel(made), {
        "query_embeds": torch.randn(2, 5, 32),
        "encoder_hidden_states": torch.randn(2, 7, 24),
    }


MODELS = [_images_in_a_text, _across, _shifted_windows, _films, _images_of_several_sizes, _speech, _waves, _queries]


@pytest.mark.parametrize("made", MODELS, ids=lambda f: f.__name__.strip("_"))
def test_is_as_good(made: Callable[[], Made]) -> None:
    model, inputs = made()
    assert_as_good(model.eval(), fed(**inputs))
