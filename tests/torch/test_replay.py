"""Launches made again, with a stand-in for what Triton compiles: it knows addresses and numbers only, as GPUs do."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import einc
from einc.base.errors import RoomError
from einc.base.facts import Fact
from einc.base.targets import TARGETS
from einc.base.types import BF16
from einc.binding import bind
from einc.codegen.run import interpret, load
from einc.codegen.run.load import Launched
from einc.driver import elaborate, parse
from einc.runtime import replay
from einc.runtime.execution import InTriton, Place
from einc.runtime.orders import batch_first
from einc.runtime.prepared import Options
from einc.runtime.tensors import fact

TEXT = """
def attention(Q[i, d], K[j, d], V[j, e], n: int, scale: float = 0.5):
    S[i, j] = scale * Q[i, d] * K[j, d]
    T[i, j] = where(j < n, S, -inf)
    O[i, e] = softmax[j](T) * V[j, e]
    L[i] = logsumexp[j](T)
    return O, L
"""
COMPLEX = "def f(A[i, k]: c64, B[k, j]: c64):\n    C[j, i] = A[i, k] * B[k, j]\n    return C\n"


@dataclass(frozen=True)
class At:
    """An address, with the type of what is there."""

    address: int
    dtype: torch.dtype

    def data_ptr(self) -> int:
        return self.address


def _there(given: Any, like: Any) -> Any:
    """An argument as a kernel finds it: memory at an address, also where a descriptor holds that."""
    if isinstance(like, Tensor):
        return At(given, like.dtype)
    if not hasattr(like, "base"):
        return given
    count = 1 + sum((n - 1) * step for n, step in zip(given.shape, given.strides, strict=True))
    whole = (ctypes.c_int16 * count).from_address(given.base.data_ptr())
    memory = torch.frombuffer(whole, dtype=torch.int16).view(like.base.dtype)
    return SimpleNamespace(base=memory.as_strided(given.shape, given.strides), block_shape=given.block_shape)


class Binary:
    """A kernel as Triton compiles it, which is interpreted instead."""

    def __init__(self, kernel: Any, args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        self.kernel, self.args, self.meta = kernel, args, meta
        self.function, self.packed_metadata = "function", "metadata"

    def run(self, programs: int, *rest: Any) -> None:
        assert rest[:8] == (1, 1, 7, "function", "metadata", None, None, None)
        given = rest[8 : 8 + len(self.args)]
        known = [_there(x, t) for x, t in zip(given, self.args, strict=True)]
        interpret.run(self.kernel, programs, *known, **self.meta)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Launches on the CPU are noted as those on a GPU are."""
    real = interpret.run

    def noted(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
        real(kernel, programs, *args, **meta)
        if load._NOTED.launches is not None:
            constants = tuple(meta[name] for name in kernel.arg_names[len(args) :])
            binary = Binary(kernel, args, meta)
            load._NOTED.launches.append(Launched(kernel.fn.__name__, binary, programs, args, constants))

    def empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, _: object) -> Tensor:
        return torch.empty_strided(shape, strides, dtype=dtype)

    with monkeypatch.context() as patched:
        patched.setattr(interpret, "run", noted)
        patched.setattr(replay, "_empty", empty)
        patched.setattr(torch._C, "_cuda_getDevice", lambda: None, raising=False)
        patched.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: 7, raising=False)
        yield


def launched(f: einc.Program, *tensors: Tensor, **scalars: Any) -> InTriton:
    """What runs such a call in the interpreter."""
    facts = tuple(fact(t, "operand") for t in tensors)
    found = f._callee.prepared(facts, scalars, Place("interpret", torch.device("cpu"))).launch
    assert isinstance(found, InTriton)
    return found


def exact(f: einc.Program, *tensors: Tensor, **scalars: Any) -> list[Tensor]:
    found = f(*(t.numpy() for t in tensors), backend="evaluate", **scalars)
    return [torch.from_numpy(x) for x in (found if isinstance(found, tuple) else (found,))]


def close(found: Any, wanted: list[Tensor]) -> None:
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x.to(y.dtype), y, rtol=1e-5, atol=1e-5)


def draw() -> list[Tensor]:
    return [torch.randn(5, 8), torch.randn(40, 8), torch.randn(40, 4)]


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("given", [False, True])
def test_kernels_are_enqueued_for_other_memory_and_other_numbers(splits: int, given: bool) -> None:
    f = einc.compile(TEXT, splits=splits)
    launch = launched(f, *draw(), n=17)
    tensors = draw()

    def memory() -> tuple[Tensor, ...]:
        return (torch.zeros(4, 5).T, torch.zeros(9)[::2]) if given else ()

    out, named = memory(), dict(zip("QKV", tensors, strict=True))
    results, run = launch.first(named, {"n": 17, "scale": 0.5}, ["n", "scale"], out)
    close(out or results, exact(f, *tensors, n=17))
    assert run is not None
    for n, scale in ((17, 0.5), (30, 0.5), (16, 2.0)):
        tensors, out = draw(), memory()
        every = [*tensors, *out]
        made = run(every, [t.data_ptr() for t in every], [n, scale])
        assert len(made) == (0 if given else 2)
        close(out or made, exact(f, *tensors, n=n, scale=scale))


def test_descriptors_are_of_the_memory_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operands by descriptor, one of them copied first, for a result whose batch axis lies first."""
    monkeypatch.setattr("einc.passes.kernels.place_loads._LONG", 1)
    monkeypatch.setattr("einc.codegen.triton.tiles.products._SCATTERED", 1.0)  # each element takes a second by itself
    program = elaborate(parse("mkb,bnk->mnb"), {n: Fact((2, 2, 2), BF16) for n in "AB"})
    options = Options(target=TARGETS["sm_90"], free=True)

    def drawn() -> list[Tensor]:
        return [torch.randn(20, 24, 3, dtype=torch.bfloat16), torch.randn(3, 18, 24, dtype=torch.bfloat16)]

    def close_to(found: Tensor, a: Tensor, b: Tensor) -> None:
        wanted = torch.einsum("mkb,bnk->mnb", a.double(), b.double())
        assert (found.double() - wanted).abs().max() <= 2.0**-8 * wanted.abs().max()

    tensors, where = drawn(), Place("interpret", torch.device("cpu"))
    bound = bind(program, {"A": (20, 24, 3), "B": (3, 18, 24)}, {})
    first, views = batch_first(program)
    made = options.compile(first, bound.extents, where, options.layouts(tensors, where))
    assert "described(A_copy" in made.source
    assert "described(B," in made.source
    (found,), run = InTriton(made, bound, where, views).first(dict(zip("AB", tensors, strict=True)), {}, [])
    close_to(found, *tensors)
    assert run is not None
    for _ in range(2):
        tensors = drawn()
        (again,) = run(tensors, [t.data_ptr() for t in tensors], [])
        assert again.stride() == found.stride() == (18, 1, 360)
        close_to(again, *tensors)


def test_complex_results_in_memory_that_is_given() -> None:
    f = einc.compile(COMPLEX)
    a, b = (torch.randn(6, 6, dtype=torch.complex64) for _ in range(2))
    out = torch.zeros(6, 6, dtype=torch.complex64).T
    _, run = launched(f, a, b).first({"A": a, "B": b}, {}, [], (out,))
    assert run is not None
    close([out], exact(f, a, b))
    a, b, out = a + b, a - b, torch.zeros(6, 6, dtype=torch.complex64).T
    run([a, b, out], [a.data_ptr(), b.data_ptr(), out.data_ptr()], [])
    close([out], exact(f, a, b))


def test_those_who_watch_launches_see_them_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    f, tensors = einc.compile(TEXT), draw()
    out = torch.zeros(5, 4), torch.zeros(5)
    named = dict(zip("QKV", tensors, strict=True))
    _, run = launched(f, *tensors, n=17).first(named, {"n": 17, "scale": 0.5}, ["n"], out)
    assert run is not None
    monkeypatch.setattr(replay, "_hooked", lambda: True)
    tensors, out = draw(), (torch.zeros(5, 4), torch.zeros(5))
    run([*tensors, *out], [], [25])
    close(out, exact(f, *tensors, n=25, scale=0.5))


def test_launches_before_one_without_room_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two kernels runs, the second has no room: smaller tiles, whose launches alone are repeated."""
    f, tensors = einc.compile(TEXT, splits=2), draw()
    launch, runs = launched(f, *tensors, n=17), interpret.run
    before, made = launch.fitting.source, list[str]()

    def crowded(kernel: Any, programs: int, *args: Any, **meta: Any) -> None:
        made.append(kernel.fn.__name__)
        if len(made) == 2:
            raise RoomError("there is no room", fact="2 of 1", hint="use smaller extents")
        runs(kernel, programs, *args, **meta)

    monkeypatch.setattr(interpret, "run", crowded)
    results, run = launch.first(dict(zip("QKV", tensors, strict=True)), {"n": 17, "scale": 0.5}, [])
    close(results, exact(f, *tensors, n=17))
    assert launch.fitting.source != before
    assert len(made) > 2
    assert run is not None
    assert len(run.__self__.steps) == len(made) - 2  # type: ignore[attr-defined]
    tensors = draw()
    close(run(tensors, [t.data_ptr() for t in tensors], []), exact(f, *tensors, n=17))
