"""Which kernels read from which: joining kernels must not make this graph cyclic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations

from einc.ein import Equation
from einc.passes.streaming.walks import computed_from, tensors_read
from einc.pipeline.plan import Planned


class Flow:
    """The flow of tensors among some kernels, each known by its number."""

    def __init__(self, plans: Sequence[Planned]) -> None:
        self.plans = tuple(plans)
        self.reads = [_union(_read(eq) for eq in p.equations) for p in plans]
        maker = {t.name: n for n, p in enumerate(plans) for eq in p.equations for t in eq.outputs}
        self.sources = [_makers(read, maker, n) for n, read in enumerate(self.reads)]
        computed = [_union(computed_from(eq) for eq in p.equations) for p in plans]
        self.computed = [_makers(read, maker, n) for n, read in enumerate(computed)]
        self.upstream = [_reached(n, self.sources) for n in range(len(plans))]

    def candidates(self) -> Iterator[list[Planned]]:
        """Groups to join: a kernel with each that it reads from, with all upstream of it, with all that read from it.

        A group is left out if a kernel outside both reads from it and is read by it.
        """
        for n in range(len(self.plans)):
            above = _reached(n, self.computed)
            below = [m for m, read in enumerate(self.computed) if n in read]
            several = [[*above, n]] * (len(above) > 1) + [[n, *below]] * (len(below) > 1)
            for group in [*([m, n] for m in self.computed[n]), *several]:
                if self.is_convex(group):
                    yield [self.plans[k] for k in group]

    def siblings(self) -> Iterator[list[Planned]]:
        """Pairs of kernels that read a tensor alike, not both contractions, which need tiles.

        They go over the same axes in the same way, or one reduces what the other computes at every position.
        """
        spaces = [({*p.batch, *p.rows, *p.columns}, {*p.walked, *p.whole, *chain(*p.inner)}) for p in self.plans]
        contracts = [bool(p.columns and p.walked) for p in self.plans]
        for n, m in combinations(range(len(self.plans)), 2):
            (grid, reduced), (other, along) = spaces[n], spaces[m]
            same = spaces[n] == spaces[m] or (grid | reduced == other | along and not (reduced and along))
            alike = same and self.reads[n] & self.reads[m]
            if alike and not (contracts[n] and contracts[m]) and self.is_convex([n, m]):
                yield [self.plans[n], self.plans[m]]

    def is_convex(self, group: Iterable[int]) -> bool:
        """Is there no kernel outside the group that both reads from it and is read by it?"""
        inside = set(group)
        above = {k for n in inside for k in self.upstream[n]} - inside
        return not any(inside & set(self.upstream[k]) for k in above)

    @property
    def is_ordered(self) -> bool:
        """Is there an order in which each kernel comes after those that it reads from?"""
        return not any(n in above for n, above in enumerate(self.upstream))

    def ordered(self) -> Iterator[Planned]:
        """The kernels, each after those it reads from."""
        done: list[int] = []
        while len(done) < len(self.plans):
            ready = (n for n in range(len(self.plans)) if n not in done and set(self.sources[n]) <= set(done))
            done.append(next(ready))
            yield self.plans[done[-1]]


@lru_cache(maxsize=4096)
def _read(eq: Equation) -> frozenset[str]:
    return frozenset(tensors_read(eq.expressions()))


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)


def _makers(read: frozenset[str], maker: dict[str, int], own: int) -> list[int]:
    """The kernels that compute the tensors read, without the reader itself."""
    return list(dict.fromkeys(maker[name] for name in sorted(read) if maker.get(name, own) != own))


def _reached(n: int, sources: list[list[int]]) -> list[int]:
    """Everything upstream of a kernel, nearest first."""
    found = list(sources[n])
    for m in found:
        found += [k for k in sources[m] if k not in found]
    return found
