"""Boxes of torch's tiles: made again as an equal box was made, in memory that is kept, by few operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import permutations

import pytest
import torch
from torch import Tensor

from einc import tile
from einc.base.targets import cores
from einc.base.types import F32
from einc.binding import bind
from einc.codegen.executor import boxes
from einc.codegen.executor.frames import dense
from einc.codegen.executor.run import Executor, executor, fresh
from einc.codegen.executor.scales import multiply_less
from einc.codegen.tape import MOST_STEPS, record
from einc.driver import compile_program, elaborate, parse
from einc.ein import Operand
from einc.evaluate import evaluate
from einc.tile import Value
from tests.support import tileprograms as programs
from tests.support.backends import close, in_pieces, normal
from tests.support.tileprograms import axis, dims, elem, inside, let, load, store

ROWS = "def rows(X[n, r]):\n    Y[n, r] = softmax[r](X)\n    return Y\n"
SCALED = "def scaled(X[n, r], c: float):\n    Y[n, r] = exp(c * X) - c\n    return Y\n"
CAUSAL = (
    "def causal(Q[i, d], K[j, d], V[j, e]):\n    S[i, j] = Q * K\n"
    "    O[i, e] = softmax[j](where(j <= i, S, -inf)) * V\n    return O\n"
)
COLUMNS = "def columns(X[n, r], w[n]):\n    Y[r] = sum[n](w * (X - 1) * X)\n    return Y\n"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One worker, so that it is known which box it computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(text: str, tensors: Mapping[str, Tensor], **scalars: float) -> Executor:
    """The executor of a program for operands of these shapes."""
    compiled = compile_program(elaborate(parse(text)), 2, cores(1))
    bindings = bind(compiled.program, {n: tuple(x.shape) for n, x in tensors.items()}, scalars)
    assert compiled.state.schedule is not None
    return executor(compiled.state.program, compiled.state.schedule, bindings, torch.device("cpu"))


def meaning(text: str, tensors: Mapping[str, Tensor], **scalars: float) -> Tensor:
    """The result in double precision."""
    (found,) = evaluate(elaborate(parse(text)), {n: x.double().numpy() for n, x in tensors.items()}, scalars)
    return torch.as_tensor(found)


def recordings(made: Executor) -> list[bool]:
    """For each size of a box that was looked at, whether it is known what such boxes do."""
    return [found is not None for launch in made.launches for found in launch.kernel.known.values()]


def test_boxes_are_made_as_an_equal_box_was() -> None:
    x = normal(96, 40)
    with in_pieces(200):
        rows = made(ROWS, {"X": x})
        for seed in range(3):  # the last calls find what the first one wrote down
            x = normal(96, 40, seed=seed)
            close(rows.run({"X": x}, {}, ())[0], meaning(ROWS, {"X": x}))
            assert any(recordings(rows))


@pytest.mark.parametrize("wild", [-torch.inf, torch.inf, torch.nan])
def test_boxes_that_look_at_other_values_are_computed_by_themselves(wild: float) -> None:
    x = normal(96, 40)
    x[50:70, ::2] = wild
    x[80] = wild
    with in_pieces(200):
        rows = made(ROWS, {"X": x})
        for _ in range(2):
            close(rows.run({"X": x}, {}, ())[0], meaning(ROWS, {"X": x}))
        assert any(recordings(rows))


def test_boxes_that_depend_on_where_they_are_are_not_made_again() -> None:
    tensors = {"Q": normal(96, 8), "K": normal(96, 8, seed=1), "V": normal(96, 8, seed=2)}
    with in_pieces(200):
        causal = made(CAUSAL, tensors)
        for _ in range(2):
            close(causal.run(tensors, {}, ())[0], meaning(CAUSAL, tensors))
        assert not any(recordings(causal))


def test_operands_may_lie_elsewhere_in_a_further_call() -> None:
    whole = normal(200, 120)
    views = [whole[:96, :40], whole[96:192, 80:], whole.T[:96, :40], whole[:96, :80:2], whole[:96].flip(0)[:, :40]]
    with in_pieces(200):
        rows = made(ROWS, {"X": views[0]})
        for x in views:
            close(rows.run({"X": x}, {}, ())[0], meaning(ROWS, {"X": x}))


LAYER = "def layer(X[n, r], w[r]):\n    Y[n, r] = layernorm[r](X) * w[r]\n    return Y\n"


@pytest.mark.parametrize("text", [LAYER, COLUMNS])
@pytest.mark.parametrize("turned", [False, True])
def test_every_run_gives_the_same_numbers(text: str, turned: bool) -> None:
    x = normal(256, 256).T if turned else normal(256, 256)
    tensors = {"X": x, "w": normal(256, seed=1)}
    with in_pieces(2000):
        program = made(text, tensors)
        first, *others = (program.run(tensors, {}, ())[0] for _ in range(4))
        assert any(recordings(program))
        assert all(torch.equal(first, found) for found in others)


def test_numbers_may_change_in_a_further_call() -> None:
    x = normal(96, 40)
    with in_pieces(200):
        scaled = made(SCALED, {"X": x}, c=0.5)
        for c in (0.5, -2.0, 0.0):
            close(scaled.run({"X": x}, {"c": c}, ())[0], meaning(SCALED, {"X": x}, c=c))
        assert any(recordings(scaled))


def test_it_is_kept_by_a_thread_in_and_out_of_inference_mode() -> None:
    x = normal(4096, 64)
    wanted = meaning(ROWS, {"X": x})
    rows = made(ROWS, {"X": x})
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            close(rows.run({"X": x}, {}, ())[0], wanted)


def test_sums_across_memory_read_long_pieces_of_rows() -> None:
    tensors = {"X": normal(2048, 2048), "w": normal(2048, seed=1)}
    columns = made(COLUMNS, tensors)
    close(columns.run(tensors, {}, ())[0], meaning(COLUMNS, tensors), 1e-3)
    (launch,) = columns.launches
    sizes = {d.axis: n for d, n in zip(launch.kernel.dims, launch.kernel.sizes, strict=True)}
    assert sizes["r"] > sizes["n"]
    assert sizes["r"] * sizes["n"] <= boxes.LARGEST


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_results_lie_as_operands_do(order: tuple[int, ...]) -> None:
    x = torch.empty([(2, 3, 4)[d] for d in order]).permute([order.index(d) for d in range(3)])
    assert dense(x.shape, x.stride()) == x.stride()
    assert dense(x[:, :, ::2].shape, x[:, :, ::2].stride()) == torch.empty_like(x[:, :, ::2]).stride()


def test_fresh_memory_in_large_pages_is_memory() -> None:
    x = fresh((3000, 1001), torch.float32, torch.device("cpu"))
    assert x.is_contiguous()
    assert bool((x.fill_(2) == 2).all())


def test_nothing_is_written_down_that_takes_much_memory() -> None:
    x = normal(100)

    def run(given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (y,) = given
        for _ in range(100):
            y = y + 1
        return (y,)

    assert record(run, [x], most=100_000)[1] is not None
    assert record(run, [x], most=10_000)[1] is None


def test_no_long_walk_is_written_down() -> None:
    tensors = {"X": normal(10 * MOST_STEPS, 2), "w": normal(10 * MOST_STEPS, seed=1)}
    with in_pieces(20):
        columns = made(COLUMNS, tensors)
        for _ in range(2):
            close(columns.run(tensors, {}, ())[0], meaning(COLUMNS, tensors), 1e-3)
        assert not any(recordings(columns))


def times(*args: Value) -> Value:
    """The product of values, from left to right."""
    return reduce(lambda x, y: elem("mul", x, y), args)


def test_products_of_tiles_are_as_few_as_their_factors_allow() -> None:
    p = programs.program(
        "products",
        [Operand("X", dims("i r"), F32), Operand("L", dims("i"), F32), Operand("w", dims("r"), F32)],
        [programs.equation("R", "i r", programs.at("X", "i", "r"))],
        "R",
    )
    two, x, scale, w, y = tile.Lit(2.0, F32), *(tile.Ref(name) for name in ("x", "scale", "w", "y"))
    body = (
        inside("i"),
        inside("r"),
        let("x", F32, "i r", load("X", "i r", F32, "i r")),
        let("scale", F32, "i", load("L", "i", F32, "i")),
        let("w", F32, "r", load("w", "r", F32, "r")),
        let("y", F32, "i r", times(w, x)),
        let("z", F32, "i r", elem("add", times(two, x, scale), times(x, scale, w))),
        store("R", "i r", tile.Ref("z"), F32, "i r", "i r"),
    )
    grid = [axis("i", "row", tile.Block(1, 16)), axis("r", "column", tile.Block(1, 16))]
    kernel = programs.kernel(p, 0, grid, body)
    z = next(s for s in multiply_less(kernel, kernel.body) if isinstance(s, tile.Let) and s.names == ("z",))
    assert z.value == elem("add", times(x, times(two, scale)), times(y, scale))
