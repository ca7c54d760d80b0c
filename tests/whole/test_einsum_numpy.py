"""NumPy's own tests of einsum, as cases: `einc.einsum` gives what `numpy.einsum` gives, and refuses what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose, assert_array_equal

import einc
from tests.frontend.test_einsum_strings import Shape, einsums, operands

Array = np.ndarray[Any, Any]
einsum = einc.einsum

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
_TOLERANCE = {"f2": 2e-3, "f4": 1e-5, "c8": 1e-5, "f8": 1e-12, "c16": 1e-12}


def agree(text: str, *values: Any, **options: Any) -> None:
    """The same values, shape and type as NumPy's."""
    wanted, got = np.einsum(text, *values), einsum(text, *values, **options)
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert_allclose(got, wanted, rtol=1e-10 if wanted.dtype.itemsize >= 8 else 1e-4, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    "args",
    [
        (), ("",), ("", 0, 0), (",", 0, [0], [0]), (",", [0]),
        ("i", 0), ("ij", [0, 0]), ("...i", 0), ("i...j", [0, 0]), ("i...", 0), ("ij...", [0, 0]),
        ("i..", [0, 0]), (".i...", [0, 0]), ("j->..j", [0, 0]), ("j->.j...", [0, 0]),
        ("i%...", [0, 0]), ("...j$", [0, 0]), ("i->&", [0, 0]),
        ("i->ij", [0, 0]), ("ij->jij", [[0, 0], [0, 0]]),
        ("ii", np.arange(6).reshape(2, 3)), ("ii->i", np.arange(6).reshape(2, 3)),
        ("i", np.arange(6).reshape(2, 3)), ("...->", [0, 0]),
        (np.ones((2, 3)), [0, 52]), (np.ones((2, 3)), [-1, 5]),
    ],
    ids=str,
)  # fmt: skip
def test_errors(args: tuple[Any, ...], optimize: bool) -> None:
    with pytest.raises(einc.Error):
        einsum(*args, optimize=optimize)


@pytest.mark.parametrize("args", [(0, 0), (None,) * 63, (np.ones(2), [0.5]), (np.ones(2), [True])])
def test_type_errors(args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        einsum(*args)


def test_the_axis_that_differs_is_named() -> None:
    with pytest.raises(ValueError, match="'b'"):
        einsum("aabcb,abc", np.ones((3, 3, 4, 5, 6)), np.ones((3, 4, 5)))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"out": "test"}, TypeError),
        ({"order": "W"}, ValueError),
        ({"casting": "blah"}, ValueError),
        ({"casting": "same_value"}, ValueError),
        ({"dtype": "bad_data_type"}, TypeError),
        ({"dtype": object}, TypeError),
        ({"bad_arg": 0}, TypeError),
        ({"bad_arg": "x"}, TypeError),
        ({"optimize": 3}, TypeError),
        ({"optimize": "optimall"}, ValueError),
        ({"optimize": [(0, 1)]}, TypeError),
        ({"optimize": ["einsum_path", (0, 1)]}, RuntimeError),
    ],
)
def test_options_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        einsum("", 0, **options)
    assert isinstance(caught.value, einc.Error)


def test_outputs_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        einsum("i->i", [0, 1], out=np.arange(4).reshape(2, 2))
    with pytest.raises(TypeError, match="safe"):
        einsum("i,i->i", np.ones(3), np.ones(3), out=np.ones(3, "f4"))
    with pytest.raises(TypeError, match="same_kind"):
        einsum("i,i->i", np.ones(3), np.ones(3), out=np.ones(3, "i4"), casting="same_kind")
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        einsum("i->i", np.ones(3), out=frozen)


@pytest.mark.parametrize("dtype", [object, "U1", "M8[s]", np.longdouble, np.clongdouble])
def test_types_that_no_kernel_has(dtype: Any) -> None:
    with pytest.raises(einc.DTypeError):
        einsum("i->", np.zeros(3, dtype))


def test_paths() -> None:
    values = [np.ones((2, 2))] * 4
    for path in (
        ["einsum_path", (0, 2), (0, 2), (0, 1)],
        ["einsum_path", (1,), (0, 1, 2, 3)],
        ("optimal", 1e6),
        "greedy",
    ):
        agree("ab,bc,cd,de->ae", *values, optimize=path)
    for path in (["einsum_path", (2, 3), (0, 1)], ["einsum_path", (1,), (0, 1)], ["einsum_path", (0, 7)]):
        with pytest.raises(RuntimeError):
            einsum("ab,bc,cd,de->ae", *values, optimize=path)


# ---------------------------------------------------------------------------------------------------------------------
# Views


@pytest.mark.parametrize(
    ("text", "lists", "shape"),
    [
        ("...", ([...],), (2, 3)), ("ij", ([0, 1],), (2, 3)), ("ji", ([1, 0],), (2, 3)),
        ("ii->i", ([0, 0], [0]), (3, 3)),
        ("...ii->...i", ([..., 0, 0], [..., 0]), (3, 3, 3)), ("ii...->...i", ([0, 0, ...], [..., 0]), (3, 3, 3)),
        ("...ii->i...", ([..., 0, 0], [0, ...]), (3, 3, 3)), ("jii->ij", ([1, 0, 0], [0, 1]), (3, 3, 3)),
        ("ii...->i...", ([0, 0, ...], [0, ...]), (3, 3, 3)), ("i...i->i...", ([0, ..., 0], [0, ...]), (3, 3, 3)),
        ("i...i->...i", ([0, ..., 0], [..., 0]), (3, 3, 3)), ("iii->i", ([0, 0, 0], [0]), (3, 3, 3)),
        ("ijk->jik", ([0, 1, 2], [1, 0, 2]), (2, 3, 4)), ("ijij->ji", ([0, 1, 0, 1], [1, 0]), (2, 3, 2, 3)),
    ],
)  # fmt: skip
def test_views(text: str, lists: tuple[Any, ...], shape: Shape) -> None:
    a = np.arange(np.prod(shape)).reshape(shape)
    for b in (einsum(text, a), einsum(a, *lists)):
        assert b.base is a.base
        assert_array_equal(b, np.einsum(text, a))
        assert b.flags.writeable
    a.flags.writeable = False
    assert not einsum(text, a).flags.writeable


def test_a_view_is_written_through() -> None:
    a = np.zeros((3, 3))
    einsum("ii->i", a)[:] = 1
    assert_array_equal(a, np.eye(3))


# ---------------------------------------------------------------------------------------------------------------------
# Sums of every type


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("dtype", "lengths"),
    [
        pytest.param(dtype, lengths, id=f"{dtype}-{lengths[0]}", marks=[pytest.mark.slow] * ((k + m) % 2))
        for k, dtype in enumerate(TYPES)
        for m, lengths in enumerate(((1, 5), (2, 16)))
    ],
)
def test_sums(dtype: str, lengths: tuple[int, ...]) -> None:
    """Types and pairs of lengths in turns; the slow tier has every length in every type."""
    for n in lengths:
        a = np.arange(2 * 3 * n, dtype=dtype).reshape(2, 3, n)
        v = np.arange(n, dtype=dtype)
        same(einsum("i->", v), np.sum(v, axis=-1).astype(dtype))
        same(einsum("...i->...", a), np.sum(a, axis=-1).astype(dtype))
        same(einsum("i...->...", a[0]), np.sum(a[0], axis=0).astype(dtype))
        square = np.arange(n * n, dtype=dtype).reshape(n, n)
        same(einsum("ii", square), np.trace(square).astype(dtype))
        same(einsum(square, np.asarray([0, 0])), np.trace(square).astype(dtype))
        same(einsum("..., ...", a[0], a), np.multiply(a[0], a))
        same(einsum("...i, ...i", a, v), np.inner(a, v))
        same(einsum("i..., i...", a[0].T, v), np.inner(a[0], v))
        same(einsum("i,j", a[0, :, 0] + 1, v + 1), np.outer(a[0, :, 0] + 1, v + 1))
        same(einsum("ij, j", a[0], v), np.dot(a[0], v))
        same(einsum("ji,j", a[0].T, v.T), np.dot(v.T, a[0].T))
        same(einsum("ij,jk", a[0], a[1].T), np.dot(a[0], a[1].T))
        same(einsum("i,i", v[1:], v[:-1]), np.dot(v[1:], v[:-1]))
        same(einsum("...,...", v[1:], v[:-1]), v[1:] * v[:-1])


def same(got: Any, wanted: Any) -> None:
    """Equal as far as f16 is exact to, in the same type."""
    assert np.asarray(got).dtype == np.asarray(wanted).dtype
    kind = np.asarray(wanted).dtype.str[1:]
    assert_allclose(got, wanted, rtol=_TOLERANCE.get(kind, 0))


@pytest.mark.turns(2)
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("dtype", TYPES)
def test_larger_products(dtype: str) -> None:
    a, b, c = (np.arange(m * n, dtype=dtype).reshape(m, n) for m, n in ((3, 4), (4, 5), (5, 6)))
    if dtype != "f2":
        same(einsum("ij,jk,kl", a, b, c), a.dot(b).dot(c))
    d, e = np.arange(60, dtype=dtype).reshape(3, 4, 5), np.arange(24, dtype=dtype).reshape(4, 3, 2)
    if dtype != "f2":
        same(einsum("ijk, jil -> kl", d, e), np.tensordot(d, e, axes=([1, 0], [0, 1])))
        same(einsum(d, [0, 1, 2], e, [1, 0, 3], [2, 3]), np.tensordot(d, e, axes=([1, 0], [0, 1])))
    v = np.arange(9, dtype=dtype)
    for got in (einsum(",i->", 3, v), einsum(3, [], v, [0], []), einsum("i,->", v, 3), einsum(v, [0], 3, [], [])):
        assert got == 3 * np.sum(v)
    x, y = np.eye(2, dtype=dtype), np.ones(2, dtype=dtype)
    for got in (einsum("ji,i->", x, y), einsum("i,ij->", y, x), einsum("ij,i->", x, y)):
        assert got == 2


@pytest.mark.parametrize("dtype", TYPES)
def test_results_in_another_type(dtype: str) -> None:
    a, b = np.arange(12, dtype=dtype).reshape(4, 3), np.arange(3, dtype=dtype)
    out = np.arange(4, dtype=dtype)
    wanted = np.dot(a.real.astype("f8"), b.real.astype("f8")).astype(dtype)
    assert einsum("ij,j", a, b, out=out, dtype="f8", casting="unsafe") is out
    assert_array_equal(out, wanted)
    out[...] = 0
    einsum(a, [0, 1], b, [1], out=out, dtype="f8", casting="unsafe")
    assert_array_equal(out, wanted)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("dtype", TYPES)
def test_truth_values(dtype: str) -> None:
    low = np.array(-2).astype(dtype) if np.dtype(dtype).kind != "u" else np.iinfo(dtype).max - 1
    a = np.array([1, 3, low, 0, 12, 13, 0, 1], dtype=dtype)
    b = np.array([0, 3.5, 0.0, low, 0, 1, 3, 12], dtype=dtype)
    c = np.array([True, True, False, True, True, False, True, True])
    wanted = np.logical_and(np.logical_and(a != 0, b != 0), c != 0)
    same(einsum("i,i,i->i", a, b, c, dtype="?", casting="unsafe"), wanted)
    same(einsum(a, [0], b, [0], c, [0], [0], dtype="?", casting="unsafe"), wanted)


@pytest.mark.parametrize("dtype", TYPES)
def test_different_paths(dtype: str) -> None:
    v = (np.arange(7) + 0.5).astype(dtype)
    scalar = np.array(2, dtype=dtype)
    assert einsum("i->", v) == v.sum()
    same(einsum("i,i->i", v, v), v * v)
    same(einsum("i,i->i", v.repeat(2)[::2], v.repeat(2)[::2]), v * v)
    assert einsum("i,i->", v, v) == (v * v).sum()
    out = np.ones(7, dtype=dtype)
    same(einsum("i,->i", v, np.dtype(dtype).type(2), out=out), v * np.dtype(dtype).type(2))
    same(einsum(",i->i", scalar, v), v * scalar)
    assert einsum(",i->", scalar, v) == einsum("i,->", v, scalar) == einsum("i->", scalar * v)
    v = np.array([0.5, 0.5, 0.25, 4.5, 3.0]).astype(dtype)
    same(einsum("i,i,i->", v, v, v), np.einsum("i,i,i->", v, v, v))
    same(einsum("i,i,i,i->", v, v, v, v), np.einsum("i,i,i,i->", v, v, v, v))


# ---------------------------------------------------------------------------------------------------------------------
# Single cases


@pytest.mark.usefixtures("on_cpu")
def test_scalars() -> None:
    assert einsum("..., ...", 3, 4) == 12
    assert isinstance(einsum("i->", np.ones(3)), np.float64)
    assert isinstance(einsum("", np.array(3)), np.int64)
    assert isinstance(einsum("i,i", np.ones(2, bool), np.ones(2, bool)), np.bool)
    assert einsum("i->", np.full(300, 1, "i1")).dtype == "i1"
    assert_array_equal(einsum("ij->i", np.ones((2, 0), bool)), [False, False])


@pytest.mark.usefixtures("on_cpu")
def test_regressions() -> None:
    p, q, r = np.arange(2) + 1, np.arange(4).reshape(2, 2) + 3, np.arange(4).reshape(2, 2) + 7
    assert einsum("z,mz,zm->", p, q, r) == 253
    assert_array_equal(einsum("ij,ij->j", np.ones((10, 2)), np.ones((1, 2))), [10.0] * 2)
    assert einsum("i, i", np.array([2.0, 3.0]), np.array([4.0])) == 20
    halves = np.ones((1, 5)) / 2
    assert_array_equal(einsum("...ij,...jk->...ik", halves, np.ones((5, 5)) / 2), np.full((1, 5), 1.25))
    assert_array_equal(einsum("...ij,...jk->...ik", halves, halves), np.full((1, 5), 1.25))
    assert_array_equal(einsum("ij...,j...->i...", np.ones((1, 2)), np.ones((2, 2, 1))), [[[2], [2]]])
    assert (
        einsum("...i,...i", [1, 2, 3], [2, 3, 4]) == einsum("...i,...i", [1, 2, 3], [2, 3, 4], optimize="greedy") == 20
    )
    assert_array_equal(einsum("i,j", [1], [2], out=None), [[2]])
    assert_array_equal(einsum("bbcdc->d", np.arange(9).reshape(1, 1, 3, 1, 3)), [12])


@pytest.mark.usefixtures("on_cpu")
def test_three_arguments() -> None:
    a, b = np.ones((5, 12, 4, 2, 3), np.int64), np.ones((5, 12, 11), np.int64)
    assert einsum("ijklm,ijn,ijn->", a, b, b) == einsum("ijklm,ijn->", a, b)
    x, y, z = np.arange(1, 3), np.arange(1, 5).reshape(2, 2), np.arange(1, 9).reshape(4, 2)
    wanted = [[[1, 3], [3, 9], [5, 15], [7, 21]], [[8, 16], [16, 32], [24, 48], [32, 64]]]
    assert_array_equal(einsum("x,yx,zx->xzy", x, y, z), wanted)


@pytest.mark.usefixtures("on_cpu")
def test_output_given() -> None:
    out = np.array(0)
    assert einsum("i,i->", np.ones(7), np.ones(7), out=out, casting="unsafe") is out
    assert out == 7
    x = np.random.default_rng(0).normal(size=(5, 5, 5, 5))
    out = np.zeros((5, 5))
    einsum("aabb->ab", x, out=out)
    index = np.arange(5)
    assert_array_equal(out, x[index[:, None], index[:, None], index, index])
    for text in ("mi,mi,mi->m", "im,im,im->m"):
        out = np.ones(10)[::2]
        einsum(text, *[np.ones((5, 5))] * 3, out=out)
        assert_array_equal(out.base, np.where(np.arange(10) % 2, 1, 5))
    out = np.ones((2, 2, 2))[..., 0]
    einsum("ij,jk->ik", np.ones((2, 2), "f4"), np.ones((2, 2), "f4"), out=out)
    assert_array_equal(out.base, np.stack([np.full((2, 2), 2.0), np.ones((2, 2))], -1))
    out = np.zeros((16, 1, 1), bool)[:2]
    truth = np.ones((2, 1, 1), bool)
    assert_array_equal(einsum("...ij,...jk->...ik", truth, truth, out=out), truth)


@pytest.mark.usefixtures("on_cpu")
def test_output_may_be_an_operand() -> None:
    a, b = np.arange(9).reshape(3, 3), np.arange(9).reshape(3, 3)
    wanted = a @ b
    assert einsum("ij,jk->ik", a, b, out=b) is b
    assert_array_equal(b, wanted)
    transposed = a.T.copy()
    einsum("ij->ji", a, out=a)
    assert_array_equal(a, transposed)


def test_subscripts_as_integers() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for j in (20, 27, 51):
        assert_array_equal(einsum(a, [0, j], b, [j, 2], [0, 2]), a @ b)
    assert_array_equal(einsum(a, (0, 1), b, range(1, 3)), a @ b)
    assert_array_equal(einsum(a, [30, 1], b, [1, 2]), (a @ b).T)


@pytest.mark.usefixtures("on_cpu")
def test_broadcasting() -> None:
    a: Array
    b: Array
    a, b = np.arange(24).reshape(2, 3, 4), np.arange(3)
    for text in ("ij...,j...->ij...", "ij...,...j->ij...", "ij...,j->ij..."):
        assert_array_equal(einsum(text, a, b), np.einsum("ijk,j->ijk", a, b))
    a, b = np.arange(12).reshape(4, 3), np.arange(6).reshape(3, 2)
    for text in ("ik...,k...->i...", "ik...,...kj->i...j", "...k,kj", "ik,k...->i..."):
        assert_array_equal(einsum(text, a, b), a @ b)
    a, b = np.arange(120).reshape(2, 3, 4, 5), np.arange(4)
    for text in ("ijkl,k", "...kl,k", "...kl,k..."):
        assert_array_equal(einsum(text, a, b), np.einsum("ijkl,k->ijl", a, b))
    a, b = np.arange(4 * 5 * 6).reshape(1, 1, 1, 4, 5, 6), np.arange(4 * 5 * 6 * 3).reshape(4, 5, 6, 3)
    agree("...lmn,lmno->...o", a, b)


@pytest.mark.usefixtures("on_cpu")
def test_mixed_types() -> None:
    a, b = np.arange(6, dtype="f4").reshape(2, 3), np.arange(2 * 3 * 273, dtype="i2").reshape(2, 3, 273)
    assert_array_equal(einsum("cl, cpx->lpx", a, b), np.tensordot(a, b, axes=(0, 0)))
    agree("i,i,i->i", np.ones(2, "i2"), np.ones(2, "u2"), np.ones(2, "f4"))
    agree("i,i", np.ones(2, "u8"), np.ones(2, "i8"))
    agree("i,i", np.ones(2, bool), np.full(2, 3, "i1"))
    agree("i,i", np.ones(2, "f4"), np.full(2, 1 + 2j, "c8"))


@pytest.mark.usefixtures("on_cpu")
def test_traces() -> None:
    x = np.random.default_rng(0).random((5, 5, 5, 5))
    assert_allclose(einsum("ijij->", x), x.trace(axis1=0, axis2=2).trace())


@pytest.mark.usefixtures("on_cpu")
def test_foreign_memory() -> None:
    a, b = np.arange(6, dtype=">f4").reshape(2, 3), np.arange(12.0).reshape(3, 4)
    assert_array_equal(einsum("ij,jk", a, b), a @ b)
    assert_array_equal(einsum("ij,jk", a[::-1, ::-1], b[::-1]), a[::-1, ::-1] @ b[::-1])
    b.flags.writeable = False
    assert_array_equal(einsum("ij,jk->ik", a, np.broadcast_to(b[:, :1], (3, 4))), a @ np.broadcast_to(b[:, :1], (3, 4)))
    wide = np.zeros(3, dtype=[("flag", "i1"), ("value", "f8")])
    wide["value"] = [1, 2, 3]
    assert einsum("i,i", wide["value"], wide["value"]) == 14


@pytest.mark.usefixtures("on_cpu")
def test_order() -> None:
    a, b = np.ones((2, 3, 5), order="F"), np.ones((4, 3), order="F")
    assert einsum("...ft,mf->...mt", a, b, order="a").flags.f_contiguous
    assert einsum("...ft,mf->...mt", a, b, order="f").flags.f_contiguous
    assert einsum("...ft,mf->...mt", a, b, order="c").flags.c_contiguous
    assert einsum("...ft,mf->...mt", a, np.ones((4, 3)), order="a").flags.c_contiguous


@pytest.mark.parametrize("spaces", list(itertools.product(["", " "], repeat=4)))
def test_spaces(spaces: tuple[str, ...]) -> None:
    agree("{}...a{}->{}...a{}".format(*spaces), np.array([[1]]))


_EXTENTS = dict(zip("abcdefghij", (2, 3, 4, 5, 4, 3, 2, 6, 5, 4), strict=True))
_STRINGS = """
    a,ab,abc->abc a,b,ab->ab
    ea,fb,gc,hd,abcd->efgh ea,fb,abcd,gc,hd->efgh abcd,ea,fb,gc,hd->efgh
    ab,ab,c-> ab,ab,c->c ab,ab,cd,cd-> ab,ab,cd,cd->ac ab,ab,cd,cd->cd ab,ab,cd,cd,ef,ef->
    ab,cd,ef->acdf ab,cd,de->abcde ab,cd,de->be ab,bcd,cd->abcd ab,bcd,cd->abd
    eb,cb,fb->cef dd,fb,be,cdb->cef bca,cdb,dbf,afc-> dcc,fce,ea,dbf->ab fdf,cdd,ccd,afe->ae abcd,ad
    ed,fcd,ff,bcf->be baa,dcf,af,cde->be bd,db,eac->ace fff,fae,bef,def->abd efc,dbc,acf,fd->abe ba,ac,da->bcd
    ab,ab ab,ba abc,abc abc,bac abc,cba
    aab,fa,df,ecc->bde ecb,fef,bad,ed->ac bcf,bbb,fbf,fc-> bb,ff,be->e bcb,bb,fc,fff-> fbb,dfd,fc,fc->
    afd,ba,cc,dc->bf adb,bc,fa,cfc->d bbd,bda,fc,db->acf dba,ead,cad->bce aef,fbc,dca->bde
    cab,cdd->ab abhe,hidj,jgba,hiab,gab chd,bde,agbc,hiad,hgc,hgi,hiad
"""


@pytest.mark.parametrize("text", _STRINGS.split())
def test_contraction_orders(text: str) -> None:
    rng = np.random.default_rng(len(text))
    values = [rng.random([_EXTENTS[c] for c in term]) for term in text.split("->")[0].split(",")]
    assert_allclose(einsum(text, *values), np.einsum(text, *values, optimize="greedy"), rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ijk,kl,jl", [(1, 5, 4), (4, 6), (5, 6)]),
        ("ijk,kl,jl,i->i", [(1, 5, 4), (4, 6), (5, 6), (10,)]),
        ("abjk,kl,jl", [(1, 1, 5, 4), (4, 6), (5, 6)]),
        ("abjk,kl,jl,ab->ab", [(1, 1, 5, 4), (4, 6), (5, 6), (7, 7)]),
        ("obk,ijk->ioj", [(2, 4, 8), (2, 4, 8)]),
        ("ijp,ipq,ikq->ijk", [(3, 1, 1), (3, 1, 3), (1, 3, 3)]),
        ("jhcabhijaci,dfijejgh->fgje", [(1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1), (3, 1, 3, 1, 1, 1, 1, 2)]),
        ("baegffahgc,hdggeff->dhg", [(2, 1, 4, 1, 1, 1, 1, 2, 1, 1), (1, 1, 1, 1, 4, 1, 1)]),
        ("cehgbaifff,fhhdegih->cdghbi", [(1,) * 10, (2, 1, 1, 2, 4, 1, 1, 1)]),
        ("gah,cdbcghefg->ef", [(2, 3, 1), (1, 3, 1, 1, 1, 2, 1, 4, 1)]),
        ("cacc,bcb->", [(1, 1, 1, 1), (1, 4, 1)]),
    ],
)
def test_singleton_broadcasting(text: str, shapes: list[Shape]) -> None:
    rng = np.random.default_rng(1)
    try:
        values = [rng.random(s) for s in shapes]
        wanted = np.einsum(text, *values)
    except ValueError:
        with pytest.raises(einc.Error):
            einsum(text, *values)
    else:
        assert_allclose(einsum(text, *values), wanted, rtol=1e-9)


@pytest.mark.usefixtures("on_cpu")
def test_many_operands() -> None:
    v = np.random.default_rng(2).random(3) + 0.5
    assert_allclose(einsum(",".join(["i"] * 45) + "->", *[v] * 45), (v**45).sum())
    m = np.eye(2)[::-1]
    letters = [chr(0x3B1 + k) for k in range(17)] + [chr(0x430 + k) for k in range(24)]
    chain = ",".join(a + b for a, b in itertools.pairwise(letters))
    assert_allclose(einsum(f"{chain}->{letters[0]}{letters[-1]}", *[m] * 40), np.eye(2))


@pytest.mark.usefixtures("on_cpu")
def test_empty_axes() -> None:
    agree("ij,jk", np.ones((2, 0)), np.ones((0, 3)))
    agree("ij,jk", np.ones((0, 2)), np.ones((2, 3)))
    agree("i->", np.ones(0))
    agree("i,i->i", np.ones(0), np.ones(1))
    agree("ij->", np.ones((0, 3)))


@settings(deadline=None, max_examples=40)
@given(einsums(most=3))
def test_random_einsums(drawn: tuple[str, list[Shape]]) -> None:
    text, shapes = drawn
    values = [v.astype("f8") for v in operands(shapes)]
    agree(text, *values)
