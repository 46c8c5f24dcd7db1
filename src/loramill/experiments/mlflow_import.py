"""Runs that MLflow recorded, read through MLflow's own client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from loramill.database import Database
from loramill.errors import NotFoundError, UnavailableError
from loramill.experiments.importers import ForeignRun, Warn, add_foreign_runs, log
from loramill.experiments.models import Status
from loramill.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MLFLOW_STATUS = {
    "FINISHED": Status.SUCCESS,
    "FAILED": Status.FAILURE,
    "KILLED": Status.REVOKED,
    "RUNNING": Status.FAILURE,
    "SCHEDULED": Status.FAILURE,
}
"""A run that was still open when it was brought in has no worker here that could finish it."""

RETRIES = "3"
"""Of a request to a server that does not answer, unless the environment says otherwise; MLflow's own 7 take minutes."""

MODEL_KEYS = ("model.name", "model_name", "model_name_or_path", "base_model")
DATASET_KEYS = ("data.dataset_name", "dataset_name", "dataset")


def import_mlflow(
    database: Database,
    results_folder: Path,
    tracking_uri: str,
    *,
    experiment_name: str | None = None,
    warn: Warn = log.warning,
) -> list[str]:
    """Bring in the runs of an MLflow tracking server or database, read through MLflow's own client.

    Args:
        warn: see ``add_foreign_runs``.

    Returns:
        ids of the experiments that were added; runs that came earlier are passed over.

    Raises:
        NotFoundError: MLflow is not installed, or has no experiment of this name.
        UnavailableError: the server or database cannot be read.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise NotFoundError("MLflow is not installed.", fix="pip install 'loramill[mlflow]'") from error
    with _named_server_errors(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        experiments = client.search_experiments()
    wanted = [one.experiment_id for one in experiments if experiment_name in (None, one.name)]
    if experiment_name and not wanted:
        known = ", ".join(one.name for one in experiments)
        raise NotFoundError(f"MLflow has no experiment {experiment_name!r}.", fix=f"It has: {known}.")
    return add_foreign_runs(database, results_folder, _read_runs(client, wanted, tracking_uri), warn)


def _read_runs(client: MlflowClient, experiment_ids: list[str], tracking_uri: str) -> Iterator[ForeignRun]:
    with _named_server_errors(tracking_uri):
        for run in _mlflow_runs(client, experiment_ids):
            yield _from_mlflow(client, run)


@contextlib.contextmanager
def _named_server_errors(tracking_uri: str) -> Iterator[None]:
    """Raises ``UnavailableError`` for whatever keeps MLflow's client from reading."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = redact(str(error)).strip().partition("\n")[0][:300]
        raise UnavailableError(
            f"MLflow at {redact(tracking_uri)} cannot be read: {reason}",
            fix="Start its server, or correct the URI: http://HOST:PORT, or sqlite:///FILE.",
        ) from error


def _mlflow_runs(client: MlflowClient, experiment_ids: list[str]) -> Iterator[Run]:
    token = None
    while experiment_ids:
        page = client.search_runs(experiment_ids, max_results=1000, page_token=token, order_by=["start_time ASC"])
        yield from page
        token = page.token
        if not token:
            return


def _from_mlflow(client: MlflowClient, run: Run) -> ForeignRun:
    info, data = run.info, run.data
    tags = (f"{key}={value}" for key, value in sorted(data.tags.items()) if not key.startswith("mlflow."))
    created = datetime.fromtimestamp(info.start_time / 1000, UTC)
    return ForeignRun(
        source="mlflow",
        origin=f"mlflow:{info.run_id}",
        name=info.run_name or info.run_id,
        status=MLFLOW_STATUS.get(info.status, Status.FAILURE),
        created_at=created,
        finished_at=datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else None,
        parameters=data.params,
        metrics={_plain_metric(name): value for name, value in data.metrics.items()},
        events=_mlflow_events(client, run),
        owner=(info.user_id or None),
        tags=tuple(tag[:255] for tag in tags),
        model_name=_first(data.params, MODEL_KEYS),
        dataset_name=_first(data.params, DATASET_KEYS),
    )


def _mlflow_events(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    """The history of every metric that has one, as events of evaluation."""
    events = []
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        if len(history) > 1:
            events += [
                {"time": m.timestamp / 1000, "type": "eval", "step": m.step, "metrics": {_plain_metric(name): m.value}}
                for m in history
            ]
    return sorted(events, key=lambda event: event["time"])


def _plain_metric(name: str) -> str:
    """``eval/accuracy`` and ``eval.accuracy`` are our ``eval_accuracy``."""
    return name.replace("/", "_").replace(".", "_")


def _first(parameters: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(parameters[key]) for key in keys if parameters.get(key)), "unknown")
