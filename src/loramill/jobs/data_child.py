"""The process that reads other people's data: ``python -m loramill.jobs.data_child``, one operation, then gone.

It gets a JSON request on its standard input and writes a JSON answer. What a hostile file can take is this process:
its memory and its time are bounded, and the service that asked goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loramill.config.schema import DataConfig, ValidationRules
from loramill.data.analyzer import DatasetAnalyzer
from loramill.data.archives import is_archive, unpack
from loramill.data.cleaning import clean as clean_splits
from loramill.data.diff import diff_versions
from loramill.data.export import source_table, write_json_lines, write_table
from loramill.data.findings import ValidationReport
from loramill.data.html_report import render_report
from loramill.data.sources import SourceData, load_source
from loramill.data.validator import DataValidator
from loramill.data.version_manager import DataVersionManager
from loramill.errors import DataTooLargeError, InternalError, LoramillError

MEMORY_BYTES = 6 * 2**30
"""Of address space: reading a million rows takes one or two."""

MAX_FINDINGS = 100
"""Shown for each rule and split; their whole number is always told."""

CHANGES = "changes.jsonl"

Json = dict[str, Any]


def main() -> None:
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no part of the answer
    request: Json = json.load(sys.stdin)
    _bound_memory()
    json.dump(answer(request), answer_to, allow_nan=False)
    answer_to.close()


def answer(request: Json) -> Json:
    """``{"result": ...}``, or ``{"error": {"code", "message", "fix"}}``; the data folder is named in neither."""
    folder = Path(request.get("folder", "/"))
    try:
        return {"result": OPERATIONS[request.pop("operation")](**request)}
    except LoramillError as error:
        told = error
    except MemoryError:
        told = DataTooLargeError("Reading the data takes too much memory.", fix="Send it in smaller parts.")
    except Exception as error:  # a defect: the caller logs it
        told = InternalError(f"{type(error).__name__}: {error}")
    message = told.message.replace(f"{folder}{os.sep}", "").replace(str(folder), "the data set")
    return {"error": {"code": told.code, "message": message, "fix": told.fix}}


def store(folder: str, data_folder: str, columns: Mapping[str, str | None], source: str) -> Json:
    """Unpack what was uploaded into a folder, and store its rows as versions."""
    for path in [path for path in Path(folder).iterdir() if is_archive(path.name)]:
        unpack(path, Path(folder))
        path.unlink()
    data = _load(folder, data_folder, columns)
    report = DataValidator().validate(data.splits, found_while_reading=data.findings)
    return {**_stored(data, data_folder, source), "summary": {**_summary(data), "report": _brief(report)}}


def validate(
    folder: str, data_folder: str, columns: Mapping[str, str | None], rules: Json, max_findings: int = MAX_FINDINGS
) -> Json:
    """The report of the files in a folder."""
    data = _load(folder, data_folder, columns)
    validator = DataValidator(ValidationRules(**rules), max_findings=max_findings)
    return validator.validate(data.splits, found_while_reading=data.findings).as_dict()


def report(folder: str, data_folder: str, columns: Mapping[str, str | None], name: str) -> str:
    """The report as a page, with plots."""
    data = _load(folder, data_folder, columns)
    found = DataValidator(max_findings=MAX_FINDINGS).validate(data.splits, found_while_reading=data.findings)
    return render_report(name, found, DatasetAnalyzer().analyze(data.splits), data.notes)


def analyze(folder: str, data_folder: str, columns: Mapping[str, str | None]) -> Json:
    """Labels, lengths, words, languages and repetition of each split."""
    splits = DatasetAnalyzer().analyze(_load(folder, data_folder, columns).splits)
    return {name: split.as_dict() for name, split in splits.items()}


def clean(
    folder: str, data_folder: str, columns: Mapping[str, str | None], rules: Json, output: str, source: str
) -> Json:
    """Clean the files in a folder into another one, with a list of every change, and store the rows."""
    data = _load(folder, data_folder, columns)
    cleaned = clean_splits(data.splits, ValidationRules(**rules))
    for name, rows in cleaned.splits.items():
        write_table(source_table(rows), Path(output) / f"{name}.parquet")
    write_json_lines((change.as_dict() for change in cleaned.changes), Path(output) / CHANGES)
    again = _load(output, data_folder, columns)
    found = DataValidator().validate(again.splits, found_while_reading=again.findings)
    summary = {**_summary(again), "report": _brief(found), "changes": cleaned.summary}
    parents = {split: rows["version_id"] for split, rows in _stored(data, data_folder, source)["splits"].items()}
    stored = _stored(again, data_folder, f"{source}, cleaned", parents, cleaned.summary)
    return {**stored, "summary": summary}


def diff(before: str, after: str, data_folder: str) -> Json:
    """What changed between two stored versions."""
    manager = DataVersionManager(Path(data_folder))
    return diff_versions(manager, manager.get(before), manager.get(after)).as_dict()


def rows(stored_id: str, data_folder: str, first: int, count: int) -> list[Json]:
    """Some rows of a stored version, in order."""
    manager = DataVersionManager(Path(data_folder))
    return list(manager.table(manager.get(stored_id)).slice(first, count).to_pylist())


def forget(stored_ids: list[str], data_folder: str) -> int:
    """Delete stored versions that nothing holds any more. Returns the bytes freed."""
    manager = DataVersionManager(Path(data_folder))
    known = {version.id for version in manager.versions()}
    for stored_id in known.intersection(stored_ids):
        manager.delete(stored_id, uses=lambda _id: [])
    return manager.collect_garbage()


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    operation.__name__: operation for operation in (store, validate, report, analyze, clean, diff, rows, forget)
}


def _load(folder: str, data_folder: str, columns: Mapping[str, str | None]) -> SourceData:
    config = DataConfig(dataset_name=folder, **columns)
    return load_source(config, Path(data_folder), allowed_folders=[Path(folder)])


def _stored(
    data: SourceData,
    data_folder: str,
    source: str,
    parents: Mapping[str, str] | None = None,
    cleaning: Mapping[str, int] | None = None,
) -> Json:
    manager = DataVersionManager(Path(data_folder))
    splits = {}
    for name, split in data.splits.items():
        version = manager.create(
            split,
            source=f"{source} ({name})",
            label_names=data.label_names,
            parents=[parents[name]] if parents and name in parents else [],
            cleaning=cleaning,
        ).version
        splits[name] = {"version_id": version.id, "rows": version.rows, "label_counts": dict(version.label_counts)}
    return {"splits": splits}


def _summary(data: SourceData) -> Json:
    train = data.splits["train"].columns
    columns = {"text_column": train.text, "text_pair_column": train.text_pair, "label_column": train.label}
    return {"columns": columns, "notes": list(data.notes)}


def _brief(report: ValidationReport) -> Json:
    return {name: value for name, value in report.as_dict().items() if name != "findings"}


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    main()
