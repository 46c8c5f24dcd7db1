"""``logs.txt``: what happened in a run, one readable line an event.

    2026-11-23T14:40:01.123456Z INFO    data loaded  rows=8604 source=sample:movie_reviews

A log belongs to one run and is handed to it. Nothing is registered globally, so two runs in one process never write
into each other's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from loramill.files import named_storage_errors
from loramill.redaction import HIDDEN, is_secret_name, one_line, redact

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@contextlib.contextmanager
def open_run_log(path: Path, level: Level = "INFO") -> Iterator[FilteringBoundLogger]:
    """A logger that appends to ``path``: ``log.info("data loaded", rows=500)``.

    Times are UTC. Control characters and line ends in messages and values are escaped, and secrets are hidden, so
    that no text of a user can forge a line. The traceback of ``log.exception`` follows indented. Any thread may log.

    Args:
        path: the file; its folder exists.
        level: what is less important is dropped.

    Raises:
        StorageError: the file cannot be opened. Later a line that the disk refuses is lost: a log never ends a run.
    """
    with named_storage_errors(path):
        file = path.open("ab", buffering=0)
    with file:
        yield structlog.wrap_logger(
            LineFile(file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
            cache_logger_on_first_use=False,
        )


class LineFile:
    """Writes each text as a line of an unbuffered file, whatever method (level) it is called by."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # ValueError: a thread logs after the run's end
            self._file.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = exception = msg


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    time, level, message = (str(event.pop(key, "")) for key in ("timestamp", "level", "event"))
    trace = str(event.pop("exception", "")).splitlines()
    values = " ".join(f"{one_line(key)}={_shown(key, value)}" for key, value in event.items())
    line = f"{time} {level.upper():<7} {one_line(redact(message))}{'  ' if values else ''}{values}"
    return line + "".join(f"\n    | {one_line(redact(part))}" for part in trace)


def _shown(key: str, value: object) -> str:
    """A value as one word, quoted when it would not be one."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if isinstance(value, str) and is_secret_name(key):
        return HIDDEN
    text = redact(text)
    if not text or any(character in text for character in ' "='):
        text = json.dumps(text, ensure_ascii=False)
    return one_line(text)
