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


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    key: str
    values: tuple[object, ...]


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
    def combinations(self) -> int | None:
        """How many trials there are in all; ``None`` when a range makes them endless."""
        if not all(isinstance(dimension, Choice) for dimension in self.dimensions):
            return None
        return math.prod(len(dimension.values) for dimension in self.dimensions if isinstance(dimension, Choice))

    def grid(self) -> list[Overrides]:
        """Every combination, the last key varying fastest."""
        return [self._combination(number) for number in range(self.combinations or 0)]

    def sample(self, trials: int, seed: int) -> list[Overrides]:
        """Random trials; a finite space is drawn from without repetition."""
        generator = random.Random(seed)  # noqa: S311 - a search, no secret
        if self.combinations is not None:
            chosen = generator.sample(range(self.combinations), min(trials, self.combinations))
            return [self._combination(number) for number in chosen]
        return [{dimension.key: _draw(dimension, generator) for dimension in self.dimensions} for _ in range(trials)]

    def _combination(self, number: int) -> Overrides:
        """One of the grid's, counted from 0."""
        overrides: Overrides = {}
        for dimension in reversed(self.dimensions):
            if isinstance(dimension, Choice):
                number, place = divmod(number, len(dimension.values))
                overrides[dimension.key] = dimension.values[place]
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
        ConfigError: a range needs to know how many trials to draw.
    """
    total = space.combinations
    if sampler == "grid" and total is None:
        raise ConfigError([Problem("--sampler", "grid", "a grid needs lists of values; a range has no end of them")])
    if total is None and trials is None:
        raise ConfigError([Problem("--trials", None, "say how many trials to draw from a range, such as --trials 16")])
    if total is not None and (trials is None or trials >= total) and sampler != "random":
        return space.grid()
    return space.sample(trials or total or 1, seed)


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
    return Choice(key, tuple(parse_value(item, key) if isinstance(item, str) else item for item in items))


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
