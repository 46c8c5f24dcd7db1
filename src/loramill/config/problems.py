"""From pydantic's errors to problems that a person can act on: key, value, what is allowed, nearest known key."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from loramill.config.keys import nearest_key, subsection, without_key
from loramill.config.schema import ExperimentConfig
from loramill.errors import Problem

ALLOWED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of a sensible size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text without NUL and half characters",
    "string_too_short": "text that is not empty",
    "list_type": "a list such as [a, b]",
    "literal_error": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
}
"""pydantic's kind of error -> what "must be" says of it."""

LONGEST_VALUE = 80


def find_problems(tree: Mapping[str, object]) -> list[Problem]:
    """Everything that is wrong with a config; empty for a good one.

    pydantic compares the keys of a section with each other only when each of them is good by itself. So the tree is
    checked again without the keys at fault, and a comparison counts when none of them takes part in it.
    """
    problems: list[Problem] = []
    while True:
        found = [problem for problem in _check(tree) if not _involves(problem, problems)]
        if not found:
            return problems
        problems += found
        for problem in found:
            tree = without_key(tree, problem.key)


def _check(tree: Mapping[str, object]) -> list[Problem]:
    try:
        ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        return _one_a_key(_problem(detail) for detail in error.errors())
    return []


def _one_a_key(problems: Any) -> list[Problem]:
    """A field that allows several types reports one error for each, joined here by "or"; so do the items of a list."""
    by_key: dict[str, Problem] = {}
    for problem in problems:
        known = by_key.get(problem.key)
        if known:
            start, another = known.message.rpartition(", not ")[0], problem.message.removeprefix("must be ")
            if another.rpartition(", not ")[0] in start.removeprefix("must be ").split(" or "):
                continue
            problem = replace(problem, message=f"{start} or {another}")
        by_key[problem.key] = problem
    return list(by_key.values())


def _involves(problem: Problem, known: Sequence[Problem]) -> bool:
    """Whether a problem is a known one, or a comparison with the key of a known one."""
    words = problem.message.split()
    return any(problem.key == earlier.key or earlier.key.rpartition(".")[2] in words for earlier in known)


def _problem(detail: Any) -> Problem:
    key, value = _dotted(detail["loc"]) or "config", detail["input"]  # a key that is no text is not in its own place
    if detail["type"] == "extra_forbidden":
        return _unknown_key(key, value)
    if detail["type"] in ALLOWED:
        message = f"must be {ALLOWED[detail['type']].format(**detail.get('ctx', {}))}"
        return Problem(key, excerpt(value), f"{message}, not {_shown(value)}")
    message = detail["msg"].removeprefix("Value error, ")
    if isinstance(value, BaseModel | Mapping):  # keys of a section contradict each other; the message begins with one
        leaf = message.partition(" ")[0]
        section = value if isinstance(value, Mapping) else value.model_dump()
        return Problem(f"{key}.{leaf}".lstrip("."), excerpt(section.get(leaf)), message)
    return Problem(key, excerpt(value), f"{message}, not {_shown(value)}")


def _unknown_key(key: str, value: object) -> Problem:
    nearest = nearest_key(key)
    if nearest != key:
        return Problem(key, excerpt(value), "unknown key", nearest)
    section, _, leaf = key.rpartition(".")  # one name with a dot in it
    return Problem(key, excerpt(value), f"must stand as '{leaf}' below '{section}'")


def _dotted(location: Sequence[int | str]) -> str:
    """The dotted key of a pydantic location, without the names it adds for items and for the members of a union."""
    key: list[str] = []
    section: type[BaseModel] | None = ExperimentConfig
    for part in location:
        if section is None:
            break
        key.append(str(part))
        section = subsection(section.model_fields.get(str(part)))
    return ".".join(key)


def excerpt(value: object) -> object:
    """A plain value as it is; anything else as a short text, however much it would expand to.

    Text with characters that cannot be seen is not plain: half of a surrogate pair fits in no reply.
    """
    plain = isinstance(value, str) and len(value) <= LONGEST_VALUE and value.isprintable()
    return value if plain or value is None or isinstance(value, bool | int | float) else _shown(value)


def _shown(value: object) -> str:
    short = reprlib.Repr()
    short.maxlevel = 2
    short.maxstring = short.maxother = short.maxlong = LONGEST_VALUE
    text = short.repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
