"""``loramill worker``: do the jobs that wait in the queue."""

from __future__ import annotations

import logging
import socket
from typing import Annotated

import typer

from loramill.cli.listening import bind
from loramill.settings import Settings

app = typer.Typer()


@app.command()
def worker(
    slots: Annotated[int, typer.Option(min=1, help="Jobs at the same time; a GPU is shared by all of them.")] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether a worker of this machine takes jobs (exit code 0 or 1).")
    ] = False,
) -> None:
    """Do jobs until SIGTERM or Ctrl-C: then running ones save a checkpoint and go on at another worker."""
    if check:
        raise typer.Exit(0 if is_present(Settings.load()) else 1)
    from loramill.tasks.worker import run_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    for of_others in ("alembic", "celery"):  # they tell of each step and message; the worker's own lines are of jobs
        logging.getLogger(of_others).setLevel(logging.WARNING)
    settings = Settings.load()
    if settings.worker_metrics_port is not None:
        address, port = settings.worker_metrics_address, settings.worker_metrics_port
        bind(address, port, named="LORAMILL_WORKER_METRICS_PORT").close()
    run_worker(settings, slots=slots)


def is_present(settings: Settings) -> bool:
    """Whether a worker of this machine takes jobs; a container's machine is the container."""
    from loramill.tasks.broker import RemoteBroker
    from loramill.tasks.worker import present_workers

    if not settings.redis_url:
        typer.echo("There is no REDIS_URL: `loramill up` looks after the workers of the embedded queue.", err=True)
        return False
    own = f"{socket.gethostname()}:"
    present = any(name.startswith(own) for name in present_workers(RemoteBroker(settings.redis_url)))
    typer.echo("A worker takes jobs." if present else "No worker of this machine takes jobs.")
    return present
