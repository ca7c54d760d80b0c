"""Models that call einc, compiled by torch: one graph, with a node for each attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from tests.integrations.families import WANTED
from tests.integrations.tiny import cached, model


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def inputs(length: int, padded: bool) -> dict[str, Tensor]:
    ids, counted = torch.randint(4, 90, (2, length)), torch.ones(2, length, dtype=torch.int64)
    counted[0, :3] = 0
    return {"input_ids": ids, "attention_mask": counted} if padded else {"input_ids": ids}


@pytest.mark.turns(2)
@pytest.mark.parametrize("family", ["llama", "gemma2", "bert"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_one_graph_for_all_lengths(family: str, padded: bool) -> None:
    made = model(family, **WANTED.get(family, {}))
    made.set_attn_implementation("einc")
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(made, backend=counter, fullgraph=True, dynamic=True)
    for length in (10, 13, 17):
        given = inputs(length, padded)
        with torch.no_grad():
            found, wanted = (m(**given, use_cache=False).logits for m in (compiled, made))
        torch.testing.assert_close(found, wanted, rtol=0, atol=4e-6)
    assert counter.frame_count == 1
    nodes = [n for graph in counter.graphs for n in graph.graph.nodes if "einc" in str(n.target)]
    assert len(nodes) == 2


def test_a_step_of_a_static_cache() -> None:
    """What `generate` compiles: one graph for all positions."""
    from transformers import StaticCache

    made = model("llama")
    made.set_attn_implementation("einc")
    ids = torch.randint(4, 90, (2, 12))
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(made, backend=counter, fullgraph=True)
    found: list[Any] = []
    for step in (compiled, made):
        cache = StaticCache(config=made.config, max_cache_len=16)
        with torch.no_grad():
            said = [made(input_ids=ids[:, :6], **cached(made, cache)).logits]
            said += [step(input_ids=ids[:, k : k + 1], **cached(made, cache)).logits for k in range(6, 12)]
        found.append(torch.cat(said, 1))
    torch.testing.assert_close(*found, rtol=0, atol=4e-6)
    assert counter.frame_count == 1
