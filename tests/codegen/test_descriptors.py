"""Products read by descriptors: which layouts allow them; copies, ragged ends and views leave results as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from einc.base.facts import Fact, Layout
from einc.base.targets import TARGETS
from einc.base.types import BF16
from einc.binding import Bindings, bind
from einc.codegen.run.aot import compile_ahead
from einc.driver import Compiled, _compile, compile_program, elaborate, parse
from einc.runtime.execution import InTriton, Place
from einc.runtime.orders import Views, batch_first
from einc.runtime.prepared import Options
from einc.runtime.tensors import layout
from einc.tile.asked import choice

SM_90 = TARGETS["sm_90"]
HERE = Place("interpret", torch.device("cpu"))


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of few blocks are read as longer ones are."""
    monkeypatch.setattr("einc.passes.kernels.place_loads._LONG", 1)
    _compile.cache_clear()


def operand(*shape: int, order: tuple[int, ...] = (), skip: int = 0) -> torch.Tensor:
    """Random numbers whose dimensions lie in memory in this order, after so many others."""
    order = order or tuple(range(len(shape)))
    lying = [shape[k] for k in order]
    memory = torch.randn(skip + torch.Size(lying).numel(), dtype=torch.bfloat16)
    return memory[skip:].reshape(lying).permute([order.index(k) for k in range(len(order))])


def compiled(text: str, *operands: torch.Tensor, target: str = "sm_90") -> Compiled:
    """The kernels of a string for operands that lie in memory so."""
    return made_for(text, operands, Options(target=TARGETS[target]))[0]


def made_for(text: str, operands: Sequence[torch.Tensor], options: Options) -> tuple[Compiled, Bindings, Views]:
    shapes = {name: tuple(t.shape) for name, t in zip("AB", operands, strict=True)}
    program = elaborate(parse(text), {name: Fact(shape, BF16) for name, shape in shapes.items()})
    bound = bind(program, shapes, {})
    program, views = batch_first(program) if options.free else (program, ())
    return options.compile(program, bound.extents, None, options.layouts(operands, None)), bound, views


def ways(c: Compiled) -> dict[str, str]:
    assert c.state.schedule is not None
    return {name: way for k in c.state.schedule.kernels for name, way in k.choices.ways}


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(
    ("a", "way", "before"),
    [
        (operand(96, 64), "descriptor", "vectors"),
        (operand(96, 64, order=(1, 0)), "descriptor_10", "vectors_10"),
        (operand(100, 72), "descriptor", "vectors"),  # rows of 144 bytes
        (operand(96, 62), "vectors", "vectors"),
        (operand(96, 63), "pointer", "pointer"),
        (operand(96, 65)[:, :64], "pointer", "pointer"),  # rows 130 bytes apart
        (operand(96, 64, skip=4), "vectors", "vectors"),  # an address that 8 divides
        (operand(96, 128)[:, ::2], "pointer", "pointer"),
        (operand(1, 64).expand(96, 64), "pointer", "pointer"),
    ],
)
def test_what_lies_at_multiples_of_16_bytes_is_read_by_descriptor(a: torch.Tensor, way: str, before: str) -> None:
    """On Hopper; what lies at multiples of 4 bytes, and all on earlier machines, is read by several neighbours."""
    b = operand(32, a.shape[1], order=(1, 0))
    assert ways(compiled("mk,nk->mn", a, b))["A"] == way
    assert ways(compiled("mk,nk->mn", a, b, target="sm_80"))["A"] == before


@pytest.mark.usefixtures("long")
def test_the_launcher_describes_dimensions_as_they_lie() -> None:
    heads, weights = operand(2, 40, 4, 16), operand(4, 16, 48)
    source = compiled("bnhd,hde->bne", heads, weights).source
    assert "described(A.flatten(0, 1).flatten(1, 2), BLOCK_B_N, BLOCK_H_D)" in source
    apart = operand(2, 4, 40, 16).permute(0, 2, 1, 3)  # heads are not one with positions in memory
    assert ways(compiled("bnhd,hde->bne", apart, weights))["A"] == "pointer"


@pytest.mark.parametrize("text", ["mk,kn->mn", "mk,nk->mn", "km,kn->mn", "km,nk->nm"])
def test_hopper_copies_and_multiplies_without_addresses(text: str) -> None:
    (kernel,) = compile_ahead(
        compiled(text, *(torch.empty(2048, 2048, dtype=torch.bfloat16, device="meta") for _ in "AB")).emitted, SM_90, {}
    )
    ptx = kernel.stages["ptx"]
    assert isinstance(ptx, str)
    assert "cp.async.bulk.tensor" in ptx
    assert "wgmma.mma_async" in ptx
    assert "ld.global" not in ptx
    assert kernel.spills == 0


def called(text: str, *operands: torch.Tensor) -> tuple[torch.Tensor, Compiled]:
    """What a call of a string gives that runs Hopper's kernels, interpreted, and these."""
    made, bound, views = made_for(text, operands, Options(target=SM_90, free=True))
    (found,) = InTriton(made, bound, HERE, views).run(dict(zip("AB", operands, strict=True)), {})
    return found, made


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(
    ("text", "a", "b"),
    [
        ("mk,kn->mn", operand(70, 40), operand(40, 72)),
        ("mk,nk->mn", operand(33, 72), operand(41, 72)),
        ("km,kn->nm", operand(40, 24), operand(40, 48)),
        ("km,nk->mn", operand(40, 24), operand(17, 40)),
        ("bmk,kbn->bmn", operand(3, 20, 24), operand(24, 3, 32)),
        ("bnhd,hde->bne", operand(2, 9, 3, 16), operand(3, 16, 24)),
        ("mkb,nbk->mnb", operand(20, 24, 3), operand(18, 3, 24)),
        ("mk,nk->mn", operand(33, 200), operand(41, 201)[:, :200]),  # one by descriptor, the other by pointers
        ("kbm,bnk->nmb", operand(24, 3, 16), operand(3, 20, 24)),
    ],
)
def test_ends_are_zero(text: str, a: torch.Tensor, b: torch.Tensor) -> None:
    found, made = called(text, a, b)
    assert "described(" in made.source
    wanted = torch.einsum(text, a.double(), b.double())
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() <= 2.0**-8 * wanted.abs().max()


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("sizes", [(3, 70, 40, 24), (2, 33, 48, 40)])
def test_what_is_held_whole_goes_by_descriptor_in_a_walk_of_steps(sizes: tuple[int, int, int, int]) -> None:
    """All sides of its dots are loaded anew at each position; in a walk of blocks one side stays."""
    b, i, j, d = sizes
    x, y = operand(b, i, d), operand(b, j, d)
    text = "def f(A[b, i, d], B[b, j, d]):\n    S[b, i, j] = A * B\n    Y[i, j] = sum[b](exp(S / 8))\n    return Y\n"
    found, made = called(text, x, y)
    assert made.state.plans is not None
    assert [(p.walked, p.whole) for p in made.state.plans] == [(("b",), ("d",))]
    assert ways(made) == {"A": "descriptor", "B": "descriptor"}
    wanted = (torch.einsum("bid,bjd->bij", x.double(), y.double()) / 8).exp().sum(0)
    assert (found.double() - wanted).abs().max() <= 2.0**-8 * wanted.abs().max()
    rows = "def f(A[i, d], B[j, d]):\n    S[i, j] = A * B\n    Y[i] = max[j](S)\n    return Y\n"
    assert "descriptor" not in ways(compiled(rows, operand(i, d), operand(j, d))).values()


def test_a_result_with_a_batch_axis_last_lies_with_it_first() -> None:
    found, _ = called("bmk,bkn->mnb", operand(3, 16, 24), operand(3, 24, 8))
    assert found.shape == (16, 8, 3)
    assert found.stride() == (8, 1, 128)
    found, _ = called("bmk,bkn->mbn", operand(3, 16, 24), operand(3, 24, 8))
    assert found.is_contiguous()


@pytest.mark.parametrize("text", ["mk,nk->mn", "bmk,nkb->bmn"])
def test_what_is_read_often_one_by_one_is_copied_once(text: str) -> None:
    a, b = {"mk,nk->mn": ((4096, 4001), (4096, 4001)), "bmk,nkb->bmn": ((4, 2048, 1024), (2048, 1024, 4))}[text]
    meta = [torch.empty(s, dtype=torch.bfloat16, device="meta") for s in (a, b)]
    c = compiled(text, *meta)
    assert c.state.schedule is not None
    assert {"B_copy"} <= {k.name for k in c.state.schedule.kernels}
    assert c.state.schedule.kernels[-1].choices.way("B_copy") == "descriptor"
    small = [torch.empty(s, dtype=torch.bfloat16, device="meta") for s in ((32, 31), (32, 31))]
    few = compiled("mk,nk->mn", *small)
    assert few.state.schedule is not None
    assert len(few.state.schedule.kernels) == 1


def test_of_padded_rows_triton_knows_only_what_a_mask_lets_it_reach() -> None:
    """Rows of a copy begin at whole lines, and end anywhere: threads with eight neighbours each would store them one by
    one, each far from the next thread's."""
    meta = [torch.empty(4096, 4001, dtype=torch.bfloat16, device="meta") for _ in "AB"]
    text = compiled("mk,nk->mn", *meta).source
    copying = text[text.index("# B_copy[") : text.index("def B_copy_kernel")]
    assert '@triton.jit(do_not_specialize_on_alignment=["B_copy_stride_n"])' in copying
    assert "B_copy_stride_n = B_copy_stride_n // B_COPY_UNIT * B_COPY_UNIT" in text
    assert text.count("do_not_specialize_on_alignment") == text.count("= lined(")


@pytest.mark.usefixtures("long")
def test_a_copy_is_the_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    from einc.codegen.triton.tiles import products

    monkeypatch.setattr(products, "_ELEMENTS", 1.0)  # each element read by itself takes a second
    a, b = operand(20, 31), operand(18, 31)
    found, made = called("mk,nk->mn", a, b)
    assert {"A_copy", "B_copy"} <= {k.name for k in made.state.schedule.kernels}  # type: ignore[union-attr]  # there are
    wanted = a.double() @ b.double().T
    assert (found.double() - wanted).abs().max() <= 2.0**-8 * wanted.abs().max()


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("text", "right"), [("bmk,bkn->mnb", (3, 24, 8)), ("bmk,bkn->nbm", (3, 24, 1))])
def test_a_result_between_those_of_other_programs_is_copied_there(
    text: str, right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from einc.passes.estimate import waits

    a, b = operand(3, 16, 24), operand(*right)
    few, _, _ = made_for(text, (a, b), Options(target=SM_90))
    monkeypatch.setattr(waits, "_APART", 1.0)  # each element stored by itself takes a second
    _compile.cache_clear()
    made, bound, views = made_for(text, (a, b), Options(target=SM_90))
    (found,) = InTriton(made, bound, HERE, views).run({"A": a, "B": b}, {})
    assert [len(c.state.schedule.kernels) for c in (few, made)] == [1, 2 if text.endswith("b") else 1]  # type: ignore[union-attr]  # there are
    assert found.is_contiguous()
    wanted = torch.einsum(text, a.double(), b.double())
    assert (found.double() - wanted).abs().max() <= 2.0**-8 * wanted.abs().max()


def test_short_kernels_go_by_pointers() -> None:
    few = [torch.empty(s, dtype=torch.bfloat16, device="meta") for s in ((64, 64), (512, 64))]
    assert set(ways(compiled("mk,nk->mn", *few)).values()) == {"vectors"}
    wide = [torch.empty(s, dtype=torch.bfloat16, device="meta") for s in ((4096, 64), (16384, 64))]
    assert set(ways(compiled("mk,nk->mn", *wide)).values()) == {"descriptor"}
    deep = [torch.empty(s, dtype=torch.bfloat16, device="meta") for s in ((64, 8192), (64, 8192))]
    assert set(ways(compiled("mk,nk->mn", *deep)).values()) >= {"descriptor"}


def test_layouts() -> None:
    assert layout(torch.empty(6, 64, dtype=torch.bfloat16, device="meta")) == Layout((0, 1), True, 128, (True,))
    assert layout(operand(6, 64, order=(1, 0))) == Layout((1, 0), True, 4, (True,))
    assert not layout(operand(6, 128)[:, :64]).joined[0]
    assert layout(operand(1, 6, 64)).order == (0, 1, 2)
    assert not layout(operand(6, 0)).is_regular


def test_a_way_that_is_asked_for_is_taken_where_it_is_possible() -> None:
    asked = (choice("A", "descriptor"),)
    text = "def f(A[m, k]: bf16, B[k, n]: bf16):\n    C[m, n] = A[m, k] * B[k, n]\n    return C\n"
    c = compile_program(elaborate(parse(text)), 2, SM_90, {"m": 256, "n": 256, "k": 256}, choices=asked)
    assert ways(c) == {"A": "descriptor", "B": "pointer"}


@pytest.mark.parametrize(("k", "width"), [(72, 8), (76, 4), (74, 2)])
def test_rows_of_any_length_are_copied_by_as_many_bytes_as_divide_them(k: int, width: int) -> None:
    """Through asynchronous copies, where masks and strides would hide it from Triton if it were not told."""
    sizes = {"m": 200, "n": 200, "k": k}
    a, b = (torch.empty(200, k, dtype=torch.bfloat16, device="meta") for _ in "AB")
    (kernel,) = compile_ahead(compiled("mk,nk->mn", a, b, target="sm_80").emitted, TARGETS["sm_80"], sizes)
    ptx = str(kernel.stages["ptx"])
    assert set(re.findall(r"cp\.async\.c[ag]\.shared\.global.*?, (0x\w+|\d+)[,;]", ptx)) == {hex(2 * width)}
    assert "ld.global" not in ptx


CHAIN = (
    "def chain(X[n, d]: bf16, W[d, k]: bf16, A[d, r]: bf16, B[r, k]: bf16):\n"
    "    Y[n, k] = X[n, d] * W[d, k] + sum[r](sum[d](X[n, d] * A[d, r]) * B[r, k])\n    return Y\n"
)
NORM = "def norm(X[n, d]: bf16):\n    Y[n, d] = bf16(rmsnorm[d](X))\n    return Y\n"


@pytest.mark.parametrize("text", [CHAIN, NORM], ids=["chain", "norm"])
@pytest.mark.parametrize(("d", "width"), [(904, 8), (900, 4), (898, 2)])
def test_threads_read_rows_of_any_length_by_as_many_bytes_as_divide_them(text: str, d: int, width: int) -> None:
    """What no descriptor reads too: a chain of dots, whose loads could not be on their way otherwise, and no dot."""
    sizes = {"n": 200, "d": d, "k": 24, "r": 8}
    program = elaborate(parse(text))
    shapes = {p.name: tuple(sizes[a] for (a,) in p.dims) for p in program.operands}
    lying = {x: layout(torch.empty(shape, dtype=torch.bfloat16, device="meta")) for x, shape in shapes.items()}
    c = compile_program(program, 2, SM_90, bind(program, shapes, {}).extents, layouts=lying)
    assert ways(c)["X"] == "vectors"
    for kernel in compile_ahead(c.emitted, SM_90, sizes):
        ptx = str(kernel.stages["ptx"])
        found = re.findall(r"cp\.async\.c[ag]\.shared\.global.*?, (0x\w+|\d+)[,;]", ptx)
        assert not found or hex(2 * width) in found
        assert "ld.global.b16" not in ptx
