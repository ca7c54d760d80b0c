"""Stories of texts at given sizes, for the tests of `explain`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import einc
from einc import driver
from einc.base.targets import INTERPRETER
from einc.ein import Program
from einc.explain import Story, story
from einc.present.data import story_data
from einc.trials.request import Request
from einc.trials.running import story_for

ATTENTION = 'softmax("bihd,bjhd->bhij" / sqrt(|d|)) * "bjhd->bihd"'
MATMUL = "bik,bkj->bij"
LAYERNORM = "def f(x[i, j], w[j, e]):\n    O[i, e] = layernorm[j](x) * w[j, e]\n    return O"


def told(text: str, sizes: Mapping[str, int], level: int = 2, **scalars: Any) -> Story:
    """The story of a text for operands of these sizes that need not be there."""
    return story_for(einc.compile(text, level), Request(sizes, {}, scalars))


def told_of(program: Program, sizes: Mapping[str, int], scalars: Mapping[str, Any]) -> Story:
    """The story of a program as elaborated."""
    levels = [driver.compile_program(program, n, INTERPRETER, sizes) for n in (0, 1, 2)]
    return story(program.name, levels, sizes, 2, scalars)


def data(s: Story) -> Any:
    """What a reader of the JSON gets."""
    return json.loads(json.dumps(story_data(s), allow_nan=False))
