"""The process that trains: ``python -m loramill.jobs.child EXPERIMENT ATTEMPT RESUME``.

It has a process of its own, so that a crash, the memory and the threads of a run are never those of the worker, and
so that cancelling it is killing it. Its standard input is the worker's lifeline (``supervise``).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time

from loramill.database import Database
from loramill.errors import LoramillError
from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.execute import execute_training
from loramill.jobs.lease import GIVE_UP_SECONDS, Claim
from loramill.settings import Settings


def main(experiment_id: str, attempt: int, resume: bool) -> None:
    """Train, and record how it ended; only a run that was asked to stop is left to the worker to record."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    threading.Thread(target=die_with_worker, name="lifeline", daemon=True).start()
    settings = Settings.load()
    database = Database(settings.effective_database_url)
    try:
        execute_training(
            ExperimentFolder.open(settings.results_folder, experiment_id),
            settings=settings,
            database=database,
            on_event=lambda _event: None,
            should_stop=stop.is_set,
            resume=resume,
            claim=Claim(experiment_id, attempt, resume, claimed_at=time.monotonic()),
        )
    except LoramillError as error:  # in the row already, or the row is somebody else's by now
        logging.warning("%s: %s", experiment_id, error)
    finally:
        database.close()


def die_with_worker() -> None:
    """End this process and its own children when the worker is gone, or was silent for too long.

    A worker that is frozen cannot kill what it started, and by the time it thaws somebody else may do the work.
    """
    lifeline = sys.stdin.fileno()
    while True:
        heard, _, _ = select.select([lifeline], [], [], GIVE_UP_SECONDS)
        if not heard or not os.read(lifeline, 4096):
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume")
