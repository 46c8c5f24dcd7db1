"""One page of 100,000 experiments, filtered and sorted by a metric: loramill beside MLflow on the same database kind.

Both are asked in this process, in turn (ours, MLflow's, ours), for the first page and for page 1,000 of 50 rows:
evaluation accuracy above a bound that some 60% pass, best macro F1 first. Fill the databases with ``generate.py`` and
``fill_mlflow.py`` first; both gather the planner's statistics (on SQLite MLflow's query takes minutes without them).

    python benchmarks/experiments/list_pages.py sqlite:////tmp/many.db sqlite:////tmp/mlflow.db
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

from fill_mlflow import EXPERIMENT
from mlflow.entities import ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.search_utils import SearchUtils

from loramill.database import Database
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore

ROWS = 50
OUR_BOUND, MLFLOW_BOUND = 0.7, 0.4
"""Our accuracies lie evenly in 0.5..1, those in MLflow in 0..1: both bounds let 60% pass."""

GOAL_MS = 20.0
GOAL_RATIO = 100.0


class Ours:
    """Pages through ``ExperimentStore``, a session each, as a request would."""

    def __init__(self, url: str, deep_page: int) -> None:
        self.database = Database(url)
        self.wanted, self.order = ExperimentFilter(min_accuracy=OUR_BOUND), Order("eval_f1_macro")
        self.deep = self._cursor_of_page(deep_page)

    def page(self, cursor: str | None) -> int:
        with self.database.reading() as session:
            page = ExperimentStore(session).list_page(self.wanted, order=self.order, limit=ROWS, cursor=cursor)
        return len(page.items)

    def _cursor_of_page(self, page: int) -> str:
        """Where a page begins; cursors hold whatever size of pages led to them."""
        cursor, left = None, (page - 1) * ROWS
        while left:
            step = min(left, 1_000)
            with self.database.reading() as session:
                store = ExperimentStore(session)
                cursor = store.list_page(self.wanted, order=self.order, limit=step, cursor=cursor).next_cursor
            left -= step
        return cursor


class Mlflow:
    """Pages through the store behind MLflow's ``search_runs``, without its server."""

    def __init__(self, url: str, deep_page: int) -> None:
        self.store = SqlAlchemyStore(url, tempfile.gettempdir())
        self.experiment_id = self.store.get_experiment_by_name(EXPERIMENT).experiment_id
        self.deep = SearchUtils.create_page_token((deep_page - 1) * ROWS)

    def page(self, token: str | None) -> int:
        return len(self._search(ROWS, token))

    def _search(self, rows: int, token: str | None) -> object:
        return self.store.search_runs(
            [self.experiment_id],
            f"metrics.eval_accuracy >= {MLFLOW_BOUND}",
            ViewType.ACTIVE_ONLY,
            max_results=rows,
            order_by=["metrics.eval_f1_macro DESC"],
            page_token=token,
        )


def measure(ours: Ours, mlflow: Mlflow, rounds: int, ours_per_round: int) -> dict[str, dict[str, float]]:
    """Durations in milliseconds, taken in turn, so that a busy minute of the machine falls on both."""
    taken: dict[str, list[tuple[float, float]]] = {}
    turns = [("loramill", ours, ours_per_round), ("mlflow", mlflow, 2), ("loramill", ours, ours_per_round)]
    for _ in range(rounds):
        for who, side, times in turns:
            for place, cursor in (("first page", None), ("deep page", side.deep)):
                taken.setdefault(f"{who}, {place}", []).extend(timed(side.page, cursor) for _ in range(times))
    return {name: summary(durations) for name, durations in taken.items()}


def timed(page: Callable[[str | None], int], cursor: str | None) -> tuple[float, float]:
    """Milliseconds on the clock, and of this process's CPU (of SQLite too; PostgreSQL's server counts elsewhere)."""
    start, cpu = time.perf_counter(), time.process_time()
    assert page(cursor) == ROWS
    return (time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3


def summary(durations: list[tuple[float, float]]) -> dict[str, float]:
    clock, cpu = zip(*durations, strict=True)
    return {
        "n": len(durations),
        "p50": statistics.median(clock),
        "p99": quantile(clock, 0.99),
        "cpu_p50": statistics.median(cpu),
        "cpu_p99": quantile(cpu, 0.99),
    }


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("mlflow")
    parser.add_argument("--deep-page", type=int, default=1_000, help="smaller databases have no page 1,000")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ours-per-round", type=int, default=50)
    arguments = parser.parse_args()
    sides = Ours(arguments.ours, arguments.deep_page), Mlflow(arguments.mlflow, arguments.deep_page)
    figures = measure(*sides, arguments.rounds, arguments.ours_per_round)
    for place in ("first page", "deep page"):
        mine, theirs = figures[f"loramill, {place}"], figures[f"mlflow, {place}"]
        figures[f"ratio, {place}"] = {key: theirs[key] / mine[key] for key in ("p50", "p99", "cpu_p50")}
    figures["load"] = dict(zip(("1 min", "5 min", "15 min"), os.getloadavg(), strict=True))
    print(json.dumps({"goal": {"p99_ms": GOAL_MS, "ratio": GOAL_RATIO}, **figures}, indent=2))


if __name__ == "__main__":
    main()
