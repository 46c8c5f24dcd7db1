"""``loramill config``: what can be configured, and what a config comes to."""

from __future__ import annotations

import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table

from loramill.cli.config_options import Assignments, ConfigCommand, ConfigFile, read_config
from loramill.cli.output import AsJson, print_json
from loramill.config.keys import iter_keys
from loramill.config.load import dump_config
from loramill.config.schema import ExperimentConfig

KINDS = {str: "text", int: "integer", float: "number", bool: "true | false"}

app = typer.Typer(no_args_is_help=True, help="Show the config schema, or a config with all defaults.")


@app.command()
def schema(as_json: AsJson = False) -> None:
    """List every key with its type, its default and what it does; --json prints a JSON Schema."""
    if as_json:
        print_json(ExperimentConfig.model_json_schema())
        return
    table = Table("key", "type", "default", "description", title="Config keys", title_justify="left")
    for key, field in iter_keys():
        table.add_row(key, describe_type(field), describe_default(field), field.description)
    Console().print(table)


@app.command(cls=ConfigCommand)
def show(
    context: typer.Context,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Check a config and print it in full, as YAML that can be saved and trained with."""
    config = read_config(context, config_file, assignments)
    if as_json:
        print_json(config.model_dump(mode="json"))
    else:
        typer.echo(dump_config(config), nl=False)


def describe_type(field: FieldInfo) -> str:
    """A field's type with its bounds, in the words of YAML: ``integer, 1 to 1024``."""
    return ", ".join(filter(None, (_kind(field.annotation), _bounds(field))))


def describe_default(field: FieldInfo) -> str:
    """A field's default as YAML would have it, or ``-`` when absent means absent."""
    value = field.get_default(call_default_factory=True)
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(_kind(member) for member in inner if member is not type(None))
    if origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is Annotated:
        return _kind(inner[0])
    return KINDS[annotation]


def _bounds(field: FieldInfo) -> str:
    """``1 to 1024``, ``above 0``, ``0 to below 1``; bounds of a field that may be absent stand in its inner type."""
    low = high = ""
    for bound in _constraints(field):
        match bound:
            case Ge(limit):
                low = f"{limit}"
            case Gt(limit):
                low = f"above {limit}"
            case Le(limit):
                high = f"{limit}"
            case Lt(limit):
                high = f"below {limit}"
    if low and high:
        return f"{low} to {high}"
    return f"up to {high}" if high else f"{low} or more" if low and not low.startswith("above") else low


def _constraints(field: FieldInfo) -> list[object]:
    inner = [part for member in get_args(field.annotation) for part in getattr(member, "__metadata__", ())]
    return [*field.metadata, *inner]
