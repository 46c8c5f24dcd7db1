"""Sending a run on to MLflow, TensorBoard or W&B while it trains (``training.report_to``).

They are fed from the same events as ``events.jsonl``. A tracker that fails is left behind with a warning: no run dies
because somebody else's server does.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from loramill.errors import NotFoundError
from loramill.experiments.compare import flatten_config
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.metrics import flatten_metrics
from loramill.experiments.models import Status

PROJECT = "loramill"
NOT_A_NUMBER_OF_ITS_OWN = ("type", "step", "epoch", "time", "total_steps")
MLFLOW_PARAM_LENGTH = 6000
MLFLOW_PARAMS_AT_ONCE = 100
MLFLOW_ENDS: dict[str, str] = {Status.SUCCESS: "FINISHED", Status.REVOKED: "KILLED"}


class Tracker(Protocol):
    """One place that a run is reported to."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""

    def finish(self, numbers: Mapping[str, float], *, status: str) -> None:
        """The final numbers, and how the run ended; nothing follows."""


class Trackers:
    """All trackers of one run, fed with its events.

    Args:
        names: ``mlflow``, ``tensorboard``, ``wandb``.
        config: the whole config as plain values.
        warn: told, once each, which tracker failed and why.

    Raises:
        NotFoundError: a tracker's package is not installed; better known before the training than after.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: ExperimentFolder,
        config: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                self._open[name] = _open(name, folder, config)
            except NotFoundError:
                raise
            except Exception as error:  # a server that cannot be reached, a login that is missing
                warn(f"{name} does not receive this run: {type(error).__name__}: {error}")

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Pass on the numbers of a ``log`` or ``eval`` event; others are ours alone."""
        numbers = numbers_of(event)
        if numbers:
            self._each(lambda tracker: tracker.log(numbers, int(event.get("step") or 0)))

    def finish(self, metrics: Mapping[str, Any], *, status: str) -> None:
        """Report the content of ``metrics.json`` and close everything."""
        numbers = flatten_metrics(metrics)
        self._each(lambda tracker: tracker.finish(numbers, status=status))
        self._open.clear()

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                do(tracker)
            except Exception as error:  # whatever a foreign client raises must not end the run
                del self._open[name]
                self._warn(f"{name} no longer receives this run: {type(error).__name__}: {error}")


def numbers_of(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a ``log`` event (as ``train_<name>``) or of an ``eval`` event."""
    if event.get("type") == "log":
        found = {f"train_{name}": value for name, value in event.items() if name not in NOT_A_NUMBER_OF_ITS_OWN}
    elif event.get("type") == "eval":
        found = dict(event.get("metrics") or {})
    else:
        return {}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


class MlflowTracker:
    """A run in MLflow, at ``MLFLOW_TRACKING_URI`` or else in ``mlflow.db`` beside the experiments.

    An experiment that goes on, at the shell or as a worker's next attempt, goes on as the same run there.
    """

    def __init__(self, folder: ExperimentFolder, config: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.path.parent.absolute() / 'mlflow.db'}")
        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(PROJECT)
        experiment_id = known.experiment_id if known else self._client.create_experiment(PROJECT)
        self._run_id = self._reopen(experiment_id, folder.id) or self._begin(experiment_id, folder.id, config)
        self._last_step = 0

    def _reopen(self, experiment_id: str, name: str) -> str | None:
        quote = '"' if "'" in name else "'"
        for run in self._client.search_runs([experiment_id], f"attributes.run_name = {quote}{name}{quote}"):
            self._client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        return None

    def _begin(self, experiment_id: str, name: str, config: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run_id = str(self._client.create_run(experiment_id, run_name=name).info.run_id)
        params = [Param(key, str(value)[:MLFLOW_PARAM_LENGTH]) for key, value in flatten_config(config)]
        for first in range(0, len(params), MLFLOW_PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[first : first + MLFLOW_PARAMS_AT_ONCE], synchronous=True)
        return run_id

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)
        self._last_step = step

    def finish(self, numbers: Mapping[str, float], *, status: str) -> None:
        self.log(numbers, self._last_step)  # the latest step's value is the one that MLflow shows for the run
        with contextlib.redirect_stdout(sys.stderr):  # MLflow prints where the run is to be seen
            self._client.set_terminated(self._run_id, MLFLOW_ENDS.get(status, "FAILED"))


class TensorBoardTracker:
    """Scalars as TensorBoard reads them, in the experiment's ``tensorboard/`` folder; written without torch."""

    def __init__(self, folder: ExperimentFolder, config: Mapping[str, Any]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder.path / "tensorboard"))
        self._last_step = 0

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name.replace("_", "/", 1), simple_value=value) for name, value in numbers.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._last_step = step

    def finish(self, numbers: Mapping[str, float], *, status: str) -> None:
        self.log(numbers, self._last_step)
        self._writer.close()


class WandbTracker:
    """A run in W&B, in the project ``loramill``; ``WANDB_MODE=offline`` keeps it in the experiment's folder."""

    def __init__(self, folder: ExperimentFolder, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=folder.id,
            config=dict(config),
            dir=str(folder.path),
            reinit="create_new",  # the trials of a sweep are open at once
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self, numbers: Mapping[str, float], *, status: str) -> None:
        self._run.summary.update(dict(numbers))
        self._run.finish(exit_code=0 if status == Status.SUCCESS else 1)


TRACKERS: dict[str, Callable[[ExperimentFolder, Mapping[str, Any]], Tracker]] = {
    "mlflow": MlflowTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}


def _open(name: str, folder: ExperimentFolder, config: Mapping[str, Any]) -> Tracker:
    try:
        return TRACKERS[name](folder, config)
    except ImportError as error:
        raise NotFoundError(f"{name} is not installed ({error}).", fix=f"pip install 'loramill[{name}]'") from error
