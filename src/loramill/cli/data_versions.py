"""The part of ``loramill data`` that keeps versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from loramill.cli.data_source import Source, SourceCommand, read_source
from loramill.cli.data_tables import console, diff_tables, uses_table, versions_table
from loramill.cli.output import AsJson, print_json
from loramill.data.diff import diff_versions
from loramill.data.export import write_table
from loramill.data.lineage import hashes_of, rows_in_versions
from loramill.data.rows import Hashes
from loramill.data.version_manager import DataVersionManager
from loramill.errors import NotFoundError
from loramill.settings import Settings

app = typer.Typer()

Version = Annotated[str, typer.Argument(metavar="VERSION", help="Id, its first digits, or a tag.")]


@app.command(cls=SourceCommand)
def version(
    context: typer.Context,
    source: Source,
    description: Annotated[str, typer.Option(help="What is special about these rows.")] = "",
    parent: Annotated[list[str] | None, typer.Option(help="Version that this one was made from; repeatable.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name for the version of the training split.")] = None,
    as_json: AsJson = False,
) -> None:
    """Store the rows of a data set as immutable versions, one a split."""
    settings = Settings.load()
    _, data = read_source(context, source, settings)
    manager = DataVersionManager(settings.data_folder)
    parents = [manager.get(name).id for name in parent or []]
    stored = {
        name: manager.create(
            rows,
            source=f"{data.origin} ({name})",
            description=description,
            parents=parents,
            label_names=data.label_names,
        )
        for name, rows in data.splits.items()
    }
    if tag is not None:
        manager.tag(stored["train"].version.id, tag)
    if as_json:
        print_json(
            {
                name: {**one.version.as_dict(), "is_new": one.is_new, "stored_bytes": one.stored_bytes}
                for name, one in stored.items()
            }
        )
        return
    for name, one in stored.items():
        state = f"{one.stored_bytes:,} bytes stored" if one.is_new else "these rows were there already"
        typer.echo(f"{name}: {one.version.id}  {one.version.rows:,} rows, {state}")


@app.command("list")
def list_versions(as_json: AsJson = False) -> None:
    """List every version, oldest first."""
    manager = DataVersionManager(Settings.load().data_folder)
    versions, tags = manager.versions(), manager.tags()
    if as_json:
        listed = [{**one.as_dict(), "tags": _tags_of(one.id, tags)} for one in versions]
        print_json({"versions": listed, "stored_bytes": manager.stored_bytes()})
    else:
        console().print(versions_table(versions, tags))


@app.command()
def show(name: Version, as_json: AsJson = False) -> None:
    """Show a version: where it came from, its statistics, its tags, and which experiments use it."""
    settings = Settings.load()
    manager = DataVersionManager(settings.data_folder)
    found = manager.get(name)
    shown = {
        **found.as_dict(),
        "tags": _tags_of(found.id, manager.tags()),
        "used_by": experiments_using(settings.results_folder, found.id),
    }
    if as_json:
        print_json(shown)
        return
    for key, value in shown.items():
        typer.echo(f"{key:>16}  {json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value}")


@app.command()
def diff(before: Version, after: Version, as_json: AsJson = False) -> None:
    """Compare two versions: rows added, rows removed, rows with another label."""
    manager = DataVersionManager(Settings.load().data_folder)
    changes = diff_versions(manager, manager.get(before), manager.get(after))
    if as_json:
        print_json(changes.as_dict())
    else:
        console().print(diff_tables(changes))


@app.command()
def tag(
    name: Version,
    new_tag: Annotated[str, typer.Argument(metavar="TAG")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a version a name, or take it away; a tag that is taken moves."""
    manager = DataVersionManager(Settings.load().data_folder)
    tagged = manager.get(name)
    if remove:
        manager.untag(new_tag)
    else:
        manager.tag(tagged.id, new_tag)
    if as_json:
        print_json({"id": tagged.id, "tags": _tags_of(tagged.id, manager.tags())})
    else:
        typer.echo(f"{new_tag}: {'removed' if remove else tagged.id}")


@app.command()
def restore(
    name: Version,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv, .tsv, .jsonl or .parquet.")],
    replace: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a version to a file."""
    manager = DataVersionManager(Settings.load().data_folder)
    found = manager.get(name)
    manager.verify(found)
    write_table(manager.table(found), path, replace=replace)
    if as_json:
        print_json({"id": found.id, "file": str(path), "rows": found.rows})
    else:
        typer.echo(f"{found.rows:,} rows of {found.id} are in {path}.")


@app.command()
def verify(name: Version, as_json: AsJson = False) -> None:
    """Read every row of a version and compare it with the id; exit code 1 when it is damaged."""
    manager = DataVersionManager(Settings.load().data_folder)
    found = manager.get(name)
    manager.verify(found)
    if as_json:
        print_json({"id": found.id, "rows": found.rows, "intact": True})
    else:
        typer.echo(f"intact: {found.rows:,} rows")


@app.command()
def delete(name: Version, as_json: AsJson = False) -> None:
    """Delete a version that no experiment uses; `loramill data gc` then frees its space."""
    settings = Settings.load()
    manager = DataVersionManager(settings.data_folder)
    deleted = manager.delete(name, uses=lambda version_id: experiments_using(settings.results_folder, version_id))
    if as_json:
        print_json({"deleted": deleted.id})
    else:
        typer.echo(f"deleted: {deleted.id}")


@app.command()
def gc(as_json: AsJson = False) -> None:
    """Free the space of rows that no version needs."""
    freed = DataVersionManager(Settings.load().data_folder).collect_garbage()
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        typer.echo(f"{freed:,} bytes freed")


@app.command("who-used", cls=SourceCommand)
def who_used(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="Data set, or version:<id>.")] = None,
    text: Annotated[str | None, typer.Option(help="One text, instead of a whole data set.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the experiments that trained or evaluated on rows of a data set, or on one text."""
    settings = Settings.load()
    if (source is None) == (text is None):
        raise typer.BadParameter("name a SOURCE, or give --text")
    if text is not None:
        wanted = hashes_of([text])
    else:
        _, data = read_source(context, str(source), settings)
        wanted = np.unique(np.concatenate([rows.text_hashes for rows in data.splits.values()]))
    uses = list(_uses_of(wanted, DataVersionManager(settings.data_folder), settings.results_folder))
    if as_json:
        print_json({"experiments": uses})
    else:
        console().print(uses_table(uses))


def _uses_of(wanted: Hashes, manager: DataVersionManager, results: Path) -> Iterator[dict[str, object]]:
    """One entry for each experiment and split that saw any of the rows."""
    used = list(iter_uses(results))
    known = []
    for version_id in sorted({version_id for _, _, version_id in used}):
        try:
            known.append(manager.get(version_id))
        except NotFoundError:
            typer.echo(f"warning: version {version_id} of an experiment is not in this data folder", err=True)
    rows = rows_in_versions(manager, known, wanted)
    for experiment, split, version_id in used:
        if version_id in rows:
            yield {"experiment_id": experiment, "split": split, "rows": rows[version_id], "version": version_id}


def experiments_using(results: Path, version_id: str) -> list[str]:
    """Experiments that trained or evaluated on a version."""
    return sorted({experiment for experiment, _, used in iter_uses(results) if used == version_id})


def iter_uses(results: Path) -> Iterator[tuple[str, str, str]]:
    """(experiment, split, version id) of every ``data.json`` under the results; broken ones are skipped."""
    for path in sorted(results.glob("*/data.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            yield from ((path.parent.name, split, content[split]) for split in ("train", "eval") if content.get(split))
        except (OSError, ValueError, AttributeError):
            typer.echo(f"warning: {path} cannot be read", err=True)


def _tags_of(version_id: str, tags: dict[str, str]) -> list[str]:
    return [tag for tag, tagged in tags.items() if tagged == version_id]
