"""What the routes of data sets take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from loramill.api.schemas import Body, Text, Word
from loramill.config.schema import ValidationRules
from loramill.data.datasets import Dataset, VersionInfo

VERSION = Field(None, ge=1, le=2**31 - 1, description="The newest one by default.")


class UploadQuery(Body):
    """``filename`` says how the body is to be read; columns that are not named are found."""

    filename: Word = Field(min_length=1, examples=["reviews.csv"], description="Its ending tells the format.")
    name: Word | None = Field(None, description="Name of the data set; the file's by default.")
    description: Text = ""
    text_column: Word | None = None
    text_pair_column: Word | None = None
    label_column: Word | None = None

    @property
    def columns(self) -> Mapping[str, str | None]:
        return {name: getattr(self, name) for name in ("text_column", "text_pair_column", "label_column")}


class ValidateRequest(Body):
    version: int | None = VERSION
    validation_rules: ValidationRules = Field(default_factory=ValidationRules)


class CleanRequest(ValidateRequest):
    pass


class RowsQuery(Body):
    version: int | None = VERSION
    split: Word = "train"
    first: int = Field(0, ge=0, le=2**53)
    count: int = Field(20, ge=1, le=1000)


class DiffQuery(Body):
    before: int = Field(ge=1, le=2**31 - 1)
    after: int = Field(ge=1, le=2**31 - 1)
    split: Word = "train"


class SplitReply(BaseModel):
    version_id: str = Field(description="Of the rows themselves: equal rows have equal ids.")
    rows: int
    label_counts: dict[str, int]


class DatasetVersionReply(BaseModel):
    version: int
    created_at: datetime
    kind: str = Field(description="upload or clean.")
    source: str
    bytes: int
    rows: int
    splits: dict[str, SplitReply]
    dataset_name: str = Field(description="What `data.dataset_name` of a config is to train on exactly this.")
    columns: dict[str, str | None]
    report: dict[str, Any] = Field(
        description="Totals of the validation: samples, labels, balance, counts of findings."
    )
    changes: dict[str, int] = Field(description="What cleaning changed: rule -> rows.")
    notes: list[str]

    @classmethod
    def of(cls, info: VersionInfo) -> DatasetVersionReply:
        row, summary = info.row, info.row.summary
        splits = {
            name: SplitReply(
                version_id=stored, rows=info.split_rows[name], label_counts=summary["label_counts"].get(name, {})
            )
            for name, stored in info.splits.items()
        }
        return cls(
            version=row.version,
            created_at=row.created_at,
            kind=row.kind,
            source=row.source,
            bytes=row.bytes,
            rows=row.rows,
            splits=splits,
            dataset_name=info.dataset_name,
            columns=summary["columns"],
            report=summary["report"],
            changes=summary.get("changes", {}),
            notes=summary["notes"],
        )


class DatasetReply(BaseModel):
    dataset_id: str = Field(description="Also what `data.dataset_name` of a config may be.")
    owner: str
    name: str
    description: str
    created_at: datetime
    versions: int
    newest: DatasetVersionReply

    @classmethod
    def of(cls, dataset: Dataset, versions: Sequence[VersionInfo]) -> DatasetReply:
        return cls(
            dataset_id=dataset.id,
            owner=dataset.owner,
            name=dataset.name,
            description=dataset.description,
            created_at=dataset.created_at,
            versions=len(versions),
            newest=DatasetVersionReply.of(versions[-1]),
        )


class DatasetPage(BaseModel):
    items: list[DatasetReply]
    next_cursor: str | None
