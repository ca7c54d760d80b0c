"""Functions that Triton lacks: written out in the emitted files that call them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from einc.codegen.emit.library_of_roles import ROLES

_SOURCES = {
    "maximum": '''
@triton.jit
def maximum(a, b):
    """The greater of two floats; a NaN wins."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
''',
    "minimum": '''
@triton.jit
def minimum(a, b):
    """The smaller of two floats; a NaN wins."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
''',
    "scaled_maximum": '''
@triton.jit
def scaled_maximum(c, x, AXIS: tl.constexpr):
    """The maximum of c * x: c times the least x, if c is negative."""
    if c >= 0:
        top = tl.reduce(x, AXIS, maximum)
    else:
        top = tl.reduce(x, AXIS, minimum)
    return c * top
''',
    "times": """
@triton.jit
def times(a, b):
    return a * b
""",
    "where_counted": '''
@triton.jit
def where_counted(x, counts, AXIS: tl.constexpr):
    """A side of a dot, 0 at positions that count for no row, or column, of the other side's tile."""
    anywhere = tl.expand_dims(tl.max(counts.to(tl.int32), AXIS), AXIS + 1 if AXIS == len(x.shape) - 2 else AXIS - 1)
    return tl.where(anywhere > 0, x, tl.zeros_like(x))
''',
    "dot_f32": '''
@triton.jit
def dot_f32(a, b, acc=None):
    """A dot of f32 in sums of 128 products, which are then added: a chain of all would be rounded for each."""
    PARTS: tl.constexpr = a.shape[1] // 128
    if PARTS == 0:
        found = tl.dot(a, b, acc, input_precision="ieee")
    else:
        if PARTS == 1:  # that sums may be narrower keeps Triton from joining it with `acc`; for f32 none is
            found = tl.dot(a, b, input_precision="ieee", max_num_imprecise_acc=1)
        else:
            left = tl.permute(tl.reshape(a, (a.shape[0], PARTS, 128)), (1, 0, 2))
            right = tl.reshape(b, (PARTS, 128, b.shape[1]))
            found = tl.sum(tl.dot(left, right, input_precision="ieee"), 0)
        if acc is not None:
            found += acc
    return found
''',
    "floor_div": '''
@triton.jit
def floor_div(a, b):
    """The quotient of integers rounded down; Triton rounds to zero."""
    q = a // b
    r = a - q * b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), q - 1, q)
''',
    "floor_mod": '''
@triton.jit
def floor_mod(a, b):
    """The remainder with the sign of the divisor; Triton's has that of the dividend."""
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
''',
    "less": '''
@triton.jit
def less(a, b):
    """a - b, which Triton (3.6) takes all for multiples of what the first one is."""
    return a + ~b + 1
''',
    "opaque": '''
@triton.jit
def opaque(x):
    """The same tile: that a sum of one term is taken hides from Triton what it was computed from."""
    return tl.sum(tl.expand_dims(x, -1), -1)
''',
    "tan": """
@triton.jit
def tan(x):
    return tl.sin(x) / tl.cos(x)
""",
    "tanh": '''
@triton.jit
def tanh(x):
    """Near 0 an approximation (Cephes), elsewhere 1 - 2 / (e^2x + 1), so that no digits cancel."""
    s = x * x
    if x.dtype == tl.float64:
        p = (-0.964399179425052238628 * s - 99.2877231001918586564) * s - 1614.68768441708447952
        q = ((s + 112.811678491632931402) * s + 2235.48839060100448583) * s + 4844.06305325125486048
        p = p / q
    else:
        p = ((-0.00570498872745 * s + 0.0206390887954) * s - 0.0537397155531) * s + 0.133314422036
        p = p * s - 0.333332819422
    return tl.where(tl.abs(x) < 0.625, x + x * s * p, 1.0 - 2.0 / (tl.exp2(x * 2.8853900817779268) + 1.0))
''',
    "log1p": '''
@triton.jit
def log1p(x):
    """log(1 + x): near 0 the series of the area tangent at x / (2 + x), elsewhere the logarithm."""
    s = x / (2.0 + x)
    z = s * s
    p = ((((z / 21 + 1.0 / 19) * z + 1.0 / 17) * z + 1.0 / 15) * z + 1.0 / 13) * z + 1.0 / 11
    p = ((((p * z + 1.0 / 9) * z + 1.0 / 7) * z + 1.0 / 5) * z + 1.0 / 3) * z
    return tl.where((x > -0.29) & (x < 0.41), 2.0 * s + 2.0 * s * p, tl.log(1.0 + x))
''',
    "expm1": '''
@triton.jit
def expm1(x):
    """exp(x) - 1: near 0 by way of tanh(x / 2), so that no digits cancel."""
    t = tanh(0.5 * x)
    found = tl.where(tl.abs(x) < 1.0, 2.0 * t / (1.0 - t), tl.exp(x) - 1.0)
    return tl.where(x == 0, x, found)
''',
    "atan2": '''
@triton.jit
def atan2(y, x):
    """The angle of the point (x, y): a sixteenth of the circle by a rational approximation, then mirrored."""
    a, b = tl.abs(x), tl.abs(y)
    small, large = tl.minimum(a, b), tl.maximum(a, b)
    r = tl.where(small == large, tl.where(large == 0, 0.0, 1.0), small / large)
    steep = r > 0.41421356237309503
    t = tl.where(steep, (r - 1.0) / (r + 1.0), r)
    z = t * t
    p = ((-0.84047005192358869593 * z - 8.7848712076487907168) * z - 21.634825278767008364) * z - 14.647836554593470317
    q = ((z + 15.423701030671906577) * z + 62.284029891818045891) * z + 91.270581634559767099
    q = q * z + 43.943509663780423659
    angle = t + t * (z * (p / q))
    angle = tl.where(steep, 0.7853981633974483 + angle, angle)
    angle = tl.where(b > a, 1.5707963267948966 - angle, angle)
    angle = tl.where((x < 0) | ((x == 0) & (1.0 / x < 0)), 3.141592653589793 - angle, angle)
    angle = tl.where((y < 0) | ((y == 0) & (1.0 / y < 0)), -1.0 * angle, angle)
    return tl.where((x != x) | (y != y), x + y, angle)
''',
    "round_even": '''
@triton.jit
def round_even(x):
    """The nearest integer, the even one of two."""
    below = tl.floor(x)
    above = x - below
    odd = tl.floor(below * 0.5) * 2.0 != below
    return tl.where((above > 0.5) | ((above == 0.5) & odd), below + 1.0, below)
''',
    "real_power": '''
@triton.jit
def real_power(x, y):
    """x to the power y, in double precision: the error of a logarithm grows with the exponent."""
    a, b = x.to(tl.float64), y.to(tl.float64)
    size = tl.exp2(b * tl.log2(tl.abs(a)))
    integer = tl.floor(b) == b
    odd = tl.floor(b * 0.5) * 2.0 != b
    signed = tl.where(a < 0, tl.where(integer, tl.where(odd, -size, size), float("nan")), size)
    return tl.where((b == 0) | (a == 1), 1.0, signed).to(x.dtype)
''',
    "integer_power": '''
@triton.jit
def integer_power(x, n):
    """x to the power n in integers, which wrap around."""
    base, rest, result = x, n, x * 0 + 1
    BITS: tl.constexpr = x.dtype.primitive_bitwidth
    for _ in tl.static_range(BITS):
        result = tl.where((rest & 1) != 0, result * base, result)
        base = base * base
        rest = rest >> 1
    return result
''',
    "signed_power": '''
@triton.jit
def signed_power(x, n):
    """x to the power n; a negative n leaves 1, -1 or 0."""
    inverse = tl.where(x == 1, 1, tl.where(x == -1, 1 - 2 * (n & 1), 0)).to(x.dtype)
    return tl.where(n < 0, inverse, integer_power(x, n))
''',
    "random_float": '''
@triton.jit
def random_float(seed, c0, c1, c2, c3):
    """A float in [0, 1) at an index: Philox, keyed by the seed, counting by the index."""
    word, _, _, _ = tl.philox(seed, c0, c1, c2, c3)
    return tl.random.uint_to_uniform_float(word)
''',
    "index_type": '''
def index_type(positions, *tensors):
    """int64 where a position, or a tensor's largest offset, may not fit 32 bits; else int32."""
    limit = 2**31 - 2**20
    large = [t for t in tensors if t.untyped_storage().nbytes() >= limit]
    reach = [sum((n - 1) * s for n, s in zip(t.shape, t.stride())) for t in large]
    return tl.int64 if max([0, *positions, *reach]) >= limit else tl.int32
''',
    "unit": '''
def unit(tensor):
    """The neighbours that are reached at once: as many as divide rows and the steps between them, at most 16 bytes."""
    steps = [step for n, step in zip(tensor.shape[:-1], tensor.stride()) if n > 1]
    return math.gcd(16 // tensor.element_size(), tensor.shape[-1], *steps) if tensor.stride(-1) == 1 else 1
''',
    "lined": '''
def lined(shape, dtype, device):
    """Memory for a tensor whose rows begin at whole lines of a cache."""
    line = 128 // dtype.itemsize
    return torch.empty((*shape[:-1], -(-shape[-1] // line) * line), dtype=dtype, device=device)[..., : shape[-1]]
''',
    "described": '''
def described(tensor, *sides):
    """A descriptor, by which blocks with these sides are copied; rows begin at multiples of 16 bytes."""
    past = -(-tensor.numel() // 16) * 16  # for dimensions of one position, whose steps say nothing
    strides = [past if n == 1 else stride for n, stride in zip(tensor.shape[:-1], tensor.stride())]
    return TensorDescriptor(tensor, [*tensor.shape], [*strides, 1], [*sides])
''',
    "tile_size": '''
def tile_size(extent, least, most=2**30):
    """The power of two that holds an extent, within bounds."""
    return min(max(1 << (extent - 1).bit_length(), least), most)
''',
    "blocks": '''
def blocks(extent, size):
    """The number of tiles that cover an extent."""
    return -(-extent // size)
''',
    "expect": '''
def expect(name, tensor, shape, dtype):
    """The kernels trust shapes and types, so they are checked before."""
    if tensor.shape != shape or tensor.dtype != dtype:
        found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise ValueError(f"{name} is {found}, but should be {dtype} of shape {shape}")
''',
    "exact_quotient": '''
def exact_quotient(a, b):
    """The quotient of integers, which must leave no rest."""
    if b == 0 or a % b:
        raise ValueError(f"{a} / {b} is not exact")
    return a // b
''',
    "real": '''
def real(function, x, poles=()):
    """A function of a float where Python raises too: infinite at a pole or beyond the largest float, else NaN."""
    try:
        return function(x)
    except OverflowError:
        return math.inf
    except ValueError:
        return dict(poles).get(x, math.nan)
''',
    "inverse_root": '''
def inverse_root(x):
    """1 / sqrt(x), infinite at 0."""
    return math.copysign(math.inf, x) if x == 0 else 1 / math.sqrt(x) if x > 0 else math.nan
''',
    "quotient": '''
def quotient(a, b):
    """The quotient of floats; by 0 it is infinite, of 0 by 0 no number."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)
''',
    "floor_quotient": '''
def floor_quotient(a, b):
    """The quotient rounded down."""
    return quotient(a, b) if b == 0 and float in (type(a), type(b)) else a // b
''',
    "remainder": '''
def remainder(a, b):
    """The remainder with the sign of the divisor; of floats by 0 no number."""
    return math.nan if b == 0 and float in (type(a), type(b)) else a % b
''',
    "power": '''
def power(a, b):
    """a to the power b: of integers an integer, of floats what IEEE says."""
    if type(a) is not float and type(b) is not float:
        return a**b if b >= 0 else int(a in (1, -1)) * (a if b % 2 else 1)
    try:
        return math.pow(a, b)
    except (OverflowError, ValueError):
        if a < 0 and b != math.floor(b):
            return math.nan
        return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
''',
    "larger": '''
def larger(a, b):
    """The greater of two numbers; a NaN wins."""
    return a if a != a or a > b else b
''',
    "smaller": '''
def smaller(a, b):
    """The smaller of two numbers; a NaN wins."""
    return a if a != a or a < b else b
''',
    "rounded": '''
def rounded(function, x):
    """A float rounded by a function; integers, infinities and NaN are what they are."""
    return float(function(x)) if isinstance(x, float) and math.isfinite(x) else x
''',
    "truncated": '''
def truncated(x):
    """A number without its fraction; 0 for what is not finite."""
    return int(x) if math.isfinite(x) else 0
''',
    "checked_extent": '''
def checked_extent(axis, n):
    """The extent of an axis, which must not be negative."""
    if n < 0:
        raise ValueError(f"axis {axis} would have extent {n}")
    return n
''',
    **ROLES,
}
NAMES = frozenset(_SOURCES)
_NEEDS = {
    "signed_power": ("integer_power",),
    "floor_quotient": ("quotient",),
    "expm1": ("tanh",),
    "swizzled": ("described",),
    "scaled_maximum": ("maximum", "minimum"),
}


def needs(name: str) -> tuple[str, ...]:
    """The functions of this library that a function of it calls."""
    return _NEEDS.get(name, ())


def known_power(name: str, n: int) -> str:
    """A function that raises its argument to a known power, 2 or more, by squaring."""
    powers = {1 << bit: f"x{1 << bit}" if bit else "x" for bit in range(n.bit_length())}
    squares = [f"{powers[k]} = {powers[k // 2]} * {powers[k // 2]}" for k in powers if k > 1]
    result = " * ".join(powers[k] for k in reversed(powers) if n & k)
    return "\n    ".join([f"@triton.jit\ndef {name}(x):", *squares, f"return {result}"])


def definitions(used: Collection[str]) -> Iterator[str]:
    """The source of the functions used, in the order of this file."""
    return (source.strip("\n") for name, source in _SOURCES.items() if name in used)
