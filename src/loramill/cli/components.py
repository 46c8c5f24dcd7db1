"""Processes that belong together: started together, replaced when one dies, and ended together."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psutil

END_SECONDS = 10.0
"""What components get to end by themselves: a worker gives a child half of it to save a checkpoint."""

LOOK_SECONDS = 0.1
MAX_REST_SECONDS = 30.0


@dataclass
class Component:
    """One process of the product.

    Args:
        arguments: of ``loramill``.
        answers: whether it does its work.
        where: shown to people.
    """

    name: str
    arguments: Sequence[str]
    answers: Callable[[], bool]
    where: str
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    rest_until: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """In a session of its own, so that Ctrl-C at the terminal is told by us, and once."""
        command = [sys.executable, "-c", "from loramill.cli.main import main; main()", *self.arguments]
        self.process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)  # noqa: S603

    def replace_if_dead(self) -> int | None:
        """Start it again after a while that grows with each death. Returns the exit code when it has just died."""
        if self.process is not None and self.process.poll() is not None:
            exit_code, self.process = self.process.returncode, None
            self.rest_until = time.monotonic() + min(MAX_REST_SECONDS, 0.5 * 2**self.deaths)
            self.deaths += 1
            return exit_code
        if self.process is None and time.monotonic() >= self.rest_until:
            self.start()
        return None


@contextlib.contextmanager
def running(components: Sequence[Component]) -> Iterator[None]:
    """Started; nothing of them, and of what they started, is left at the end."""
    try:
        for component in components:
            component.start()
        yield
    finally:
        _end([component.process for component in components if component.process is not None])


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    family = [member for process in processes for member in _family(process)]
    for process in processes:
        process.terminate()
    until = time.monotonic() + END_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()
    for process in processes:
        process.wait()


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        first = psutil.Process(process.pid)
        return [*first.children(recursive=True), first]
    except psutil.Error:
        return []


def in_home(home: os.PathLike[str]) -> None:
    """Components started from now on work on this home, wherever they are started."""
    os.environ["LORAMILL_HOME"] = str(home)
