"""What a sweep varies, and which trials come of it."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loramill.config.keys import full_key, iter_keys, nearest_key, number_type
from loramill.config.load import parse_value
from loramill.errors import ConfigError, Problem

Sampler = Literal["grid", "random", "tpe"]
Overrides = dict[str, object]
LOG_SCALE_RATIO = 10
"""A range whose ends differ by this factor is searched on a logarithmic scale."""
MAX_TRIALS = 10_000
"""More is a slip: nobody waits for so many."""
DRAWS_FOR_A_TRIAL = 100
"""Draws after which there is no other trial, such as between two ends that no number lies between."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    key: str
    values: tuple[object, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    def value(self, place: int) -> object:
        """The value at a place, counted from 0."""
        return self.values[place]


@dataclass(frozen=True)
class Range:
    """Any value between two ends, both included."""

    key: str
    low: float
    high: float
    whole: bool

    @property
    def logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low >= LOG_SCALE_RATIO

    @property
    def count(self) -> int | None:
        """How many values it has; ``None`` when they are endless."""
        return int(self.high) - int(self.low) + 1 if self.whole else None

    def value(self, place: int) -> int:
        """The whole number at a place, counted from 0."""
        return int(self.low) + place

    def at(self, share: float) -> float | int:
        """The value at a share of the way, 0 to 1."""
        if self.logarithmic:
            value = self.low * math.exp(math.log(self.high / self.low) * share)
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.whole else value


@dataclass(frozen=True)
class SearchSpace:
    """The keys that a sweep varies."""

    dimensions: tuple[Choice | Range, ...]

    @property
    def ranged(self) -> bool:
        """Whether trials have to be drawn: a range is no list of what to try."""
        return any(isinstance(dimension, Range) for dimension in self.dimensions)

    @property
    def combinations(self) -> int | None:
        """How many different trials there are in all; ``None`` when a range makes them endless."""
        counts = [dimension.count for dimension in self.dimensions]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def grid(self) -> list[Overrides]:
        """Every combination, the last key varying fastest."""
        return [self._combination(number) for number in range(self.combinations or 0)]

    def sample(self, trials: int, seed: int) -> list[Overrides]:
        """Random trials, no two alike; fewer where there are no more."""
        generator = random.Random(seed)  # noqa: S311 - a search, no secret
        total = self.combinations
        if total is not None and trials > total // 2:  # what is left is soon too rare to be met by drawing
            chosen = generator.sample(range(total), min(trials, total))
            return [self._combination(number) for number in chosen]
        drawn: dict[str, Overrides] = {}
        for _ in range(trials * DRAWS_FOR_A_TRIAL):
            overrides = {dimension.key: _draw(dimension, generator) for dimension in self.dimensions}
            drawn.setdefault(repr(overrides), overrides)
            if len(drawn) == trials:
                break
        return list(drawn.values())

    def _combination(self, number: int) -> Overrides:
        """One of the grid's, counted from 0."""
        overrides: Overrides = {}
        for dimension in reversed(self.dimensions):
            number, place = divmod(number, dimension.count or 1)
            overrides[dimension.key] = dimension.value(place)
        return dict(reversed(overrides.items()))


def parse_space(assignments: Sequence[str]) -> SearchSpace:
    """``["lora.r=4,8,16", "training.learning_rate=1e-4..1e-2"]`` as a space.

    Raises:
        ConfigError: with every assignment that is unclear.
    """
    known = {key for key, _ in iter_keys()}
    dimensions: list[Choice | Range] = []
    problems = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        key = full_key(name.strip())
        if not equals or not text.strip():
            problems.append(Problem(assignment, None, "write it as key=value,value or key=low..high"))
        elif key not in known:
            problems.append(Problem(key, None, "unknown key", nearest_key(key)))
        elif any(dimension.key == key for dimension in dimensions):
            problems.append(Problem(key, text, "is given twice; write all of its values in one list"))
        else:
            try:
                dimensions.append(_dimension(key, text.strip()))
            except ValueError as error:
                problems.append(Problem(key, text, str(error)))
    if problems:
        raise ConfigError(problems, source="--grid")
    return SearchSpace(tuple(dimensions))


def choose_trials(space: SearchSpace, sampler: Sampler | None, trials: int | None, seed: int) -> list[Overrides]:
    """The trials of a grid or a random search.

    Raises:
        ConfigError: a range needs to know how many trials to draw, and so do more combinations than anybody tries.
    """
    total = space.combinations
    if sampler == "grid" and space.ranged:
        raise ConfigError([Problem("--sampler", "grid", "a grid needs lists of values, and no range")])
    if space.ranged and trials is None:
        raise ConfigError([Problem("--trials", None, "say how many trials to draw from a range, such as --trials 16")])
    asked = trials or total or 1
    if asked > MAX_TRIALS:
        raise ConfigError([Problem("--trials", asked, f"at most {MAX_TRIALS}: say how many of all to try")])
    if not space.ranged and asked >= (total or 1) and sampler != "random":
        return space.grid()
    return space.sample(asked, seed)


def _dimension(key: str, text: str) -> Choice | Range:
    """Dots are a range only where the key takes numbers: elsewhere they are part of a path."""
    kind = number_type(key)
    low, dots, high = text.partition("..")
    if dots and kind is not None:
        first, last = _number(low, kind), _number(high, kind)
        if not first < last:
            raise ValueError("the first end of a range is the smaller one")
        return Range(key, first, last, whole=kind is int)
    values = parse_value(f"[{text}]")
    items = values if isinstance(values, list) else [text]
    read = [parse_value(item, key) if isinstance(item, str) else item for item in items]
    return Choice(key, tuple({repr(value): value for value in read}.values()))


def _number(text: str, kind: type[int] | type[float]) -> int | float:
    """One end of a range, as the type that its key takes."""
    value = parse_value(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError("the ends of a range are numbers, such as 1e-4..1e-2")
    if kind is int and value != int(value):
        raise ValueError("the ends of a range are whole numbers here, such as 4..16")
    return kind(value)


def _draw(dimension: Choice | Range, generator: random.Random) -> object:
    if isinstance(dimension, Choice):
        return generator.choice(dimension.values)
    return dimension.at(generator.random())
