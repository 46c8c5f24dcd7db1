"""From YAML, flags and overrides to a checked ``ExperimentConfig``, or to every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError, Problem

ALIASES = {
    "epochs": "training.num_train_epochs",
    "batch_size": "training.per_device_train_batch_size",
    "model_name": "model.name",
}
"""Short names of the command line beside the leaf names of the tree."""


def load_config(path: Path | None, overrides: Mapping[str, object] | None = None) -> ExperimentConfig:
    """Read a YAML file (or the defaults), apply overrides, check everything.

    Args:
        path: YAML file; ``None`` means the built-in defaults.
        overrides: dotted key -> value, applied last.

    Raises:
        ConfigError: with every problem of the file and the overrides together.
    """
    tree = read_yaml(path) if path else {}
    for key, value in (overrides or {}).items():
        set_key(tree, key, value)
    return parse_config(tree, source=str(path) if path else "config")


def parse_config(tree: Mapping[str, object], *, source: str = "config") -> ExperimentConfig:
    """Check a plain mapping against the schema; see ``load_config``."""
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_problems(error), source=source) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: when the file is missing, is not YAML, or is not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        raise _broken(path, "no such file", near[0] if near else None) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, f"cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise _broken(path, f"is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise _broken(path, "is nested too deeply") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise _broken(path, "must be a mapping of sections, such as 'training:'")
    return tree


def dump_config(config: ExperimentConfig) -> str:
    """The whole tree as YAML, defaults included; ``load_config`` reads it back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_overrides(assignments: Sequence[str]) -> dict[str, object]:
    """``["lora.r=16", "training.device=cpu"]`` -> dotted keys with YAML values.

    Raises:
        ConfigError: for every assignment without a key and an ``=``.
    """
    problems, overrides = [], {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            problems.append(Problem(assignment, None, "write it as key=value, for example lora.r=16"))
            continue
        overrides[full_key(key.strip())] = parse_value(value)
    if problems:
        raise ConfigError(problems, source="overrides")
    return overrides


def parse_value(text: str) -> object:
    """A value as YAML reads it, and numbers such as ``1e-3`` too, which YAML 1.1 takes for text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def full_key(name: str) -> str:
    """The dotted key of a leaf name: ``learning-rate`` -> ``training.learning_rate``; others unchanged."""
    plain = name.replace("-", "_")
    if plain in ALIASES:
        return ALIASES[plain]
    matches = [key for key, _ in iter_keys() if key.rpartition(".")[2] == plain]
    return matches[0] if len(matches) == 1 and "." not in plain else plain


def iter_keys(
    section: type[BaseModel] = ExperimentConfig, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf of the tree as (dotted key, field), in the order of the schema."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from iter_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def set_key(tree: dict[str, Any], key: str, value: object) -> None:
    """Set ``tree["a"]["b"]`` for the key ``a.b``, making sections on the way."""
    *sections, leaf = key.split(".")
    for section in sections:
        inner = tree.get(section)
        tree[section] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[section]
    tree[leaf] = value


def nearest_key(name: str) -> str | None:
    """The known key most like a mistyped one: the full key if one is near, else one with a near last part."""
    known = [key for key, _ in iter_keys()] + list(ExperimentConfig.model_fields)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near:
        return near[0]
    by_leaf = {key.rpartition(".")[2]: key for key in known}
    near = difflib.get_close_matches(name.rpartition(".")[2], by_leaf, n=1, cutoff=0.75)
    return by_leaf[near[0]] if near else None


def _problems(error: ValidationError) -> list[Problem]:
    """One problem a key: a field that allows several types reports one error for each, joined here by "or"."""
    by_key: dict[str, Problem] = {}
    for problem in map(_problem, error.errors()):
        known = by_key.get(problem.key)
        message = f"{known.message.rpartition(', not ')[0]} or {problem.message}" if known else problem.message
        by_key[problem.key] = replace(problem, message=message)
    return list(by_key.values())


def _problem(detail: Any) -> Problem:
    key = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return Problem(key, detail["input"], "unknown key", nearest_key(key))
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = detail["input"]
    if not isinstance(shown, Mapping):
        message = f"{message}, not {_excerpt(shown)}"
    return Problem(key or "config", None if isinstance(shown, Mapping) else shown, message)


def _dotted(location: Sequence[int | str]) -> str:
    """The dotted key of a pydantic location, without the names it adds for the members of a union."""
    key, section = [], ExperimentConfig
    for part in location:
        key.append(str(part))
        field = section.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        section = inner  # type: ignore[assignment]
    return ".".join(key)


def _excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _broken(path: Path, message: str, suggestion: str | None = None) -> ConfigError:
    return ConfigError([Problem(str(path), None, message, suggestion)], source="config")


def allowed_values(field: FieldInfo) -> tuple[object, ...]:
    """The choices of a field that has them (``Literal``), else nothing."""
    choices: list[object] = []
    for part in (field.annotation, *get_args(field.annotation)):
        if str(getattr(part, "__origin__", "")) == "typing.Literal":
            choices.extend(get_args(part))
    return tuple(choices)
