from __future__ import annotations

import subprocess
import sys
import time

import psutil

from loramill.process_ends import end_within


def test_a_zombie_and_a_process_that_is_gone_are_dead_and_one_that_sleeps_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        started = time.monotonic()
        assert not end_within([process], 0.2)
        assert time.monotonic() - started >= 0.2
        child.kill()
        assert end_within([process], 5)  # nobody has waited for it yet
        assert process.status() == psutil.STATUS_ZOMBIE
    assert end_within([process], 0)
