"""Choices made by measuring: of what the model ranks first, what takes the least time on the device that is there.

    kernels by the model  --candidates, compiled at once, compared, timed-->  an entry of a table  -->  kernels by it

The cost model chooses in milliseconds, for machines that are not here; measuring takes seconds, and only what the model
ranks close to its own choice. A winner is kept under what its program means, apart from names (`keys`), and the name of
the device (`machines`): on disk for this user, or in a table that comes with the package (`tables`). It pins all
choices of its kernels by position (`entries`), so that one table always gives the same kernels; an entry whose kernels
are no longer made is passed over.

Nothing here knows tensors or how a kernel is launched: `runtime` says how candidates are compiled, run and timed.
"""

from einc.tuning import tables
from einc.tuning.entries import Entry, applied
from einc.tuning.modes import OFF, effective
from einc.tuning.sessions import current, session

__all__ = ["OFF", "Entry", "applied", "current", "effective", "session", "tables"]
