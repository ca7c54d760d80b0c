"""Every golden file gives what it says."""

from pathlib import Path

import pytest

from tests.support import golden
from tests.support.places import GOLDEN


@pytest.mark.parametrize("path", golden.collect(), ids=lambda p: str(p.relative_to(GOLDEN)))
def test_golden(path: Path, request: pytest.FixtureRequest) -> None:
    case = golden.read(path)
    if request.config.getoption("--bless"):
        golden.bless(case)
    else:
        assert golden.outcome(case) == case.expected


@pytest.mark.parametrize("line", ["# after=hoist levle=1", "# level=1", "# call A=f32[2,", "# check 3"])
def test_unknown_flags_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"flag|nothing to do"):
        golden.parse_flags(line)


def test_flags() -> None:
    flags = golden.parse_flags("# call A=f32[2,3] B=bf16[] window=3 scale=-0.5")
    assert flags.facts["A"].shape == (2, 3)
    assert flags.facts["B"].shape == ()
    assert flags.scalars == {"window": 3, "scale": -0.5}
    flags = golden.parse_flags("# after=hoist level=1 size i=16,j=32")
    assert (flags.stage, flags.level, flags.sizes) == ("hoist", 1, {"i": 16, "j": 32})
