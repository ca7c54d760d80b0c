"""Families of models that use the attention interface, by what is particular about their attention."""

from __future__ import annotations

from typing import Any

_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}

# what is wanted besides tiny sizes
WANTED: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "bert": {"is_decoder": True},
    "falcon_h1": {
        "mamba_chunk_size": 16,
        "mamba_d_state": 8,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_ssm": 64,
    },
    "dots1": {"n_shared_experts": 1, "layer_types": None},
    "granitemoehybrid": _MAMBA | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "qwen2_vl_text": _SECTIONS,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
}

CAUSAL = {
    "several heads": "gpt2 gptj codegen gpt_neox opt biogpt phi persimmon stablelm bert",
    "grouped heads": "llama mistral qwen2 qwen3 starcoder2 smollm3 glm granite nemotron olmo2 cohere phi3 gpt_bigcode",
    "softcap": "gemma2 vaultgemma",
    "sinks": "gpt_oss granite_swa mimo_v2_flash flint deepseek_v4",
    "windows": "gemma3_text cohere2 exaone4 olmo3 ministral modernbert-decoder doge",
    "chunks": "llama4_text",
    "latent": "deepseek_v2 deepseek_v3 minicpm3 longcat_flash",
    "chosen keys": "deepseek_v32 minimax_m3_vl_text",
    "position bias": "inkling_text",
    "experts": "mixtral qwen3_moe olmoe",
    "hybrid": "jamba qwen3_next lfm2",
}
ENCODERS = "albert distilbert esm eurobert layoutlm modernbert mobilebert nomic_bert splinter"
SEQ2SEQ = "bart mbart marian pegasus m2m_100 t5 umt5 longt5 switch_transformers t5gemma"
IMAGES = "vit_msn beit deit dinov2 dinov3_vit ijepa siglip_vision_model clip_vision_model pixtral"
AUDIO = "hubert unispeech parakeet_encoder"

# of those that say what comes next, the others
OTHERS = """
    afmoe apertus apertus1p5_text arcee aria_text axk1 axk2 bart beam bert-generation bigbird_pegasus bitnet
    blenderbot blenderbot-small camembert cohere2_moe ctrl cwm data2vec-text diffllama dots3_note_text electra emu3
    ernie ernie4_5 ernie4_5_moe exaone exaone_moe falcon_h1 flex_olmo fuyu gemma gemma3 gemma4 gemma4_text
    gemma4_unified gemma4_unified_text glm4 glm4_moe glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 granitemoe
    granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax
    inkling2_loop_text inkling2_text internlm3 iquestcoder jais2 jetmoe kolibri1 laguna lara_mini llama4 marian
    mbart mellum minimax minimax_m2 ministral3 mllama moshi moss_transcribe_diarize nanochat nemotron_h olmo
    olmo_hybrid pegasus phi4_multimodal phimoe plbart qwen2_moe roberta roberta-prelayernorm sarvam_mla sarvam_moe
    seed_oss solar_open whisper xlm-roberta xlm-roberta-xl youtu
"""

# these compute attention themselves, and only get masks by the interface, if at all
OF_THEIR_OWN = "big_bird bloom falcon mpt openai-gpt rembert roformer trocr xlnet"
