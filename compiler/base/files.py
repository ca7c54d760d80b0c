"""Files that users name, read and written, with an `einc.Error` where the system or the encoding refuses."""

from __future__ import annotations

import sys
from pathlib import Path

from einc.base.errors import CallError, SyntaxError
from einc.base.source import Source

STANDARD = "-"  # stands for standard input where a file is read, and for standard output where one is written


def read_text(path: Path) -> str:
    """The characters of a file in UTF-8."""
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise CallError(
            f"cannot read '{path}'", fact=reason(error), hint="pass the path of a text file, or -e TEXT"
        ) from None


def decoded(data: bytes, name: str) -> str:
    """Bytes in UTF-8 as text; raises `SyntaxError` at the first line that is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8", errors="replace")
        source = Source(name, good + "\N{REPLACEMENT CHARACTER}")
        raise SyntaxError(
            "the text is not UTF-8",
            source.span(len(good), len(good) + 1),
            fact=f"byte {error.start} is 0x{data[error.start]:02x}",
            hint="save the file as UTF-8",
        ) from None


def write(path: Path, data: str | bytes) -> None:
    """Write a whole file; `-` is standard output."""
    if str(path) == STANDARD:
        _print(data)
        return
    try:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise unwritable(path, error) from None


def _print(data: str | bytes) -> None:
    if isinstance(data, str):
        sys.stdout.write(data)
    elif sys.stdout.isatty():
        raise CallError("binary data cannot go to a terminal", hint="write it to a file: -o FILE")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def folder(path: str) -> Path:
    """The folder of this path, made if it does not exist."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(Path(path), error) from None
    return Path(path)


def unwritable(path: Path, error: OSError) -> CallError:
    return CallError(f"cannot write '{path}'", fact=reason(error), hint="pass a path that can be written to")


def reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
