"""Processes that train, each with a lifeline: started before there is work, since importing torch takes seconds.

A child waits for one line on its standard input that says what to do, does it, and ends. It is never used twice: what a
run leaves in its memory, its threads and its GPU ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from loramill.process_ends import end_within

GONE_SECONDS = 2.0
"""What the kernel gets to take a killed process away."""


class Child:
    """One process in a group of its own, and the pipe that keeps it alive."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        end, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=end, stdout=subprocess.DEVNULL, env=dict(environment), start_new_session=True
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(end)

    def assign(self, work: Mapping[str, Any]) -> bool:
        """Say what to do. Returns whether it lives to hear it."""
        return self._write(json.dumps(work).encode() + b"\n")

    def keep_alive(self) -> None:
        """To be called every few seconds: a child that hears nothing for long ends itself."""
        self._write(b".")

    def end(self, *, patience: float) -> int:
        """End it and all that it started. Returns its exit code."""
        return end_tree(self.process, patience=patience)

    def close(self) -> None:
        self.end(patience=0.0)
        os.close(self._lifeline)

    def _write(self, content: bytes) -> bool:
        try:
            os.write(self._lifeline, content)
        except OSError:  # it has just ended
            return False
        return True


class Children:
    """Makes children, and keeps some ready.

    Args:
        command: what a child runs.
        ready: how many wait for work.
    """

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], *, ready: int) -> None:
        self._command, self._environment = command, environment
        self._ready = ready
        self._waiting: list[Child] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start as many as are to be ready."""
        with self._lock:
            while len(self._waiting) < self._ready:
                self._waiting.append(Child(self._command, self._environment))

    @contextlib.contextmanager
    def working(self, work: Mapping[str, Any]) -> Iterator[Child]:
        """A child that was told what to do; nothing of it is left when the block ends."""
        child = self._assign(work)
        try:
            yield child
        finally:
            child.close()

    def close(self) -> None:
        """End those that wait."""
        with self._lock:
            self._ready = 0
            while self._waiting:
                self._waiting.pop().close()

    def _assign(self, work: Mapping[str, Any]) -> Child:
        while (child := self._pop()) is not None:
            if child.process.poll() is None and child.assign(work):
                return child
            child.close()
        child = Child(self._command, self._environment)
        child.assign(work)
        return child

    def _pop(self) -> Child | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None


def end_tree(child: subprocess.Popen[bytes], *, patience: float) -> int:
    """Ask a process to end, wait ``patience`` seconds, then kill it and all that it started. Returns its exit code."""
    started = _descendants(child)
    if patience and child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in started:  # those that left the group
        with contextlib.suppress(psutil.Error):
            process.kill()
    end_within(started, GONE_SECONDS)
    return child.wait()


def _descendants(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        return []
