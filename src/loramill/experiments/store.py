"""Every question to, and every change of, the experiment record.

A store works in the session of its caller and never commits: transactions open at the edge. The queries of lists are
in ``search``, those of totals in ``statistics``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from loramill.config.schema import ExperimentConfig, is_storable
from loramill.errors import ConfigError, ConflictError, NotFoundError, Problem
from loramill.experiments.filters import UNSTORABLE, ExperimentFilter
from loramill.experiments.metrics import flatten_metrics
from loramill.experiments.models import (
    FINISHED,
    DataLink,
    Experiment,
    ExperimentConfigRow,
    Metric,
    ModelAlias,
    Status,
    Tag,
)
from loramill.experiments.search import ExperimentPage, Order, find_page
from loramill.experiments.statistics import (
    ExperimentStatistics,
    GroupStatistics,
    MetricStatistics,
    group_statistics,
    metric_statistics,
    overall_statistics,
)
from loramill.experiments.summaries import ExperimentSummary, summarize

MAX_TAG = 255
MAX_NAME = 255


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
    language: str | None = None
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
        dataset_name = f"{data.dataset_name}/{data.dataset_config}" if data.dataset_config else data.dataset_name
        return cls(
            id=experiment_id,
            name=config.experiment_name,
            config=config.model_dump(mode="json"),
            model_name=config.model.name[:MAX_NAME],  # of long paths lists show the beginning; the config has all
            dataset_name=dataset_name[:MAX_NAME],
            task=config.lora.task_type,
            **known,
        )


ADD_EXPERIMENT = insert(Experiment).returning(Experiment.number)
ADD_CONFIG = insert(ExperimentConfigRow)


class ExperimentStore:
    """The experiments in one database session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def session(self) -> Session:
        """For what has to happen in the same transaction."""
        return self._session

    def create(self, new: NewExperiment) -> None:
        """Add a PENDING experiment.

        Raises:
            ConflictError: the id is taken; the transaction is over.
        """
        fields = {name: value for name, value in vars(new).items() if name != "config"}
        connection = self._session.connection()  # without objects: every submit waits for these two
        try:
            number = connection.scalar(ADD_EXPERIMENT, {**fields, "folder": new.id, "status": Status.PENDING})
        except IntegrityError as error:
            raise ConflictError(f"Experiment {new.id!r} exists already.") from error
        connection.execute(ADD_CONFIG, {"experiment_number": number, "value": dict(new.config)})

    def find(self, experiment_id: str) -> Experiment | None:
        if not is_storable(experiment_id):
            return None
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

    def newest(self, status: Status = Status.SUCCESS) -> ExperimentSummary | None:
        """The newest experiment with a status, which is what ``make serve`` means without an id."""
        page = self.list_page(ExperimentFilter(status=status), limit=1)
        return page.items[0] if page.items else None

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

    def statistics(self, wanted: ExperimentFilter | None = None) -> ExperimentStatistics:
        """Totals over the experiments that pass the filter."""
        return overall_statistics(self._session, wanted or ExperimentFilter())

    def statistics_by(
        self, column: str, metric: str = "eval_accuracy", wanted: ExperimentFilter | None = None
    ) -> list[GroupStatistics]:
        """One line a group, such as ``model_name`` or ``dataset_name``: how its runs did by a metric."""
        return group_statistics(self._session, column, metric, wanted or ExperimentFilter())

    def metric_statistics(self, wanted: ExperimentFilter | None = None) -> list[MetricStatistics]:
        """One line a metric: how it is spread over the experiments that pass the filter."""
        return metric_statistics(self._session, wanted or ExperimentFilter())

    def mark_started(self, experiment_id: str, *, process: str | None = None) -> None:
        """Note that work began where no worker claimed it, and by which process (``process_ends.process_name``)."""
        self._change(experiment_id, status=Status.STARTED, started_at=datetime.now(UTC), worker=process)

    def mark_progress(
        self, experiment_id: str, progress: Mapping[str, Any] | None = None, *, attempt: int | None = None
    ) -> None:
        """Note how far the run is, as data for whoever watches it.

        ``attempt`` fences this and every later mark of a worker: see ``_change``.
        """
        self._change(experiment_id, attempt, status=Status.PROGRESS, progress=dict(progress or {}))

    def mark_finished(self, experiment_id: str, metrics: Mapping[str, Any], *, attempt: int | None = None) -> None:
        """Note success, with the content of ``metrics.json``."""
        self._change(experiment_id, attempt, status=Status.SUCCESS, finished_at=datetime.now(UTC))
        self.record_metrics(experiment_id, metrics)

    def mark_failed(self, experiment_id: str, code: str, message: str) -> None:
        """Note the failure of a run without a worker, with the code and the message of the error that caused it."""
        ended: dict[str, Any] = {"status": Status.FAILURE, "finished_at": datetime.now(UTC)}
        self._change(experiment_id, **ended, error_code=code, error_message=message.replace("\0", ""))

    def mark_revoked(self, experiment_id: str, *, attempt: int | None = None) -> None:
        """Note that a person or a signal stopped it."""
        self._change(experiment_id, attempt, status=Status.REVOKED, finished_at=datetime.now(UTC))

    def mark_resumed(self, experiment_id: str) -> None:
        """Open an experiment again, for ``--resume``: what ended it before is forgotten.

        Raises:
            ConflictError: a worker has it, or will take it; or another process at a shell has it.
        """
        experiment = self.get(experiment_id)
        if experiment.is_at_a_shell:
            raise ConflictError(
                f"{experiment_id!r} is {experiment.status}: the process {experiment.worker} is at work on it.",
                fix="Wait for its end, or stop it with Ctrl-C there.",
            )
        if experiment.task_id is not None and experiment.status not in FINISHED:
            raise ConflictError(
                f"{experiment_id!r} is {experiment.status}, and its job is in the queue.", fix="Cancel the job first."
            )
        experiment.status = Status.STARTED
        experiment.finished_at = experiment.error_code = experiment.error_message = None
        experiment.worker = experiment.lease_until = None  # of whoever had it before
        experiment.cancel_requested = False
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

    def link_data(self, experiment_id: str, role: str, version_ids: Iterable[str]) -> None:
        """Record the data versions that an experiment trained (``train``) or evaluated (``eval``) on."""
        number = self.get(experiment_id).number
        for version_id in version_ids:
            self._session.merge(DataLink(experiment_number=number, role=role, version_id=version_id))
        self._session.flush()

    def data_of(self, experiment_id: str) -> dict[str, list[str]]:
        """Role -> data versions of one experiment."""
        number = self.get(experiment_id).number
        versions: dict[str, list[str]] = {}
        statement = select(DataLink.role, DataLink.version_id).where(DataLink.experiment_number == number)
        for role, version_id in self._session.execute(statement.order_by(DataLink.role, DataLink.version_id)):
            versions.setdefault(role, []).append(version_id)
        return versions

    def set_parent(self, experiment_id: str, parent_id: str, relation: str) -> None:
        """Name the experiment that this one repeats or goes on from, and how (``reproduce``)."""
        experiment = self.get(experiment_id)
        experiment.parent_id, experiment.parent_relation = parent_id, relation
        self._session.flush()

    def set_notes(self, experiment_id: str, notes: str) -> None:
        """
        Raises:
            ConfigError: the text holds a character that no database can.
        """
        if not is_storable(notes):
            raise ConfigError([Problem("notes", ascii(notes)[:40], UNSTORABLE)], source="notes")
        self.get(experiment_id).notes = notes
        self._session.flush()

    def set_archived(self, experiment_id: str, archived: bool) -> None:
        """Hide an experiment from plain lists, or show it again."""
        self.get(experiment_id).archived = archived
        self._session.flush()

    def add_tags(self, experiment_id: str, tags: Iterable[str]) -> None:
        """Put labels on an experiment; those it has already stay.

        Raises:
            ConfigError: a tag is empty or longer than 255 characters.
        """
        number = self.get(experiment_id).number
        wanted = [tag.strip() for tag in tags]
        wrong = [tag for tag in wanted if not (0 < len(tag) <= MAX_TAG and is_storable(tag))]
        if wrong:
            message = f"use 1 to {MAX_TAG} plain characters"
            raise ConfigError([Problem("tag", ascii(tag)[:40], message) for tag in wrong], source="tags")
        for tag in wanted:
            self._session.merge(Tag(experiment_number=number, name=tag))
        self._session.flush()

    def remove_tags(self, experiment_id: str, tags: Iterable[str]) -> None:
        number = self.get(experiment_id).number
        self._session.execute(delete(Tag).where(Tag.experiment_number == number, Tag.name.in_(list(tags))))

    def delete(self, experiment_id: str) -> None:
        """Remove an experiment's row and all that hangs on it; its folder is another matter (see ``deletion``).

        Raises:
            ConflictError: it is at work, in production, or named by an alias.
        """
        experiment = self.get(experiment_id)
        self._session.refresh(experiment, with_for_update=True)  # no worker takes it between this look and the end
        if experiment.status in (Status.STARTED, Status.PROGRESS) and not experiment.is_abandoned:
            raise ConflictError(f"Experiment {experiment_id!r} is {experiment.status}.", fix="Cancel it first.")
        alias = self._session.scalar(
            select(ModelAlias.name).where(ModelAlias.experiment_number == experiment.number).limit(1)
        )
        if alias or experiment.stage == "production":
            held = f"named by the alias {alias!r}" if alias else "in production"
            raise ConflictError(f"Experiment {experiment_id!r} is {held}.", fix="Move that to another model first.")
        self._session.delete(experiment)
        self._session.flush()

    def _change(self, experiment_id: str, attempt: int | None = None, **values: Any) -> None:
        """Write to a row that is not finished, and only for the holder of the current attempt, in one UPDATE.

        Raises:
            NotFoundError: no experiment has this id.
            ConflictError: it is finished, or another attempt took it over.
        """
        statement = update(Experiment).where(Experiment.id == experiment_id, Experiment.status.not_in(FINISHED))
        if attempt is not None:
            at_work = Experiment.status.in_((Status.STARTED, Status.PROGRESS))  # not one that waits to be taken again
            statement = statement.where(Experiment.attempt == attempt, at_work)
        changed = self._session.execute(
            statement.values(**values).returning(Experiment.number), execution_options={"synchronize_session": "fetch"}
        )
        if changed.first() is None:
            experiment = self.get(experiment_id)
            state = f"it is {experiment.status}, attempt {experiment.attempt}"
            raise ConflictError(f"Experiment {experiment_id!r} was not changed: {state}.")
