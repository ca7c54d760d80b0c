"""Models of transformers on a GPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integrations.compare import Wide
from tests.integrations.families import WANTED
from tests.integrations.test_caches import growing, read_in_parts, static
from tests.integrations.test_families import counted, ids, result
from tests.integrations.tiny import model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

FAMILIES = "llama mistral gemma2 gpt_oss llama4_text deepseek_v3 bert t5".split()


def assert_as_good(made: Any, dtype: torch.dtype, run: Any) -> None:
    """The error is at most thrice that of eager attention in the same type, or half a unit in the last place."""
    with torch.no_grad():
        with Wide():
            exact = run(copy.deepcopy(made).double())
        made.to(dtype)
        found = []
        for implementation in ("eager", "einc"):
            made.set_attn_implementation(implementation)
            found.append(run(made))
    eager, ours = (float((f - exact).abs().max() / exact.abs().max()) for f in found)
    assert ours <= 3 * max(eager, torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padded_texts(family: str, dtype: torch.dtype) -> None:
    rows = counted("left").cuda()
    inputs = {"input_ids": ids().cuda(), "attention_mask": rows}
    if family == "t5":
        inputs, rows = inputs | {"decoder_input_ids": ids(10, seed=1).cuda()}, torch.ones_like(rows)

    def run(m: Any) -> Tensor:
        return result(m(**inputs))[rows.bool()]

    assert_as_good(model(family, **WANTED.get(family, {})).cuda(), dtype, run)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss"])
@pytest.mark.parametrize("cache", [growing, static], ids=["growing", "static"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_caches(family: str, cache: Any, padded: bool) -> None:
    assert_as_good(model(family).cuda(), torch.float32, read_in_parts(cache, padded))


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("how", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
def test_generates_the_same_text(family: str, how: dict[str, Any]) -> None:
    """With a static cache, `generate` compiles the step."""
    made = model(family).cuda()
    given, rows = ids(6).cuda(), torch.ones(2, 6, dtype=torch.int64, device="cuda")
    rows[0, :2] = 0
    found = []
    for implementation in ("eager", "einc"):
        made.set_attn_implementation(implementation)
        found.append(made.generate(given, attention_mask=rows, max_new_tokens=8, do_sample=False, **how))
    assert torch.equal(*found)
