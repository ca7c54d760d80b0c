"""Attention for the models of `transformers`, by programs of the language.

    einc.integrations.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="einc")

Masks arrive as functions of positions and small tensors, and are traced into the program; none is as large as the
scores.
"""

from __future__ import annotations

from einc.integrations.transformers.forward import attention
from einc.integrations.transformers.registry import register

__all__ = ["attention", "register"]
