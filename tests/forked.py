"""Processes of their own that need not import torch: forked from a server that has, and that runs no threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

KILLED = -9
PRELOADED = ["loramill.training.run", "loramill.cli.train", "loramill.jobs.execute", "alembic.command", "peft"]


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Run a function of an importable module in a new process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def run(function: Callable[..., object], *arguments: object) -> int:
    """The exit code of a function in a new process: 0, ``KILLED``, or 1 for an exception."""
    process = start(function, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode
