"""Every file in examples/ runs and agrees with NumPy; README quotes what is really emitted."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import einc
from einc.cli.commands import app
from tests.support.places import EXAMPLES, ROOT

README = ROOT / "README.md"

Array = Any


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


def integers(limit: int, *shape: int) -> Array:
    return np.random.default_rng(limit).integers(0, limit, shape)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logsumexp(x: Array) -> Array:
    m = x.max(-1, keepdims=True)
    return np.log(np.exp(x - m).sum(-1)) + m[..., 0]


def bihd_attention(A: Array, B: Array, C: Array) -> Array:  # noqa: N803
    s = np.einsum("bihd,bjhd->bhij", A, B) / np.sqrt(A.shape[-1])
    return np.einsum("bhij,bjhd->bihd", softmax(s), C)


def scores(Q: Array, K: Array) -> Array:  # noqa: N803
    return np.einsum("bhid,bhjd->bhij", Q, K) / np.sqrt(Q.shape[-1])


def attention(Q: Array, K: Array, V: Array) -> Array:  # noqa: N803
    return np.einsum("bhij,bhje->bhie", softmax(scores(Q, K)), V)


def attention_with_statistic(Q: Array, K: Array, V: Array) -> tuple[Array, Array]:  # noqa: N803
    return attention(Q, K, V), logsumexp(scores(Q, K))


def causal(Q: Array, K: Array, V: Array, window: int) -> tuple[Array, Array]:  # noqa: N803
    heads = np.arange(Q.shape[1]) // (Q.shape[1] // K.shape[1])
    s = scores(Q, K[:, heads])
    i, j = np.ogrid[: s.shape[2], : s.shape[3]]
    s = np.where((j <= i) & (i - j < window), s, -np.inf)
    return np.einsum("bhij,bhje->bhie", softmax(s), V[:, heads]), logsumexp(s)


def paged(Q: Array, K: Array, V: Array, page: Array, length: Array) -> Array:  # noqa: N803
    rows = []
    for q, pages, n in zip(Q, page, length, strict=True):
        k, v = (x[pages].reshape(-1, *x.shape[2:])[:n] for x in (K, V))
        rows.append(np.einsum("hj,jhd->hd", softmax(np.einsum("hd,jhd->hj", q, k) / np.sqrt(q.shape[-1])), v))
    return np.stack(rows)


def convolution_1d(X: Array, W: Array) -> Array:  # noqa: N803
    windows = np.lib.stride_tricks.sliding_window_view(X, len(W), axis=1)
    return np.einsum("bxcr,rck->bxk", windows, W)


def convolution_2d(X: Array, W: Array, stride: int = 1) -> Array:  # noqa: N803
    r, s = W.shape[:2]
    padded = np.pad(X, ((0, 0), (r // 2, r - 1 - r // 2), (s // 2, s - 1 - s // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (r, s), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("byxcrs,rsck->byxk", windows, W)


def rmsnorm(X: Array, gain: Array, W: Array) -> Array:  # noqa: N803
    return (X / np.sqrt((X * X).mean(-1, keepdims=True) + 1e-5) * gain) @ W


def matmul(A: Array, B: Array) -> Array:  # noqa: N803
    return A @ B


MATRICES = {"A": normal(2, 19, 23), "B": normal(2, 23, 17)}
HEADS = {"Q": normal(2, 3, 21, 16), "K": normal(2, 3, 33, 16), "V": normal(2, 3, 33, 24)}

CASES: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "matmul_einsum": (matmul, MATRICES),
    "matmul_expression": (matmul, MATRICES),
    "matmul_program": (matmul, MATRICES),
    "attention": (bihd_attention, {"A": normal(2, 21, 3, 16), "B": normal(2, 33, 3, 16), "C": normal(2, 33, 3, 16)}),
    "attention_program": (attention_with_statistic, HEADS),
    "attention_by_hand": (attention, HEADS),
    "attention_causal": (
        causal,
        {"Q": normal(1, 4, 20, 16), "K": normal(1, 2, 20, 16), "V": normal(1, 2, 20, 8), "window": 7},
    ),
    "attention_paged": (
        paged,
        {
            "Q": normal(3, 2, 16),
            "K": normal(9, 4, 2, 16),
            "V": normal(9, 4, 2, 16),
            "page": integers(9, 3, 5).astype(np.int32),
            "length": np.array([1, 20, 7], np.int32),
        },
    ),
    "convolution_1d": (convolution_1d, {"X": normal(2, 30, 5), "W": normal(4, 5, 6)}),
    "convolution_2d": (convolution_2d, {"X": normal(2, 9, 8, 5), "W": normal(3, 3, 5, 6), "stride": 2}),
    "embedding": (lambda table, token: table[token], {"table": normal(11, 6), "token": integers(11, 3, 5)}),
    "rmsnorm": (rmsnorm, {"X": normal(9, 40), "gain": normal(40), "W": normal(40, 12)}),
}


def test_every_example_has_a_case() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.ein")} == set(CASES)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_example(name: str, level: int) -> None:
    reference, given = CASES[name]
    found = einc.compile(EXAMPLES / f"{name}.ein", level=level)(**given)
    expected = reference(**given)
    several = (found, expected) if isinstance(expected, tuple) else ((found,), (expected,))
    for x, y in zip(*several, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_example_compiles_for_sizes_that_nobody_knows(name: str, level: int) -> None:
    assert einc.compile(EXAMPLES / f"{name}.ein", level=level, target="sm_90").source()


def test_table_of_einsums() -> None:
    table = runpy.run_path(str(EXAMPLES / "einsums.py"))
    rows = table["rows"]()
    assert len(rows) >= 15
    for name, text, shapes in rows:
        operands = [normal(*shape) for shape in shapes]
        result = einc.compile(text)(*operands)
        if " " not in text:
            np.testing.assert_allclose(result, np.einsum(text, *operands), rtol=1e-4, atol=1e-4, err_msg=name)
        exact = einc.compile(text)(*operands, backend="evaluate")
        np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.aot
def test_walkthrough() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "walkthrough.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line[:2] for line in done.stdout.splitlines() if re.match(r"\d+\. ", line)] == [
        f"{n}."[:2] for n in range(1, 11)
    ]
    errors = re.findall(r"double precision: (\S+)", done.stdout)
    assert len(errors) == 2
    assert all(float(error) < 1e-5 for error in errors)


def fenced(file: Path, language: str) -> list[str]:
    """The blocks of a language in a Markdown file."""
    return re.findall(rf"```{language}\n(.*?)```", file.read_text(), flags=re.DOTALL)


def emitted(program: str, options: str) -> str:
    """The kernels of a program, a text or a file of the repository, as the command line emits them."""
    which = [str(ROOT / program)] if program.endswith(".ein") else ["-e", program]
    found = CliRunner().invoke(app, ["emit", *which, *options.split()])
    assert found.exit_code == 0, found.output
    kernels = [part for part in found.stdout.split("\n\n\n") if "@triton.jit" in part and "_kernel(" in part]
    return "\n\n\n".join(kernels) + "\n"


def test_readme_quotes_kernels_as_they_are_emitted(request: pytest.FixtureRequest) -> None:
    text = README.read_text()
    quotes = re.findall(r"<!-- kernel of `(.*?)`, (.*?) -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(quotes) == 2
    for program, options, quoted in quotes:
        if request.config.getoption("--bless"):
            text = text.replace(quoted, emitted(program, options))
        else:
            assert quoted == emitted(program, options)
    if request.config.getoption("--bless"):
        README.write_text(text)


def test_readme_quotes_the_program_beside_its_kernel() -> None:
    (quoted,) = re.findall(r"<!-- (examples/\S+\.ein) -->\n```einc\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert (ROOT / quoted[0]).read_text() == quoted[1]


def test_readme_programs_compile() -> None:
    programs = fenced(README, "einc")
    assert programs
    for text in programs:
        assert einc.compile(text, name="README.md").source()


def test_readme_quotes_the_diagnostic() -> None:
    quoted = re.search(r"\$ einc check -e '(.*?)'\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert quoted is not None
    with pytest.raises(einc.Error) as caught:
        einc.compile(quoted[1])
    assert f"{caught.value}\n" == quoted[2]


def test_readme_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (session,) = (text for text in fenced(README, "python") if "import einc" in text)
    names: dict[str, Any] = {}
    exec(compile(session, "README.md", "exec"), names)
    np.testing.assert_allclose(names["O"], names["exact"], atol=1e-5)
    assert "expression(" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["README.md", "ARCHITECTURE.md", "LANGUAGE.md", "docs/pytorch.md"])
def test_links_lead_somewhere(file: str) -> None:
    for target in re.findall(r"\]\((\w+[./][\w./]*)\)", (ROOT / file).read_text()):
        assert (ROOT / target).exists(), target
