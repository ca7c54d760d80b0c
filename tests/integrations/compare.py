"""A model run three ways: eager in float64, eager in float32, and with einc in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from einc.integrations import transformers as integration
from einc.integrations.transformers import masks

Run = Callable[[Any], torch.Tensor]  # of a model

_HALF_ULP = 2.0**-24  # of a number between 1 and 2 in float32


class Wide(TorchFunctionMode):
    """Where a model asks for float32, whatever its own type, it gets float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        wide = {torch.float32: torch.float64}
        named = {k: wide.get(v, v) if isinstance(v, torch.dtype) else v for k, v in (kwargs or {}).items()}
        return func(*(wide.get(a, a) if isinstance(a, torch.dtype) else a for a in args), **named)


def older() -> bool:
    """Is this a transformers before the one that these tests are written for?"""
    major, minor = version("transformers").split(".")[:2]
    return (int(major), int(minor)) < (5, 24)


def errors(model: Any, run: Run) -> tuple[float, float]:
    """The greatest errors of eager attention and of einc's in float32, in parts of the greatest number in float64."""
    model.set_attn_implementation("eager")
    wide = copy.deepcopy(model).double()
    with torch.no_grad(), Wide():
        exact = run(wide)
    with torch.no_grad():
        eager = run(model)
        model.set_attn_implementation("einc")
        ours = run(model)
    assert exact.dtype == torch.float64
    assert ours.dtype == eager.dtype == torch.float32
    size = float(exact.abs().max())
    return float((eager - exact).abs().max()) / size, float((ours - exact).abs().max()) / size


def assert_as_good(model: Any, run: Run) -> None:
    """Asserts that the error is at most thrice that of eager attention, in a model that calls einc.

    An error below half a unit in the last place of the greatest result is luck: that itself is rounded by as much.
    """
    with calls() as seen:
        eager, ours = errors(model, run)
    if not seen and older():
        pytest.skip("in this older version of transformers, the model does not call the attention interface")
    assert seen, "the model does not call the attention interface"
    assert ours <= 3 * max(eager, _HALF_ULP), f"{ours:.1e}, where eager attention has {eager:.1e}"


@contextmanager
def calls() -> Iterator[list[dict[str, Any]]]:
    """The calls of attention while this is entered, as their arguments."""
    from transformers import AttentionInterface

    found: list[dict[str, Any]] = []

    def attention(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        found.append({"query": query, "key": key, "mask": attention_mask, **kwargs})
        return integration.attention(module, query, key, value, attention_mask, *args, **kwargs)

    AttentionInterface.register("einc", attention)
    try:
        yield found
    finally:
        AttentionInterface.register("einc", integration.attention)


def without_elements(seen: Sequence[Mapping[str, Any]]) -> bool:
    """Did attention get no mask with more elements than a row of keys for each sequence?"""
    return all(
        m._elements is None if isinstance(m, masks.Mask) else m is None or m.shape[-2] == 1
        for m in (call["mask"] for call in seen)
    )
