"""When processes are dead, for whoever ends them or finds what they left."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

import psutil

LOOK_SECONDS = 0.01
SAME_START_SECONDS = 0.05


def process_name() -> str:
    """This process, so that ``lives`` finds it again: host, id, and seconds from the machine's start to its own.

    The last part tells it from a later process with the same id, and no clock that is set changes it.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_seconds_from_boot(psutil.Process()):.2f}"


def lives(name: str) -> bool | None:
    """Whether the process of a ``process_name`` lives; ``None`` for another machine's, which nobody here can know."""
    host, _, rest = name.partition(":")
    number, _, started = rest.partition(":")
    if host != socket.gethostname() or not started:
        return None
    try:
        process = psutil.Process(int(number))
        same = abs(_seconds_from_boot(process) - float(started)) < SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    return same and _lives(process)


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


def _seconds_from_boot(process: psutil.Process) -> float:
    booted = psutil.boot_time()  # first: psutil counts what it says next from here
    return float(process.create_time() - booted)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
