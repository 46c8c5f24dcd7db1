"""Command-line flags made from the config schema: every key is a flag, with its description as help."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from loramill.config.keys import ALIASES, iter_keys
from loramill.config.load import load_config, parse_overrides, parse_value
from loramill.config.schema import ExperimentConfig

ConfigFile = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="YAML file; the defaults if absent.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key, such as lora.r=16; repeatable.")
]

OVERRIDES = "loramill.config_overrides"
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


class ConfigCommand(TyperCommand):
    """A command with a flag for every key of the config: ``--learning_rate``, or ``--learning-rate``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_config_options())


def read_config(context: typer.Context, path: Path | None, assignments: list[str] | None) -> ExperimentConfig:
    """The config of a ``ConfigCommand``: file, then flags, then ``--set``.

    Raises:
        ConfigError: with every problem of all three.
    """
    return load_config(path, read_overrides(context, assignments))


def read_overrides(context: typer.Context, assignments: list[str] | None) -> dict[str, object]:
    """Dotted key -> value of every flag and ``--set``.

    Raises:
        ConfigError: an assignment cannot be read.
    """
    flags: dict[str, object] = context.meta.get(OVERRIDES, {})
    return {**flags, **parse_overrides(assignments or [])}


def _config_options() -> list[Any]:
    """An option for each key, as typer itself makes them from a function with that many parameters."""

    def flags(**_values: str | None) -> None: ...

    parameters = [
        inspect.Parameter(key.replace(".", "__"), KEYWORD_ONLY, default=None, annotation=_flag(key, field))
        for key, field in iter_keys()
    ]
    flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(flags)
    return [option for option in typer.main.get_command(app).params if option.name != "help"]


def _flag(key: str, field: FieldInfo) -> Any:
    section, _, leaf = key.rpartition(".")
    names = ["model_name"] if key == "model.name" else [leaf]
    names += [alias for alias, target in ALIASES.items() if target == key and alias not in names]
    flags = dict.fromkeys(f"--{name}" for plain in names for name in (plain, plain.replace("_", "-")))

    def remember(context: typer.Context, value: str | None) -> None:
        if value is not None:
            context.meta.setdefault(OVERRIDES, {})[key] = parse_value(value, key)

    option = typer.Option(
        *flags,
        metavar="VALUE",
        help=field.description,
        expose_value=False,
        callback=remember,
        rich_help_panel=section or "experiment",
    )
    return Annotated[str | None, option]
