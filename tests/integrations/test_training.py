"""Models of transformers learn with einc as they do with eager attention: their gradients are as exact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from einc.integrations.transformers import attention
from tests.integrations.compare import Wide, calls, without_elements
from tests.integrations.families import WANTED
from tests.integrations.test_attention import HEADS, KEYS, QUERIES, Caller, exact, operands
from tests.integrations.test_families import counted, ids, result
from tests.integrations.tiny import model

_HALF_ULP = 2.0**-24
attend: Any = attention
written_out: Any = exact
Gradients = dict[str, Tensor]
Step = Callable[[Any], Tensor]  # the loss of a model


def trained(family: str, **options: Any) -> Any:
    """A tiny model as it is trained, but that it drops nothing, so that it can be compared."""
    made = model(family, **options, **WANTED.get(family, {}))
    for part in made.modules():
        for name, value in vars(part).items():
            if name == "p" or (isinstance(value, float) and "drop" in name):
                setattr(part, name, 0.0)
    return made.train()


def gradients(made: Any, step: Step) -> Gradients:
    made.zero_grad()
    torch.autograd.backward(step(made))
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def assert_as_exact(found: Gradients, wanted: Gradients, near: Gradients) -> None:
    """The error of each gradient, by its Euclidean length, is three times that of eager attention at most.

    An error below half a unit in the last place of that or of the longest gradient is luck.
    """
    assert found.keys() == wanted.keys() == near.keys()
    size = max(float(g.norm()) for g in wanted.values())
    for name, exact_one in wanted.items():
        ours, eager = (float((g[name] - exact_one).norm()) for g in (found, near))
        assert ours <= 3 * max(eager, _HALF_ULP * float(exact_one.norm()), 0.01 * _HALF_ULP * size), name


def assert_learns(made: Any, step: Step) -> list[dict[str, Any]]:
    """Compares all gradients of a model; gives the calls of attention."""
    made.set_attn_implementation("eager")
    with Wide():
        wanted = gradients(copy.deepcopy(made).double(), step)
    near = gradients(made, step)
    made.set_attn_implementation("einc")
    with calls() as seen:
        found = gradients(made, step)
    assert seen, "the model does not call the attention interface"
    assert_as_exact(found, wanted, near)
    return seen


def next_word(rows: Tensor | None = None) -> Step:
    """The loss of saying what comes next, after positions that count."""
    text = ids()
    labels = text if rows is None else text.masked_fill((rows == 0) | (rows.roll(1, 1) == 0), -100)
    return lambda made: made(input_ids=text, attention_mask=rows, labels=labels).loss


def weighted(rows: Tensor | None = None, **inputs: Tensor) -> Step:
    """A sum of what a model computes with fixed weights, of the positions that count."""

    def step(made: Any) -> Tensor:
        found = result(made(**inputs))
        found = found if rows is None else found[rows.bool()]
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return (found * weights.to(found.dtype)).mean()

    return step


@pytest.mark.turns(2)
@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_oss"])
def test_texts(family: str, padding: str | None) -> None:
    rows = None if padding is None else counted(padding)
    assert without_elements(assert_learns(trained(family), next_word(rows)))


@pytest.mark.parametrize("family", ["llama4_text", "deepseek_v3", "qwen3"])
def test_texts_with_other_attention(family: str) -> None:
    assert_learns(trained(family), next_word())


def test_packed_texts() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]])
    assert_learns(trained("mistral"), weighted(input_ids=ids(batch=1), position_ids=positions))


@pytest.mark.parametrize("family", ["esm", "modernbert"])
def test_encoders(family: str) -> None:
    rows = counted("right")
    assert_learns(trained(family), weighted(rows, input_ids=ids(), attention_mask=rows))


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_encoder_and_decoder(family: str) -> None:
    """A bias by position learns too."""
    inputs = {"input_ids": ids(), "attention_mask": counted("right"), "decoder_input_ids": ids(7, seed=1)}
    assert_learns(trained(family, whole=True), weighted(**inputs))


def test_queries_that_see_nothing() -> None:
    """They get the average of all values, which learns as in eager attention; their scores make no difference."""
    rows = counted("left")
    made = trained("llama", num_hidden_layers=1)
    found = []
    for implementation in ("eager", "einc"):
        made.set_attn_implementation(implementation)
        found.append(gradients(made, weighted(1 - rows, input_ids=ids(), attention_mask=rows)))
    eager, ours = ({n.split(".")[-2]: g for n, g in grads.items()} for grads in found)
    torch.testing.assert_close(ours["v_proj"], eager["v_proj"])
    assert all(g.isfinite().all() for g in ours.values())
    assert not ours["q_proj"].any()


def test_layers_that_are_computed_again() -> None:
    """Gradient checkpointing gives the same gradients, with dropout too."""
    made = model("llama").train()
    made.config.attention_dropout = 0.2
    for part in made.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.2
    made.set_attn_implementation("einc")
    found = []
    for again in (False, True):
        if again:
            (getattr(made, "activation_checkpointing_enable", None) or made.gradient_checkpointing_enable)()
        torch.manual_seed(2)
        with calls() as seen:
            found.append(gradients(made, next_word()))
        assert {call["dropout"] for call in seen} == {0.2}
        assert len(seen) == (4 if again else 2)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_some_steps() -> None:
    """The losses of some steps are those of eager attention."""
    found = []
    for implementation in ("eager", "einc"):
        made = trained("llama")
        made.set_attn_implementation(implementation)
        optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2)
        losses = []
        for _ in range(8):
            loss = next_word()(made)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(loss.item())
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[1][-1] < 0.8 * found[1][0]


# ---------------------------------------------------------------------------------------------------------------------
# The function itself


def differentiated(results: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(results.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return list(torch.autograd.grad(results, wanted, weights.to(results.dtype)))


def leaves(*tensors: Tensor, double: bool = False) -> list[Tensor]:
    return [(t.double() if double else t.clone()).detach().requires_grad_() for t in tensors]


def assert_near(found: list[Tensor], wanted: list[Tensor]) -> None:
    size = max(float(w.norm()) for w in wanted)
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == torch.float32
        assert float((x - y).norm()) <= 1e-6 * size


def test_all_that_is_added() -> None:
    """Gradients of an additive mask, a position bias, and sinks, next to those of grouped heads."""
    extra = torch.randn(2, 1, 1, KEYS), torch.randn(1, HEADS, QUERIES, KEYS), torch.randn(HEADS)
    given = leaves(*operands(groups=2, values=12), *extra)
    query, key, value, mask, bias, sinks = given
    out = attend(Caller(), query, key, value, mask, softcap=2.0, position_bias=bias, s_aux=sinks)[0]
    wide = leaves(*given, double=True)
    wanted = written_out(*wide[:3], mask=wide[3], softcap=2.0, bias=wide[4], sinks=wide[5].reshape(1, -1, 1, 1))
    assert_near(differentiated(out, given), differentiated(wanted, wide))


def test_sinks_of_each_row() -> None:
    given = leaves(*operands(), torch.randn(2, HEADS, QUERIES, 3))
    wide = leaves(*given, double=True)
    out = attend(Caller(), *given[:3], None, sinks=given[3])[0]
    assert_near(differentiated(out, given), differentiated(written_out(*wide[:3], sinks=wide[3]), wide))


def test_dropout_and_weights() -> None:
    """What is dropped is dropped backward too; the weights have gradients themselves."""
    given = leaves(*operands())
    wide = leaves(*given, double=True)
    out, weights = attend(Caller(), *given, None, dropout=0.25, output_attentions=True)
    kept = (weights != 0).double()
    query, key, value = wide
    exact_weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) * kept / 0.75
    wanted = (exact_weights @ value).transpose(1, 2)
    both = torch.cat([out.flatten(), weights.flatten()])
    assert_near(
        differentiated(both, given), differentiated(torch.cat([wanted.flatten(), exact_weights.flatten()]), wide)
    )
