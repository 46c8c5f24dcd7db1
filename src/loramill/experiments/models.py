"""Tables of the experiment record.

``experiment`` is the truth about a run, from the moment it is submitted; the folder holds its files.
Rows are linked by a small integer (``number``); people, files and the API use the readable ``id``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from loramill.database import Base, Number, UtcDateTime
from loramill.process_ends import lives


class Status(StrEnum):
    """States of an experiment, in Celery's words."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    PROGRESS = "PROGRESS"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


FINISHED = frozenset({Status.SUCCESS, Status.FAILURE, Status.REVOKED})

SORTABLE = ("created_at", "folded_name", "train_runtime", "eval_accuracy")
GROUPING = ("status", "owner", "model_name", "dataset_name", "sweep_id")
"""Columns that readers filter by, newest first; their indices carry the time for that."""


class QueueColumns:
    """What a row needs to wait in the queue, to be worked on by one worker at a time, and to say how it ended."""

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(255), unique=True)
    status: Mapped[str] = mapped_column(String(16), default=Status.PENDING)
    owner: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0", doc="Fences writes of a worker that lost it.")
    worker: Mapped[str | None] = mapped_column(String(255), doc="A worker, or at the shell the process, that has it.")
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="A retry waits until then.")
    setbacks: Mapped[int] = mapped_column(
        default=0, server_default="0", doc="Attempts in a row that ended early and saved no checkpoint."
    )
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    resume: Mapped[bool] = mapped_column(default=False, server_default=false(), doc="Start from the last checkpoint.")
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    @property
    def is_abandoned(self) -> bool:
        """Whether it is at work for a process of this machine that is gone; one with a lease is the reaper's matter."""
        return self._shell_lives() is False

    @property
    def is_at_a_shell(self) -> bool:
        """Whether a process of this machine is at work on it that is no worker."""
        return self._shell_lives() is True

    def _shell_lives(self) -> bool | None:
        at_work = self.status in (Status.STARTED, Status.PROGRESS)
        return lives(self.worker) if at_work and self.lease_until is None and self.worker is not None else None


def _fold_name(context: Any) -> str:
    name: str = context.get_current_parameters()["name"]
    return name.casefold()


class Experiment(QueueColumns, Base):
    """One run: what was asked for, how it went, where it stands in the queue, and its place in the registry."""

    __tablename__ = "experiment"

    name: Mapped[str] = mapped_column(String(255))
    folded_name: Mapped[str] = mapped_column(String(255), default=_fold_name, doc="For search and sort in any case.")
    folder: Mapped[str] = mapped_column(Text, doc="Path of the files, relative to the results folder.")
    model_name: Mapped[str] = mapped_column(String(255))
    dataset_name: Mapped[str] = mapped_column(String(255))
    task: Mapped[str] = mapped_column(String(32))
    language: Mapped[str | None] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(32), default="loramill", doc="loramill, or where it was imported from.")
    train_runtime: Mapped[float | None] = mapped_column(Float(53), doc="Seconds.")
    eval_accuracy: Mapped[float | None] = mapped_column(Float(53))
    notes: Mapped[str] = mapped_column(Text, default="")
    archived: Mapped[bool] = mapped_column(default=False, server_default=false())
    sweep_id: Mapped[str | None] = mapped_column(String(255))
    parent_id: Mapped[str | None] = mapped_column(String(255), doc="Experiment that this one repeats or goes on from.")
    parent_relation: Mapped[str | None] = mapped_column(String(16), doc="reproduce, or whatever made it a child.")
    stage: Mapped[str | None] = mapped_column(String(16), doc="Registry: staging, production or archived.")
    stored_bytes: Mapped[int] = mapped_column(
        Number, default=0, server_default="0", doc="Of its folder, as a worker left it."
    )

    task_id: Mapped[str | None] = mapped_column(String(255), unique=True)

    config_row: Mapped[ExperimentConfigRow] = relationship(cascade="all, delete-orphan", passive_deletes=True)

    __table_args__ = (
        *(Index(f"experiment_{column}", column, "number", "archived") for column in SORTABLE),
        *(Index(f"experiment_{column}", column, "created_at", "number", "archived") for column in GROUPING),
        Index("experiment_idempotency", "owner", "idempotency_key", unique=True),
    )

    @property
    def config(self) -> dict[str, Any]:
        """Everything that decides the run, as plain values; read from the database when it is asked for."""
        return self.config_row.value


class ExperimentConfigRow(Base):
    """The config, in a table of its own: it is most of the bytes, and no list reads it."""

    __tablename__ = "experiment_config"

    experiment_number: Mapped[int] = mapped_column(
        Number, ForeignKey("experiment.number", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    value: Mapped[dict[str, Any]] = mapped_column(JSON)


class Metric(Base):
    """One final number of an experiment, such as ``eval_f1_macro``."""

    __tablename__ = "metric"
    __table_args__ = (
        Index("metric_name_value", "name", "value", "experiment_number"),
        {"sqlite_with_rowid": False},
    )

    experiment_number: Mapped[int] = mapped_column(
        Number, ForeignKey("experiment.number", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))


class Tag(Base):
    """A label that a person or an importer put on an experiment."""

    __tablename__ = "tag"
    __table_args__ = (Index("tag_name", "name", "experiment_number"), {"sqlite_with_rowid": False})

    experiment_number: Mapped[int] = mapped_column(
        Number, ForeignKey("experiment.number", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(255), primary_key=True)


class DataLink(Base):
    """A data version that an experiment trained (``train``) or evaluated (``eval``) on."""

    __tablename__ = "data_link"
    __table_args__ = (Index("data_link_version", "version_id", "experiment_number"), {"sqlite_with_rowid": False})

    experiment_number: Mapped[int] = mapped_column(
        Number, ForeignKey("experiment.number", ondelete="CASCADE"), primary_key=True
    )
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    version_id: Mapped[str] = mapped_column(String(128), primary_key=True)


class RegistryEvent(Base):
    """Who moved a model to a stage or an alias, when and why; rows are only ever added."""

    __tablename__ = "registry_event"
    __table_args__ = (Index("registry_event_experiment", "experiment_number", "number"),)

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    experiment_number: Mapped[int] = mapped_column(Number, ForeignKey("experiment.number", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16), doc="stage or alias.")
    old_value: Mapped[str | None] = mapped_column(String(255))
    new_value: Mapped[str | None] = mapped_column(String(255))
    by: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text, default="")


class ModelAlias(Base):
    """A name, such as ``production``, that points at one experiment's model."""

    __tablename__ = "model_alias"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    experiment_number: Mapped[int] = mapped_column(
        Number, ForeignKey("experiment.number", ondelete="CASCADE"), index=True
    )
