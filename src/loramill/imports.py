"""Importing what is large, such as torch, without what Python usually pays for it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def large_import() -> Iterator[None]:
    """Keep the garbage collector from searching modules for garbage: while they come, later, and at the end.

    What an import makes stays until the process ends. With torch this is an eighth of a second before the first step
    and a quarter of one after the last.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
