"""What cannot be traced is an error that names the operation and points at the user's own line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc.dropins.symbols import TraceError

flex: Any = einc.flex_attention

TABLE, ARRAY = torch.randn(2, 4, 8), np.arange(8)


def in_a_branch(s: Any, _b: Any, _h: Any, q: Any, k: Any) -> Any:
    if q >= k:
        return s
    return -math.inf


def in_a_loop(s: Any, _b: Any, h: Any, _q: Any, _k: Any) -> Any:
    for _ in range(h):
        s = s * 2
    return s


def assigned(s: Any, _b: Any, _h: Any, _q: Any, k: Any) -> Any:
    s[k] = 0
    return s


def in_place(s: Any, _b: Any, _h: Any, _q: Any, _k: Any) -> Any:
    return s.add_(1)


# the function, what the caret points at, what went wrong
WRONG: dict[str, tuple[Callable[..., Any], str, str]] = {
    "branch": (in_a_branch, "q >= k", "Python asks whether a traced value is true"),
    "and": (lambda s, b, h, q, k: s * (q > 3 and k > 3), "q > 3", "Python asks whether a traced value is true"),
    "chain": (lambda s, b, h, q, k: s * (0 < q < k), "0 < q < k", "Python asks whether a traced value is true"),
    "min": (lambda s, b, h, q, k: min(s, 3), "min(s, 3)", "Python asks whether a traced value is true"),
    "loop": (in_a_loop, "range(h)", "Python asks for the number behind a traced value"),
    "math": (lambda s, b, h, q, k: math.exp(s), "math.exp(s)", "Python asks for the number behind a traced value"),
    "item": (lambda s, b, h, q, k: s * q.item(), "q.item()", "Python asks for the number behind a traced value"),
    "array": (lambda s, b, h, q, k: s + ARRAY[k], "ARRAY[k]", "Python asks for the number behind a traced value"),
    "assignment": (assigned, "s[k]", "a traced value cannot be assigned to"),
    "in place": (in_place, "s.add_", "traced values have no 'add_'"),
    "function": (lambda s, b, h, q, k: torch.cumsum(s, 0), "torch.cumsum(s, 0)", "torch.cumsum cannot be traced"),
    "method": (lambda s, b, h, q, k: s.softmax(-1), "s.softmax", "traced values have no 'softmax'"),
    "stack": (lambda s, b, h, q, k: torch.stack([s, s]), "torch.stack([s, s])", "torch.stack cannot be traced"),
    "reduction": (lambda s, b, h, q, k: s + TABLE[b].sum(), "TABLE[b].sum", "'sum' is asked of a row of a tensor"),
    "rows": (lambda s, b, h, q, k: s + TABLE[b] @ TABLE[b, h], "TABLE[b] @ TABLE[b, h]", "not of two rows"),
    "row": (lambda s, b, h, q, k: s + TABLE[b, h], "s + TABLE[b, h]", "a row of a tensor is used as a number"),
    "tensor": (lambda s, b, h, q, k: s + TABLE, "s + TABLE", "a traced value meets a tensor that is not indexed"),
    "list": (lambda s, b, h, q, k: s * [1], "s * [1]", "a traced value meets a list"),
    "slice": (lambda s, b, h, q, k: s + TABLE[b, h, :k], "TABLE[b, h, :k]", "a subscript that is no position"),
    "float subscript": (lambda s, b, h, q, k: s + TABLE[b, h, q / 2], "TABLE[b, h, q / 2]", "no integer"),
    "truth subscript": (lambda s, b, h, q, k: s + TABLE[b, h, q > 2], "TABLE[b, h, q > 2]", "no integer"),
    "subscripts": (lambda s, b, h, q, k: s + TABLE[b, h, q, k], "TABLE[b, h, q, k]", "too many subscripts"),
    "arguments": (lambda s, b, h, q, k: s.tanh(1), "s.tanh(1)", "arguments that cannot be traced"),
    "option": (lambda s, b, h, q, k: s.clamp(mean=2), "s.clamp(mean=2)", "arguments that cannot be traced"),
    "condition": (lambda s, b, h, q, k: torch.where(q, s, 0.0), "torch.where(q, s, 0.0)", "a truth value"),
    "positions": (lambda s, b, h, q, k: torch.where(q > k), "torch.where(q > k)", "arguments that cannot be traced"),
    "bits of floats": (lambda s, b, h, q, k: s & 1, "s & 1", "takes integers or truth values"),
    "minus of truths": (lambda s, b, h, q, k: s * ((q > 1) - (k > 1)), "(q > 1) - (k > 1)", "not truth values"),
    "shape": (lambda s, b, h, q, k: s.new_ones(3), "s.new_ones(3)", "a traced value has no dimensions"),
    "NumPy's reduction": (lambda s, b, h, q, k: np.add.reduce(s), "np.add.reduce(s)", "reduce"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_place_and_the_operation_are_named(name: str) -> None:
    function, place, says = WRONG[name]
    q = torch.randn(2, 4, 8, 16)
    with pytest.raises(TraceError) as caught:
        flex(q, q, q, function)
    error = caught.value
    assert says in error.message
    assert error.span is not None
    assert error.span.source.name == __file__
    assert error.span.text.strip("()") == place.strip("()") or place in error.span.text
    assert str(error).count("\n") >= 2
    assert isinstance(error, einc.Error)


def test_the_whole_text() -> None:
    q = torch.randn(1, 2, 8, 16)
    with pytest.raises(einc.CallError) as caught:
        flex(q, q, q, in_a_branch)
    place, *rest = str(caught.value).splitlines()
    assert place.removeprefix(__file__) == ":22:8: Python asks whether a traced value is true"
    assert rest == [
        "  22 |     if q >= k:",
        "     |        ^^^^^^",
        "  it differs from position to position",
        "  try: torch.where(condition, x, y) chooses, torch.minimum and torch.maximum limit, & | ~ join truth values",
    ]


def test_a_function_gives_one_value() -> None:
    q = torch.randn(1, 2, 8, 16)
    for function, kind in ((lambda s, b, h, q, k: (s, s), "tuple"), (lambda s, b, h, q, k: None, "NoneType")):
        with pytest.raises(TraceError, match="returns one value") as caught:
            flex(q, q, q, function)
        assert kind in caught.value.fact
        assert caught.value.span is not None


def test_an_error_of_the_function_itself_is_its_own() -> None:
    def function(*_: Any) -> Any:
        raise KeyError("mine")

    q = torch.randn(1, 2, 8, 16)
    with pytest.raises(KeyError, match="mine"):
        flex(q, q, q, function)


def test_where_there_is_no_source_there_is_no_place() -> None:
    space: dict[str, Any] = {}
    exec("def function(s, b, h, q, k):\n    return max(s, 0)\n", space)
    q = torch.randn(1, 2, 8, 16)
    with pytest.raises(TraceError) as caught:
        flex(q, q, q, space["function"])
    assert caught.value.span is None


ARGUMENTS: dict[str, tuple[Callable[[torch.Tensor], Any], type[einc.Error], str]] = {
    "dimensions": (lambda q: flex(q[0], q, q), einc.ShapeError, "4 dimensions"),
    "integers": (lambda q: flex(q.int(), q, q), einc.DTypeError, "of type torch.int32"),
    "no tensor": (lambda q: flex(ARRAY, q, q), einc.CallError, "no torch tensor"),
    "widths": (lambda q: flex(q[..., 1:], q, q), einc.ShapeError, "different widths"),
    "lengths": (lambda q: flex(q, q, q[:, :, 1:]), einc.ShapeError, "key and value differ"),
    "heads": (lambda q: flex(q, q[:, :2], q[:, :2]), einc.ShapeError, "enable_gqa=True"),
    "groups": (lambda q: flex(q, q[:, :3], q[:, :3], enable_gqa=True), einc.ShapeError, "multiple"),
    "batches": (lambda q: flex(q, q[:1], q[:1]), einc.ShapeError, "different batches"),
    "mask": (lambda q: flex(q, q, q, block_mask=torch.ones(8, 8)), einc.CallError, "neither a BlockMask"),
    "statistics": (lambda q: flex(q, q, q, return_lse=True, return_aux=(True, False)), einc.CallError, "both given"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_do_not_fit(name: str) -> None:
    call, error, says = ARGUMENTS[name]
    with pytest.raises(error, match=says):
        call(torch.randn(2, 4, 8, 16))


def test_blocks_for_other_lengths() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    q = torch.randn(2, 4, 8, 16)
    blocks = create_block_mask(lambda b, h, q, k: q >= k, None, None, 16, 16, device="cpu", BLOCK_SIZE=8)
    with pytest.raises(einc.ShapeError, match="for 16 queries and 16 keys, there are 8 and 8"):
        flex(q, q, q, block_mask=blocks)
