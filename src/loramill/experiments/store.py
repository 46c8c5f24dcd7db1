"""Every question to, and every change of, the experiment record. No SQL is written elsewhere.

A store works in the session of its caller and never commits: transactions open at the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from loramill.config.schema import ExperimentConfig
from loramill.errors import ConflictError, NotFoundError
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.metrics import flatten_metrics
from loramill.experiments.models import FINISHED, DataLink, Experiment, ExperimentConfigRow, Metric, Status, Tag
from loramill.experiments.search import ExperimentPage, Order, find_page
from loramill.experiments.summaries import ExperimentSummary, summarize


@dataclass(frozen=True)
class NewExperiment:
    """What is known of an experiment when it is submitted."""

    id: str
    name: str
    config: Mapping[str, Any]
    model_name: str
    dataset_name: str
    task: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    owner: str | None = None
    source: str = "loramill"
    sweep_id: str | None = None
    parent_id: str | None = None
    parent_relation: str | None = None
    task_id: str | None = None
    idempotency_key: str | None = None
    priority: int = 0

    @classmethod
    def from_config(cls, experiment_id: str, config: ExperimentConfig, **known: Any) -> NewExperiment:
        """The row of a run of ours; ``known`` are further fields, such as ``owner``."""
        data = config.data
        return cls(
            id=experiment_id,
            name=config.experiment_name,
            config=config.model_dump(mode="json"),
            model_name=config.model.name,
            dataset_name=f"{data.dataset_name}/{data.dataset_config}" if data.dataset_config else data.dataset_name,
            task=config.lora.task_type,
            **known,
        )


class ExperimentStore:
    """The experiments in one database session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, new: NewExperiment) -> Experiment:
        """Add a PENDING experiment.

        Raises:
            ConflictError: the id is taken.
        """
        if self.find(new.id) is not None:
            raise ConflictError(f"Experiment {new.id!r} exists already.")
        fields = {name: value for name, value in vars(new).items() if name != "config"}
        config_row = ExperimentConfigRow(value=dict(new.config))
        experiment = Experiment(**fields, folder=new.id, status=Status.PENDING, config_row=config_row)
        self._session.add(experiment)
        self._session.flush()
        return experiment

    def find(self, experiment_id: str) -> Experiment | None:
        return self._session.scalar(select(Experiment).where(Experiment.id == experiment_id))

    def get(self, experiment_id: str) -> Experiment:
        """
        Raises:
            NotFoundError: no experiment has this id.
        """
        experiment = self.find(experiment_id)
        if experiment is None:
            raise NotFoundError(f"No experiment {experiment_id!r}.", fix="See `loramill experiments list`.")
        return experiment

    def get_summary(self, experiment_id: str) -> ExperimentSummary:
        """One experiment as lists show it, with its metrics and tags."""
        return summarize(self._session, [self.get(experiment_id).number])[0]

    def list_page(
        self,
        wanted: ExperimentFilter | None = None,
        *,
        order: Order | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ExperimentPage:
        """One page of the experiments that pass the filter; see ``search.find_page``."""
        return find_page(self._session, wanted or ExperimentFilter(), order or Order(), limit, cursor)

    def mark_started(self, experiment_id: str, *, attempt: int | None = None) -> None:
        """Note that work began. ``attempt`` fences this and every later mark: see ``_change``."""
        self._change(experiment_id, attempt, status=Status.STARTED, started_at=datetime.now(UTC))

    def mark_progress(
        self, experiment_id: str, progress: Mapping[str, Any] | None = None, *, attempt: int | None = None
    ) -> None:
        """Note how far the run is, as data for whoever watches it."""
        self._change(experiment_id, attempt, status=Status.PROGRESS, progress=dict(progress or {}))

    def mark_finished(self, experiment_id: str, metrics: Mapping[str, Any], *, attempt: int | None = None) -> None:
        """Note success, with the content of ``metrics.json``."""
        self._change(experiment_id, attempt, status=Status.SUCCESS, finished_at=datetime.now(UTC))
        self.record_metrics(experiment_id, metrics)

    def mark_failed(self, experiment_id: str, code: str, message: str, *, attempt: int | None = None) -> None:
        """Note failure, with the code and the message of the error that caused it."""
        self._change(
            experiment_id,
            attempt,
            status=Status.FAILURE,
            finished_at=datetime.now(UTC),
            error_code=code,
            error_message=message,
        )

    def mark_revoked(self, experiment_id: str, *, attempt: int | None = None) -> None:
        """Note that a person or a signal stopped it."""
        self._change(experiment_id, attempt, status=Status.REVOKED, finished_at=datetime.now(UTC))

    def mark_resumed(self, experiment_id: str) -> None:
        """Open a finished experiment again, for ``--resume``: what ended it before is forgotten."""
        experiment = self.get(experiment_id)
        experiment.status = Status.STARTED
        experiment.finished_at = experiment.error_code = experiment.error_message = None
        self._session.flush()

    def record_metrics(self, experiment_id: str, metrics: Mapping[str, Any]) -> None:
        """Replace an experiment's metrics by the flattened content of ``metrics.json``."""
        experiment = self.get(experiment_id)
        flat = flatten_metrics(metrics)
        self._session.execute(delete(Metric).where(Metric.experiment_number == experiment.number))
        self._session.add_all(Metric(experiment_number=experiment.number, name=n, value=v) for n, v in flat.items())
        experiment.train_runtime = flat.get("train_runtime")
        experiment.eval_accuracy = flat.get("eval_accuracy")
        self._session.flush()

    def metrics(self, experiment_id: str) -> dict[str, float]:
        """Every metric of one experiment, by name."""
        number = self.get(experiment_id).number
        rows = self._session.execute(
            select(Metric.name, Metric.value).where(Metric.experiment_number == number).order_by(Metric.name)
        )
        return dict(rows.tuples())

    def link_data(self, experiment_id: str, role: str, version_ids: Iterable[str]) -> None:
        """Record the data versions that an experiment trained (``train``) or evaluated (``eval``) on."""
        number = self.get(experiment_id).number
        for version_id in version_ids:
            self._session.merge(DataLink(experiment_number=number, role=role, version_id=version_id))
        self._session.flush()

    def tags(self, experiment_id: str) -> list[str]:
        number = self.get(experiment_id).number
        return list(self._session.scalars(select(Tag.name).where(Tag.experiment_number == number).order_by(Tag.name)))

    def _change(self, experiment_id: str, attempt: int | None, **values: Any) -> None:
        """Write to a row that is not finished, and only for the holder of the current attempt, in one UPDATE.

        Raises:
            NotFoundError: no experiment has this id.
            ConflictError: it is finished, or another attempt took it over.
        """
        statement = update(Experiment).where(Experiment.id == experiment_id, Experiment.status.not_in(FINISHED))
        if attempt is not None:
            statement = statement.where(Experiment.attempt == attempt)
        changed = self._session.execute(
            statement.values(**values).returning(Experiment.number), execution_options={"synchronize_session": "fetch"}
        )
        if changed.first() is None:
            experiment = self.get(experiment_id)
            state = f"it is {experiment.status}, attempt {experiment.attempt}"
            raise ConflictError(f"Experiment {experiment_id!r} was not changed: {state}.")
