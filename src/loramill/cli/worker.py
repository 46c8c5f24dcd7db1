"""``loramill worker``: do the jobs that wait in the queue."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from loramill.settings import Settings

app = typer.Typer()


@app.command()
def worker(
    slots: Annotated[int, typer.Option(min=1, help="Jobs at the same time; a GPU is shared by all of them.")] = 1,
) -> None:
    """Do jobs until SIGTERM or Ctrl-C: then running ones save a checkpoint and go on at another worker."""
    from loramill.tasks.worker import run_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    run_worker(Settings.load(), slots=slots)
