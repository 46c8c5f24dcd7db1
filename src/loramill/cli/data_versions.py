"""The part of ``loramill data`` that keeps versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loramill.cli.data_source import Source, SourceCommand, read_source
from loramill.cli.data_tables import console, diff_tables, versions_table
from loramill.cli.data_uses import users_of
from loramill.cli.output import AsJson, print_json
from loramill.data.diff import diff_versions
from loramill.data.export import write_table
from loramill.data.version_manager import DataVersionManager
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
    """Show a version: where it came from, its statistics, its tags, and what uses it."""
    settings = Settings.load()
    manager = DataVersionManager(settings.data_folder)
    found = manager.get(name)
    shown = {
        **found.as_dict(),
        "tags": _tags_of(found.id, manager.tags()),
        "used_by": users_of(found.id, manager, settings),
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
    """Delete a version that no experiment and no data set uses; `loramill data gc` then frees its space."""
    settings = Settings.load()
    manager = DataVersionManager(settings.data_folder)
    deleted = manager.delete(name, uses=lambda version_id: users_of(version_id, manager, settings))
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


def _tags_of(version_id: str, tags: dict[str, str]) -> list[str]:
    return [tag for tag, tagged in tags.items() if tagged == version_id]
