"""Makes `attn_implementation="einc"` known to transformers."""

from __future__ import annotations

from inspect import signature

from einc.base.errors import CallError


def register(name: str = "einc") -> None:
    """Register attention and masks under a name, for every model that uses the attention interface.

    Afterwards models take `attn_implementation="einc"`, and `model.set_attn_implementation("einc")` changes those that
    exist. Raises `CallError` if transformers is not installed or has no interface for masks.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface, __version__, masking_utils
    except ImportError as error:
        raise CallError(
            "transformers with its attention and mask interfaces is not installed",
            fact=str(error),
            hint='pip install "einc[transformers]"',
        ) from None
    if "q_offset" not in signature(masking_utils.eager_mask).parameters:
        raise CallError(
            "this version of transformers gives masks no offsets",
            fact=f"it is {__version__}",
            hint='pip install "transformers>=5.4"',
        )
    from einc.integrations.transformers.forward import attention
    from einc.integrations.transformers.masks import mask

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)
