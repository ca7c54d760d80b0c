"""What Triton calls its own version by is found again by a second process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from triton.runtime import cache as module

from einc.codegen.run import triton_key


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton as a new process has it."""
    computed = module.triton_key
    while hasattr(computed, "__wrapped__") and not hasattr(computed, "cache_info"):
        computed = computed.__wrapped__
    monkeypatch.setattr(module, "triton_key", computed)
    if hasattr(computed, "cache_clear"):
        computed.cache_clear()
    triton_key.remember.cache_clear()
    yield
    triton_key.remember.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_second_process_reads_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton_key.remember()
    own = module.triton_key()
    assert list(cache.rglob("*"))
    module.triton_key.cache_clear()
    triton_key.remember.cache_clear()
    triton_key.remember()
    assert module.triton_key() == own
    assert not hasattr(module.triton_key, "cache_info")  # it is not what computes it

    def grown(root: Path) -> Iterator[tuple[str, int, int]]:
        yield from files(root)
        yield "another.py", 1, 1

    files = triton_key.files
    monkeypatch.undo()
    monkeypatch.setenv("EINC_CACHE", "1")
    monkeypatch.setenv("EINC_CACHE_DIR", str(cache))
    monkeypatch.setattr(triton_key, "files", grown)
    module.triton_key.cache_clear()
    triton_key.remember.cache_clear()
    triton_key.remember()
    assert module.triton_key.cache_info().currsize == 1  # another installation: computed


@pytest.mark.usefixtures("fresh")
def test_without_a_cache_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINC_CACHE", "0")
    triton_key.remember()
    assert module.triton_key.cache_info().currsize == 1
