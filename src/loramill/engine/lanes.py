"""Independent pieces of work side by side on the CPU, each on its own share of the cores.

A batch of short texts is too small for two cores to share every operation: most of them are over before the second core
has woken up. Cut into as many pieces as there are cores, each core works for a whole pass without waiting for another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Result = TypeVar("Result")

LANE_TOKENS = 192
"""A piece is not cut smaller than this: matrix products of fewer rows are slower for each row."""


def lane_count() -> int:
    """How many pieces run side by side: PyTorch's number of threads."""
    return torch.get_num_threads()


def run_in_lanes(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of all tasks, in order. A single task has all threads.

    Raises:
        Exception: the first task's that failed, once none is running any more.
    """
    threads = lane_count()
    if threads == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    share = max(1, threads // len(tasks))
    futures = [_pool(threads).submit(_with_threads, share, task) for task in tasks]
    wait(futures)
    torch.set_num_threads(threads)  # the lanes' number is the default of later threads otherwise
    return [future.result() for future in futures]


@functools.cache
def _pool(lanes: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(lanes, thread_name_prefix="lane")


def _with_threads(threads: int, task: Callable[[], Result]) -> Result:
    torch.set_num_threads(threads)
    return task()
