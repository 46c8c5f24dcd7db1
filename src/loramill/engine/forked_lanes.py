"""Lanes that are processes: forked copies of this one, which take part of each step of a training.

A step on short texts is thousands of small operations on each core. As threads of one process the lanes wait for
Python's lock at every one of them, which costs a fifth of the time. A forked copy has the base, the rows and all else
of its parent at once and for nothing: the memory of both is one until somebody writes to it.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import torch
from torch import Tensor

Task = TypeVar("Task")
Result = TypeVar("Result")


def can_fork() -> bool:
    """Whether copies of this process work: macOS's libraries break in them, and so does autograd where a GPU is."""
    fits = sys.platform == "linux" and torch.accelerator.current_accelerator() is None
    return fits and not multiprocessing.current_process().daemon  # a daemon may have no children


def shared_memory(count: int, dtype: torch.dtype) -> Tensor:
    """Zeros ``[count]`` that this process and the copies it makes from now on see and write alike."""
    return torch.frombuffer(mmap.mmap(-1, max(1, count) * dtype.itemsize), dtype=dtype)


@dataclass(frozen=True)
class _Copy:
    process: multiprocessing.process.BaseProcess
    connection: Connection


class ForkedLanes(Generic[Task, Result]):
    """``work`` for several tasks at a time: the first one here, each other one in a copy of this process.

    Copies are made when they are first needed, stay until ``close``, and end by themselves when this process does.

    Args:
        work: called with a task and the number of its lane, 0 being this process. A copy knows what was there when it
            was made, and what is in ``shared_memory``. Tasks, results and errors travel pickled.
    """

    def __init__(self, work: Callable[[Task, int], Result]) -> None:
        self._work = work
        self._copies: list[_Copy] = []

    def __len__(self) -> int:
        return 1 + len(self._copies)

    def run(self, tasks: Sequence[Task]) -> list[Result]:
        """Results of all tasks, in order; each lane has its share of the threads.

        Raises:
            Exception: what a task failed with; there are no copies then, and the next call makes new ones.
            MemoryError: a copy was killed, which is what Linux does when memory runs out.
        """
        threads = torch.get_num_threads()
        try:
            while len(self) < len(tasks):
                self._copies.append(self._fork(len(self)))
            share = max(1, threads // len(tasks))
            for copy, task in zip(self._copies, tasks[1:], strict=False):
                with contextlib.suppress(OSError):  # who is gone does not answer either, see there
                    copy.connection.send((share, task))
            torch.set_num_threads(share)
            return [self._work(tasks[0], 0), *map(self._answer, self._copies[: len(tasks) - 1])]
        except BaseException:
            self.close()
            raise
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """End the copies, whatever they are doing."""
        for copy in self._copies:
            copy.process.kill()
            copy.process.join()
            copy.connection.close()
        self._copies.clear()

    def _fork(self, lane: int) -> _Copy:
        """A copy made by a thread of its own: OpenMP, too, starts afresh there."""
        here, there = multiprocessing.Pipe()
        mine = [here, *(copy.connection for copy in self._copies)]
        process = multiprocessing.get_context("fork").Process(
            target=self._serve, args=(there, mine, lane), name=f"lane-{lane}"
        )
        with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads hold nothing that a copy needs
            thread.submit(process.start).result()
        there.close()
        return _Copy(process, here)

    def _answer(self, copy: _Copy) -> Result:
        try:
            answer: Result | _Failure = copy.connection.recv()
        except (EOFError, OSError) as error:
            copy.process.join()
            if copy.process.exitcode == -signal.SIGKILL:
                raise MemoryError("A process that took part of the step was killed.") from error
            raise RuntimeError(f"A process that took part of the step ended with {copy.process.exitcode}.") from error
        if isinstance(answer, _Failure):
            raise answer.error
        return answer

    def _serve(self, connection: Connection, of_parent: Sequence[Connection], lane: int) -> None:
        """What a copy does: task after task, until its parent closes the connection or is gone."""
        for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; it is the parent that decides
            signal.signal(number, signal.SIG_IGN)
        for other in of_parent:  # nobody but the parent may keep them open
            other.close()
        gc.freeze()  # collecting would write to, and so copy, every object
        with contextlib.suppress(EOFError, OSError):
            while True:
                threads, task = connection.recv()
                torch.set_num_threads(threads)
                connection.send(self._attempt(task, lane))

    def _attempt(self, task: Task, lane: int) -> Result | _Failure:
        try:
            return self._work(task, lane)
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            return _Failure(error)


@dataclass(frozen=True)
class _Failure:
    error: Exception
