"""`einc.compile` and what it gives: calls with every kind of operand, `out`, and wrong calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import einc
from einc.driver import parse
from einc.runtime.callee import callee

pytestmark = pytest.mark.usefixtures("on_cpu")

MATMUL = "bik,bkj->bij"
ATTENTION = 'softmax("bihd,bjhd->bhij") * "bjhd->bihd"'
PROGRAM = """
def scores(Q[b, i, d], K[b, j, d], window: int, scale: float = rsqrt(|d|)):
    S[b, i, j] = scale * Q[b, i, d] * K[b, j, d]
    A[b, i, j] = where(i - j < window, S, -inf)
    M[b, i] = max[j](A)
    return A, M
"""


def draw(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def matrices() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return draw(2, 5, 7), draw(2, 7, 3, seed=1)


def test_a_file_is_named_by_a_path() -> None:
    with pytest.raises(einc.CallError, match="name of a file"):
        einc.compile("examples/attention.ein")
    einc.compile("...ei,...in->...ein")


def test_import_loads_neither_torch_nor_triton() -> None:
    loaded = "import sys, einc; einc.Error; print(*{'torch', 'triton', 'lark', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names() -> None:
    assert einc.__version__
    assert all(hasattr(einc, name) for name in einc.__all__)
    assert set(einc.__all__) <= set(dir(einc))
    assert callable(einc.einsum)
    assert callable(einc.compile)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        einc.nothing  # noqa: B018


# ---------------------------------------------------------------------------------------------------------------------
# Operands and results


def test_numpy_in_numpy_out(matrices: tuple[Any, Any]) -> None:
    a, b = matrices
    c = einc.compile(MATMUL)(a, b)
    assert isinstance(c, np.ndarray)
    assert c.dtype == np.float32
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)


def test_torch_in_torch_out(matrices: tuple[Any, Any]) -> None:
    a, b = map(torch.from_numpy, matrices)
    c = einc.compile(MATMUL)(a, b)
    assert isinstance(c, torch.Tensor)
    torch.testing.assert_close(c, a @ b)


def test_attention_verbatim() -> None:
    q, k, v = (draw(2, n, 3, 16, seed=s) for s, n in enumerate((17, 19, 19)))
    o = einc.compile(ATTENTION)(q, k, v)
    s = np.einsum("bihd,bjhd->bhij", q, k)
    p = np.exp(s - s.max(-1, keepdims=True))
    np.testing.assert_allclose(o, np.einsum("bhij,bjhd->bihd", p / p.sum(-1, keepdims=True), v), atol=1e-5)


def test_by_name_by_position_and_mixed() -> None:
    program = einc.compile(PROGRAM)
    q, k = draw(2, 5, 4), draw(2, 6, 4, seed=1)
    expected = program(q, k, 3)
    for found in (program(q, k, window=3), program(K=k, Q=q, window=3), program(q, K=k, window=np.int64(3))):
        assert isinstance(found, tuple)
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)
    assert not np.array_equal(program(q, k, 3, 1.0)[0], expected[0])


def test_a_float_parameter_takes_an_integer() -> None:
    program = einc.compile(PROGRAM)
    q, k = draw(1, 2, 4), draw(1, 2, 4, seed=1)
    np.testing.assert_array_equal(program(q, k, 9, 2)[0], program(q, k, 9, 2.0)[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[::-1, ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(">f4"),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.lib.stride_tricks.sliding_window_view(a.ravel(), a.shape[1])[: a.shape[0]],
        lambda a: np.ndarray(a.shape, "f4", b"\0" + a.tobytes(), offset=1),  # misaligned
        lambda a: np.array([*zip(a.ravel(), a.ravel(), strict=True)], [("x", "f4"), ("y", "i1")])["x"].reshape(a.shape),
    ],
)
def test_any_numpy_layout(change: Any) -> None:
    a = change(draw(4, 6))
    b = draw(6, 3, seed=1)
    np.testing.assert_allclose(einc.compile("ij,jk->ik")(a, b), np.asarray(a) @ b, rtol=1e-5)


def test_read_only_arrays_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    a = draw(4, 6)
    a.flags.writeable = False
    np.testing.assert_allclose(einc.compile("ij->j")(a), a.sum(0), rtol=1e-5)
    assert not recwarn.list


def test_numbers_and_lists() -> None:
    assert einc.compile("i,i->")([1, 2, 3], [4, 5, 6]) == 32
    assert einc.compile(",->")(2.0, 3.0) == 6.0
    assert einc.compile("ij->")([[1.0, 2.0], [3.0, 4.0]]) == 10


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_empty_and_unit_extents(shape: tuple[int, int]) -> None:
    a = np.ones(shape, np.float32)
    np.testing.assert_array_equal(einc.compile("ij->i")(a), a.sum(1))
    np.testing.assert_array_equal(einc.compile("ij,kj->ik")(a, a), a @ a.T)


def test_offsets_beyond_31_bits() -> None:
    table = torch.empty(2**31 + 100, dtype=torch.int8)  # untouched pages take no memory
    table[-1], table[2**31 + 5], table[3] = 7, 5, 3
    places = torch.tensor([2**31 + 99, 3, 2**31 + 5, 2**31 + 100, -1])
    gather = einc.compile("def f(T[n], p[m]):\n    R[m] = T[p[m]]\n    return R\n")
    assert gather(table, places).tolist() == [7, 3, 5, 0, 0]
    strided = torch.empty(3 * 2**30, dtype=torch.int8).as_strided((3, 4), (2**30, 1))
    strided[:] = torch.arange(12).reshape(3, 4)
    assert einc.compile("ij->ji")(strided).tolist() == strided.T.tolist()


@pytest.mark.parametrize("n", [2, 3, 17, 127, 257])
def test_odd_extents(n: int) -> None:
    a, b = draw(n, 5), draw(5, n, seed=1)
    np.testing.assert_allclose(einc.compile("ij,jk->ik")(a, b), a @ b, rtol=1e-4, atol=1e-5)


def test_noncontiguous_torch_and_narrow_floats() -> None:
    a = torch.randn(6, 8, 4, dtype=torch.bfloat16).permute(2, 0, 1)[:, ::2]
    b = torch.randn(8, 5, dtype=torch.bfloat16)
    c = einc.compile("aij,jk->aik")(a, b)
    assert c.dtype == torch.bfloat16
    torch.testing.assert_close(c, (a.float() @ b.float()).bfloat16())


def test_conjugate_views() -> None:
    a = torch.randn(3, 4, dtype=torch.complex64)
    torch.testing.assert_close(einc.compile("ij->j")(a.conj()), a.conj().sum(0))


def test_evaluate_is_in_double_precision(matrices: tuple[Any, Any]) -> None:
    a, b = matrices
    c = einc.compile(MATMUL)(a, b, backend="evaluate")
    assert c.dtype == np.float64
    np.testing.assert_allclose(c, a.astype("f8") @ b.astype("f8"), rtol=1e-14)


def test_torch_runs_the_tiles(matrices: tuple[Any, Any]) -> None:
    a, b = matrices
    np.testing.assert_allclose(einc.compile(MATMUL)(a, b, backend="torch"), a @ b, rtol=1e-5)
    program = einc.compile(PROGRAM)
    q, k = draw(2, 5, 4), draw(2, 6, 4, seed=1)
    for scale in (0.5, 2.0):  # which a call of equal shapes must not remember
        for x, y in zip(program(q, k, 3, scale, backend="torch"), program(q, k, 3, scale), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)
    out = np.empty((2, 5, 3), np.float32)
    assert einc.compile(MATMUL)(a, b, out=out, backend="torch") is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)


def test_levels_agree(matrices: tuple[Any, Any]) -> None:
    results = [einc.compile('softmax("bik,bkj->bij")', level=n)(*matrices) for n in (0, 1, 2)]
    for r in results[1:]:
        np.testing.assert_allclose(r, results[0], rtol=1e-5, atol=1e-6)


def test_gradients_are_given_when_asked_for(matrices: tuple[Any, Any]) -> None:
    a, b = map(torch.from_numpy, matrices)
    a.requires_grad_()
    program = einc.compile(MATMUL)
    c = program(a, b)
    torch.testing.assert_close(c, a @ b)
    weight = torch.randn_like(c)
    torch.testing.assert_close(torch.autograd.grad(c, a, weight), torch.autograd.grad(a @ b, a, weight))
    with torch.no_grad():
        assert not program(a, b).requires_grad
    assert not program(a.detach(), b).requires_grad


# ---------------------------------------------------------------------------------------------------------------------
# out


def test_out_receives_the_result(matrices: tuple[Any, Any]) -> None:
    a, b = matrices
    out = np.empty((2, 5, 3), np.float32)
    assert einc.compile(MATMUL)(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)
    into = torch.empty(3, 5, 2).permute(2, 1, 0)
    assert einc.compile(MATMUL)(torch.from_numpy(a), torch.from_numpy(b), out=into) is into
    np.testing.assert_allclose(into.numpy(), a @ b, rtol=1e-5)


def test_out_with_negative_strides(matrices: tuple[Any, Any]) -> None:
    a, b = matrices
    memory = np.zeros((4, 5, 6), np.float32)
    einc.compile(MATMUL)(a, b, out=memory[::-2, :, ::-2])
    np.testing.assert_allclose(memory[::-2, :, ::-2], a @ b, rtol=1e-5)
    assert (memory == 0).sum() == memory.size - 2 * 5 * 3


def test_out_may_overlap_an_operand() -> None:
    a = draw(6, 6)
    expected = a.T @ a
    einc.compile("ji,jk->ik")(a, a, out=a)
    np.testing.assert_allclose(a, expected, rtol=1e-4, atol=1e-5)


def test_several_outs() -> None:
    q, k = draw(2, 5, 4), draw(2, 6, 4, seed=1)
    out = np.empty((2, 5, 6), np.float32), np.empty((2, 5), np.float32)
    program = einc.compile(PROGRAM)
    assert program(q, k, 3, out=out) is out
    for x, y in zip(out, program(q, k, 3), strict=True):
        np.testing.assert_array_equal(x, y)


def _frozen() -> np.ndarray[Any, Any]:
    array = np.empty((2, 5, 3), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "says"),
    [
        (np.empty((2, 5, 4), np.float32), einc.ShapeError, r"\(2, 5, 4\), the result \(2, 5, 3\)"),
        (np.empty((2, 5, 3), np.float64), einc.DTypeError, "f64, the result f32"),
        (torch.empty(2, 5, 1).expand(2, 5, 3), einc.CallError, "share memory"),
        (_frozen(), einc.CallError, "read-only"),
        ([np.empty((2, 5, 3), np.float32)] * 2, einc.CallError, "holds 2 tensors"),
        ("here", einc.CallError, "not a tensor"),
    ],
)
def test_unusable_out(out: Any, error: type[einc.Error], says: str, matrices: tuple[Any, Any]) -> None:
    with pytest.raises(error, match=says):
        einc.compile(MATMUL)(*matrices, out=out)


# ---------------------------------------------------------------------------------------------------------------------
# Wrong calls


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda f, q, k: f(q), einc.CallError, "operand 'K' is missing"),
        (lambda f, q, k: f(q, k, 3, 1.0, 5), einc.CallError, "5 arguments"),
        (lambda f, q, k: f(q, k, wnidow=3), einc.CallError, "did you mean 'window'"),
        (lambda f, q, k: f(q, k, 3, Q=q), einc.CallError, "'Q' is given twice"),
        (lambda f, q, k: f(q, k), einc.CallError, "'window' is missing"),
        (lambda f, q, k: f(q, k, 3.5), einc.DTypeError, "'window' takes an int"),
        (lambda f, q, k: f(q, k, "wide"), einc.DTypeError, "'window' takes an int"),
        (lambda f, q, k: f(q, k, 1 << 70), einc.DTypeError, "64 bits"),
        (lambda f, q, k: f(q, k, [3]), einc.Error, "window"),
        (lambda f, q, k: f(q, k[:, :, :3], 3), einc.ShapeError, "extent 4 in Q .* 3 in K"),
        (lambda f, q, k: f(q[0], k, 3), einc.ShapeError, "Q has 3 dimensions"),
        (lambda f, q, k: f(q.astype(object), k, 3), einc.DTypeError, "type object"),
        (lambda f, q, k: f("Q", k, 3), einc.CallError, "'Q' is not a tensor"),
        (lambda f, q, k: f(None, k, 3), einc.CallError, "'Q' is not a tensor"),
        (lambda f, q, k: f([[1], [2, 3]], k, 3), einc.CallError, "'Q' is not a tensor"),
        (lambda f, q, k: f(q.astype(str), k, 3), einc.DTypeError, "type <U"),
        (lambda f, q, k: f(torch.from_numpy(q).to_sparse(), k, 3), einc.CallError, "no plain memory"),
        (lambda f, q, k: f(q, k, 3, backend="cuda"), einc.CallError, "no backend 'cuda'"),
    ],
)
def test_wrong_calls(call: Any, error: type[einc.Error], says: str) -> None:
    with pytest.raises(error, match=says):
        call(einc.compile(PROGRAM), draw(2, 5, 4), draw(2, 6, 4, seed=1))


@pytest.mark.parametrize("backend", ["torch", "interpret"])
def test_a_scalar_is_missing_from_the_second_call(backend: str) -> None:
    program = einc.compile("def f(X[n], s: float):\n    Y[n] = s * X[n]\n    return Y\n")
    x = draw(5)
    program(x, 2.0, backend=backend)
    with pytest.raises(einc.CallError, match="scalar 's' is missing"):
        program(x, backend=backend)


def test_wrong_calls_after_right_ones() -> None:
    program = einc.compile(PROGRAM)
    q, k = draw(2, 5, 4), draw(2, 6, 4, seed=1)
    program(q, k, 3, 1.0)
    for scalars in ((3.0, 1.0), (True, 1.0), (3, "x"), (3, None)):
        with pytest.raises(einc.DTypeError):
            program(q, k, *scalars)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_no_gpu(matrices: tuple[Any, Any]) -> None:
    with pytest.raises(einc.TargetError, match="no GPU"):
        einc.compile(MATMUL)(*matrices, backend="triton")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": 3}, "a program is text"),
        ({"text": MATMUL, "level": 7}, "no optimisation level 7"),
        ({"text": MATMUL, "target": "sm_09"}, "unknown target 'sm_09'"),
        ({"text": MATMUL, "generator": "gluno"}, "(?s)no generator is called 'gluno'.*did you mean 'gluon'"),
        ({"text": MATMUL, "generator": "gluon", "target": "sm_80"}, "(?s)no kernels for sm_80.*no dots of warpgroups"),
        ({"text": Path("nowhere.ein")}, "cannot read 'nowhere.ein'"),
        ({"text": ""}, "empty"),
        ({"text": "C[i] = A[i"}, "never closed|not closed|unclosed"),
    ],
)
def test_wrong_compiles(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(einc.Error, match=says):
        einc.compile(**arguments)


def test_a_generator_is_part_of_what_a_program_is_kept_under() -> None:
    two = [einc.compile(MATMUL, target="sm_90", generator=name)._callee for name in ("triton", "gluon")]
    assert two[0].description != two[1].description
    assert [callee(c.description).options.generator.name for c in two] == ["triton", "gluon"]


# ---------------------------------------------------------------------------------------------------------------------
# To be looked at


def test_a_path_is_read_and_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.ein"
    file.write_text("C[i, j] = A[i, k] * B[k, j")
    with pytest.raises(einc.SyntaxError, match=r"broken\.ein:1:"):
        einc.compile(file)


def test_signature() -> None:
    assert str(einc.compile(PROGRAM)) == (
        "scores(Q[b, i, d], K[b, j, d], window: int, scale: float = rsqrt(|d|)) -> A[b, i, j], M[b, i]"
    )
    assert "scores(" in repr(einc.compile(PROGRAM))


def test_dumps() -> None:
    program = einc.compile(PROGRAM)
    assert "elaborate" in program.dump().split()
    assert "max[j]" in program.dump("elaborate")
    assert "kernel M" in program.dump("lower")
    with pytest.raises(einc.NameError, match="did you mean 'inline'"):
        program.dump("inlin")


def test_source_is_complete() -> None:
    q, k = draw(2, 5, 4), draw(2, 6, 4, seed=1)
    program = einc.compile(PROGRAM, target="sm_90")
    source = program.source(q, k, window=3)
    assert "import triton" in source
    assert "einc" not in source.partition("\n")[2].replace("Compiled by einc", "")
    compile(source, "emitted", "exec")


def test_source_and_dump_follow_the_operands() -> None:
    program = einc.compile(MATMUL)
    half = torch.randn(2, 3, 4).half()
    assert "float16" in program.source(half, half.mT)
    assert "f16" in program.dump("elaborate", half, half.mT)


def test_explain(matrices: tuple[Any, Any]) -> None:
    text = einc.compile(MATMUL).explain(*matrices)
    assert "bilinear in A, B" in text
    assert max(map(len, text.splitlines())) <= 100
    data = json.loads(einc.compile(MATMUL).explain(*matrices, format="json"))
    assert data["einsums"] == [MATMUL]
    assert len(data["levels"][0]["kernels"]) == 1
    assert data["levels"][0]["flops"] == 2 * 2 * 5 * 7 * 3
    assert data["levels"][0]["bytes"] == 4 * (2 * 5 * 7 + 2 * 7 * 3 + 2 * 5 * 3)
    with pytest.raises(einc.CallError, match="formats are text, json and html"):
        einc.compile(MATMUL).explain(*matrices, format="xml")


def test_a_parsed_text_is_shared() -> None:
    assert parse(MATMUL) is parse(MATMUL)


def test_what_has_a_shape_and_no_memory_can_be_looked_at() -> None:
    f = einc.compile("def f(x[i, j], w[j, k]):\n    y[i, k] = x[i, j] * w[j, k]\n    return y")
    x, w = torch.empty(70, 33, device="meta"), torch.empty(33, 20, device="meta", dtype=torch.bfloat16)
    there = torch.empty(70, 33), torch.empty(33, 20, dtype=torch.bfloat16)
    assert f.source(x, w) == f.source(*there)
    assert f.dump("lower", x, w) == f.dump("lower", *there)
    assert f.explain(x, w) == f.explain(*there)
    assert f.source(np.ones((70, 33), np.float32), w) == f.source(x, w)
    assert (f(x, w).shape, f(x, w).dtype, f(x, w).device.type) == ((70, 20), f(*there).dtype, "meta")


@pytest.mark.parametrize("scale", [0.0, 0.5, -2.0])
def test_scaled_scores(scale: float) -> None:
    text = """
    def f(A[b, i, k], B[b, k, j], scale: float):
        S[b, i, j] = scale * A[b, i, k] * B[b, k, j]
        L[b, i] = logsumexp[j](S)
        return S, L
    """
    a, b = draw(3, 5, 4), draw(3, 4, 70, seed=1)
    a[0, 0, 0] = np.inf
    program = einc.compile(text)
    for _ in range(2):  # in memory that a first run has used
        for x, y in zip(program(a, b, scale), program(a, b, scale, backend="evaluate"), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4)
