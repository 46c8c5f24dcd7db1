"""The keys of the config tree: ``training.learning_rate`` and its like, their short names and their typos."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from loramill.config.schema import ExperimentConfig

ALIASES = {"epochs": "training.num_train_epochs", "batch_size": "training.per_device_train_batch_size"}
"""Short names of the command line beside the leaf names of the tree."""

OTHER_NAMES = {"lr": "training.learning_rate", "rank": "lora.r"}
"""What other tools call a key whose name here is nothing like it."""

LEAST_LIKENESS = 0.66
"""From 0 (nothing in common) to 1 (equal); below this a guess would mislead."""


def iter_keys(section: type[BaseModel] = ExperimentConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf of the tree as (dotted key, field), in the order of the schema."""
    for name, field in section.model_fields.items():
        inner = subsection(field)
        if inner:
            yield from iter_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def subsection(field: FieldInfo | None) -> type[BaseModel] | None:
    """The section that a field holds, if it is one."""
    inner = field.annotation if field else None
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def full_key(name: str) -> str:
    """The dotted key of a leaf name: ``learning-rate`` -> ``training.learning_rate``; others unchanged."""
    plain = name.replace("-", "_")
    if plain in ALIASES:
        return ALIASES[plain]
    matches = [key for key, _ in iter_keys() if key.rpartition(".")[2] == plain]
    return matches[0] if len(matches) == 1 and "." not in plain else plain


def nearest_key(name: str) -> str | None:
    """The known key most like a mistyped one by its last part; the rest is a section that is right."""
    section, _, leaf = name.casefold().rpartition(".")
    names = {key.rpartition(".")[2]: key for key, _ in iter_keys()} | ALIASES | OTHER_NAMES
    if not section:
        names |= {key: key for key in ExperimentConfig.model_fields}
    likeness, key = max((_likeness(leaf, short), key) for short, key in names.items())
    return key if likeness >= LEAST_LIKENESS else None


def _likeness(typo: str, name: str) -> float:
    return difflib.SequenceMatcher(None, typo, name).ratio()


def takes_text(key: str) -> bool:
    """Whether a key's value is text, so that ``experiment_name=2026`` is not a number."""
    return str in _types_of(key)


def number_type(key: str) -> type[int] | type[float] | None:
    """The kind of number that a key's value is, if it is one: a learning rate of 1 is a float all the same."""
    types = _types_of(key)
    return int if int in types else float if float in types else None


def _types_of(key: str) -> tuple[object, ...]:
    """What a key's value may be, each alternative by itself; nothing for an unknown key."""
    annotation = next((field.annotation for known, field in iter_keys() if known == key), None)
    return annotation, *get_args(annotation)


def set_key(tree: dict[str, Any], key: str, value: object) -> None:
    """Set ``tree["a"]["b"]`` for the key ``a.b``, making sections on the way.

    A section that is no mapping stays as it is: that is a problem of its own, and the check will say so.
    """
    *sections, leaf = key.split(".")
    for section in sections:
        inner = tree.get(section, {})
        if not isinstance(inner, Mapping):
            return
        tree[section] = dict(inner)
        tree = tree[section]
    tree[leaf] = value


def without_key(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of the tree that lacks one key; unchanged when it is not there."""
    first, _, rest = key.partition(".")
    if not rest:
        return {name: value for name, value in tree.items() if name != first}
    inner = tree.get(first)
    return {**tree, first: without_key(inner, rest)} if isinstance(inner, Mapping) else dict(tree)
