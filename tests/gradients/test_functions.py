"""The derivative of every scalar operation, of choices, casts and complex numbers: torch's, to nine digits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import einc
from einc.base.ops import OPS, Rule
from einc.ein.printer import print_program
from einc.passes.adjoint.chain import _COMPLEX
from einc.passes.adjoint.differentiate import differentiate
from tests.gradients.compare import Call, assert_equal, call

WITHOUT = {  # operations of floats that have no slopes, and why
    "floordiv": "constant between steps",
    "floor": "constant between steps",
    "ceil": "constant between steps",
    "round": "constant between steps",
    "exactdiv": "of integers",
    "rand": "of integers",
    "where": "chosen, by the chain rule itself",
    **dict.fromkeys(("and", "or", "not"), "of truth values"),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), "a truth value"),
    **dict.fromkeys(_COMPLEX, "of parts, by the chain rule itself"),
}
STEPS = [name for name, why in WITHOUT.items() if why == "constant between steps"]
WITH = [name for name, op in OPS.items() if op.slopes]
POSITIVE = {"sqrt", "rsqrt", "log", "log2", "log1p", "pow"}


def written(name: str) -> str:
    """The operation of x and y, as it is written."""
    op = OPS[name]
    if op.infix and op.arity == 2:
        return f"x[i] {op.infix} y[i]"
    return f"{op.infix or name}({', '.join(f'{a}[i]' for a in 'xy'[: op.arity])})"


def applied(name: str, x: Tensor, y: Tensor, by: tuple[str, ...] = ()) -> Call:
    """T = op(x, y), of as many as it takes."""
    operands = {"x": x, "y": y} if OPS[name].arity == 2 else {"x": x}
    params = ", ".join(f"{n}[i]" for n in operands)
    return Call(f"def f({params}):\n    T[i] = {written(name)}\n    return T", operands, by=by)


def test_every_operation_of_floats_has_slopes_or_a_reason() -> None:
    assert not set(WITH) & set(WITHOUT)
    assert set(OPS) == set(WITH) | set(WITHOUT)
    assert not [n for n in WITH if OPS[n].rule in (Rule.TRUTH, Rule.LOGIC, Rule.INTEGER, Rule.RANDOM)]
    assert not [n for n in WITH if len(OPS[n].slopes) != OPS[n].arity]


@pytest.mark.parametrize("name", WITH)
def test_slopes(name: str) -> None:
    x = torch.linspace(-2.9, 3.1, 41, dtype=torch.float64)
    c = applied(name, x.abs() if name in POSITIVE else x, x.flip(0) * 1.3 + 0.05)
    exact = c.in_torch()
    assert all(g.isfinite().all() for g in exact.values())
    assert_equal(c.evaluated(), exact)
    assert_equal(c.compiled(0, "torch"), exact)


@pytest.mark.parametrize("name", [n for n in WITH if OPS[n].poles] + ["sqrt", "rsqrt", "div"])
def test_near_poles(name: str) -> None:
    """Where the derivative is large, it is large by the same law, and infinite at the pole itself."""
    at = next((p for p, _ in OPS[name].poles), 0.0)
    near = at + torch.tensor([1e-12, 1e-6, 1e-3, 0.25], dtype=torch.float64)
    c = applied(name, torch.ones(4, dtype=torch.float64) if name == "div" else near, near)
    exact = c.in_torch()
    for n, g in c.evaluated().items():
        torch.testing.assert_close(g, exact[n], rtol=1e-9, atol=0)
    c = applied(name, torch.full((1,), 1.0 if name == "div" else at).double(), torch.full((1,), at).double())
    for n, g in c.evaluated().items():
        assert torch.equal(g.isinf(), c.in_torch()[n].isinf())


@pytest.mark.parametrize("name", STEPS)
def test_steps_have_no_gradient(name: str) -> None:
    x = torch.linspace(-2.9, 3.1, 10, dtype=torch.float64)
    c = applied(name, x, x + 5)
    assert all(not g.any() for g in c.evaluated().values())
    assert not differentiate(c.program, ["x"]).gradients


EDGES = {  # programs of x, at a place where two pieces meet, and what torch says there
    "abs": ("abs(x[i])", 0.0, torch.abs),
    "relu": ("relu(x[i])", 0.0, torch.relu),
    "softplus": ("softplus(x[i])", 0.0, torch.nn.functional.softplus),
    "logsigmoid": ("logsigmoid(x[i])", 0.0, torch.nn.functional.logsigmoid),
    "mish at 0": ("mish(x[i])", 0.0, torch.nn.functional.mish),
    "silu far out": ("silu(x[i])", -800.0, torch.nn.functional.silu),
    "sigmoid of nothing": ("sigmoid(x[i])", -math.inf, torch.sigmoid),
    "sigmoid of everything": ("sigmoid(x[i])", math.inf, torch.sigmoid),
    "sigmoid by powers of 2": ("3 / (exp2(x[i]) + 3)", 2000.0, lambda x: 0 * x),
    "sigmoid inside": ("x[i] / (2 + exp2(-x[i]))", 1.5, lambda x: x / (2 + torch.exp2(-x))),
    "clamp at a bound": ("clamp(x[i], -1, 1)", 1.0, lambda x: x.clamp(-1, 1)),
    "leaky": ("leaky_relu(x[i])", -2.0, torch.nn.functional.leaky_relu),
    "squared": ("x[i] ** 2", 0.0, lambda x: x**2),
    "to the first": ("x[i] ** 1", 0.0, lambda x: x**1),
    "to the zeroth": ("x[i] ** 0", 0.0, lambda x: x**0),
    "cubed": ("x[i] ** 3", -2.0, lambda x: x**3),
    "inverse": ("x[i] ** -1", -2.0, lambda x: x**-1),
    "clamp below": ("clamp(x[i], -1, 1)", -2.0, lambda x: x.clamp(-1, 1)),
    "clamp inside": ("clamp(x[i], -1, 1)", 0.5, lambda x: x.clamp(-1, 1)),
    "elu": ("elu(x[i])", -0.5, torch.nn.functional.elu),
    "sigmoid far out": ("sigmoid(x[i])", -800.0, torch.sigmoid),
    "softplus far out": ("softplus(x[i])", 800.0, torch.nn.functional.softplus),
    "logsigmoid far out": ("logsigmoid(x[i])", -800.0, torch.nn.functional.logsigmoid),
    "silu": ("silu(x[i])", -1.5, torch.nn.functional.silu),
    "gelu": ("gelu(x[i])", 0.7, torch.nn.functional.gelu),
    "mish": ("mish(x[i])", 0.7, torch.nn.functional.mish),
    "asin": ("asin(x[i])", 0.3, torch.asin),
    "acos": ("acos(x[i])", 0.3, torch.acos),
    "atan": ("atan(x[i])", -3.0, torch.atan),
    "sinh": ("sinh(x[i])", 1e-3, torch.sinh),
    "cosh": ("cosh(x[i])", -2.0, torch.cosh),
    "sinc by a choice": ("where(x[i] == 0, 1, sin(x[i]) / x[i])", 0.0, lambda x: torch.ones_like(x) + 0 * x),
    "root by a choice": ("where(x[i] > 0, sqrt(x[i]), 0)", 0.0, lambda x: 0 * x),
    "logarithm by a choice": ("where(x[i] > 0, x[i] * log(x[i]), 0)", 0.0, lambda x: 0 * x),
    "quotient by a choice": ("where(x[i] != 0, 1 / x[i], 2)", 0.0, lambda x: 0 * x),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    """What is not chosen is not computed: no 0 times infinity."""
    text, at, f = EDGES[name]
    c = Call(f"def f(x[i]):\n    T[i] = {text}\n    return T", {"x": torch.full((3,), at, dtype=torch.float64)})
    exact = c.through(lambda values: f(values["x"]), c.operands)
    assert_equal(c.evaluated(), exact)
    assert_equal(c.compiled(2, "torch"), exact)


def test_ties_go_to_the_first() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 5.0, 3.0]).double()
    for name in ("max", "min"):
        c = applied(name, x, y)
        c.cotangents = {"T": torch.ones(3, dtype=torch.float64)}
        found = c.evaluated()
        assert found["x"].tolist() == [1, name == "min", 1]
        assert torch.equal(found["x"] + found["y"], torch.ones(3))


def test_conditions_have_no_gradient() -> None:
    text = "def f(x[i], y[i], z[i]):\n    T[i] = where(x > 0 and y < 1, x * z, where(y > 0, y, z))\n    return T"
    c = Call(text, {n: torch.randn(20).double() for n in "xyz"})
    assert_equal(c.evaluated(), c.in_torch())


@pytest.mark.parametrize("inner", ["f32", "f64", "bf16", "f16"])
def test_casts_pass_on(inner: str) -> None:
    c = call(f"def f(x[i]):\n    T[i] = {inner}(x[i] * 2) * x[i]\n    return T", x=torch.randn(9).double())
    assert_equal(c.evaluated(), c.in_torch())


@pytest.mark.parametrize("inner", ["i32", "bool", "u8"])
def test_casts_to_integers_do_not(inner: str) -> None:
    c = call(f"def f(x[i]):\n    T[i] = f32({inner}(abs(x[i]))) * x[i]\n    return T", x=torch.randn(9).double() * 4)
    assert_equal(c.evaluated(), c.in_torch())


def test_random_numbers_are_constants() -> None:
    c = call("def f(x[i], seed: int):\n    T[i] = x[i] * rand(seed, i)\n    return T", {"seed": 3}, x=torch.randn(9))
    found = c.compiled(2, "torch")["x"]
    numbers = einc.compile("def f(n[i], seed: int):\n    T[i] = rand(seed, i) + n[i]\n    return T")(torch.zeros(9), 3)
    torch.testing.assert_close(found, c.cotangents["T"] * numbers)


def test_constants_are_folded() -> None:
    """`x ** 2` has the derivative `2 * x`, as one would write it."""
    text = "def f(x[i]):\n    T[i] = x[i] ** 2 + abs(x[i]) + 3 * x[i] ** 3\n    return T"
    found = print_program(differentiate(call(text, x=torch.ones(2)).program, ["x"]).program)
    for needless in ("not ", "2 == 0", "2 - 1", "** 1", "* 1 ", "- -"):
        assert needless not in found, found


# ---------------------------------------------------------------------------------------------------------------------
# Complex numbers


def spins(*shape: int) -> Tensor:
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


Z, W, R = (torch.view_as_complex(spins(4, 3)), torch.view_as_complex(spins(3, 5)), spins(4)[:, 0])
COMPLEX = {
    "product": "T[i, j] = z[i, k] * w[k, j]",
    "quotient": "T[i, k] = z[i, k] / w[k, 0]",
    "conjugate": "T[i, j] = conj(z[i, k]) * w[k, j]",
    "real part": "T[i, k] = re(z[i, k]) * re(z[i, k] * w[k, 1])",
    "imaginary part": "T[i, k] = im(z[i, k]) * im(z[i, k] * w[k, 1])",
    "size": "T[i, k] = abs(z[i, k] * w[k, 1])",
    "square of the size": "T[i] = sum[k](abs(z[i, k]) ** 2) + 0 * re(w[0, 0])",
    "made of parts": "T[i, k] = complex(r[i] * re(w[k, 0]), r[i] ** 2) * z[i, k]",
    "real times complex": "T[i, j] = r[i] * z[i, k] * w[k, j]",
    "negative and difference": "T[i, k] = r[i] - z[i, k] + -w[k, 2]",
    "power": "T[i, k] = z[i, k] ** 2 * w[k, 0] ** 3",
    "choice": "T[i, k] = where(r[i] > 0, z[i, k], w[k, 0] * r[i])",
    "product of all": "T[i] = prod[k](z[i, k]) + 0 * re(w[0, 0])",
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers(name: str) -> None:
    """As PyTorch has it: the cotangent times the conjugate of the derivative; real of what is real."""
    text = f"def f(z[i, k], w[k, j], r[i]):\n    {COMPLEX[name]}\n    return T"
    c = call(text, z=Z, w=W, r=R)
    exact = c.in_torch()
    assert_equal(c.evaluated(), exact)
    assert_equal(c.compiled(2, "torch"), exact)
    assert not c.evaluated()["r"].is_complex()


def test_the_size_of_zero_has_gradient_zero() -> None:
    c = call("def f(z[i]):\n    T[i] = abs(z[i])\n    return T", z=torch.tensor([0j, 3 + 4j]))
    assert_equal(c.evaluated(), c.in_torch())
    assert c.evaluated()["z"][0] == 0
    assert math.isclose(abs(c.evaluated()["z"][1]), abs(c.cotangents["T"][1]))


@pytest.mark.parametrize("text", ["ij,jk->ik", "ij,ij->", "ij->ji", "ij,kj->i", "i...,...j->ij"])
@pytest.mark.parametrize("types", [(torch.complex64, torch.complex64), (torch.complex128, torch.float64)])
def test_einsums_of_complex_numbers(text: str, types: tuple[torch.dtype, torch.dtype]) -> None:
    count = text.split("->")[0].count(",") + 1
    tensors = [torch.randn(4, 4, dtype=t, requires_grad=True) for t in types[:count]]
    found, wanted = einc.einsum(text, *tensors), torch.einsum(text, *(t.to(types[0]) for t in tensors))
    weight = torch.randn_like(wanted)
    for x, y in zip(
        torch.autograd.grad(found, tensors, weight), torch.autograd.grad(wanted, tensors, weight), strict=True
    ):
        torch.testing.assert_close(x, y)
