"""``loramill data``: look at a data set, clean it, and keep its versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loramill.cli.data_source import Source, SourceCommand, UseTokenizer, read_source, token_counter
from loramill.cli.data_suspects import suspects
from loramill.cli.data_tables import analysis_tables, console, report_tables
from loramill.cli.data_uses import app as uses_app
from loramill.cli.data_versions import app as versions_app
from loramill.cli.output import AsJson, print_json
from loramill.data.analyzer import DatasetAnalyzer
from loramill.data.cleaning import Cleaned
from loramill.data.cleaning import clean as clean_splits
from loramill.data.export import source_table, write_json_lines, write_table
from loramill.data.findings import Finding, ValidationReport
from loramill.data.html_report import render_report
from loramill.data.sources import SourceData
from loramill.data.validator import DataValidator
from loramill.data.version_manager import DataVersionManager
from loramill.errors import ConflictError, DataError
from loramill.files import write_atomic
from loramill.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Validate, analyse, clean and version data sets.")
app.add_typer(versions_app)
app.add_typer(uses_app)
app.command()(suspects)

HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report with plots, too.")]


@app.command(cls=SourceCommand)
def validate(
    context: typer.Context,
    source: Source,
    tokenizer: UseTokenizer = None,
    html: HtmlFile = None,
    shown: Annotated[int, typer.Option("--show", min=0, help="Findings shown for each rule.")] = 3,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when there is any error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every row by every rule; the data is not changed."""
    try:
        config, data = read_source(context, source, Settings.load())
    except DataError as error:
        if not as_json:
            raise
        print_json(_unreadable(error).as_dict())
        raise typer.Exit(1) from error
    count_tokens = token_counter(tokenizer)
    validator = DataValidator(
        config.data.validation_rules, max_length=config.data.max_length, count_tokens=count_tokens
    )
    report = validator.validate(data.splits, found_while_reading=data.findings)
    if html is not None:
        analysis = DatasetAnalyzer(count_tokens=count_tokens).analyze(data.splits)
        write_atomic(html, render_report(data.origin, report, analysis, data.notes))
    if as_json:
        print_json(report.as_dict())
    else:
        _say(data)
        console().print(report_tables(report, shown))
    if strict and report.has_errors:
        raise typer.Exit(1)


@app.command(cls=SourceCommand)
def analyze(
    context: typer.Context,
    source: Source,
    tokenizer: UseTokenizer = None,
    html: HtmlFile = None,
    as_json: AsJson = False,
) -> None:
    """Describe labels, lengths, words, languages and repetition; the data is not changed."""
    _, data = read_source(context, source, Settings.load())
    analysis = DatasetAnalyzer(count_tokens=token_counter(tokenizer)).analyze(data.splits)
    if html is not None:
        write_atomic(html, render_report(data.origin, None, analysis, data.notes))
    if as_json:
        splits = {name: split.as_dict() for name, split in analysis.items()}
        print_json({"source": data.origin, "notes": data.notes, "splits": splits})
    else:
        _say(data)
        console().print(analysis_tables(analysis))


@app.command(cls=SourceCommand)
def clean(
    context: typer.Context,
    source: Source,
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Default: cleaned/ in the data folder.")] = None,
    file_format: Annotated[str, typer.Option("--format", help="jsonl, csv, tsv or parquet.")] = "jsonl",
    replace: Annotated[bool, typer.Option("--force", help="Replace files of an earlier cleaning.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop and repair rows by rule, into new files; changes.jsonl lists every change, the original stays."""
    settings = Settings.load()
    config, data = read_source(context, source, settings)
    cleaned = clean_splits(data.splits, config.data.validation_rules, found_while_reading=data.findings)
    folder = output or settings.data_folder / "cleaned" / _folder_name(data.origin)
    files = {name: folder / f"{name}.{file_format}" for name in cleaned.splits}
    record = folder / "changes.jsonl"
    _refuse_to_touch(Path(config.data.dataset_name), folder, [*files.values(), record])
    for name, rows in cleaned.splits.items():
        write_table(source_table(rows), files[name], replace=replace)
    write_json_lines((change.as_dict() for change in cleaned.changes), record)
    versions = _store_both(DataVersionManager(settings.data_folder), data, cleaned)
    if as_json:
        print_json({"folder": str(folder), "changes": cleaned.summary, "versions": versions})
        return
    _say(data)
    for what, count in cleaned.summary.items():
        typer.echo(f"{count:>8,}  {what}")
    typer.echo(f"{len(cleaned.changes):,} changes; clean files and changes.jsonl are in {folder}.")


def _refuse_to_touch(original: Path, folder: Path, files: Sequence[Path]) -> None:
    """The file or folder that was read is never written to, not even with ``--force``.

    Raises:
        ConflictError: a clean file would take its place, or lie among its files.
    """
    touched = next(
        (path for path in (folder, *files) if path.exists() and original.exists() and path.samefile(original)), None
    )
    if touched is not None:
        raise ConflictError(
            f"{touched} is what is cleaned, and the original stays.", fix="Name another folder with --output."
        )


def _store_both(manager: DataVersionManager, data: SourceData, cleaned: Cleaned) -> dict[str, dict[str, object]]:
    """Versions of the rows before and after, the one the parent of the other."""
    versions: dict[str, dict[str, object]] = {}
    for name, rows in cleaned.splits.items():
        source = f"{data.origin} ({name})"
        before = manager.create(data.splits[name], source=source, label_names=data.label_names).version
        after = manager.create(
            rows, source=source, label_names=data.label_names, parents=[before.id], cleaning=cleaned.summary
        ).version
        versions[name] = {"before": before.id, "after": after.id, "rows": after.rows}
    return versions


def _unreadable(error: DataError) -> ValidationReport:
    """A source that cannot be read at all, as the one finding that it is."""
    finding = Finding(error.code, "error", None, None, error.message, error.fix, error.split)
    return ValidationReport(0, {}, (finding,), {error.code: 1})


def _say(data: SourceData) -> None:
    for note in data.notes:
        typer.echo(note, err=True)


def _folder_name(origin: str) -> str:
    name = Path(origin).name.replace(":", "_")
    return name.split(".")[0] or "data"
