"""Data sets over the network: received into a folder, read by a process of its own, recorded, cleaned, deleted."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, or_, select
from sqlalchemy.orm import Session

from loramill.auth.audit_log import Actor, AuditLog
from loramill.auth.quotas import Usage, check_quota, quota_of
from loramill.auth.users import UserStore
from loramill.config.schema import ValidationRules
from loramill.data.archives import stored_name
from loramill.data.datasets import Dataset, DatasetStore, NewVersion, VersionInfo
from loramill.database import Database
from loramill.errors import ConflictError, Problem, RequestInvalidError
from loramill.experiments.models import FINISHED, DataLink, Experiment
from loramill.files import named_storage_errors, publish_folder
from loramill.jobs.data_work import DataWork
from loramill.jobs.job_tables import SweepJob
from loramill.jobs.usage import count_usage
from loramill.settings import Settings

COLUMNS = ("text_column", "text_pair_column", "label_column")
STALE_SECONDS = 24 * 3600.0
"""A staging folder of this age belongs to nobody any more."""


@dataclass(frozen=True)
class NewData:
    """A file that was received.

    Args:
        file: where it is now, under ``stored_name``, alone in its folder.
        filename: what its sender calls it.
        columns: named columns; the others are found.
    """

    file: Path
    filename: str
    name: str = ""
    description: str = ""
    columns: Mapping[str, str | None] = field(default_factory=dict)


class Datasets:
    """What may be done with data sets. Owners are checked by the caller; each change leaves a row in the audit log."""

    def __init__(self, settings: Settings, database: Database, audit: AuditLog, work: DataWork) -> None:
        self._folder = settings.data_folder / "uploads"
        self._database, self._audit, self._work = database, audit, work

    @contextmanager
    def staging(self, filename: str) -> Iterator[Path]:
        """A path to receive a file at; nothing is left of it when the block ends, unless it was added.

        Raises:
            RequestInvalidError: files of this name are not read.
        """
        name = stored_name(filename)
        if name is None:
            known = "must end in .csv, .tsv, .jsonl, .parquet (.gz, .zst too), .zip, .tar or .tar.gz"
            raise RequestInvalidError([Problem("filename", filename[:80], known)])
        with named_storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._folder))
        try:
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check_room(self, owner: str, more_bytes: int = 0) -> None:
        """Raises ``QuotaExceededError`` when a user has used up the bytes that one user may store."""
        with self._database.reading() as session:
            used = count_usage(session, owner).stored_bytes
            quota = quota_of(UserStore(session).get(owner))
        if used + more_bytes >= quota.max_stored_bytes:
            check_quota(quota, Usage(stored_bytes=max(used + more_bytes, quota.max_stored_bytes)))

    def add(self, new: NewData, actor: Actor) -> tuple[Dataset, VersionInfo]:
        """Make a data set of a received file.

        Raises:
            DataError: it cannot be read; nothing was recorded.
            QuotaExceededError: it is more than the user may store.
        """
        owner = str(actor.user_id)
        self.check_room(owner, new.file.stat().st_size)
        with self._adding():
            read = self._read(new)
            with self._audit.transaction(actor, "dataset.create", new.filename) as session:
                store = DatasetStore(session)
                dataset = store.create(owner, new.name or _stem(new.filename), new.description)
                info = store.add_version(dataset, _new_version("upload", new.filename, new.file.parent, read))
                self._keep(new.file.parent, dataset, info)
        return dataset, info

    def add_version(self, dataset: Dataset, new: NewData, actor: Actor) -> VersionInfo:
        """Add a received file to a data set as its next version. Raises as ``add``."""
        self.check_room(dataset.owner, new.file.stat().st_size)
        with self._adding():
            read = self._read(new)
            return self._record(
                dataset, _new_version("upload", new.filename, new.file.parent, read), new.file.parent, actor
            )

    def clean(self, dataset: Dataset, info: VersionInfo, rules: ValidationRules, actor: Actor) -> VersionInfo:
        """Drop and repair rows by rule, as the next version of a data set.

        Raises:
            DataError: nothing is left, or it cannot be read.
        """
        self.check_room(dataset.owner, info.row.bytes)
        with self.staging("cleaned.parquet") as file, self._adding():
            source = f"version {info.row.version}"
            read = self._work.run(
                "clean",
                **self._files(dataset, info),
                rules=rules.model_dump(),
                output=str(file.parent),
                source=f"{dataset.name}, {source}",
            )
            return self._record(dataset, _new_version("clean", source, file.parent, read), file.parent, actor)

    def validate(self, dataset: Dataset, info: VersionInfo, rules: ValidationRules) -> dict[str, Any]:
        """The report of one version."""
        report: dict[str, Any] = self._work.run("validate", **self._files(dataset, info), rules=rules.model_dump())
        return report

    def report(self, dataset: Dataset, info: VersionInfo) -> str:
        """The report of one version as a page."""
        return str(self._work.run("report", **self._files(dataset, info), name=dataset.name))

    def analyze(self, dataset: Dataset, info: VersionInfo) -> dict[str, Any]:
        """Labels, lengths and words of one version, split by split."""
        analysis: dict[str, Any] = self._work.run("analyze", **self._files(dataset, info))
        return analysis

    def diff(self, before: str, after: str) -> dict[str, Any]:
        """What changed between two stored versions."""
        changes: dict[str, Any] = self._work.run("diff", before=before, after=after)
        return changes

    def rows(self, stored_id: str, *, first: int, count: int) -> list[dict[str, Any]]:
        """Some rows of a stored version."""
        shown: list[dict[str, Any]] = self._work.run("rows", stored_id=stored_id, first=first, count=count)
        return shown

    def delete(self, dataset_id: str, actor: Actor) -> None:
        """Delete a data set that none of its owner's jobs uses, with its files.

        Raises:
            ConflictError: an experiment or a sweep trained on it, or waits to.
            OverloadedError: too many others read data; nothing was deleted.
        """
        with self._locked(fcntl.LOCK_EX), self._work.turn() as run:
            with self._audit.transaction(actor, "dataset.delete", dataset_id) as session:
                store = DatasetStore(session)
                dataset = store.lock(dataset_id)
                _check_unused(session, dataset)
                orphans = store.delete(dataset)
            shutil.rmtree(self._folder / dataset_id, ignore_errors=True)
            with self._database.reading() as session:
                unused = [name for name in orphans if not _is_held(session, name)]
            if unused:
                run("forget", stored_ids=unused)

    def _read(self, new: NewData) -> dict[str, Any]:
        columns = {name: new.columns.get(name) for name in COLUMNS}
        read: dict[str, Any] = self._work.run(
            "store", folder=str(new.file.parent.absolute()), columns=columns, source=f"upload {new.filename}"
        )
        return read

    def _record(self, dataset: Dataset, new: NewVersion, folder: Path, actor: Actor) -> VersionInfo:
        with self._audit.transaction(actor, f"dataset.{new.kind}", dataset.id) as session:
            store = DatasetStore(session)
            info = store.add_version(store.lock(dataset.id), new)
            self._keep(folder, dataset, info)
        return info

    def _keep(self, staged: Path, dataset: Dataset, info: VersionInfo) -> None:
        """Move received files to their place, before the row is committed: a version without files cannot be."""
        final = self._folder / dataset.id / str(info.row.version)
        with named_storage_errors(final):
            final.parent.mkdir(exist_ok=True)
        publish_folder(staged, final)

    def _files(self, dataset: Dataset, info: VersionInfo) -> dict[str, Any]:
        folder = (self._folder / dataset.id / str(info.row.version)).absolute()
        return {"folder": str(folder), "columns": info.row.summary["columns"]}

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Stored rows are not forgotten between the moment when they are found there and the row that holds them."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with named_storage_errors(self._folder), (self._folder / ".lock").open("ab") as file:
            fcntl.flock(file, kind)
            yield

    def _sweep(self) -> None:
        """Remove what uploads left that a kill cut short."""
        for folder in self._folder.glob(".staging-*"):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def uses_of(session: Session, stored_ids: Sequence[str], owner: str | None = None) -> list[str]:
    """Experiments that train on stored rows or did, and sweeps that will; of one owner or of anybody.

    The trials of a sweep are experiments only once its worker has begun with them.
    """
    if not stored_ids:
        return []
    swept = SweepJob.request["config"]["data"]["dataset_name"].as_string()
    linked = select(DataLink.experiment_number).where(DataLink.version_id.in_(stored_ids))
    trained = or_(_named(Experiment.dataset_name, stored_ids), Experiment.number.in_(linked))
    runs = select(Experiment.id).where(trained).order_by(Experiment.number)
    sweeps = select(SweepJob.id).where(_named(swept, stored_ids), SweepJob.status.not_in(FINISHED))
    if owner is not None:
        runs, sweeps = runs.where(Experiment.owner == owner), sweeps.where(SweepJob.owner == owner)
    return [*session.scalars(runs), *session.scalars(sweeps.order_by(SweepJob.number))]


def _named(column: SQLColumnExpression[str], stored_ids: Sequence[str]) -> ColumnElement[bool]:
    return or_(*(column.like(f"version:%{stored_id}%") for stored_id in stored_ids))


def _check_unused(session: Session, dataset: Dataset) -> None:
    store = DatasetStore(session)
    held = {stored for info in store.versions(dataset) for stored in info.splits.values()}
    only_here = [stored for stored in held if not store.holds(dataset.owner, stored, besides=dataset.number)]
    users = uses_of(session, only_here, dataset.owner)
    if users:
        shown = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
        raise ConflictError(
            f"The data set is used by {len(users)} job(s): {shown}.",
            fix="Delete those experiments and cancel those sweeps first, or keep it.",
        )


def _is_held(session: Session, stored_id: str) -> bool:
    return bool(DatasetStore(session).holders(stored_id) or uses_of(session, [stored_id]))


def _new_version(kind: str, source: str, folder: Path, read: Mapping[str, Any]) -> NewVersion:
    labels = {name: split["label_counts"] for name, split in read["splits"].items()}
    return NewVersion(
        kind=kind,
        source=source,
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        splits={name: (split["version_id"], split["rows"]) for name, split in read["splits"].items()},
        summary={**read["summary"], "label_counts": labels},
    )


def _stem(filename: str) -> str:
    return filename.split(".")[0][:255] or "data"
