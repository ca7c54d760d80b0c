"""`--bless` rewrites golden files; an installation that lacks a source file says so before anything runs.

Every run of the quick tier draws the same numbers and the same programs; `--hypothesis-profile=wide` draws others.
A failure of the steady profile is reported soon, if less small than it might be; the wide one takes its time to shrink.
"""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.internal.conjecture import engine

from tests.support.places import ROOT

settings.register_profile("steady", derandomize=True, phases=[p for p in Phase if p is not Phase.explain])
settings.register_profile("wide", derandomize=False)
settings.load_profile("steady")
SHRINKING = 20  # seconds, for the first random test that fails; every failure halves what the next may take
LONGEST = ("test_random_cascades", "test_every_row_of_the_standard_tables", "test_demo_fits", "test_walkthrough")

PACKAGES = {"einc": "compiler", "einc.frontend": "frontend", "einc.passes": "passes", "einc.codegen": "codegen"}
SUFFIXES = {".py", ".lark", ".ein"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="rewrite what golden files expect")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["EINC_CACHE"] = "0"  # what is tested is made here and now; the tests of the cache give it a place
    if config.getoption("--bless") and os.environ.get("CI"):
        raise pytest.UsageError("--bless rewrites what is expected: a person runs it, never CI")
    if config.getoption("--hypothesis-profile", None) != "wide":
        engine.MAX_SHRINKING_SECONDS = SHRINKING  # of which there is no setting
    if missing := not_installed():
        raise pytest.UsageError(f"not in the editable installation: {', '.join(missing)}; run pip install -e .")


@pytest.hookimpl(tryfirst=True)  # before what is slow is left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that takes turns, the quick tier has a diagonal of its parameters: every value of each, not all pairs.

    What takes longest begins first, or one core would wait for it in the end.
    """
    places: dict[tuple[str, str], dict[int, int]] = {}  # of the values of a test's parameter, by identity
    for item in items:
        turns = item.get_closest_marker("turns")
        if turns is not None and isinstance(item, pytest.Function):
            test = item.nodeid.split("[")[0]
            known = [(places.setdefault((test, n), {}), id(v)) for n, v in item.callspec.params.items()]
            if sum(values.setdefault(v, len(values)) for values, v in known) % turns.args[0]:
                item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.name.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """What imports and thousands of tests have made stays: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Where many fail for one reason, one of them that is small is enough."""
    if report.failed:
        engine.MAX_SHRINKING_SECONDS //= 2


@pytest.fixture(autouse=True)
def seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(params=["torch", "interpret"])
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs operands on the CPU where a call does not say: each way in turn."""
    monkeypatch.setattr("einc.runtime.execution.ON_CPU", request.param)
    if request.param != "torch":  # what an earlier call has left would run by torch
        monkeypatch.setattr("einc.runtime.again.Calls.__call__", lambda *_: None)


def not_installed() -> list[str]:
    """Source files that `import einc` cannot see: a strict editable installation links the files it was made with."""
    import einc

    tree = Path(einc.__path__[0])
    missing = []
    for package, folder in PACKAGES.items():
        installed = tree.joinpath(*package.split(".")[1:])
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in SUFFIXES and not (installed / file.relative_to(ROOT / folder)).exists():
                missing.append(str(file.relative_to(ROOT)))
    return missing
