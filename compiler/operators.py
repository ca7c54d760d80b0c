"""The operators of torch that programs are called through: importing this defines them.

    import einc.operators
    torch.export.load("model.pt2")

A process that calls a program has them already; one that only loads a graph with programs in it has not.
"""

from __future__ import annotations

from einc import api, einsums
from einc.runtime import operator

__all__ = ["api", "einsums", "operator"]
