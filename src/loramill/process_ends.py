"""When processes are dead, for whoever ends them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

LOOK_SECONDS = 0.01


def end_within(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait until all are dead, and say whether that was in time.

    A zombie is dead, whenever its parent, which may be init by then, takes notice; some never do.
    """
    until = time.monotonic() + seconds
    while any(_lives(process) for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
