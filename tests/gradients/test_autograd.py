"""Gradients by every way that eager torch has of asking for them."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import einc
from einc import derive, driver
from einc.base.errors import Error
from einc.ein.printer import print_program
from tests.gradients.attending import PROGRAM, TEXT, attention, close, gradients, operands, plain


class Model(nn.Module):
    """Attention with weights before it."""

    def __init__(self, program: einc.Program) -> None:
        super().__init__()
        self.program = program
        self.weights = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        found: tuple[Tensor, Tensor] = self.program(*(w(x) for w in self.weights))
        return found[0]

    def twin(self, x: Tensor) -> Tensor:
        """By torch alone."""
        return plain(*(w(x) for w in self.weights))


def by_weights(loss: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, [*model.parameters()])


# ---------------------------------------------------------------------------------------------------------------------
# Asked for


def test_backward_accumulates() -> None:
    tensors, twins = operands(), operands()
    for t, twin in zip(tensors, twins, strict=True):
        twin.data.copy_(t.data)
    for _ in range(2):
        torch.autograd.backward(attention(*tensors).square().sum())
        torch.autograd.backward(plain(*twins).square().sum())
    close([t.grad for t in tensors], [t.grad for t in twins])


def test_several_results_and_scalars_by_name() -> None:
    q, k, v = operands()
    o, rows = PROGRAM(q, k, v, window=5, scale=0.3)
    s = (q @ k.mT) * 0.3
    distance = torch.arange(33)[:, None] - torch.arange(33)
    a = s.masked_fill((distance < 0) | (distance >= 5), -torch.inf)
    close(
        torch.autograd.grad((o.square().sum(), rows.sin().sum()), (q, k, v)),
        torch.autograd.grad(((a.softmax(-1) @ v).square().sum(), a.logsumexp(-1).sin().sum()), (q, k, v)),
    )


def test_hooks_see_gradients() -> None:
    q: Any
    q, k, v = operands()
    seen: list[Tensor] = []
    q.register_hook(seen.append)
    middle = k * 2
    middle.retain_grad()
    out: Any = attention(q, middle, v)
    out.register_hook(lambda g: g * 3)
    out.sum().backward()
    assert q.grad is not None
    assert torch.equal(seen[0], q.grad)
    close([q.grad, middle.grad], torch.autograd.grad(3 * plain(q, middle, v).sum(), (q, middle)))


def test_a_graph_is_kept_where_asked() -> None:
    tensors = operands()
    loss = attention(*tensors).square().sum()
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    second = torch.autograd.grad(loss, tensors)
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, tensors)


def test_an_operand_that_was_written_to_is_noticed() -> None:
    q, k, v = operands()
    scaled = q * 1
    loss = attention(scaled, k, v).sum()
    scaled.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


@pytest.mark.parametrize("needing", [n for n in itertools.product([True, False], repeat=3) if any(n)])
def test_only_what_is_needed_is_computed(needing: tuple[bool, ...]) -> None:
    program, tensors = einc.compile(TEXT), operands(needing=needing)
    close(gradients(lambda *t: program(*t)[0], tensors), gradients(plain, tensors))
    (made,) = program._callee.derivatives.values()
    half, _ = made.behind(("O",))
    text = print_program(half.program)
    wanted = [name for name, needs in zip(("dQ", "dK", "dV"), needing, strict=True) if needs]
    assert text.splitlines()[-1] == f"    return {', '.join(wanted)}"
    names = {t.name for e in half.program.equations for t in e.outputs}
    assert {"dQ", "dK", "dV"} & names == set(wanted)
    if wanted == ["dV"]:
        assert "dO_sum" not in text, "the gradient of the scores is not needed"


def test_without_gradients_the_plain_program_runs() -> None:
    program, tensors = einc.compile(TEXT), operands()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not program(*tensors)[0].requires_grad
    assert not program(*(t.detach() for t in tensors))[0].requires_grad
    assert not program._callee.derivatives
    assert program(*tensors)[0].requires_grad
    assert program._callee.derivatives


def test_out_does_not_differentiate() -> None:
    """Results go into memory that is there, as torch's own operations refuse it for operands with gradients."""
    tensors = operands()
    into = torch.empty(1, 2, 33, 8), torch.empty(1, 2, 33)
    PROGRAM(*tensors, out=into)
    close([into[0]], [plain(*tensors).detach()])
    assert not into[0].requires_grad


def test_numpy_beside_tensors_that_need_gradients() -> None:
    q, k, v = operands()
    found = PROGRAM(q, k.detach().numpy(), v.detach().numpy())[0]
    close(torch.autograd.grad(found.sum(), [q]), torch.autograd.grad(plain(q, k, v).sum(), [q]))


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_a_backend_runs_the_derivative_too(backend: str) -> None:
    tensors = operands(9)
    close(gradients(lambda *t: PROGRAM(*t, backend=backend)[0], tensors), gradients(plain, tensors))


def test_no_derivative_forwards() -> None:
    forward: Any = torch.autograd.forward_ad
    for needing in (True, False):
        q, k, v = operands(9, (needing,) * 3)
        attention(q, k, v)
        with forward.dual_level(), pytest.raises(Error, match="no forward-mode derivative"):
            PROGRAM(forward.make_dual(q, torch.ones_like(q)), k, v)
        with pytest.raises(Error, match="vjp or jacrev"):
            torch.func.jvp(attention, (q, k, v), (q, k, v))
        with pytest.raises(Error, match="vjp or jacrev"):
            torch.func.jacfwd(attention)(q, k, v)


# ---------------------------------------------------------------------------------------------------------------------
# Second derivatives


def test_gradients_have_gradients() -> None:
    tensors = operands(9)

    def second(f: Any) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(f(*tensors).square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum((g.square().sum() for g in first), torch.zeros(())), tensors)

    for x, y in zip(second(attention), second(plain), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-3 * y.abs().max().item())


def test_a_penalty_on_gradients_trains() -> None:
    model, x = Model(PROGRAM), torch.randn(1, 2, 7, 8, requires_grad=True)

    def penalty(f: Any) -> Any:
        (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        return (g.norm() - 1) ** 2

    close(by_weights(penalty(model), model), by_weights(penalty(model.twin), model))


def test_third_derivatives() -> None:
    f = einc.compile("def f(x[i], y[i]):\n    T[i] = tanh(x[i] * y[i]) * x[i]\n    return T")
    x, y = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def third(f: Any) -> Any:
        found = f(x, y)
        for _ in range(3):
            (found,) = torch.autograd.grad(found.sum(), x, create_graph=True)
        return found

    torch.testing.assert_close(third(f), third(lambda x, y: (x * y).tanh() * x))


def test_gradcheck_of_attention() -> None:
    tensors = [t.detach().double().requires_grad_() for t in operands(3)]
    program = einc.compile(TEXT, level=0)
    assert gradcheck(program, tensors)
    assert gradgradcheck(program, tensors)


# ---------------------------------------------------------------------------------------------------------------------
# In training


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    tensors, twins = operands(), operands()
    for t, twin in zip(tensors, twins, strict=True):
        twin.data.copy_(t.data)
    torch.autograd.backward(checkpoint(attention, *tensors, use_reentrant=reentrant).square().sum())
    torch.autograd.backward(plain(*twins).square().sum())
    close([t.grad for t in tensors], [t.grad for t in twins])


def test_autocast_lowers_and_gradients_keep_their_type() -> None:
    tensors = operands()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*tensors)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out.float().square().sum(), tensors)
    assert {g.dtype for g in found} == {torch.float32}
    for g, exact in zip(found, gradients(plain, tensors), strict=True):
        assert (g - exact).norm() < 0.05 * exact.norm()


@contextmanager
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_distributed_data_parallel(tmp_path: Path) -> None:
    model, x = Model(PROGRAM), torch.randn(1, 2, 33, 8)
    with one_process(tmp_path):
        nn.parallel.DistributedDataParallel(model)(x).square().sum().backward()
    close([p.grad for p in model.parameters()], by_weights(model.twin(x).square().sum(), model))


def test_a_model_learns_as_its_twin_does() -> None:
    torch.manual_seed(1)
    model = Model(PROGRAM)
    twin = copy.deepcopy(model)
    x, target = torch.randn(1, 2, 33, 8), torch.randn(1, 2, 33, 8)
    losses: list[list[float]] = []
    for m, f in ((model, model.forward), (twin, twin.twin)):
        steps = torch.optim.Adam(m.parameters(), lr=0.02)
        losses.append([])
        for _ in range(10):
            steps.zero_grad()
            loss = nn.functional.mse_loss(f(x), target)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            steps.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]


def test_copies_after_a_backward() -> None:
    model, x = Model(einc.compile(TEXT)), torch.randn(1, 2, 9, 8)
    model(x).sum().backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(by_weights(other(x).sum(), other), by_weights(model.twin(x).sum(), model))


# ---------------------------------------------------------------------------------------------------------------------
# Again


def test_the_same_bits_twice() -> None:
    tensors = operands(65)
    first, second = (gradients(attention, tensors) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_a_second_call_runs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the program's, nor its derivative's; and finds the derivative without looking at the program."""
    tensors = operands(40)
    before = gradients(attention, tensors)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("was compiled again")

    for module, name in ((driver, "compile_program"), (derive, "ahead"), (derive, "behind")):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr("einc.runtime.prepared._prepare", never)
    after = gradients(attention, tensors)
    assert all(map(torch.equal, before, after))
    other = operands(40)
    close(gradients(attention, other), gradients(plain, other))


def test_other_lengths_of_one_class_are_not_derived_again() -> None:
    program = einc.compile(TEXT)
    for n in (33, 40, 64):
        tensors = operands(n)
        close(gradients(lambda *t: program(*t)[0], tensors), gradients(plain, tensors))
    assert len(program._callee.derivatives) == 1
