"""Ends or fails a process at its n-th write, fsync, rename, mkdir or unlink: around the real calls, never instead."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal

Fault = Literal["kill", "disk full"]
CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


class FaultInjector:
    """Counts the calls that change the disk, and lets one of them fail.

    Args:
        fail_at: 1-based number of the call that fails; 0 only counts.
    """

    def __init__(self, fault: Fault = "kill", fail_at: int = 0) -> None:
        self._fault, self._fail_at = fault, fail_at
        self.calls: list[str] = []

    def before(self, name: str) -> None:
        """Note a call; the one to fail does not come back."""
        self.calls.append(name)
        if len(self.calls) == self._fail_at:
            if self._fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def installed(self) -> Iterator[FaultInjector]:
        """While it is open, every call of this process is seen."""
        real: dict[tuple[Any, str], Callable[..., Any]] = {(os, name): getattr(os, name) for name in CALLS}
        real[io, "open"] = io.open
        for (module, name), call in real.items():
            setattr(module, name, self._opened(call) if name == "open" else self._seen(name, call))
        try:
            yield self
        finally:
            for (module, name), call in real.items():
                setattr(module, name, call)

    def _seen(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*arguments: Any, **options: Any) -> Any:
            self.before(name)
            return call(*arguments, **options)

        return seen

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            handle = call(file, mode, *arguments, **options)
            return _WatchedFile(handle, self) if "w" in mode or "a" in mode or "+" in mode else handle

        return opened


class _WatchedFile:
    """A file whose failing write leaves the first half on the disk, as a real one may."""

    def __init__(self, file: Any, injector: FaultInjector) -> None:
        self._file, self._injector = file, injector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        self._injector.before("write")
        return int(self._file.write(data[len(data) // 2 :]))
