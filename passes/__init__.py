"""The passes that all generators share, in the order they run: one table, read downward.

A generator's own stand beside them (`pipeline`): what sizes tiles does, for one.
"""

from __future__ import annotations

from einc.passes.diagonals.join_sums import join_sums
from einc.passes.diagonals.sum_diagonals import sum_diagonals
from einc.passes.equations.distribute import distribute
from einc.passes.equations.hoist import hoist
from einc.passes.equations.inline import inline
from einc.passes.equations.merge_axes import merge_axes
from einc.passes.equations.order_contractions import order_contractions
from einc.passes.equations.prune_domain import prune_domain
from einc.passes.equations.scan import scan
from einc.passes.equations.separate_axes import separate_axes
from einc.passes.equations.simplify import simplify
from einc.passes.equations.split_complex import split_complex
from einc.passes.kernels.exp2 import exp2
from einc.passes.kernels.leave_out import leave_out
from einc.passes.kernels.mask_edges import mask_edges
from einc.passes.kernels.order_grid import order_grid
from einc.passes.kernels.place_loads import place_loads
from einc.passes.kernels.place_rows import place_rows
from einc.passes.kernels.place_scales import place_scales
from einc.passes.kernels.segment_loops import segment_loops
from einc.passes.lowering.lower import lower
from einc.passes.planning.copy_operands import copy_operands
from einc.passes.planning.partition import partition
from einc.passes.planning.split_reduction import split_reduction
from einc.passes.scatter.add_terms import add_terms
from einc.pipeline import Backend, Pass, on_kernels, on_program

PIPELINE: tuple[Pass, ...] = (
    Pass(
        "separate-axes",
        "T[(g r)] = f(g, r);  U = h(T[g * |r| + r])  -->  T[g, r] = f(g, r);  U = h(T[g, r])",
        "an intermediate need not have the layout in memory that a composite dimension states",
        on_program(lambda program, _: separate_axes(program)),
        level=1,
    ),
    Pass(
        "inline",
        "T[i] = f(i);  U[j] = h(T[e])  -->  U[j] = h(f(e))",
        "a mask or a scale that is recomputed is cheaper than an intermediate in memory",
        on_program(inline),
        gives=("inlined",),
    ),
    Pass(
        "simplify",
        "x * 1  -->  x;  where(true, x, y)  -->  x;  T = f; U = f  -->  T = f, U read as T",
        "what is written for clarity or made for uniformity would be paid for at every position",
        on_program(simplify),
    ),
    Pass(
        "scan",
        "C[i, j] = sum[t : j < t <= i](f(t))  -->  S[p] = sum[t : t <= p](f(t));  C[i, j] = S[i] - S[j]",
        "one walk over an axis gives all prefixes; a reduction for each of them is quadratic work",
        on_program(scan),
        level=1,
    ),
    Pass(
        "join-sums",
        "T[i, r] = sum[k](f);  U[j] = sum[r](T[e, r])  -->  U[j] = sum[r, k](f(e, r))",
        "sums of sums along a window, as of a convolution's gradient, would be in memory for every place in it",
        on_program(join_sums),
        level=2,
    ),
    Pass(
        "add-terms",
        "S[v] = sum[n, i : v == t[n]](f)  -->  T[n] = sum[i](f);  S[t[n]] += T[n]",
        "if the order of a sum may change from run to run, data sends each term to its place and nothing is compared",
        on_program(add_terms),
    ),
    Pass(
        "order-contractions",
        "sum[j, k](A[i, j] * B[j, k] * C[k, l])  -->  T[i, k] = sum[j](A * B);  sum[k](T * C)",
        "three n*n matrices take n**4 steps at once and 2 * n**3 in two",
        on_program(order_contractions),
        gives=("binary-contractions",),
    ),
    Pass(
        "distribute",
        "sum[k]((x / d + y) * v)  -->  sum[k](x / d * v) + sum[k](y * v)      d a reduction over k",
        "a difference of two softmaxes takes one walk if each divides once per output",
        on_program(distribute),
        level=1,
    ),
    Pass(
        "hoist",
        "sum[k](x / y * z)  -->  sum[k](x * z) / y      k not an axis of y",
        "a softmax divides once per output, not once per score",
        on_program(hoist),
        level=1,
    ),
    Pass(
        "merge-axes",
        "Q[h, i], K[h // (|h| / |g|)]  -->  Q[g * |r| + r, i], K[g]      |r| = |h| / |g|",
        "heads that share a key are rows of one contraction, which reads the key once",
        on_program(merge_axes),
        level=2,
    ),
    Pass(
        "sum-diagonals",
        "sum[j](X[r + j, j])  -->  T[D, p, q] = sum[J](X[B * (D + J - |J|) + p, B * J + q]);  sum[p](T[…])",
        "along a diagonal every term is a product by itself; blocks beside it are contractions, added up in a tile",
        on_program(sum_diagonals),
        level=2,
    ),
    Pass(
        "prune-domain",
        "sum[j](where(doc[i] == doc[j], f, 0))  -->  the same, within first[i // 16] <= j and j < last[i // 16]",
        "minima and maxima of chunks of 16 tell which blocks data excludes, and these are not visited",
        on_program(prune_domain),
        level=2,
    ),
    Pass(
        "split-complex",
        "A * B  -->  complex(re(A) * re(B) - im(A) * im(B), re(A) * im(B) + im(A) * re(B))",
        "a machine multiplies only real numbers and real matrices",
        on_program(lambda program, _: split_complex(program)),
        gives=("real",),
    ),
    Pass(
        "partition",
        "kernels P, Q  -->  kernel P + Q      where it is predicted to take less time",
        "what two equations pass on in registers is neither written nor read",
        partition,
    ),
    Pass(
        "copy-operands",
        "sum[k](A[k, b] * B[b, k])  -->  A_copy[b, k] = A[k, b];  sum[k](A_copy[b, k] * B[b, k])",
        "what lies in memory as no block of a product is read needs to be fetched one by one only once",
        copy_operands,
        level=2,
    ),
    Pass(
        "split-reduction",
        "loop r: s = step(s)  -->  for each part p of r: s[p] = step(...);  loop p: s = merge(s, s[p])",
        "few rows over a long axis, as in decoding, leave most of the machine idle",
        split_reduction,
    ),
    Pass(
        "lower",
        "T[o] = monoid[r](f)  -->  kernel T: grid o, loop r: state = combine(state, fold(f));  store T",
        "an equation says what is computed, a kernel how",
        lower,
        gives=("lowered",),
    ),
    Pass(
        "place-rows",
        "x - r - s  -->  x - (r + s);  loop j: f32(j - i)  -->  c = min[i](i); r = f32(i - c); loop j: f32(j - c) - r",
        "what only a row or a column decides is computed once for it, and not at every element",
        on_kernels(lambda kernel, _: place_rows(kernel)),
        level=1,
        gives=("lowered",),
    ),
    Pass(
        "mask-edges",
        "load T[e]  -->  load T[e] where e is in range;  fold[t](x)  -->  fold[t](where t < |t| then x else identity)",
        "an extent need not be a multiple of a tile",
        on_kernels(lambda kernel, _: mask_edges(kernel)),
        gives=("lowered",),
    ),
    Pass(
        "leave-out",
        "dot(x in p[row], y), y = load T[e]  -->  dot(x, y), y = load T[e] where any[row](p)",
        "a side that is left out as a whole need not be read, and takes no way through registers",
        on_kernels(leave_out),
        level=2,
        gives=("lowered",),
    ),
    Pass(
        "place-loads",
        "loop t: x = e; ...  -->  x = e; loop t: ...      e free of t",
        "what does not change in a loop is read once before it",
        on_kernels(place_loads),
        gives=("lowered", "placed-loads"),
    ),
    Pass(
        "order-grid",
        "grid i, j  -->  grid sections of i, j, i in its section",
        "programs that read the same blocks find them in the cache if they run close together",
        on_kernels(order_grid),
        level=1,
        needs=("sized-tiles",),
    ),
    Pass(
        "exp2",
        "exp(c * x - m)  -->  exp2(c * log2(e) * x - m)      m a maximum in the same units",
        "the hardware computes powers of 2; a power of e takes several more operations for every score",
        on_kernels(exp2),
        level=1,
        needs=("placed-loads",),
        gives=("lowered", "placed-loads"),
    ),
    Pass(
        "place-scales",
        "m = max[j](c * x); c * x - m  -->  m = c * max[j](x); c * x - m      c > 0 everywhere the same",
        "what scales a row, or all, is computed once for it; a difference multiplies in the same operation",
        on_kernels(place_scales),
        level=1,
        needs=("placed-loads",),
        gives=("lowered", "placed-loads"),
    ),
    Pass(
        "segment-loops",
        "loop t: f(where p then x else y)  -->  loop t, p holds: f(x);  loop t, elsewhere: f(where p then x else y)",
        "most blocks of a walk, between its first and last ones, need no mask",
        on_kernels(lambda kernel, _: segment_loops(kernel)),
        level=2,
        needs=("placed-loads",),
        gives=("lowered", "placed-loads"),
    ),
)


def pipeline(backend: Backend) -> tuple[Pass, ...]:
    """The passes that run for a generator: those of the table, each followed by the generator's own beside it."""
    return tuple(p for shared in PIPELINE for p in (shared, *backend.passes.get(shared.name, ())))
