"""Kernels that do not compile, or take too much: one error, and nothing of what the compiler wrote."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import einc
from einc.base.errors import RoomError, TargetError
from einc.base.targets import INTERPRETER, target
from einc.codegen.run.compiling import quietly
from einc.codegen.run.load import load
from einc.driver import compile_program, elaborate, parse
from tests.support.compiled import runner

SOURCE = "import triton\n\n\n@triton.jit\ndef out_kernel(A):\n    pass\n"


def failing(*written: str, error: Exception) -> str:
    """The error of a kernel whose compiler writes this, first to standard output, and raises that."""

    def compiler() -> None:
        for fd, text in zip((1, 2), written, strict=False):
            os.write(fd, text.encode())
        raise error

    with pytest.raises(TargetError) as caught:
        quietly(compiler, "out_kernel", "sm_90", SOURCE)()
    return str(caught.value)


def test_what_a_failing_compiler_writes_is_searched_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    module = "module {\n" + "  %0 = tt.load %arg0\n" * 1000 + "}\n"
    said = "python: MMAv2.cpp:116: Assertion `bitwidth != 64' failed.\n"
    place = "<einc out 0123456789abcdef>:5:0: error: Failures have been detected\n"
    found = failing(module, said + module + place, error=RuntimeError("PassManager::run failed"))
    assert capfd.readouterr() == ("", "")
    assert found.splitlines() == [
        "kernel 'out_kernel' does not compile for sm_90",
        "  at: def out_kernel(A):",
        "  Assertion `bitwidth != 64' failed.",
        "  try: another target, or operands of another type",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("PassManager::run failed"), "PassManager::run failed"),
        (RuntimeError("Internal error\nptxas fatal   : Unresolved extern\nmore"), "fatal   : Unresolved extern"),
        (AssertionError(), "AssertionError"),
        (ValueError("x" * 1000), "x" * 199 + "…"),
    ],
)
def test_a_reason_is_one_line(error: Exception, reason: str) -> None:
    assert f"\n  {reason}\n" in failing(error=error)


def test_what_a_compiler_writes_that_succeeds_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def compiler(answer: int) -> int:
        os.write(1, b"dumped")
        os.write(2, b"a warning")
        return answer

    assert quietly(compiler, "out_kernel", "sm_90", SOURCE)(7) == 7
    assert capfd.readouterr() == ("dumped", "a warning")


def test_compilers_run_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """What they write is shown when the last of them ends, unless one failed; then output goes where it went before."""
    both = threading.Barrier(2)

    def compiler(name: str, fails: bool) -> str:
        both.wait(10)
        os.write(1, f"{name}\n".encode())
        both.wait(10)
        if fails:
            raise RuntimeError(name)
        return name

    def run(name: str, fails: bool) -> str:
        try:
            return quietly(compiler, "out_kernel", "sm_90", SOURCE)(name, fails)
        except TargetError as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        for failing_one in (False, True):
            found = list(threads.map(run, ("first", "second"), (False, failing_one)))
            assert found[0] == "first"
            assert ("does not compile" in found[1]) == failing_one
            os.write(1, b"after\n")
            shown = capfd.readouterr().out.splitlines()
            assert sorted(shown) == (["after"] if failing_one else ["after", "first", "second"])


def test_a_process_without_outputs_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError("bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    assert quietly(lambda: 7, "out_kernel", "sm_90", SOURCE)() == 7


def test_a_kernel_compiled_for_a_launch_fails_in_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.jit import JITFunction

    def broken(*_: Any) -> None:
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(JITFunction, "_do_compile", broken)
    kernel = load(SOURCE + "\n", "out").out_kernel
    with pytest.raises(TargetError, match="kernel 'out_kernel' does not compile for this GPU"):
        kernel._do_compile()


def test_a_launch_without_room_is_made_again_in_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    program = elaborate(parse("ij,jk->ik"))
    compiled = compile_program(program, 2, target("sm_90"), {"i": 300, "j": 300, "k": 300})
    tried: list[str] = []

    def launcher(source: str, name: str) -> Any:
        def launch(*args: torch.Tensor, **_: Any) -> torch.Tensor:
            tried.append(source)
            if len(tried) < 3:
                raise RoomError(f"kernel '{name}' needs more shared memory than this GPU has")
            return args[0] @ args[1]

        return launch

    monkeypatch.setattr("einc.codegen.run.load.launcher", launcher)
    run = runner(compiled)
    a = torch.ones(3, 3)
    assert torch.equal(run(a, a)[0], a @ a)
    assert len(set(tried)) == 3
    run(a, a)
    assert tried[3] == tried[2]  # what fitted once is kept


def test_what_has_no_smaller_tiles_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: Any, **__: Any) -> None:
        raise RoomError("too much")

    monkeypatch.setattr("einc.codegen.run.load.launcher", lambda *_: launch)
    run = runner(compile_program(elaborate(parse("i->i")), 2, INTERPRETER, {"i": 7}))
    with pytest.raises(RoomError, match="too much"):
        run(torch.ones(7))


@pytest.mark.parametrize("text", ["ik,kj->ij", 'softmax("id,jd->ij") * "je->ie"'])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tiles_become_smaller_until_none_do(text: str, dtype: torch.dtype) -> None:
    program = einc.compile(text, target="sm_90")
    shapes = [torch.empty(4096, 4096, device="meta", dtype=dtype) for _ in program.text.operands]
    sources = [(made := program.compiled(*shapes)).source]
    while (smaller := made.tightened()) is not None:
        made = smaller
        sources.append(made.source)
    assert len(set(sources)) == len(sources) > 1
