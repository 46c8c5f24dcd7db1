"""Runs that MLflow recorded, read through MLflow's own client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramill.database import Database
from loramill.errors import NotFoundError
from loramill.experiments.importers import ForeignRun, add_foreign_runs
from loramill.experiments.models import Status

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

MODEL_KEYS = ("model.name", "model_name", "model_name_or_path", "base_model")
DATASET_KEYS = ("data.dataset_name", "dataset_name", "dataset")


def import_mlflow(
    database: Database, results_folder: Path, tracking_uri: str, *, experiment_name: str | None = None
) -> list[str]:
    """Bring in the runs of an MLflow tracking server or database, read through MLflow's own client.

    Returns:
        ids of the experiments that were added; runs that came earlier are passed over.

    Raises:
        NotFoundError: MLflow is not installed, or has no experiment of this name.
    """
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise NotFoundError("MLflow is not installed.", fix="pip install 'loramill[mlflow]'") from error
    client = MlflowClient(tracking_uri=tracking_uri)
    experiments = client.search_experiments()
    wanted = [one.experiment_id for one in experiments if experiment_name in (None, one.name)]
    if experiment_name and not wanted:
        known = ", ".join(one.name for one in experiments)
        raise NotFoundError(f"MLflow has no experiment {experiment_name!r}.", fix=f"It has: {known}.")
    runs = (_from_mlflow(client, run) for run in _mlflow_runs(client, wanted))
    return add_foreign_runs(database, results_folder, runs)


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
