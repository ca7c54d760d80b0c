"""Models of transformers, made tiny: the configuration of a family with the sizes that follow from its names."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    # widths
    **dict.fromkeys(
        "hidden_size d_model n_embd embed_dim dim encoder_hidden_size decoder_hidden_size word_embed_proj_dim "
        "encoder_embed_dim decoder_embed_dim dim_model attn_hidden_size projection_dim embedding_size hidden_dim "
        "d_embed lm_hidden_dim".split(),
        32,
    ),
    **dict.fromkeys(
        "intermediate_size ffn_dim d_ff n_inner encoder_ffn_dim decoder_ffn_dim ffn_hidden_size d_inner "
        "moe_intermediate_size shared_expert_intermediate_size intermediate_size_mlp dff expert_ffn_hidden_size "
        "encoder_intermediate_size feed_forward_hidden_size".split(),
        48,
    ),
    # depths
    **dict.fromkeys(
        "num_hidden_layers n_layer num_layers encoder_layers decoder_layers num_decoder_layers n_layers "
        "num_encoder_layers encoder_num_hidden_layers decoder_num_hidden_layers num_layer".split(),
        2,
    ),
    # heads
    **dict.fromkeys(
        "num_attention_heads n_head num_heads encoder_attention_heads decoder_attention_heads n_heads "
        "encoder_num_attention_heads decoder_num_attention_heads".split(),
        4,
    ),
    "num_key_value_heads": 2,
    **dict.fromkeys(
        "head_dim d_kv attention_head_dim qk_rope_head_dim qk_nope_head_dim rotary_dim global_head_dim".split(), 8
    ),
    "v_head_dim": 16,
    **dict.fromkeys("kv_lora_rank q_lora_rank index_head_dim".split(), 16),
    # experts
    **dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_k moe_topk".split(), 2),
    **dict.fromkeys("n_group topk_group moe_layer_start_index first_k_dense_replace".split(), 1),
    # vocabulary, and the numbers of its special members
    **dict.fromkeys("vocab_size vocab_size_per_layer_input text_vocab_size".split(), 99),
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 3,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
    # lengths
    **dict.fromkeys(
        "max_position_embeddings n_positions n_ctx max_seq_len original_max_position_embeddings max_target_positions "
        "max_source_positions context_length".split(),
        64,
    ),
    **dict.fromkeys("sliding_window attention_chunk_size local_attention window_size".split(), 4),
    # images
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
}


def config(kind: type, **wanted: Any) -> Any:
    """The configuration of a family with small sizes, of its parts too, and what is wanted besides."""
    usual = kind()
    named = usual.to_dict()
    found = {name: value for name, value in SIZES.items() if name in named and _fits(named[name], value)}
    if "kv_lora_rank" in named:  # latent attention has as many keys as queries
        found["num_key_value_heads"] = SIZES["num_attention_heads"]
    for name in getattr(kind, "sub_configs", {}):
        part = getattr(usual, name, None)
        if part is not None and name not in wanted:
            found[name] = config(type(part))
    return kind(**(found | wanted))


def _fits(usual: Any, value: Any) -> bool:
    return type(usual) in (type(value), type(None)) or value is None


def model(family: str, whole: bool = False, **wanted: Any) -> Any:
    """A tiny model of a family with random weights, ready to be evaluated, without anything that differs between runs.

    It says what comes next in a text if the family can; `whole` is the encoder with the decoder.
    """
    import pytest
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    speaks = family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not whole
    auto = transformers.AutoModelForCausalLM if speaks else transformers.AutoModel
    torch.manual_seed(0)
    made = auto.from_config(config(transformers.CONFIG_MAPPING[family], **wanted), attn_implementation="eager").eval()
    if made._can_set_experts_implementation():
        made.set_experts_implementation("eager")  # others have no float64
    return made


def cached(model: Any, cache: Any) -> dict[str, Any]:
    """A cache as an argument of the model, which is called otherwise in earlier versions."""
    from inspect import signature

    return {"cache" if "cache" in signature(type(model).forward).parameters else "past_key_values": cache}
