"""Workers for the survival test: real processes that take ids from a real queue and work on them step by step.

Started as a script, it makes one worker for each line that it reads, and prints the worker's process id. Forking a
process that has imported everything already makes it cheap to kill hundreds of them.

Arguments: database URL, port of the queue, number of steps of a job, folder for what was done.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import valkey

from loramill.database import Database
from loramill.errors import ConflictError
from loramill.experiments.store import ExperimentStore
from loramill.jobs.lease import Claim, LeaseKeeper, LeaseState, claim, record_checkpoint

STEP_SECONDS = 0.04


def work(url: str, port: int, steps: int, done: Path) -> None:
    database = Database(url)
    queue = valkey.Valkey(port=port)
    while True:
        message = queue.brpop(["jobs"], timeout=1)
        if message is None:
            continue
        with database.transaction() as session:
            taken = claim(session, message[1].decode(), worker=str(os.getpid()))
        if taken is not None:
            train(database, taken, steps, done)


def train(database: Database, taken: Claim, steps: int, done: Path) -> None:
    """Each step is a checkpoint: what is repeated after a kill is one step at most."""
    with database.reading() as session:
        first = (ExperimentStore(session).get(taken.experiment_id).progress or {"step": 0})["step"]
    log = done / f"{taken.experiment_id}.{taken.attempt}"
    with LeaseKeeper(database, taken, renew_seconds=0.1, give_up_seconds=0.8) as keeper:
        for step in range(first + 1, steps + 1):
            if keeper.state != LeaseState.HELD:
                return
            time.sleep(STEP_SECONDS)
            with log.open("a") as file:
                file.write(f"{step}\n")
            try:
                with database.transaction() as session:
                    ExperimentStore(session).mark_progress(taken.experiment_id, {"step": step}, attempt=taken.attempt)
                    record_checkpoint(session, taken)
            except ConflictError:
                return
    try:
        with database.transaction() as session:
            ExperimentStore(session).mark_finished(taken.experiment_id, {}, attempt=taken.attempt)
        (done / f"{taken.experiment_id}.{taken.attempt}.finished").touch()
    except ConflictError:
        return


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed workers leave no zombies
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
