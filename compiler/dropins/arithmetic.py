"""Torch's functions of numbers in the language: what each one gives, and the type that torch gives it."""

from __future__ import annotations

import math

import torch

from einc.dropins.kinds import floating, joined, like, literal
from einc.dropins.symbols import Symbol, refuse, rule
from einc.dropins.values import Value, apply, number


def _needs_numbers(name: str, *symbols: Symbol) -> None:
    if all(s.dtype == torch.bool for s in symbols):
        refuse(f"torch.{name} takes numbers, not truth values", "as in PyTorch", "x.int(), or ~x for the opposite")


def _function(*names: str) -> None:
    """A function of one real number, by its name in the language; of integers, it gives torch's default type."""

    @rule(1, *names)
    def call(x: Symbol) -> Symbol:
        return like(x, apply(names[0], x.value), floating(x.dtype))


for _names in (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "tanh", "erf", "sinh", "cosh",
    "asin arcsin", "acos arccos", "atan arctan", "sigmoid expit",
):  # fmt: skip
    _function(*_names.split())


@rule(1, "erfc")
def _erfc(x: Symbol) -> Symbol:
    return like(x, apply("sub", number(1), apply("erf", x.value)), floating(x.dtype))


@rule(1, "log10")
def _log10(x: Symbol) -> Symbol:
    return like(x, apply("div", apply("log", x.value), number(math.log(10))), floating(x.dtype))


@rule(1, "floor")
def _floor(x: Symbol) -> Symbol:
    return like(x, apply("floor", x.value)) if x.dtype.is_floating_point else x


@rule(1, "ceil")
def _ceil(x: Symbol) -> Symbol:
    return like(x, apply("ceil", x.value)) if x.dtype.is_floating_point else x


@rule(1, "round", "rint")
def _round(x: Symbol, decimals: int = 0) -> Symbol:
    if not x.dtype.is_floating_point:
        return x
    if not decimals:
        return like(x, apply("round", x.value))
    scale = number(10.0**decimals)
    return like(x, apply("div", apply("round", apply("mul", x.value, scale)), scale))


@rule(1, "trunc", "fix")
def _trunc(x: Symbol) -> Symbol:
    return like(x, _truncated(x.value)) if x.dtype.is_floating_point else x


def _truncated(x: Value) -> Value:
    return apply("where", apply("lt", x, number(0)), apply("ceil", x), apply("floor", x))


@rule(1, "frac")
def _frac(x: Symbol) -> Symbol:
    return like(x, apply("sub", x.value, _truncated(x.value)))


@rule(2, "add")
def _add(x: Symbol, y: Symbol, *, alpha: float = 1) -> Symbol:
    if x.dtype == y.dtype == torch.bool:
        return like(x, apply("or", x.value, y.value))
    return x if _nothing(x, y) else like(x, apply("add", x.value, _times(alpha, y)), joined(x, y))


@rule(2, "sub", "subtract")
def _sub(x: Symbol, y: Symbol, *, alpha: float = 1) -> Symbol:
    _needs_numbers("sub", x, y)
    return x if _nothing(x, y) else like(x, apply("sub", x.value, _times(alpha, y)), joined(x, y))


def _nothing(x: Symbol, y: Symbol) -> bool:
    """Is y Python's 0, which changes nothing where x is an integer?"""
    return y.number is not None and y.number == 0 and joined(x, y) == x.dtype and not x.dtype.is_floating_point


def _times(alpha: float, y: Symbol) -> Value:
    return y.value if alpha == 1 else apply("mul", number(alpha), y.value)


@rule(2, "rsub")
def _rsub(x: Symbol, y: Symbol, *, alpha: float = 1) -> Symbol:
    return _sub(y, x, alpha=alpha)


@rule(2, "mul", "multiply")
def _mul(x: Symbol, y: Symbol) -> Symbol:
    op = "and" if x.dtype == y.dtype == torch.bool else "mul"
    return like(x, apply(op, x.value, y.value), joined(x, y))


@rule(2, "div", "divide", "true_divide", "truediv")
def _div(x: Symbol, y: Symbol, *, rounding_mode: str | None = None) -> Symbol:
    if rounding_mode == "floor":
        return _floor_divide(x, y)
    dtype = joined(x, y)
    if rounding_mode is None:
        return like(x, apply("div", x.value, y.value), floating(dtype))
    if dtype.is_floating_point:
        return like(x, _truncated(apply("div", x.value, y.value)), dtype)
    return like(x, _integer_quotient(x.value, y.value), dtype)


def _integer_quotient(x: Value, y: Value) -> Value:
    """The quotient of integers, rounded towards zero."""
    opposite = apply("ne", apply("lt", x, number(0)), apply("lt", y, number(0)))
    size = apply("floordiv", apply("abs", x), apply("abs", y))
    return apply("where", opposite, apply("neg", size), size)


@rule(2, "floor_divide", "floordiv")
def _floor_divide(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("floordiv", x.value, y.value), joined(x, y))


@rule(2, "remainder", "mod")
def _remainder(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("mod", x.value, y.value), joined(x, y))


@rule(2, "fmod")
def _fmod(x: Symbol, y: Symbol) -> Symbol:
    return _sub(x, _mul(_div(x, y, rounding_mode="trunc"), y))


@rule(2, "pow", "power")
def _pow(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("pow", x.value, y.value), joined(x, y))


@rule(1, "square")
def _square(x: Symbol) -> Symbol:
    return _pow(x, literal(x, 2))


@rule(1, "reciprocal")
def _reciprocal(x: Symbol) -> Symbol:
    return _div(literal(x, 1), x)


@rule(1, "neg", "negative")
def _neg(x: Symbol) -> Symbol:
    _needs_numbers("neg", x)
    return like(x, apply("neg", x.value))


@rule(1, "abs", "absolute", "fabs")
def _abs(x: Symbol) -> Symbol:
    _needs_numbers("abs", x)
    least = (x.value.always or (-1,))[0]
    return x if least >= 0 else like(x, apply("abs", x.value))


@rule(1, "sign", "sgn")
def _sign(x: Symbol) -> Symbol:
    return x if x.dtype == torch.bool else like(x, apply("sign", x.value))


@rule(2, "atan2", "arctan2")
def _atan2(x: Symbol, y: Symbol) -> Symbol:
    return like(x, apply("atan2", x.value, y.value), floating(joined(x, y)))


@rule(2, "logaddexp")
def _logaddexp(x: Symbol, y: Symbol) -> Symbol:
    apart = apply("abs", apply("sub", x.value, y.value))
    both = apply("add", apply("max", x.value, y.value), apply("log1p", apply("exp", apply("neg", apart))))
    equal = apply("add", x.value, number(math.log(2)))  # infinite ones included
    return like(x, apply("where", apply("eq", x.value, y.value), equal, both), joined(x, y))


@rule(3, "lerp")
def _lerp(x: Symbol, end: Symbol, weight: Symbol) -> Symbol:
    return _add(x, _mul(weight, _sub(end, x)))


# ---------------------------------------------------------------------------------------------------------------------
# Activations


def _activation(*names: str) -> None:
    """A function of floats by its name in the language; torch's `inplace` makes no difference here."""

    @rule(1, *names)
    def call(x: Symbol, inplace: bool = False) -> Symbol:  # noqa: ARG001
        return like(x, apply(names[0], x.value))


for _names in ("relu", "silu swish", "mish", "logsigmoid log_sigmoid"):
    _activation(*_names.split())


@rule(1, "relu6")
def _relu6(x: Symbol, inplace: bool = False) -> Symbol:  # noqa: ARG001
    return like(x, apply("clamp", x.value, number(0.0), number(6.0)))


@rule(1, "gelu")
def _gelu(x: Symbol, approximate: str = "none") -> Symbol:
    return like(x, apply("gelu_tanh" if approximate == "tanh" else "gelu", x.value))


@rule(1, "softplus")
def _softplus(x: Symbol, beta: float = 1, threshold: float = 20) -> Symbol:
    wide = x.value if beta == 1 else apply("mul", x.value, number(beta))
    soft = apply("softplus", wide)
    if beta != 1:
        soft = apply("div", soft, number(beta))
    if threshold < 20:  # above 20 both are equal in f32
        soft = apply("where", apply("gt", wide, number(threshold)), x.value, soft)
    return like(x, soft)


@rule(1, "leaky_relu")
def _leaky_relu(x: Symbol, negative_slope: float = 0.01, inplace: bool = False) -> Symbol:  # noqa: ARG001
    return like(x, apply("leaky_relu", x.value, number(negative_slope)))


@rule(1, "elu")
def _elu(x: Symbol, alpha: float = 1.0, inplace: bool = False) -> Symbol:  # noqa: ARG001
    return like(x, apply("elu", x.value, number(alpha)))
