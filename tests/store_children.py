"""Children of the tests that write to one database from many processes; in a module that a fresh process can import."""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

from loramill.database import Database
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore, NewExperiment

METRICS = {"train": {"runtime": 1.0}, "eval": {"accuracy": 0.5, "loss": 0.7}}


def run_once(database: Database, experiment_id: str) -> None:
    """Two transactions, as a very short training makes them."""
    with database.transaction() as session:
        ExperimentStore(session).create(NewExperiment(experiment_id, "x", {}, "m", "d", "t"))
    with database.transaction() as session:
        ExperimentStore(session).mark_finished(experiment_id, METRICS)


def write(url: str, writer: int, transactions: int, results: Connection) -> None:
    """Child: write, and send back every error."""
    database, errors = Database(url), []
    for number in range(transactions // 2):
        try:
            run_once(database, f"{writer}-{number}")
        except Exception as error:  # the point of the test is that there is none
            errors.append(repr(error))
    results.send(errors)
    database.close()


def read(url: str, stop: Event, results: Connection) -> None:
    """Child: page through the list until told to stop, and send back every error and the number of pages."""
    database, errors, pages = Database(url), [], 0
    cursor = None
    while not stop.is_set():
        try:
            with database.reading() as session:
                page = ExperimentStore(session).list_page(order=Order("eval_accuracy"), limit=50, cursor=cursor)
            cursor, pages = page.next_cursor, pages + 1
        except Exception as error:
            errors.append(repr(error))
    results.send((errors, pages))
    database.close()


def acknowledge(url: str, first: str, acknowledgements: Connection) -> None:
    """Child: write for ever, and say each id as soon as its transaction is committed."""
    database = Database(url)
    for number in range(10**9):
        run_once(database, f"{first}-{number}")
        acknowledgements.send(f"{first}-{number}")
