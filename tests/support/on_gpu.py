"""Kernels with roles on a GPU, in a process of their own: warps that wait for each other for ever end no other way.

    python -m tests.support.on_gpu    < the text of a program, extents of axes, values of scalars

The largest error of each result is printed, in parts of its largest value.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.support.places import ROOT

SECONDS = 120.0


def errors(text: str, sizes: Mapping[str, int], scalars: Mapping[str, int], roles: bool = True) -> list[float]:
    """Those of a program on the GPU in bf16, against its meaning, where any of its kernels has roles, or none.

    Raises `TimeoutExpired` for one that hangs.
    """
    given = json.dumps([text, dict(sizes), dict(scalars), roles])
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.on_gpu"], input=given, capture_output=True, text=True, timeout=SECONDS,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[float] = json.loads(done.stdout)
    return found


def _measured(text: str, sizes: dict[str, int], scalars: dict[str, int], roles: bool) -> list[float]:
    import torch

    import einc
    from einc import driver
    from einc.driver import elaborate
    from einc.evaluate import evaluate

    exact = elaborate(driver.parse(text))
    torch.manual_seed(0)
    operands: dict[str, Any] = {}
    for p in exact.operands:
        shape = [sizes[d[0]] for d in p.dims]
        whole = torch.sort(torch.randint(0, 4, shape)).values.int()
        drawn = torch.rand if len(shape) == 1 else torch.randn  # what heads have is a decay, or a sink
        operands[p.name] = drawn(shape).bfloat16() if p.dtype.is_float else whole
    values = {n: (t.double() if t.is_floating_point() else t).numpy() for n, t in operands.items()}
    meant = evaluate(exact, values, scalars)
    program = einc.compile(text, generator="gluon", splits=1)
    given: dict[str, Any] = {**{n: t.cuda() for n, t in operands.items()}, **scalars}
    found = program(**given)
    for _ in range(3):  # as launches made again count programs anew
        again = program(**given)
        pairs = zip(again, found, strict=True) if isinstance(found, tuple) else [(again, found)]
        assert all(torch.equal(a, b) for a, b in pairs)
    made = program.compiled(**given).state.schedule
    assert made is not None
    assert any(k.roles is not None for k in made.kernels) == roles
    results = found if isinstance(found, tuple) else (found,)
    return [
        float(abs(f.double().cpu().numpy() - m).max() / max(abs(m).max(), 1e-30))
        for f, m in zip(results, meant, strict=True)
    ]


if __name__ == "__main__":
    print(json.dumps(_measured(*json.load(sys.stdin))))
