"""What tests of integrations need: transformers, quiet and with einc registered, and one thread for tiny models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    from einc.integrations.transformers import register

    transformers.logging.set_verbosity_error()
    register()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
