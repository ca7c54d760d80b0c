"""`einc cache`: what it shows, as text and as JSON, and what it removes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from einc.cache import contents, keep
from einc.cli.keeping import size
from tests.whole.test_cli import bad, good


@pytest.fixture
def filled(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three entries, used 0, 10 and 20 days ago, and a writer's that was killed; Triton keeps nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for n, (kind, text) in enumerate((("texts", "x" * 10), ("sources", "x" * 1000), ("sources", "x" * 100))):
        keep(kind, n, text)
    for e, days in zip(sorted(contents.contents(cache), key=lambda e: e.size), (0, 20, 10), strict=True):
        when = time.time() - 86400 * days
        os.utime(e.path, (when, when))
    left = cache / "sources" / f".{'0' * 64}.123.abcd"
    left.write_bytes(b"x" * 7)
    os.utime(left, (1, 1))
    return cache


def sizes(directory: Path) -> list[int]:
    return [e.size for e in contents.contents(directory)]


def test_what_is_kept_is_shown(filled: Path) -> None:
    newest, ten, twenty, _ = sizes(filled)
    assert (
        good("cache")
        == good("cache", "show")
        == (
            f"{filled}: 4 entries, {size(newest + ten + twenty + 7)} of 1 GiB\n"
            f"  sources     2 entries, {size(ten + twenty)}\n"
            f"  texts       1 entry, {size(newest)}\n"
            f"  unfinished  1 entry, 7 bytes\n"
        )
    )
    assert json.loads(good("cache", "--json")) == {
        "directory": str(filled),
        "in_use": True,
        "why_not": None,
        "entries": 4,
        "bytes": newest + ten + twenty + 7,
        "limit": 1 << 30,
        "kinds": {
            "sources": {"entries": 2, "bytes": ten + twenty},
            "texts": {"entries": 1, "bytes": newest},
            "unfinished": {"entries": 1, "bytes": 7},
        },
        "triton": {"directory": os.environ["TRITON_CACHE_DIR"], "files": 0, "bytes": 0},
    }


def test_what_triton_keeps_is_shown_and_left(filled: Path) -> None:
    kernel = Path(os.environ["TRITON_CACHE_DIR"]) / "KEY" / "O_kernel.cubin"
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(b"x" * 2048)
    shown = f"{kernel.parents[1]}: 1 file of Triton's, 2 KiB; einc removes none of them"
    assert good("cache").splitlines()[-1] == shown
    good("cache", "clear")
    assert sizes(filled) == []
    assert kernel.exists()


def test_pruning_and_clearing(filled: Path) -> None:
    newest, ten, twenty, _ = sizes(filled)
    assert good("cache", "prune") == f"removed 1 entry, 7 bytes; left 3 entries, {size(newest + ten + twenty)}\n"
    assert good("cache", "prune", "--older", "15") == (
        f"removed 1 entry, {size(twenty)}; left 2 entries, {size(newest + ten)}\n"
    )
    assert json.loads(good("cache", "prune", "--to", str(newest), "--json")) == {
        "removed": {"entries": 1, "bytes": ten},
        "left": {"entries": 1, "bytes": newest},
    }
    assert good("cache", "clear") == f"removed 1 entry, {size(newest)}; left 0 entries, 0 bytes\n"
    assert good("cache", "clear") == "removed 0 entries, 0 bytes; left 0 entries, 0 bytes\n"


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_kept_yet(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    if made:
        cache.mkdir(mode=0o700)
    assert good("cache") == (f"{cache}: 0 entries, 0 bytes of 1 GiB\n" if made else f"{cache}: nothing yet\n")
    assert good("cache", "prune", "--older", "1") == "removed 0 entries, 0 bytes; left 0 entries, 0 bytes\n"
    assert good("cache", "clear") == "removed 0 entries, 0 bytes; left 0 entries, 0 bytes\n"
    assert json.loads(good("cache", "--json"))["entries"] == 0
    assert cache.exists() == made


def test_what_is_not_in_use(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.chmod(0o777)
    assert "\n  not in use: others may write to it\n" in good("cache")
    assert json.loads(good("cache", "--json"))["why_not"] == "others may write to it"
    assert bad(1, "cache", "clear") == (
        f"nothing is removed from '{filled}'\n"
        "  others may write to it\n"
        "  try: chmod go-w it, or name another in EINC_CACHE_DIR\n"
    )
    filled.chmod(0o700)
    monkeypatch.setenv("EINC_CACHE", "off")
    assert "\n  not in use: EINC_CACHE=off\n" in good("cache")
    assert len(sizes(filled)) == 4


def test_wrong_usage(filled: Path) -> None:
    assert "'tidy' is none of show, prune, clear" in bad(2, "cache", "tidy")
    assert "'much' is no size, as 512MiB is" in bad(2, "cache", "prune", "--to", "much")
    assert "only prune chooses what to remove" in bad(2, "cache", "clear", "--older", "3")
    assert "only prune chooses what to remove" in bad(2, "cache", "--to", "3")
    assert len(sizes(filled)) == 4


@pytest.mark.parametrize(
    ("n", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1023 << 10, "1023 KiB"),
     (1 << 20, "1 MiB"), (5 << 40, "5 TiB"), (5 << 50, "5120 TiB")],
)  # fmt: skip
def test_sizes_are_written(n: int, shown: str) -> None:
    assert size(n) == shown
