"""The command line: every command on good and bad input, its exit status, and what it prints where."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from einc.cli.commands import app
from einc.codegen import TRITON
from einc.passes import pipeline
from einc.passes.adjoint.differentiate import LAWS

MATMUL = "bik,bkj->bij"
EINC = [sys.executable, "-m", "einc"]


def einc(*words: str | Path, given: bytes | str | None = None) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words], input=given)


def good(*words: str | Path, given: bytes | str | None = None) -> str:
    """What a command that succeeds prints."""
    result = einc(*words, given=given)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def bad(status: int, *words: str | Path, given: bytes | str | None = None) -> str:
    """The diagnostic of a command that fails; nothing is on standard output."""
    result = einc(*words, given=given)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Where a program comes from


def test_text_file_and_standard_input_are_alike(tmp_path: Path) -> None:
    file = tmp_path / "matmul.ein"
    file.write_text(MATMUL)
    expected = good("check", "-e", MATMUL)
    assert expected == "ok: einsum(A[b, i, k], B[b, k, j]) -> out[b, i, j]\n"
    assert good("check", file) == expected
    assert good("check", "-", given=MATMUL) == expected


def test_no_program_and_two() -> None:
    assert "give a file" in bad(2, "check")
    assert "not both" in bad(2, "check", "file.ein", "-e", MATMUL)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "cannot read" in bad(1, "check", tmp_path / "nothing.ein")
    assert "directory" in bad(1, "check", tmp_path)
    latin = tmp_path / "latin.ein"
    latin.write_bytes("# größe\nij->ji".encode("latin-1"))
    assert re.search(r"latin\.ein:1:5: the text is not UTF-8", bad(1, "check", latin))
    empty = tmp_path / "empty.ein"
    empty.write_text("")
    assert "empty" in bad(1, "check", empty)


def test_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bom.ein"
    file.write_bytes(b"\xef\xbb\xbfij->ji")
    assert good("check", file).startswith("ok")


# ---------------------------------------------------------------------------------------------------------------------
# Diagnostics


def test_an_error_has_its_place() -> None:
    message = bad(1, "check", "-", given="C[i, j] = A[i, k] * B[k, j\n")
    assert message.startswith("<stdin>:1:")
    assert "^" in message


def test_errors_as_json() -> None:
    result = einc("check", "-e", "C[i, j] = A[i, k] * B[k, j", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert found["kind"] == "SyntaxError"
    assert found["at"]["line"] == 1
    assert json.loads(good("check", "-e", MATMUL, "--json"))["ok"]


def test_sizes_that_do_not_fit() -> None:
    text = "def f(A[n]):\n    axis x = 9\n    C[x] = A[x]\n    return C\n"
    good("check", "-e", text)
    good("check", "-e", text, "-s", "n=9")
    assert "out of range" in bad(1, "check", "-e", text, "-s", "n=8")
    assert "no axis 'z'" in bad(1, "check", "-e", MATMUL, "-s", "z=4")


@pytest.mark.parametrize("name", ["f16", "fp16", "float16", "half"])
def test_types_by_their_other_names(name: str) -> None:
    assert "f16[4, 3, 3]" in good("run", "-e", MATMUL, "--dtype", name, "-s", "i=3,j=3,k=3")


def test_axes_without_a_size() -> None:
    """A batch axis is short; what one operand alone has, or what is reduced, is not."""
    assert "f32[4, 64, 64]" in good("run", "-e", MATMUL, "--no-reference")
    assert "f32[64]" in good("run", "-e", "ij,j->i", "--no-reference")
    assert "f32[64]" in good("run", "-e", "ij->i", "--no-reference")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "i"], "needs an extent"),
        (["--size", "i=-4"], "needs an extent"),
        (["--size", "i=99999999999999"], "too large"),
        (["--dtype", "float31"], "not a type"),
        (["--level", "3"], "--level"),
        (["--lvel", "1"], "lvel"),
    ],
)
def test_wrong_usage(words: list[str], says: str) -> None:
    assert says in bad(2, "check", "-e", MATMUL, *words)


# ---------------------------------------------------------------------------------------------------------------------
# Commands


@pytest.mark.parametrize("command", ["run", "dump", "emit", "explain", "check", "tune", "passes", "functions", "demo"])
def test_help_has_an_example(command: str) -> None:
    assert f"Example: einc {command}" in " ".join(good(command, "--help").split())


def test_help_lists_the_commands() -> None:
    assert all(
        name in good("--help") for name in ("run", "dump", "emit", "explain", "check", "passes", "functions", "demo")
    )


def test_run_prints_errors_against_float64() -> None:
    found = good("run", "-e", MATMUL, "-s", "b=2,i=8,k=8,j=8", "--dtype", "bf16")
    match = re.fullmatch(r"out: bf16\[2, 8, 8\], norm [\d.]+, error (\S+) against float64\n", found)
    assert match is not None
    assert float(match[1]) < 0.01


def test_run_is_the_same_for_the_same_seed() -> None:
    words = ("run", "-e", "ij->i", "-s", "i=4,j=4", "--json")
    first, second, other = (json.loads(good(*words, *more)) for more in ((), (), ("--seed", "1")))
    assert first[0]["norm"] == second[0]["norm"] != other[0]["norm"]
    assert first[0]["shape"] == [4]


def test_run_loads_and_saves(tmp_path: Path) -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.ones((3, 4), np.float32)
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "all.npz", A=a, B=b)
    out = tmp_path / "out.npy"
    one = good("run", "-e", "ij,jk->ik", "--operand", f"A={tmp_path}/a.npy", "-s", "k=4", "-o", out)
    assert "f64[2, 4]" in one
    good("run", "-e", "ij,jk->ik", "--operand", tmp_path / "all.npz", "-o", out)
    np.testing.assert_allclose(np.load(out), a @ b)
    assert "cannot write" in bad(1, "run", "-e", "i->", "-o", tmp_path / "no" / "out.npz")
    assert f"{tmp_path}/results.npz" in bad(1, "run", "-e", "i->", "-o", tmp_path)
    assert "cannot read" in bad(1, "run", "-e", "i->", "--operand", "A=nothing.npy")
    assert "no arrays" in bad(1, "run", "-e", "i->", "--operand", f"A={__file__}")
    assert "whose values" in bad(2, "run", "-e", "i->", "--operand", tmp_path / "a.npy")


def test_run_with_scalars_and_gathers() -> None:
    text = "def f(T[v, d], t[n], s: float):\n    X[n, d] = s * T[t[n], d]\n    return X\n"
    assert "X: f32[5, 2]" in good("run", "-e", text, "-s", "v=9,d=2,n=5", "--scalar", "s=2.5")
    assert "scalar 's' is missing" in bad(1, "run", "-e", text, "-s", "v=9,d=2,n=5")


def test_dump_shows_what_changed() -> None:
    shown = good("dump", "-e", MATMUL)
    assert shown.startswith("-- elaborate\n")
    assert "(unchanged)" not in shown
    assert "(unchanged)" in good("dump", "-e", MATMUL, "--all")
    assert good("dump", "-e", MATMUL, "--after", "elaborate").startswith("def einsum(")
    assert "there is no stage 'fuse'" in bad(1, "dump", "-e", MATMUL, "--after", "fuse")
    stages = json.loads(good("dump", "-e", MATMUL, "--json"))
    assert stages[0]["stage"] == "elaborate"


def test_kernels_that_are_dumped_are_a_program() -> None:
    sizes = ("--size", "i=64,j=64,k=64")
    shown = good("dump", "-e", MATMUL, "--after", "place-loads", "--target", "sm_90", *sizes)
    assert "\nkernels after place-loads\nkernel " in shown
    assert good("dump", "-", "--after", "place-loads", given=shown) == shown
    assert "error" in good("run", "-", "--size", "i=5,j=6,k=7", given=shown)
    assert good("check", "-", given=shown) == good("check", "-e", MATMUL)
    assert good("emit", "-", *sizes, given=shown) == good("emit", "-e", MATMUL, *sizes)
    words = (*sizes, "--target", "sm_90", "--json")
    told, wanted = (
        json.loads(good("explain", "-", *words, given=shown)),
        json.loads(good("explain", "-e", MATMUL, *words)),
    )
    assert told["flops"] == wanted["flops"] > 0
    assert told["kernels"] == wanted["kernels"]
    assert "no kernels come after 'hoist'" in bad(1, "run", "-", given=shown.replace("place-loads", "hoist"))


def test_what_is_dumped_is_a_program() -> None:
    text = 'softmax("bihd,bjhd->bhij") * "bjhd->bihd"'
    shown = good("dump", "-e", text, "--after", "hoist")
    assert good("dump", "-", "--after", "elaborate", given=shown) == shown


def test_emit_triton(tmp_path: Path) -> None:
    source = good("emit", "-e", MATMUL, "--dtype", "bf16")
    assert "sm_90" in source
    assert "bfloat16" in source
    file = tmp_path / "matmul.py"
    assert good("emit", "-e", MATMUL, "--dtype", "bf16", "-o", file) == ""
    assert file.read_text() == source
    assert "cannot write" in bad(1, "emit", "-e", MATMUL, "-o", tmp_path / "no" / "file.py")
    good("emit", "-e", MATMUL, "-o", f"{tmp_path}/fresh/")
    assert (tmp_path / "fresh" / "einsum.py").exists()
    assert "unknown target" in bad(1, "emit", "-e", MATMUL, "--target", "sm_99")
    assert "is none of" in bad(2, "emit", "-e", MATMUL, "--format", "sass")


ATTENTION = """
def attention(Q[b, h, i, d], K[b, h, j, d], V[b, h, j, e]):
    S[b, h, i, j] = rsqrt(|d|) * Q[b, h, i, d] * K[b, h, j, d]
    O[b, h, i, e] = softmax[j](S) * V[b, h, j, e]
    return O
"""


@pytest.mark.parametrize("sizes", [(), ("-s", "d=128")], ids=["none", "a width"])
def test_files_are_written_for_long_axes_where_sizes_are_open(sizes: tuple[str, ...]) -> None:
    """Scores are in no memory, and no program has all positions of their axes."""
    for gradient in ((), ("--gradient",)):
        source = good("emit", "-e", ATTENTION, "--dtype", "bf16", *sizes, *gradient)
        assert "torch.empty((b, h, i, j)" not in source
        assert len(re.findall(r"^    launch\(", source, re.M)) == (3 if gradient else 1)
        tiles = re.findall(r"^    B[IJ] = (?:tile_size\(\w, 16, )?(\d+)\)?$", source, re.M)
        assert len(tiles) == len(re.findall(r"^    B[IJ] = ", source, re.M)) > 0
        assert all(int(n) <= 128 for n in tiles)


@pytest.mark.aot
def test_emit_ahead_of_time(tmp_path: Path) -> None:
    result = einc("emit", "-e", "ij,jk->ik", "--dtype", "f16", "--target", "sm_80", "--format", "ptx")
    assert result.exit_code == 0
    assert ".target sm_80" in result.stdout
    assert "registers" in result.stderr
    assert good("emit", "-e", "ij,jk->ik", "--format", "cubin", "-o", tmp_path) == ""
    assert [p.suffix for p in tmp_path.iterdir()] == [".cubin"]
    kernels = json.loads(good("emit", "-e", "ij,jk->ik", "--format", "ptx", "--json"))
    assert kernels[0]["spills"] == 0
    assert "no 'hsaco'" in bad(1, "emit", "-e", MATMUL, "--format", "hsaco")
    assert "kernels are not compiled ahead" in bad(1, "emit", "-e", MATMUL, "--target", "interpret", "--format", "ptx")


def test_explain(tmp_path: Path) -> None:
    assert "bilinear" in good("explain", "-e", MATMUL, "-s", "i=64,j=64,k=32,b=2")
    story = json.loads(good("explain", "-e", MATMUL, "-s", "i=64,j=64,k=32,b=2", "--json"))
    assert story["sizes"] == {"b": 2, "i": 64, "k": 32, "j": 64}
    assert good("explain", "-e", MATMUL, "--html", tmp_path / "story.html") == ""
    assert (tmp_path / "story.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_gradients(tmp_path: Path) -> None:
    """`--gradient` stands alone or with names; what follows it may be the file."""
    file = tmp_path / "matmul.ein"
    file.write_text(MATMUL)
    both = good("emit", file, "--gradient")
    assert "class Einsum(torch.autograd.Function):" in both
    assert both == good("emit", "--gradient", file) == good("emit", "--gradient", "A,B", file)
    assert "return dA, None" in good("emit", "--gradient=A", file)
    shown = good("dump", "-e", MATMUL, "--gradient", "B", "--after", "elaborate")
    assert shown.startswith("def einsum_gradient(A[b, i, k]: f32, dout[b, i, j]: f32):")
    assert good("dump", "-", "--after", "elaborate", given=shown) == shown
    stages = good("dump", "-e", MATMUL, "--gradient", "--all")
    assert [w for w in stages.splitlines() if w.startswith("-- ")][:2] == ["-- ahead", "-- split-groups"]
    assert stages.index("-- accumulate") < stages.index("-- elaborate") < stages.index("-- partition")
    assert "dA[b, i, k] = " in good("dump", "-e", MATMUL, "--gradient", "--after", "accumulate")
    assert "there is no stage 'accumulat'" in bad(1, "dump", "-e", MATMUL, "--gradient", "--after", "accumulat")
    story = json.loads(good("explain", "-e", MATMUL, "--gradient", "-s", "i=8,j=9,k=5,b=2", "--json"))
    assert story["sizes"] == {"b": 2, "i": 8, "k": 5, "j": 9}
    assert good("emit", file, "--gradient", "-o", f"{tmp_path}/fresh/") == ""
    assert (tmp_path / "fresh" / "einsum.py").read_text() == both
    assert "'C' is no operand" in bad(1, "emit", file, "--gradient", "C")
    assert "chosen by the heuristics" in bad(1, "emit", file, "--gradient", "--splits", "2")


@pytest.mark.aot
def test_gradients_ahead_of_time() -> None:
    kernels = json.loads(good("emit", "-e", "ij,jk->ik", "--gradient", "--dtype", "f16", "--format", "ptx", "--json"))
    assert [k["kernel"] for k in kernels] == ["out_kernel", "dA_kernel", "dB_kernel"]


def test_functions() -> None:
    names = [w["name"] for w in json.loads(good("functions", "--json"))]
    assert {"softmax", "log1p", "bf16", "argmax", "next_max"} <= set(names)
    assert all(name in good("functions") for name in ("softmax[j, …](x)", "atan2(y, x)", "argmax[j](x)"))


def test_passes() -> None:
    names = [p["name"] for p in json.loads(good("passes", "--json"))]
    assert names == [p.name for p in pipeline(TRITON) if p.level <= 2]
    assert all(name in good("passes") for name in names)
    laws = json.loads(good("passes", "--laws", "--json"))
    assert [law["name"] for law in laws] == [law.name for law in LAWS]
    assert len(json.loads(good("passes", "-O0", "--json"))) == sum(p.level == 0 for p in pipeline(TRITON))


def test_demo_fits_a_terminal() -> None:
    shown = good("demo")
    assert max(map(len, shown.splitlines())) <= 100
    assert "what sets them apart" in shown
    ways = 1 if torch.cuda.is_available() else 2
    assert shown.count("error against float64") == 2 * 2 * ways  # at two levels


def test_a_dash_is_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert good("emit", "-e", MATMUL, "-o", "-") == good("emit", "-e", MATMUL)
    assert good("explain", "-e", MATMUL, "--html", "-").startswith("<!doctype html>")
    result = einc("run", "-e", "ij->i", "-s", "i=3,j=4", "-o", "-")
    assert np.load(io.BytesIO(result.stdout_bytes)).shape == (3,)
    assert "f32[3]" in result.stderr
    table = einc("bench", "-e", "i->i", "--quick", "--device", "cpu", "-s", "i=8", "--write", "-")
    assert table.stdout.startswith("## ")
    assert "i=8" in table.stderr
    assert list(tmp_path.iterdir()) == []
    for command, option in (("emit", "-o"), ("run", "-o"), ("explain", "--html"), ("bench", "--write")):
        assert "both go to standard output" in bad(2, command, "-e", "i->i", option, "-", "--json")


def test_a_type_that_the_text_says_is_kept() -> None:
    text = "def f(A[i]: f32, B[i], C[i]: f64):\n    D[i] = A * B * C\n    return D\n"
    assert "A[i]: f32, B[i]: bf16, C[i]: f64" in good("emit", "-e", text, "--dtype", "bf16")
    assert "A[i]: f32, B[i]: f16, C[i]: f64" in good("emit", "-e", text, "--dtype", "B=f16")
    assert "operand 'A' is f32, but bf16 was given" in bad(1, "check", "-e", text, "--dtype", "A=bf16")


def test_what_need_not_know_a_scalar_does_without() -> None:
    text = "def f(A[(g c)], n: int):\n    axis g = n\n    B[g] = A[(g c)]\n    return B\n"
    for command in ("check", "dump", "emit", "explain"):
        assert good(command, "-e", text)
        assert good(command, "-e", text, "--scalar", "n=4")
    assert "scalar 'n' is missing" in bad(1, "run", "-e", text)


def test_memory_that_there_is_not() -> None:
    assert "there is not enough memory" in bad(1, "run", "-e", "ij->i", "-s", "i=99999999999")
    assert "there is not enough memory" in bad(1, "run", "-e", "i,j->ij", "-s", "i=9999999,j=9999999", "--no-reference")


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def test_a_reader_that_goes_away() -> None:
    process = subprocess.Popen([*EINC, "passes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) != 0


def test_interruption_is_quiet(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ein"
    os.mkfifo(pipe)
    process = subprocess.Popen([*EINC, "check", pipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pipe.open("wb"):  # opens when the process reads
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b""


def test_completion_is_offered() -> None:
    assert "--install-completion" in good("--help")
    asked = {"_EINC_COMPLETE": "complete_bash", "COMP_WORDS": "einc ex", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "import sys; sys.argv = ['einc']; from einc.cli.commands import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert "explain" in done.stdout
