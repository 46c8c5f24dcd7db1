"""Data sets that people uploaded: whose they are, and which stored versions they came to.

The rows are in ``version_manager``, where equal rows of different people are kept once; who may see a version is
decided by the data sets that hold it. Files as they were uploaded lie in ``data/uploads/<id>/<version>/``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from loramill.data.sources import EVAL_NAMES
from loramill.database import Base, Number, UtcDateTime
from loramill.errors import NotFoundError

DATASET_ID = re.compile(r"(?:dataset:)?(?P<id>u[1-9]\d{0,17}_d[0-9a-f]{16})(?:@(?P<version>[1-9]\d{0,8}))?", re.ASCII)
"""How a config names one: its id, perhaps after ``dataset:``, perhaps with ``@`` and the number of a version."""


class Dataset(Base):
    """A data set of one person."""

    __tablename__ = "dataset"
    __table_args__ = (Index("dataset_owner", "owner", "number"),)

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DatasetVersion(Base):
    """One state of a data set; never changed."""

    __tablename__ = "dataset_version"

    dataset_number: Mapped[int] = mapped_column(
        Number, ForeignKey("dataset.number", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, doc="1, 2, 3 ...")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(16), doc="upload or clean.")
    source: Mapped[str] = mapped_column(String(255), doc="Name of the uploaded file, or what was cleaned.")
    bytes: Mapped[int] = mapped_column(Number, doc="Of its files.")
    rows: Mapped[int] = mapped_column(Number, doc="Of all splits.")
    summary: Mapped[dict[str, Any]] = mapped_column(JSON, doc="Columns, labels, counts of findings, notes, changes.")


class DatasetSplit(Base):
    """The stored rows of one split of one version."""

    __tablename__ = "dataset_split"
    __table_args__ = (Index("dataset_split_stored", "stored_id", "dataset_number"),)

    dataset_number: Mapped[int] = mapped_column(
        Number, ForeignKey("dataset.number", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    split: Mapped[str] = mapped_column(String(64), primary_key=True)
    stored_id: Mapped[str] = mapped_column(String(64), doc="Id of the data version.")
    rows: Mapped[int] = mapped_column(Number)


@dataclass(frozen=True)
class NewVersion:
    """What a version is made of.

    Args:
        splits: split -> (id of the stored rows, their number).
    """

    kind: str
    source: str
    bytes: int
    splits: Mapping[str, tuple[str, int]]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class VersionInfo:
    """A version with its splits: split -> id of the stored rows."""

    row: DatasetVersion
    splits: Mapping[str, str]
    split_rows: Mapping[str, int]

    @property
    def dataset_name(self) -> str:
        """What a config trains on: the rows themselves, so that the run can be repeated exactly."""
        evaluated = next((name for name in EVAL_NAMES if name in self.splits), None)
        also = f"+{self.splits[evaluated]}" if evaluated else ""
        return f"version:{self.splits['train']}{also}"


class DatasetStore:
    """The data sets in one database session; never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, owner: str, name: str, description: str = "") -> Dataset:
        """Add a data set without versions."""
        dataset = Dataset(
            id=new_dataset_id(owner), owner=owner, name=name, description=description, created_at=datetime.now(UTC)
        )
        self._session.add(dataset)
        self._session.flush()
        return dataset

    def find(self, dataset_id: str) -> Dataset | None:
        return self._session.scalar(select(Dataset).where(Dataset.id == dataset_id))

    def get(self, dataset_id: str) -> Dataset:
        """Raises ``NotFoundError``."""
        dataset = self.find(dataset_id)
        if dataset is None:
            raise NotFoundError("There is no such data set.", fix="List yours: GET /datasets")
        return dataset

    def lock(self, dataset_id: str) -> Dataset:
        """A data set that nobody else changes until the transaction ends. Raises ``NotFoundError``."""
        dataset = self._session.scalar(
            select(Dataset).where(Dataset.id == dataset_id).with_for_update().execution_options(populate_existing=True)
        )
        return dataset if dataset is not None else self.get(dataset_id)

    def list_page(self, *, owner: str | None, before: int | None, limit: int) -> Sequence[Dataset]:
        """Data sets of one owner, or of everybody, newest first, with numbers below ``before``."""
        wanted = select(Dataset).order_by(Dataset.number.desc()).limit(limit)
        if owner is not None:
            wanted = wanted.where(Dataset.owner == owner)
        if before is not None:
            wanted = wanted.where(Dataset.number < before)
        return self._session.scalars(wanted).all()

    def add_version(self, dataset: Dataset, new: NewVersion) -> VersionInfo:
        """Add the next version of a locked data set."""
        newest = select(func.max(DatasetVersion.version)).where(DatasetVersion.dataset_number == dataset.number)
        version = DatasetVersion(
            dataset_number=dataset.number,
            version=(self._session.scalar(newest) or 0) + 1,
            created_at=datetime.now(UTC),
            kind=new.kind,
            source=new.source,
            bytes=new.bytes,
            rows=sum(rows for _, rows in new.splits.values()),
            summary=dict(new.summary),
        )
        self._session.add(version)
        for split, (stored_id, rows) in new.splits.items():
            self._session.add(
                DatasetSplit(
                    dataset_number=dataset.number,
                    version=version.version,
                    split=split,
                    stored_id=stored_id,
                    rows=rows,
                )
            )
        self._session.flush()
        return self.version(dataset, version.version)

    def versions(self, dataset: Dataset) -> list[VersionInfo]:
        """All versions, oldest first."""
        rows = self._session.scalars(
            select(DatasetVersion)
            .where(DatasetVersion.dataset_number == dataset.number)
            .order_by(DatasetVersion.version)
        )
        splits: dict[int, dict[str, DatasetSplit]] = {}
        for part in self._session.scalars(
            select(DatasetSplit).where(DatasetSplit.dataset_number == dataset.number).order_by(DatasetSplit.split)
        ):
            splits.setdefault(part.version, {})[part.split] = part
        return [_info(row, splits.get(row.version, {})) for row in rows]

    def version(self, dataset: Dataset, version: int | None = None) -> VersionInfo:
        """One version, the newest one by default. Raises ``NotFoundError``."""
        known = self.versions(dataset)
        found = next((info for info in reversed(known) if version in (None, info.row.version)), None)
        if found is None:
            raise NotFoundError(
                "The data set has no such version.", fix=f"List them: GET /datasets/{dataset.id}/versions"
            )
        return found

    def delete(self, dataset: Dataset) -> list[str]:
        """Remove a data set. Returns the stored ids that no data set holds any more."""
        held = {stored for info in self.versions(dataset) for stored in info.splits.values()}
        self._session.delete(dataset)
        self._session.flush()
        others = select(DatasetSplit.stored_id).where(DatasetSplit.stored_id.in_(held))
        return sorted(held - {*self._session.scalars(others)})

    def holds(self, owner: str, stored_id: str, *, besides: int | None = None) -> bool:
        """Whether a data set of an owner holds these rows (another one than ``besides``)."""
        found = (
            select(Dataset.number)
            .join(DatasetSplit, DatasetSplit.dataset_number == Dataset.number)
            .where(Dataset.owner == owner, DatasetSplit.stored_id == stored_id)
            .limit(1)
        )
        if besides is not None:
            found = found.where(Dataset.number != besides)
        return self._session.scalar(found) is not None

    def holders(self, stored_id: str) -> list[str]:
        """The data sets, of anybody, that hold these rows."""
        holding = select(DatasetSplit.dataset_number).where(DatasetSplit.stored_id == stored_id)
        return [*self._session.scalars(select(Dataset.id).where(Dataset.number.in_(holding)).order_by(Dataset.number))]


def new_dataset_id(owner: str) -> str:
    """The owner's id for people to read, and 64 random bits."""
    return f"{owner}_d{secrets.token_hex(8)}"


def _info(row: DatasetVersion, parts: Mapping[str, DatasetSplit]) -> VersionInfo:
    ids = {split: part.stored_id for split, part in parts.items()}
    return VersionInfo(row, ids, {split: part.rows for split, part in parts.items()})
