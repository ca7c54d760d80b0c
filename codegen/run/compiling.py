"""Triton's compiler, called with its output kept off the terminal: a kernel that fails gives one error."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from types import ModuleType
from typing import IO, Any, ParamSpec, TypeVar

from einc.base.errors import TargetError
from einc.codegen.run import triton_key

P = ParamSpec("P")
T = TypeVar("T")

_OUTPUTS = (1, 2)  # file descriptors of standard output and standard error, which MLIR and LLVM write to
_TELLING = re.compile(r"Assertion [`'].*|(?:LLVM ERROR|fatal|error)\s*:\s*\S.*")
_QUOTED = re.compile(r"\w+\(([\"'])(.*)\1\)", re.DOTALL)  # an exception quoted in the message of another
_PLACE = re.compile(r"<einc [^>]*>\W{1,2}(\d+)\b")
_PARSED = 4  # times at most that a kernel is compiled because of it
_LONGEST = 200  # the most characters of a reason that are shown


def watch(module: ModuleType, source: str) -> None:
    """Make the kernels of a loaded file fail with one error if a launch cannot compile them."""
    from triton.runtime.jit import JITFunction

    for name, kernel in module.__dict__.items():
        if isinstance(kernel, JITFunction) and name == kernel.fn.__name__:
            kernel._do_compile = quietly(kernel._do_compile, name, "this GPU", source)


def check_compilable(kernel: Any) -> None:
    """Raise `TargetError` for a kernel that Triton interprets in this process."""
    from triton.runtime.jit import JITFunction

    if not isinstance(kernel, JITFunction):
        raise TargetError(
            f"kernel '{kernel.fn.__name__}' does not compile in this process",
            fact="TRITON_INTERPRET is set, so Triton interprets every kernel",
            hint="unset TRITON_INTERPRET",
        )


def quietly(compiler: Callable[P, T], kernel: str, where: str, source: str) -> Callable[P, T]:
    """The function that compiles a kernel, with `TargetError` raised where it fails.

    Its output is shown if it succeeds, and searched for the reason if it fails.
    """

    @functools.wraps(compiler)
    def compiled(*args: P.args, **kwargs: P.kwargs) -> T:
        from triton.runtime.errors import OutOfResources

        triton_key.remember()
        with _diverted() as said:
            try:
                return _parsing(compiler)(*args, **kwargs)
            except (OutOfResources, TargetError):
                raise
            except Exception as error:  # Triton may raise anything
                written = said()
                line = _line(error, written, source)
                raise TargetError(
                    f"kernel '{kernel}' does not compile for {where}",
                    fact="\n  ".join([*([f"at: {line}"] if line else []), _reason(error, written)]),
                    hint="another target, or operands of another type",
                ) from error

    return compiled


def _parsing(compiler: Callable[P, T]) -> Callable[P, T]:
    """The compiler, called again where Python fails to parse in several threads at once.

    Python 3.11 counts the depth of trees for all threads together, and raises `SystemError` where they meet
    (https://github.com/python/cpython/issues/106905).
    """

    @functools.wraps(compiler)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_PARSED):
            with suppress(SystemError):
                return compiler(*args, **kwargs)
        return compiler(*args, **kwargs)

    return again


class _Diversion:
    """Standard output and error sent to files, from the first compiler of a process that runs until the last one ends.

    Then they are copied to their former destinations, unless a compiler failed.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.running = 0
        self.failed = False
        self.before: list[int] = []
        self.files: list[IO[bytes]] = []

    def begin(self) -> list[tuple[int, int]]:
        """The files by descriptor, and how long they are now; none where a process has no output to divert."""
        with self.lock:
            if not self.running:
                self._divert()
            self.running += 1
            return [(file.fileno(), os.fstat(file.fileno()).st_size) for file in self.files]

    def _divert(self) -> None:
        _flush()
        try:
            self.before = [os.dup(fd) for fd in _OUTPUTS]
        except OSError:
            self.before = []
        self.files = [TemporaryFile() for _ in self.before]  # noqa: SIM115 - `end` closes them
        for fd, file in zip(_OUTPUTS, self.files, strict=False):
            os.dup2(file.fileno(), fd)

    def end(self, failed: bool) -> None:
        with self.lock:
            self.running -= 1
            self.failed |= failed
            if self.running:
                return
            _flush()
            for fd, old, file in zip(_OUTPUTS, self.before, self.files, strict=False):
                os.dup2(old, fd)
                os.close(old)
                if not self.failed:
                    os.write(fd, _since(file.fileno(), 0))
                file.close()
            self.before, self.files, self.failed = [], [], False


_DIVERSION = _Diversion()


@contextmanager
def _diverted() -> Iterator[Callable[[], str]]:
    """Divert standard output and error; gives what was written to them inside of the context, by all threads."""
    starts = _DIVERSION.begin()
    failed = True
    try:
        yield lambda: "".join(_since(fd, start).decode(errors="replace") for fd, start in starts)
        failed = False
    finally:
        _DIVERSION.end(failed)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _since(fd: int, start: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size - start, start)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and its causes, the innermost last."""
    found = [error]
    while (cause := found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return found


def _reason(error: Exception, written: str) -> str:
    """The first informative line of what was written, else of the innermost error."""
    cause = _causes(error)[-1]
    text = str(getattr(cause, "error_message", None) or cause)
    if quoted := _QUOTED.fullmatch(text.strip()):
        text = quoted[2]
    telling = _TELLING.search(written) or _TELLING.search(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = telling[0] if telling else lines[0] if lines else type(cause).__name__
    return found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…"


def _line(error: Exception, written: str, source: str) -> str:
    """The line of the emitted file that an error is about, or nothing."""
    for e in _causes(error):  # of nested errors, the outermost is about the kernel
        place, text = getattr(getattr(e, "node", None), "lineno", None), getattr(e, "src", None)
        if isinstance(place, int) and isinstance(text, str):
            return _at(text, place)
    place_of = _PLACE.search(written)
    return _at(source, int(place_of[1])) if place_of else ""


def _at(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
