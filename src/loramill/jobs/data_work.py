"""Asking a process of its own to read data (``data_child``), so that no file can take the service with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loramill.errors import DataTooLargeError, InternalError, LoramillError, OverloadedError
from loramill.jobs.supervise import WORKERS_SECRETS
from loramill.settings import Settings

COMMAND = (sys.executable, "-m", "loramill.jobs.data_child")


class DataWork:
    """Runs operations of ``data_child``, a few at a time.

    Args:
        at_once: processes at the same time; the others wait.
        seconds: longest time of one.
        patience: seconds that a request waits for its turn.
    """

    def __init__(self, settings: Settings, *, at_once: int = 2, seconds: float = 300.0, patience: float = 30.0) -> None:
        self._data_folder = str(settings.data_folder.absolute())
        self._turns = threading.BoundedSemaphore(at_once)
        self._seconds, self._patience = seconds, patience

    def run(self, operation: str, **arguments: Any) -> Any:
        """The result of an operation.

        Raises:
            DataError and the like: as the operation raised it.
            DataTooLargeError: it took too much memory or time.
            OverloadedError: too many others are at it.
        """
        with self.turn() as run:
            return run(operation, **arguments)

    @contextmanager
    def turn(self) -> Iterator[Callable[..., Any]]:
        """``run`` without a wait, for work that must not be refused once it has begun.

        Raises:
            OverloadedError: too many others are at it.
        """
        if not self._turns.acquire(timeout=self._patience):
            raise OverloadedError("Too many data sets are being read.", retry_after=int(self._patience))
        try:
            yield self._run
        finally:
            self._turns.release()

    def _run(self, operation: str, **arguments: Any) -> Any:
        request = {"operation": operation, "data_folder": self._data_folder, **arguments}
        answer = self._ask(json.dumps(request))
        if "error" in answer:
            raise error_from(**answer["error"])
        return answer["result"]

    def _ask(self, request: str) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name not in WORKERS_SECRETS}
        try:
            done = subprocess.run(  # noqa: S603
                COMMAND,
                input=request.encode(),
                stdout=subprocess.PIPE,
                timeout=self._seconds,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DataTooLargeError(
                f"Reading the data takes more than {self._seconds:g} s.", fix="Send it in smaller parts."
            ) from None
        if done.returncode != 0:
            raise DataTooLargeError(
                "Reading the data took more than this service may use, and was ended.", fix="Send it in smaller parts."
            )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def error_from(code: str, message: str, fix: str) -> LoramillError:
    """An error of the process as the same kind of error here."""
    for kind in _kinds(LoramillError):
        if kind.code == code and kind.__init__ is LoramillError.__init__:
            return kind(message, fix=fix)
    return InternalError(f"{code}: {message}", fix=fix)


def _kinds(root: type[LoramillError]) -> Iterator[type[LoramillError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
