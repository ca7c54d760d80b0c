"""Entries on disk: found as they were kept, made again where they are damaged, and harmless in every other state."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einc import ein
from einc.base.targets import TARGETS
from einc.base.types import BF16, F32
from einc.cache import contents, entries, find, keep, places
from einc.cache.digests import Unnamed, digest
from einc.cache.versions import source_stamp
from einc.driver import compile_program, elaborate, parse
from einc.pipeline import State

TEXT = "S[i, j] = A[i, d] * B[j, d]\nO[i, e] = softmax[j](S) * C[j, e]"
PROGRAM = elaborate(parse(TEXT))


def only(directory: Path) -> Path:
    """The one entry there is."""
    (found,) = contents.contents(directory)
    return found.path


# ---------------------------------------------------------------------------------------------------------------------
# What is kept is found


def test_what_is_kept_is_found(cache: Path) -> None:
    assert find("programs", ("a", 1), ein.Program) is None
    assert not cache.exists()
    keep("programs", ("a", 1), PROGRAM)
    found = find("programs", ("a", 1), ein.Program)
    assert found == PROGRAM
    assert hash(found) == hash(PROGRAM)
    assert [e.span for e in found.equations] == [e.span for e in PROGRAM.equations]
    assert find("programs", ("a", 2), ein.Program) is None
    assert find("texts", ("a", 1), ein.Program) is None
    assert find("programs", ("a", 1), State) is None


@pytest.mark.usefixtures("cache")
def test_a_program_through_all_passes_is_found() -> None:
    state = compile_program(PROGRAM, 2, TARGETS["sm_90"], {"i": 4096, "j": 4096, "d": 64, "e": 64}).state
    keep("tests", 1, state)
    assert find("tests", 1, State) == state


def test_the_directory_is_the_users_own(cache: Path) -> None:
    keep("programs", 1, PROGRAM)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert only(cache).stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------------------------------------------------------
# Damage


def whole() -> bytes:
    """The bytes of an entry."""
    return only(places.named() or Path()).read_bytes()


@given(cut=st.integers(0, 10_000), flipped=st.integers(0, 80_000), appended=st.binary(max_size=4))
def test_a_damaged_entry_is_made_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flipped: int, appended: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "programs" / digest("damaged")
    path.parent.mkdir(exist_ok=True)
    entries.write(path, PROGRAM)
    data = path.read_bytes()
    broken = bytearray(data)
    broken[flipped // 8 % len(data)] ^= 1 << flipped % 8
    for bad in (data[: cut % len(data)], bytes(broken), data + b"x" + appended):
        path.write_bytes(bad)
        assert entries.read(path) is None
        assert not path.exists()
    entries.write(path, PROGRAM)
    assert entries.read(path) == PROGRAM


def test_an_entry_under_another_name_is_not_read(cache: Path) -> None:
    keep("programs", 1, PROGRAM)
    data = whole()
    keep("programs", 2, PROGRAM)
    for e in contents.contents(cache):
        e.path.write_bytes(data)
    assert [find("programs", k, ein.Program) for k in (1, 2)] == [PROGRAM, None]


@pytest.mark.parametrize("instead", ["folder", "link", "pipe", "empty"])
def test_what_is_no_file_is_made_again(cache: Path, instead: str) -> None:
    keep("programs", 1, PROGRAM)
    path = only(cache)
    path.unlink()
    match instead:
        case "folder":
            (path / "within").mkdir(parents=True)
        case "link":
            path.symlink_to(path.with_name("nowhere"))
        case "pipe":
            os.mkfifo(path)
        case "empty":
            path.touch()
    assert find("programs", 1, ein.Program) is None
    keep("programs", 1, PROGRAM)
    assert find("programs", 1, ein.Program) == PROGRAM


class Harmful:
    """Runs a command where it is unpickled without care."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("value", [Harmful(), os.path.join, pickle.Unpickler, (PROGRAM, Harmful())])
def test_an_entry_calls_nothing_but_classes_of_einc(cache: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    keep("programs", 1, PROGRAM)
    path, content = only(cache), pickle.dumps(value)
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it was called"))
    path.write_bytes(entries._MAGIC + entries._checksum(path, content) + content)
    assert entries.read(path) is None


@dataclass(frozen=True)
class Foreign:
    """No class of einc's."""

    value: int


@pytest.mark.parametrize("value", [Foreign(1), lambda: 1, object(), (1, {2: Foreign(3)})])
def test_what_is_not_einc_s_is_not_kept(cache: Path, value: object) -> None:
    keep("programs", 1, value)
    assert contents.contents(cache) == []


# ---------------------------------------------------------------------------------------------------------------------
# Disks and processes


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("step", ["mkdir", "open", "write", "replace"])
def test_a_disk_that_refuses_is_done_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    keep("programs", 0, PROGRAM)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        match step:
            case "mkdir":
                patched.setattr(Path, "mkdir", refuse)
            case "write":
                patched.setattr(entries, "_checksum", refuse)  # within the `with` that writes
            case _:
                patched.setattr(os, step, refuse)
        keep("programs", 1, PROGRAM)
    assert find("programs", 1, ein.Program) is None
    assert [e.whole for e in contents.contents(cache)] == [True]
    assert find("programs", 0, ein.Program) == PROGRAM


def test_a_directory_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EINC_CACHE", "1")
    for path in ("file", "file/cache"):
        monkeypatch.setenv("EINC_CACHE_DIR", str(tmp_path / path))
        keep("programs", 1, PROGRAM)
        assert find("programs", 1, ein.Program) is None


def test_a_directory_that_others_write_to_is_not_used(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    cache.chmod(0o770)
    keep("programs", 1, PROGRAM)
    assert contents.contents(cache) == []
    cache.chmod(0o755)
    keep("programs", 1, PROGRAM)
    assert find("programs", 1, ein.Program) == PROGRAM
    cache.chmod(0o777)
    assert find("programs", 1, ein.Program) is None


@pytest.mark.parametrize("said", ["0", "off", "No", " false "])
def test_the_cache_can_be_turned_off(cache: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    keep("programs", 1, PROGRAM)
    monkeypatch.setenv("EINC_CACHE", said)
    assert find("programs", 1, ein.Program) is None
    keep("programs", 2, PROGRAM)
    assert len(contents.contents(cache)) == 1


def test_where_the_directory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("EINC_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert places.named() == Path("/home/me/.cache/einc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert places.named() == Path("/caches/einc")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert places.named() == Path("/home/me/.cache/einc")
    monkeypatch.setenv("EINC_CACHE_DIR", "~/mine")
    assert places.named() == Path("/home/me/mine")


def write_many(directory: str, start: int) -> None:
    os.environ.update(EINC_CACHE="1", EINC_CACHE_DIR=directory)
    for n in range(200):
        keep("programs", n % 10, (start, n, PROGRAM))
        found = find("programs", n % 10, tuple)
        assert found is not None
        assert found[2] == PROGRAM


def test_processes_write_at_once(cache: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    writers = [spawned.Process(target=write_many, args=(str(cache), k)) for k in range(3)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert [e.whole for e in contents.contents(cache)] == [True] * 10
    assert all(find("programs", n, tuple) is not None for n in range(10))


def test_what_a_killed_writer_leaves_is_pruned(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("programs", 1, PROGRAM)
    path = only(cache)
    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), 9))
        keep("programs", 2, PROGRAM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    left = [e for e in contents.contents(cache) if not e.whole]
    assert len(left) == 1
    assert contents.prune(cache) == []  # it might still be at work
    old = time.time() - 3600
    os.utime(left[0].path, (old, old))
    assert [e.path for e in contents.prune(cache)] == [left[0].path]
    assert only(cache) == path


# ---------------------------------------------------------------------------------------------------------------------
# Names


def test_equal_values_have_one_name() -> None:
    again = elaborate(parse(TEXT, "elsewhere"))
    assert again.span != PROGRAM.span
    assert digest(again) == digest(PROGRAM)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=2) | st.binary(max_size=2),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=2),
    max_leaves=6,
)


def typed(value: object) -> object:
    """The value with the type of every part, since Python's 1, 1.0 and True are equal."""
    if isinstance(value, tuple):
        return tuple(map(typed, value))
    if isinstance(value, frozenset):
        return frozenset(map(typed, value))
    return type(value), repr(value)


@given(VALUES, VALUES)
def test_names_tell_values_apart(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == (typed(a) == typed(b))


def test_other_types_have_other_names() -> None:
    assert len({digest(x) for x in (BF16, F32, ein.Operand("A", (), F32), ein.Operand("A", (), BF16))}) == 4


def test_objects_of_other_kinds_have_no_name() -> None:
    nested: tuple[object, ...] = ()
    for _ in range(100_000):
        nested = (nested,)
    before = sys.getrecursionlimit()
    for limit in (before, 1_000_000):
        sys.setrecursionlimit(limit)
        try:
            for value in (object(), (1, lambda: 1), nested):
                with pytest.raises(Unnamed):
                    digest(value)
        finally:
            sys.setrecursionlimit(before)


def test_a_changed_source_has_another_stamp(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    file = tmp_path / "room" / "pass.py"
    stamps = set()
    for text, when in (("x = 1", 1), ("x = 2", 2), ("x = 10", 2)):
        file.write_text(text)
        os.utime(file, (when, when))
        stamps.add(source_stamp(str(tmp_path)))
    file.rename(tmp_path / "room" / "other.py")
    stamps.add(source_stamp(str(tmp_path)))
    (tmp_path / "room" / "notes.txt").touch()
    stamps.add(source_stamp(str(tmp_path)))
    assert len(stamps) == 4


# ---------------------------------------------------------------------------------------------------------------------
# How much is kept


def kept_at(cache: Path, *times: float) -> None:
    """Entries that were last used so many days ago."""
    for n, days in enumerate(times):
        before = {e.path for e in contents.contents(cache)}
        keep("programs", n, PROGRAM)
        (new,) = {e.path for e in contents.contents(cache)} - before
        when = time.time() - 86400 * days
        os.utime(new, (when, when))


def remaining(count: int) -> list[int]:
    return [n for n in range(count) if find("programs", n, ein.Program) is not None]


def test_pruning_keeps_what_was_used_last(cache: Path) -> None:
    kept_at(cache, 5, 1, 4, 2, 3)
    size = contents.contents(cache)[0].size
    assert len(contents.prune(cache, to=3 * size)) == 2
    assert remaining(5) == [1, 3, 4]


def test_pruning_by_age(cache: Path) -> None:
    kept_at(cache, 5, 1, 4)
    assert len(contents.prune(cache, older=2 * 86400)) == 2
    assert remaining(3) == [1]


def test_a_use_is_noted(cache: Path) -> None:
    kept_at(cache, 5, 3)
    assert find("programs", 0, ein.Program) == PROGRAM
    size = contents.contents(cache)[0].size
    contents.prune(cache, to=size)
    assert remaining(2) == [0]


def test_entries_take_no_more_than_their_limit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("programs", -1, PROGRAM)
    size = contents.contents(cache)[0].size
    monkeypatch.setenv("EINC_CACHE_SIZE", str(8 * size))
    monkeypatch.setattr(contents, "_LOOKED", "")  # every write looks
    counts = []
    for n in range(30):
        keep("programs", n, PROGRAM)
        counts.append(len(contents.contents(cache)))
    assert max(counts) == 8
    assert min(counts[8:]) == 6
    assert remaining(30)[-5:] == [25, 26, 27, 28, 29]


def test_some_writes_look_whether_there_is_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def nothing(directory: Path) -> list[contents.Entry]:
        looked.append(directory)
        return []

    monkeypatch.setattr(contents, "contents", nothing)
    for n in range(5000):
        contents.make_room(cache, digest(n))
    assert 5 < len(looked) < 50


def test_clearing_leaves_what_is_not_einc_s(cache: Path) -> None:
    kept_at(cache, 0, 0)
    for name in ("mine.txt", "programs/mine.txt"):
        (cache / name).write_text("mine")
    assert len(contents.clear(cache)) == 2
    assert sorted(str(p.relative_to(cache)) for p in cache.rglob("*")) == ["mine.txt", "programs", "programs/mine.txt"]


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("4096", 4096), ("1.5G", 3 << 29), ("512 MiB", 1 << 29), ("2kb", 2048), ("", None), ("much", None), ("-1", None)],
)
def test_sizes_are_read(text: str, bytes_: int | None) -> None:
    assert places.size(text) == bytes_
