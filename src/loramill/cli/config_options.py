"""Command-line flags made from the config schema: every key is a flag, with its description as help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from loramill.config.load import ALIASES, iter_keys, load_config, parse_overrides, parse_value
from loramill.config.schema import ExperimentConfig

ConfigFile = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file; the defaults if absent.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key, such as lora.r=16; repeatable.")
]

OVERRIDES = "loramill.config_overrides"


class ConfigCommand(TyperCommand):
    """A command with a flag for every key of the config: ``--learning_rate``, or ``--learning-rate``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_option(key, field) for key, field in iter_keys())


def read_config(context: typer.Context, path: Path | None, assignments: list[str] | None) -> ExperimentConfig:
    """The config of a ``ConfigCommand``: file, then flags, then ``--set``.

    Raises:
        ConfigError: with every problem of all three.
    """
    flags: dict[str, object] = context.meta.get(OVERRIDES, {})
    return load_config(path, {**flags, **parse_overrides(assignments or [])})


def _option(key: str, field: FieldInfo) -> click.Option:
    section, _, leaf = key.rpartition(".")
    names = ["model_name"] if key == "model.name" else [leaf]
    names += [alias for alias, target in ALIASES.items() if target == key and alias not in names]
    flags = dict.fromkeys(f"--{name}" for plain in names for name in (plain, plain.replace("_", "-")))
    option = typer.core.TyperOption(
        param_decls=[*flags, f"config_{key.replace('.', '_')}"],
        metavar="VALUE",
        help=field.description,
        expose_value=False,
        callback=lambda context, _parameter, value: _remember(context, key, value),
        rich_help_panel=section or "experiment",
    )
    option.default = None
    return option


def _remember(context: click.Context, key: str, value: str | None) -> None:
    if value is not None:
        context.meta.setdefault(OVERRIDES, {})[key] = parse_value(value)
