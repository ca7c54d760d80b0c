"""Work shared out over the cores: each worker computes whole boxes, with torch on one thread.

Torch's own threads synchronise after every operation. Workers do so once a kernel, which takes as long on idle cores
and a tenth of the time on cores that other processes use too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")

_ALONE = threading.Lock()  # the number of torch's threads is a setting of the whole process


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="einc")


def _forked() -> None:
    """Forget the threads: a forked process has none of them."""
    global _ALONE
    _ALONE = threading.Lock()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def share_out(tasks: Sequence[T], worker: Callable[[], Callable[[T], None]], most: int = 0) -> None:
    """Do all tasks, each worker with a function of its own; in the caller's thread if workers would not gain time.

    There are `most` workers, or as many as torch has threads; one leaves each operation to these. Records no gradients.
    """
    count = min(most or torch.get_num_threads(), torch.get_num_threads(), len(tasks))
    if count < 2 or not _ALONE.acquire(blocking=False):
        _work(tasks, worker())
        return
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    waiting: SimpleQueue[T] = SimpleQueue()
    for task in reversed(tasks):  # under a causal mask the last take longest, and should not be done last
        waiting.put(task)
    torch.set_num_threads(1)
    others: list[Future[None]] = []
    try:
        for _ in range(count - 1):
            others.append(_pool(threads - 1).submit(_drain, waiting, worker(), inference))
        _drain(waiting, worker(), inference)
    finally:
        wait(others)
        torch.set_num_threads(threads)
        _ALONE.release()
    for other in others:
        other.result()


def by_one(tasks: Iterable[T], do: Callable[[T], None]) -> None:
    """Do all tasks in the caller's thread alone: for work that is done before another thread wakes."""
    threads = torch.get_num_threads()
    if threads == 1 or not _ALONE.acquire(blocking=False):
        _work(tasks, do)
        return
    torch.set_num_threads(1)
    try:
        _work(tasks, do)
    finally:
        torch.set_num_threads(threads)
        _ALONE.release()


def _work(tasks: Iterable[T], do: Callable[[T], None]) -> None:
    for task in tasks:
        do(task)


def _drain(waiting: SimpleQueue[T], do: Callable[[T], None], inference: bool) -> None:
    """Do the waiting tasks; if one fails, no worker goes on."""
    with torch.inference_mode(inference), torch.no_grad():
        while (task := _next(waiting)) is not None:
            try:
                do(task)
            except BaseException:
                while _next(waiting) is not None:
                    pass
                raise


def _next(waiting: SimpleQueue[T]) -> T | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None
