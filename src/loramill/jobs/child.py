"""The process that trains: ``python -m loramill.jobs.child``, told on its standard input what to do (``children``).

It has a process of its own, so that a crash, the memory and the threads of a run are never those of the worker, and
so that cancelling it is killing it. Its standard input is the worker's lifeline (``supervise``) from then on.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import LoramillError
from loramill.jobs.execute import execute_training
from loramill.jobs.execute_sweep import execute_sweep
from loramill.jobs.folders import restore_folder
from loramill.jobs.job_tables import JobKind
from loramill.jobs.lease import GIVE_UP_SECONDS, Claim
from loramill.jobs.retries import fail_or_retry, with_code
from loramill.settings import Settings

NICE = 10
"""On a machine that also serves people, training takes the time that they leave; alone it takes all of it."""


def main() -> None:
    """Wait for work, do it, and record how it ended; only a run that was asked to stop is left to the worker.

    The process ends with exit code 1 after an error, so that the worker sees to it that the events tell of it.
    """
    os.nice(NICE)
    import loramill.sweeps.run  # torch and all that follows: this is what a child does before there is work

    del loramill
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    claim = hear_work()
    threading.Thread(target=die_with_worker, name="lifeline", daemon=True).start()
    settings = Settings.load()
    database = Database(settings.effective_database_url)
    try:
        do(claim, settings, database, stop)
    except SQLAlchemyError:  # the database is away, which passes: for the worker this child was lost
        raise
    except Exception as error:
        logging.warning("%s: %s", claim.experiment_id, error, exc_info=not isinstance(error, LoramillError))
        record_error(database, claim, error)
        sys.exit(1)
    finally:
        database.close()


def do(claim: Claim, settings: Settings, database: Database, stop: threading.Event) -> None:
    """Run the job of a claim."""
    if claim.kind == JobKind.SWEEP:
        execute_sweep(claim, settings=settings, database=database, should_stop=stop.is_set)
        return
    execute_training(
        restore_folder(database, settings, claim.experiment_id),
        settings=settings,
        database=database,
        on_event=lambda _event: None,
        should_stop=stop.is_set,
        resume=claim.resume,
        claim=claim,
    )


def record_error(database: Database, claim: Claim, error: Exception) -> None:
    """Note an error that came before the job's record was open, or after it was closed.

    Changes nothing when the row says already how the attempt ended, or is somebody else's by now.
    """
    with database.transaction() as session:
        fail_or_retry(session, claim, with_code(error))


def hear_work() -> Claim:
    """The first line of standard input; ends the process when the worker ends before there is one."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)  # what follows the line belongs to the lifeline
        if not byte:
            sys.exit(0)
        line += byte
    work = json.loads(line)
    if work.get("gpu") is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = work["gpu"]  # CUDA looks at it when it is first used, which is later
    return Claim(work["job"], work["attempt"], work["resume"], time.monotonic(), JobKind(work["kind"]))


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
    main()
