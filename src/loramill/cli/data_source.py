"""How data commands name a data set: a file, folder, sample, version or hub id, or a config that names one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loramill.cli.config_options import OVERRIDES, ConfigCommand, read_config
from loramill.config.schema import ExperimentConfig
from loramill.data.sources import SourceData, load_source
from loramill.settings import Settings

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="File, folder, sample:, version:, hub id; or a config (.yaml) that names it."
    ),
]
UseTokenizer = Annotated[
    str | None, typer.Option("--tokenizer", metavar="MODEL", help="Count tokens as this base model does.")
]
READING_KEYS = ("dataset_config", "text_column", "text_pair_column", "label_column", "max_length")


class SourceCommand(ConfigCommand):
    """A command with a flag for every key that decides how a data set is read and checked (``--text-column``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [option for option in self.params if _is_offered(option.name or "")]


def read_source(context: typer.Context, source: str, settings: Settings) -> tuple[ExperimentConfig, SourceData]:
    """The config that the source and the flags come to, and its rows.

    Raises:
        ConfigError: a flag is wrong.
        DataError: the source cannot be read.
    """
    path = Path(source) if source.endswith((".yaml", ".yml")) else None
    if path is None:
        context.meta.setdefault(OVERRIDES, {})["data.dataset_name"] = source
    config = read_config(context, path, None)
    return config, load_source(config.data, settings.data_folder)


def token_counter(model: str | None) -> Any:
    """A counter of untruncated tokens for a base model's name; ``None`` without one.

    Raises:
        ModelNotFoundError: there is no such model on this disk or the hub.
    """
    if model is None:
        return None
    from loramill.base_models import locate_base_model
    from loramill.engine.tokenizer import count_tokens, load_tokenizer

    tokenizer = load_tokenizer(locate_base_model(model).folder)
    return lambda texts, pairs: count_tokens(tokenizer, texts, pairs)


def _is_offered(name: str) -> bool:
    """An option of the command itself, or a key that decides how a data set is read and checked."""
    section, is_key, leaf = name.partition("__")
    if not is_key:
        return name != "experiment_name"
    return section == "data" and (leaf in READING_KEYS or leaf.startswith("validation_rules__"))
