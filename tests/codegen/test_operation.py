"""Gathers that one operation of torch computes: what their text means, whatever the index."""

from __future__ import annotations

import pytest
import torch

import einc
from einc.codegen.operation import gathered

SHAPES = {
    "T[t[n], d]": ("n", "n, d", (7, 3), (5,)),
    "T[t[b, n], d]": ("b, n", "b, n, d", (7, 3), (2, 5)),
    "T[d, t[n]]": ("n", "d, n", (3, 7), (5,)),
    "T[d, t[b, n], e]": ("b, n", "n, e, b, d", (3, 7, 2), (2, 5)),
    "T[t[n]]": ("n", "n", (7,), (5,)),
}


def test_what_takes_more_than_a_gather() -> None:
    """A guard, arithmetic, an axis that is shorter than the table's own, and two indices that are data."""
    rows, index = torch.randn(7, 3), torch.tensor([2, 6, 0])
    for text, wanted in {
        "Y[n, d] = where(t[n] > 1, T[t[n], d], -1)": torch.where(index[:, None] > 1, rows[index], -1),
        "Y[n, d] = T[t[n] + 1, d]": torch.cat([rows, torch.zeros(1, 3)])[index + 1],
        "axis d = 2\n    Y[n, d] = T[t[n], d]": rows[index, :2],
        "axis n = 2\n    Y[n, d] = T[t[n], d]": rows[index[:2]],
        "Y[n] = T[t[n], n]": rows[index, torch.arange(3)],
    }.items():
        dims = ("v, w", "m") if "axis" in text else ("v, d", "n")
        program = einc.compile(f"def f(T[{dims[0]}], t[{dims[1]}]):\n    {text}\n    return Y")
        torch.testing.assert_close(program(rows, index), wanted, rtol=0, atol=0)


def gather(read: str) -> einc.Program:
    index, made, table, _ = SHAPES[read]
    dims = read[2:-1].replace(f"t[{index}]", "v")
    assert len(table) == dims.count(",") + 1
    return einc.compile(f"def f(T[{dims}], t[{index}]):\n    Y[{made}] = {read}\n    return Y")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("read", SHAPES)
@pytest.mark.parametrize("places", [torch.int32, torch.int64, torch.uint8], ids=str)
def test_rows_that_are_there_and_rows_that_are_not(read: str, kind: torch.dtype, places: torch.dtype) -> None:
    _, _, table, at = SHAPES[read]
    program = gather(read)
    rows = (torch.randn(table) * 3).to(kind)
    for high in (7, 9):  # rows beyond the last are 0
        index = torch.randint(0, high, at).to(places)
        if places != torch.uint8 and high == 9:
            index.view(-1)[0] = -1
        assert gathered(program.compiled(rows, index).program) is not None
        found = program(rows, index)
        wanted = torch.as_tensor(program(rows, index, backend="evaluate"))
        torch.testing.assert_close(found, wanted.to(kind), rtol=0, atol=0)
        assert found.is_contiguous()
        into = torch.empty_like(found)
        assert program(rows, index, out=into) is into
        assert torch.equal(into, found)
