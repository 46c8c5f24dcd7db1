"""From YAML, flags and overrides to a checked ``ExperimentConfig``, or to every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loramill.config.keys import full_key, set_key, takes_text
from loramill.config.problems import find_problems
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError, Problem

FAST_SAFE_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The C emitter is five times faster, and every submit writes a config; not every build has it."""


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
    except ValidationError:
        raise ConfigError(find_problems(tree), source=source) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: when the file is missing, is not YAML, or is not a mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506  # a SafeLoader
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        raise _broken(path, "no such file", near[0] if near else None) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, f"cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-31
        where = str(error).replace(' in "<unicode string>",', " at")
        raise _broken(path, f"is not YAML: {' '.join(where.split())}") from None
    except RecursionError:
        raise _broken(path, "is nested too deeply") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise _broken(path, "must be a mapping of sections, such as 'training:'")
    return tree


def dump_config(config: ExperimentConfig) -> str:
    """The whole tree as YAML, defaults included; ``load_config`` reads it back to an equal config."""
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=FAST_SAFE_DUMPER, sort_keys=False, allow_unicode=True)


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
        name = full_key(key.strip())
        overrides[name] = parse_value(value, name)
    if problems:
        raise ConfigError(problems, source="overrides")
    return overrides


def parse_value(text: str, key: str = "") -> object:
    """A value as YAML reads it, and numbers such as ``1e-3`` too, which YAML 1.1 takes for text.

    Args:
        key: dotted key that the value is for; where that takes text, ``2026`` stays text.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2026-02-31
        return text
    if value is not None and takes_text(key):
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice: PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no name of anything: refused by PyYAML
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _broken(path: Path, message: str, suggestion: str | None = None) -> ConfigError:
    return ConfigError([Problem(str(path), None, message, suggestion)], source="config")
