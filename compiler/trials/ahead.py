"""What is to be timed, compiled beforehand by several processes, which leave their kernels in the caches on disk.

What breaks a process breaks none but its own: a kernel that reads where it must not leaves a GPU's context useless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic

from einc.api import compile
from einc.trials.bench import Prediction, predicted, reason
from einc.trials.contests import Contest

Make = Callable[[], Sequence[Contest]]

_RUNS = 3  # the first, the one that writes down what calls come to, and one made by that


@dataclass(slots=True)
class _Worker:
    """A process and the contest that it runs."""

    process: BaseProcess
    contest: int


def compile_ahead(make: Make, count: int, processes: int, seconds: float) -> dict[int, Prediction | str | None]:
    """Run each of the first contests, in so many processes and for so many seconds at most.

    `make` makes the contests anew in each process: a function of a module, or a `functools.partial` of one. Gives, by
    position, the predictions for those that ran, None for one that has none, and what went wrong for one that failed.
    """
    found: dict[int, Prediction | str | None] = {}
    workers: dict[Connection, _Worker] = {}
    waiting = iter(range(count))
    for at in (at for _, at in zip(range(processes), waiting, strict=False)):
        _start(make, workers, at)
    end = monotonic() + seconds
    while workers and (ready := wait(list(workers), max(end - monotonic(), 0))):
        for connection in ready:
            assert isinstance(connection, Connection)
            worker = workers.pop(connection)
            try:
                found[worker.contest], well = connection.recv()
            except EOFError:
                found[worker.contest], well = "the process that ran it died", False
            following = next(waiting, None)
            if following is not None and well:
                connection.send(following)
                workers[connection] = _Worker(worker.process, following)
            else:
                connection.close()
                worker.process.join()
                if following is not None:
                    _start(make, workers, following)
    for connection, worker in workers.items():
        connection.close()
        worker.process.kill()
        worker.process.join()
    return dict(sorted(found.items()))


def _start(make: Make, workers: dict[Connection, _Worker], at: int) -> None:
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_work, args=(make, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.send(at)
    workers[ours] = _Worker(process, at)


def _work(make: Make, connection: Connection) -> None:
    """Run contests as they are asked for, until nobody asks; says of each whether this process is still well."""
    import torch
    import torch._inductor.config

    torch.set_num_threads(1)
    torch._inductor.config.compile_threads = 1
    contests = make()
    while True:
        try:
            at = connection.recv()
        except EOFError:
            return
        found = _run(contests[at])
        try:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            connection.send((found, True))
        except RuntimeError as error:
            connection.send((reason(error), False))


def _run(contest: Contest) -> Prediction | str | None:
    import torch

    torch.compiler.reset()
    try:
        program, operands = compile(contest.text, contest.level), contest.operands()
        way = contest.own(program)(operands)[0]
        for _ in range(_RUNS):
            way()
        for peer in contest.peers.values():  # what they compile is on disk as well
            with suppress(Exception):  # which is said when it is timed
                peer(operands)[0]()
        device = next(iter(operands.values())).device
        if device.type == "cuda":
            torch.cuda.synchronize()
        return None if contest.gradient else predicted(contest, program, operands, device)
    except Exception as error:  # anything may fail
        return reason(error)
