"""`rand(seed, e1, ..., ek)`: Philox4x32-10 at an index, the same 32 bits in every schedule and on every machine.

The key is the 64 bits of the seed: k0 the low, k1 the high 32. The counter is made of the indices, each taken modulo
2**32: c0 = e1, c1 = e2, c2 = e3, c3 = e4, and 0 for those not given. So up to four indices never collide. If there are
more, all but the last three are first folded into one, which becomes c0, and the last three are c1, c2 and c3:

    fold(e1) = e1        fold(e1, ..., en) = fold(e1, ..., e(n-1)) * 0x9E3779B1 + en      modulo 2**32

The result is the first word w of the block as a float32 in [0, 1), as Triton makes it: with x the signed integer of the
bits of w, and x := -x - 1 where x < 0, it is float32(x) * float32(4.6566127342e-10).

In Triton, with every index converted to int32:

    tl.random.uint_to_uniform_float(tl.philox(seed, c0, c1, c2, c3)[0])

which for one index is `tl.rand(seed, e1)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Integers = NDArray[np.integer[Any]]

FOLD = 0x9E3779B1  # 2**32 over the golden ratio, odd
_ROUNDS = 10
_ROUND_A, _ROUND_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_SCALE = np.float32(4.6566127342e-10)


def uniform(seed: Integers, index: Sequence[Integers]) -> NDArray[np.float64]:
    """The random numbers at these indices, broadcast against each other; each is a float32's value."""
    with np.errstate(over="ignore"):
        word = _block(_word(seed), _word(seed >> np.int64(32)), _counter(index))
    x = word.view(np.int32)
    return (np.where(x < 0, -x - 1, x).astype(np.float32) * _SCALE).astype(np.float64)


def _word(x: Integers) -> Words:
    return (x & 0xFFFFFFFF).astype(np.uint32)


def _counter(index: Sequence[Integers]) -> list[Words]:
    words = [_word(np.asarray(e, np.int64)) for e in index]
    while len(words) > 4:
        words[:2] = [words[0] * np.uint32(FOLD) + words[1]]
    return [*words, *[np.zeros((), np.uint32)] * (4 - len(words))]


def _block(k0: Words, k1: Words, counter: list[Words]) -> Words:
    """The first word of the Philox block of this key and counter."""
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        low_b, high_b = _multiply(_ROUND_B, c2)
        low_a, high_a = _multiply(_ROUND_A, c0)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = k0 + _KEY_A, k1 + _KEY_B
    return np.asarray(c0)


def _multiply(a: int, b: Words) -> tuple[Words, Words]:
    """The low and high 32 bits of the product."""
    wide = np.uint64(a) * b.astype(np.uint64)
    return wide.astype(np.uint32), (wide >> np.uint64(32)).astype(np.uint32)
