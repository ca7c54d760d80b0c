"""How functions of other libraries are written here.

Each entry is an expression in a program with operands `x[i, j]` and `y[i, j]`, and whatever else it names.
"""

from __future__ import annotations

from collections.abc import Iterable

from einc.base.errors import misspelt

_WRITTEN = {
    # types
    "int": "i64(x)", "long": "i64(x)", "float": "f32(x)", "double": "f64(x)", "half": "f16(x)", "bfloat16": "bf16(x)",
    "astype": "f32(x)", "cast": "f32(x)", "to": "f32(x)",
    # arithmetic
    "add": "x + y", "sub": "x - y", "subtract": "x - y", "mul": "x * y", "multiply": "x * y", "div": "x / y",
    "divide": "x / y", "true_divide": "x / y", "neg": "-x", "negative": "-x", "mod": "x % y", "fmod": "x % y",
    "remainder": "x % y", "floor_divide": "x // y", "floordiv": "x // y", "power": "x ** y", "reciprocal": "1 / x",
    "sqr": "square(x)", "cbrt": "sign(x) * abs(x) ** (1 / 3)", "absolute": "abs(x)", "fabs": "abs(x)",
    "sgn": "sign(x)", "signum": "sign(x)", "copysign": "where(y < 0, -abs(x), abs(x))",
    "maximum": "max(x, y)", "minimum": "min(x, y)", "fmax": "max(x, y)", "fmin": "min(x, y)",
    "trunc": "where(x < 0, ceil(x), floor(x))", "fix": "where(x < 0, ceil(x), floor(x))", "rint": "round(x)",
    "frac": "x - floor(x)", "lerp": "x + value * (y - x)",
    # exponentials, logarithms and angles
    "ln": "log(x)", "log10": "log(x) / log(10)", "exp10": "10 ** x", "pow2": "exp2(x)", "inverse_sqrt": "rsqrt(x)",
    "logaddexp": "max(x, y) + log1p(exp(-abs(x - y)))", "logit": "log(x / (1 - x))", "xlogy": "x * log(y)",
    "hypot": "sqrt(x ** 2 + y ** 2)", "erfc": "1 - erf(x)", "sinc": "where(x == 0, 1, sin(pi * x) / (pi * x))",
    "arctan": "atan(x)", "arctan2": "atan2(y, x)", "arcsin": "asin(x)", "arccos": "acos(x)",
    "arcsinh": "log(x + sqrt(x ** 2 + 1))", "asinh": "log(x + sqrt(x ** 2 + 1))",
    "arccosh": "log(x + sqrt(x ** 2 - 1))", "acosh": "log(x + sqrt(x ** 2 - 1))",
    "arctanh": "(log1p(x) - log1p(-x)) / 2", "atanh": "(log1p(x) - log1p(-x)) / 2",
    "degrees": "x * 180 / pi", "rad2deg": "x * 180 / pi", "radians": "x * pi / 180", "deg2rad": "x * pi / 180",
    "real": "re(x)", "imag": "im(x)", "conjugate": "conj(x)", "angle": "atan2(im(x), re(x))",
    # choices and truth
    "select": "where(x > y, x, y)", "ifelse": "where(x > y, x, y)", "cond": "where(x > y, x, y)",
    "masked_fill": "where(x > y, value, x)", "threshold": "where(x > value, x, 0)",
    "isnan": "x != x", "isinf": "abs(x) == inf", "isfinite": "abs(x) < inf", "nan_to_num": "where(x == x, x, 0)",
    "equal": "x == y", "eq": "x == y", "not_equal": "x != y", "ne": "x != y", "greater": "x > y", "gt": "x > y",
    "greater_equal": "x >= y", "ge": "x >= y", "less": "x < y", "lt": "x < y", "less_equal": "x <= y", "le": "x <= y",
    "logical_and": "x > 0 and y > 0", "logical_or": "x > 0 or y > 0", "logical_not": "not x > 0",
    "logical_xor": "(x > 0) != (y > 0)", "heaviside": "where(x > 0, 1, where(x == 0, y, 0))",
    # activations
    "clip": "clamp(x, low, high)", "clamp_min": "max(x, low)", "clamp_max": "min(x, high)",
    "relu6": "clamp(x, 0, 6)", "hardtanh": "clamp(x, -1, 1)", "swish": "silu(x)", "expit": "sigmoid(x)",
    "log_sigmoid": "logsigmoid(x)", "leakyrelu": "leaky_relu(x)", "lrelu": "leaky_relu(x)",
    "prelu": "leaky_relu(x, slope)", "softsign": "x / (1 + abs(x))", "hardsigmoid": "clamp(x / 6 + 0.5, 0, 1)",
    "hardswish": "x * clamp(x / 6 + 0.5, 0, 1)", "selu": "1.0507009873554805 * elu(x, 1.6732632423543772)",
    "celu": "value * elu(x / value)", "glu": "x * sigmoid(y)", "swiglu": "silu(x) * y", "tanhshrink": "x - tanh(x)",
    # reductions
    "amax": "max[j](x)", "amin": "min[j](x)", "nansum": "sum[j](where(x == x, x, 0))", "product": "prod[j](x)",
    "average": "mean[j](x)", "avg": "mean[j](x)", "variance": "var[j](x)", "stddev": "std[j](x)",
    "ptp": "max[j](x) - min[j](x)", "count_nonzero": "sum[j](where(x != 0, 1, 0))", "vector_norm": "norm[j](x)",
    "softmin": "softmax[j](-x)", "logsoftmax": "log_softmax[j](x)", "log_sum_exp": "logsumexp[j](x)",
    "lse": "logsumexp[j](x)", "layer_norm": "layernorm[j](x)", "rms_norm": "rmsnorm[j](x)",
    "normalize": "l2norm[j](x)", "cosine_similarity": "cosine[j](x, y)", "mse_loss": "mean[i, j](square(x - y))",
    "cross_entropy": "logsumexp[j](x) - x[i, label[i]]", "nll_loss": "-x[i, label[i]]",
    "cumprod": "prod[t](where(t <= j, x[i, t], 1))", "cummax": "max[t](where(t <= j, x[i, t], -inf))",
    "cummin": "min[t](where(t <= j, x[i, t], inf))",
    "logcumsumexp": "logsumexp[t](where(t <= j, x[i, t], -inf))", "reverse_cumsum": "suffix_sum[j](x)",
    # products
    "dot": "sum[j](x * y)", "vdot": "sum[j](x * y)", "inner": "sum[j](x * y)", "matmul": "sum[k](x[i, k] * z[k, j])",
    "mm": "sum[k](x[i, k] * z[k, j])", "bmm": "sum[k](x[i, k] * z[k, j])", "tensordot": "sum[k](x[i, k] * z[k, j])",
    "einsum": "sum[k](x[i, k] * z[k, j])", "mv": "sum[j](x[i, j] * w[j])", "outer": "x[i, j] * w[k]",
    "linear": "sum[k](x[i, k] * z[k, j]) + w[j]", "conv1d": "sum[r](x[i, t + r] * w[r])",
    # positions
    "transpose": "x[j, i]", "permute": "x[j, i]", "swapaxes": "x[j, i]", "flip": "x[i, |j| - 1 - j]",
    "reverse": "x[i, |j| - 1 - j]", "roll": "x[i, (j - 1) % |j|]", "take": "x[i, index[k]]",
    "gather": "x[i, index[k]]", "index_select": "x[i, index[k]]", "take_along_axis": "x[i, index[k]]",
    "embedding": "x[index[k], j]", "one_hot": "where(index[k] == j, 1, 0)", "diag": "x[i, i]", "diagonal": "x[i, i]",
    "trace": "sum[i](x[i, i])", "tril": "where(j <= i, x, 0)", "triu": "where(j >= i, x, 0)",
    "eye": "where(i == j, 1, 0)", "pad": "where(j >= 1, x[i, j - 1], 0)",
    "cat": "where(k < |j|, x[i, k], y[i, k - |j|])", "concat": "where(k < |j|, x[i, k], y[i, k - |j|])",
    "concatenate": "where(k < |j|, x[i, k], y[i, k - |j|])", "stack": "where(k == 0, x, y)",
    "diff": "x[i, t + 1] - x[i, t]", "shape": "|j|", "size": "|i| * |j|", "len": "|i|", "numel": "|i| * |j|",
    "random": "rand(seed, i, j)", "uniform": "rand(seed, i, j)",
    "dropout": "where(rand(seed, i, j) < value, 0, x / (1 - value))",
}  # fmt: skip

# Functions of other libraries that no expression here gives: a similar name would be another function.
_ELSEWHERE = frozenset(
    "sort argsort median quantile percentile nanmedian mode unique searchsorted histogram bincount fft ifft rfft irfft"
    " svd qr eig eigh inv pinv solve det cholesky lstsq expm logm lgamma gammaln gamma digamma polygamma erfinv"
    " erfcinv i0 i1 j0 j1 cross kron convolve conv2d conv3d max_pool avg_pool interp where_ scan fori_loop while_loop"
    " vmap grad randn normal randint bernoulli multinomial arange linspace zeros ones full iota reshape view flatten"
    " ravel squeeze unsqueeze expand expand_dims broadcast_to repeat tile split chunk unbind scatter scatter_add"
    " index_add meshgrid atan2d float_power nextafter ldexp frexp gcd lcm bitwise_and bitwise_or bitwise_xor".split()
)
_TOPK = "argmax[j](x) for the first, then next_max[j](x, value, position) for each further one"


def meant(name: str, known: Iterable[str]) -> str:
    """What to write for an unknown function: one of another library, or a misspelt one."""
    plain = name.lower().removeprefix("torch_").removeprefix("np_")
    if plain in ("topk", "top_k", "nlargest"):
        return f"write {_TOPK}"
    if plain in _WRITTEN:
        return f"write {_WRITTEN[plain]}"
    return "" if plain in _ELSEWHERE else misspelt(name, known)
