"""Other libraries that call attention: what makes them call programs of the language; each imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from einc.integrations import transformers

__all__ = ["transformers"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'einc.integrations' has no attribute {name!r}")
    return import_module(f"einc.integrations.{name}")
