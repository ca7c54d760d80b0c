"""Ways to run tile programs: emitted Triton in its interpreter, and torch, with boxes as they are or cut everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from einc.base.targets import INTERPRETER
from einc.binding import bind
from einc.codegen import TRITON
from einc.codegen.executor import boxes, frames
from einc.codegen.executor.run import executor
from einc.codegen.run.load import launcher
from einc.runtime.prepared import forget
from einc.tile.verifier import verify
from tests.support.tileprograms import Scheduled

Run = Callable[..., torch.Tensor]

TORCH = {
    "bool": torch.bool, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "u8": torch.uint8, "u16": torch.uint16, "u32": torch.uint32, "u64": torch.uint64, "f16": torch.float16,
    "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64, "f8e4m3": torch.float8_e4m3fn,
    "f8e5m2": torch.float8_e5m2,
}  # fmt: skip


def run_in_triton(scheduled: Scheduled, *args: Any, **named: Any) -> Any:
    """The result of the emitted launcher, called with these arguments."""
    program, schedule = scheduled
    verify(schedule)
    emitted = TRITON.emit(program, schedule, INTERPRETER)
    return launcher(emitted.source, emitted.launcher)(*args, **named)


def run_in_torch(scheduled: Scheduled, *args: Any, out: torch.Tensor | None = None, **scalars: Any) -> torch.Tensor:
    """The first result, for operands in order."""
    program, schedule = scheduled
    verify(schedule)
    given = dict(zip((p.name for p in program.operands), args, strict=True))
    bindings = bind(program, {name: tuple(x.shape) for name, x in given.items()}, scalars)
    into = () if out is None else (out,)
    return executor(program, schedule, bindings, torch.device("cpu")).run(given, bindings.scalars, into)[0]


@contextmanager
def in_pieces(largest: int = 60) -> Iterator[None]:
    """Boxes so small that every axis is cut, which keep the memory of all tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "LARGEST", largest)
        patch.setattr(frames, "_LARGE", 1)
        patch.setattr(boxes, "WORTH_SHARING", largest // 2)
        forget()
        yield
    forget()


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    torch.testing.assert_close(got.to(wide), wanted.to(wide), rtol=tolerance, atol=tolerance, equal_nan=True)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
