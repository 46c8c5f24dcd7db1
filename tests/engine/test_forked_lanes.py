"""Copies of the process that compute: same results, same order, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
import torch

from loramill.engine.forked_lanes import ForkedLanes, can_fork, shared_memory

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are not forked here")


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def describe(task: int, lane: int) -> tuple[int, int, int, int]:
    return task, lane, torch.get_num_threads(), os.getpid()


@pytest.fixture
def described() -> Iterator[ForkedLanes[int, tuple[int, int, int, int]]]:
    lanes = ForkedLanes(describe)
    yield lanes
    lanes.close()


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until_gone(pids: list[int]) -> None:
    give_up = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < give_up, "a copy is still there"
        time.sleep(0.01)


def test_each_task_has_a_process_and_its_share_of_the_threads(described: ForkedLanes) -> None:
    found = described.run([5, 6])
    assert [(task, lane, threads) for task, lane, threads, _ in found] == [(5, 0, 2), (6, 1, 2)]
    assert found[0][3] == os.getpid() != found[1][3]
    assert torch.get_num_threads() == 4
    more = described.run([7, 8, 9, 10])
    assert [(task, lane, threads) for task, lane, threads, _ in more] == [(7, 0, 1), (8, 1, 1), (9, 2, 1), (10, 3, 1)]
    assert more[1][3] == found[1][3]
    assert described.run([11]) == [(11, 0, 4, os.getpid())]


def test_a_parallel_product_works_in_a_copy_of_a_process_that_did_one() -> None:
    x = torch.randn(700, 700)
    expected = x @ x
    lanes = ForkedLanes(lambda _task, _lane: bool(torch.equal(x @ x, expected)))
    try:
        assert lanes.run([0, 1]) == [True, True]
    finally:
        lanes.close()


def test_both_see_shared_memory() -> None:
    shared = shared_memory(3, torch.float32)

    def write(task: float, lane: int) -> float:
        shared[lane] = task
        return float(shared[2])

    lanes = ForkedLanes(write)
    try:
        lanes.run([0.0, 0.0])
        shared[2] = 7.0
        assert lanes.run([1.0, 2.0]) == [7.0, 7.0]
    finally:
        lanes.close()
    assert shared.tolist() == [1.0, 2.0, 7.0]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_is_raised_says_where_it_was_and_leaves_no_copy(failing: int) -> None:
    def fail_in(lane_that_fails: int, lane: int) -> int:
        if lane == lane_that_fails:
            raise torch.OutOfMemoryError("no room")
        return os.getpid()

    lanes = ForkedLanes(fail_in)
    copy = lanes.run([-1, -1])[1]
    with pytest.raises(torch.OutOfMemoryError, match="no room") as caught:
        lanes.run([failing, failing])
    assert failing == 0 or "in fail_in" in caught.value.__notes__[0]
    assert not is_running(copy)
    assert torch.get_num_threads() == 4
    assert lanes.run([-1, -1])[0] == os.getpid()
    lanes.close()


def test_a_copy_that_was_killed_reads_as_memory_that_ran_out(described: ForkedLanes) -> None:
    copy = described.run([1, 2])[1][3]
    os.kill(copy, signal.SIGKILL)
    with pytest.raises(MemoryError, match="killed"):
        described.run([1, 2])
    assert described.run([1, 2])[1][3] != copy


def test_a_copy_goes_on_when_the_terminal_tells_all_to_stop(described: ForkedLanes) -> None:
    copy = described.run([1, 2])[1][3]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(copy, number)
    assert described.run([1, 2])[1][3] == copy


def test_copies_end_with_close(described: ForkedLanes) -> None:
    copies = [pid for _, _, _, pid in described.run([1, 2, 3])[1:]]
    described.close()
    assert not any(map(is_running, copies))


PARENT = """
import os, time, torch
from loramill.engine.forked_lanes import ForkedLanes
lanes = ForkedLanes(lambda task, lane: os.getpid())
print(*lanes.run([0, 0, 0])[1:], flush=True)
time.sleep(600)
"""


def test_copies_end_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        copies = [int(word) for word in parent.stdout.readline().split()]
        assert len(copies) == 2
        assert all(map(is_running, copies))
        parent.kill()
    wait_until_gone(copies)
