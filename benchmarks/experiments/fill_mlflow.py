"""Fill an MLflow database through MLflow's own store: the other side of ``list_pages.py``.

One run costs MLflow about 12 ms on a memory disk, so 100,000 take some twenty minutes; a second start goes on where
the first one stopped. With ``--times`` the rows that MLflow wrote to an SQLite file are there so many times in the end,
as runs with ids and metric values of their own. With ``--copy-from`` the rows of one database are copied into the
tables that MLflow made in another.

    python benchmarks/experiments/fill_mlflow.py sqlite:////dev/shm/mlflow.db --runs 20000 --times 5
    python benchmarks/experiments/fill_mlflow.py postgresql+psycopg://... --copy-from sqlite:////dev/shm/mlflow.db
"""

from __future__ import annotations

import argparse
import random
import tempfile

from generate import DATASETS, METRICS, MODELS
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import MetaData, create_engine, insert, select, text

EXPERIMENT = "many"


def fill(store: SqlAlchemyStore, runs: int, metrics: int, seed: int = 0) -> None:
    """Add runs with the names, parameters and metrics that ``generate.fill`` gives ours."""
    experiment = store.get_experiment_by_name(EXPERIMENT)
    experiment_id = experiment.experiment_id if experiment else store.create_experiment(EXPERIMENT)
    draw = random.Random(seed)
    for number in range(count(store, experiment_id), runs):
        started = 1_735_689_600_000 + 60_000 * number
        run = store.create_run(experiment_id, f"user{draw.randrange(200)}", started, [], f"baseline_{number}")
        values = [Metric(name, draw.random(), started, 0) for name in METRICS[:metrics]]
        params = [Param("model.name", draw.choice(MODELS)), Param("data.dataset_name", draw.choice(DATASETS))]
        store.log_batch(run.info.run_id, values, params, [RunTag("team", f"team-{number % 20}")])
        store.update_run_info(run.info.run_id, RunStatus.FINISHED, started + 60_000, None)


def count(store: SqlAlchemyStore, experiment_id: str) -> int:
    """Runs that are there already."""
    total, token = 0, None
    while True:
        page = store.search_runs([experiment_id], "", ViewType.ALL, max_results=50_000, page_token=token)
        total, token = total + len(page), page.token
        if not token:
            return total


def copy(source_url: str, target_url: str) -> None:
    """Copy every row of an MLflow database into another one that MLflow has just made."""
    source, target = create_engine(source_url), create_engine(target_url)
    tables = MetaData()
    tables.reflect(target)
    with source.connect() as reading, target.begin() as writing:
        for table in reversed(tables.sorted_tables):
            if table.name != "alembic_version":
                writing.execute(table.delete())
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            for rows in reading.execution_options(yield_per=5_000).execute(select(table)).mappings().partitions():
                writing.execute(insert(table), [dict(row) for row in rows])


def multiply(url: str, times: int) -> None:
    """Copy the runs of an SQLite database ``times - 1`` times, with random ids and metric values."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMP TABLE known AS SELECT run_uuid FROM runs"))
        for _ in range(times - 1):
            connection.execute(
                text("CREATE TEMP TABLE ids AS SELECT run_uuid AS old, lower(hex(randomblob(16))) AS new FROM known")
            )
            connection.execute(text("CREATE INDEX temp.ids_new ON ids (new)"))
            for name in ("runs", "params", "tags", "metrics"):
                columns = [column.name for column in tables.tables[name].columns]
                given = ", ".join(COPIED.get((name, column), f"rows.{column}") for column in columns)
                connection.execute(
                    text(
                        f"INSERT INTO {name} ({', '.join(columns)}) SELECT {given} "
                        f"FROM {name} AS rows JOIN ids ON ids.old = rows.run_uuid"
                    )
                )
            columns = ", ".join(column.name for column in tables.tables["latest_metrics"].columns)
            connection.execute(
                text(f"INSERT INTO latest_metrics ({columns}) SELECT {columns} FROM metrics JOIN ids ON new = run_uuid")
            )
            connection.execute(text("DROP TABLE ids"))


COPIED = {
    **{(table, "run_uuid"): "ids.new" for table in ("runs", "params", "tags", "metrics")},
    ("metrics", "value"): "abs(random() % 1000000) / 1000000.0",
}


def analyze(url: str) -> None:
    """Gather the planner's statistics, as ``generate.py`` does for ours."""
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("ANALYZE"))


def open_store(url: str) -> SqlAlchemyStore:
    return SqlAlchemyStore(url, tempfile.gettempdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=len(METRICS))
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--copy-from")
    arguments = parser.parse_args()
    if arguments.copy_from:
        open_store(arguments.url)
        copy(arguments.copy_from, arguments.url)
    else:
        fill(open_store(arguments.url), arguments.runs, arguments.metrics)
        multiply(arguments.url, arguments.times)
    analyze(arguments.url)


if __name__ == "__main__":
    main()
