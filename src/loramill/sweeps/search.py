"""How the trials of a sweep are chosen: all that is needed to choose the same ones again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loramill.sweeps.space import Overrides, Sampler, choose_trials, parse_space
from loramill.sweeps.tpe import TpeSearch

TPE_TRIALS = 16
"""Trials of tpe when nobody says how many."""


@dataclass(frozen=True)
class Search:
    """A search that is asked for its trials a batch at a time.

    Attributes:
        space: assignments of ``--grid``.
        trials: how many in all; ``None`` means all of a grid, or ``TPE_TRIALS``.
        batch: trials that tpe asks for at a time; the other samplers know all of theirs at once.
    """

    space: tuple[str, ...]
    sampler: Sampler | None = None
    trials: int | None = None
    batch: int = 8
    seed: int = 42

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Search:
        """From the JSON of ``asdict``."""
        return cls(**{**stored, "space": tuple(stored["space"])})

    def check(self) -> None:
        """
        Raises:
            ConfigError: the space is unclear, or endless with nobody saying how many trials to draw.
        """
        space = parse_space(self.space)
        if self.sampler != "tpe":
            choose_trials(space, self.sampler, self.trials, self.seed)

    @property
    def chooses_at_once(self) -> bool:
        """Whether no trial hangs on the scores of others, as for tpe where there are no more than it may try."""
        combinations = parse_space(self.space).combinations
        return self.sampler != "tpe" or (combinations is not None and combinations <= (self.trials or TPE_TRIALS))

    def next_batch(self, scores: list[float | None]) -> list[Overrides]:
        """The trials that come after those with these scores; empty when there are no more.

        tpe is asked and told again from the start, with the same seed: a resumed search proposes what the
        uninterrupted one would have.
        """
        space, total = parse_space(self.space), self.trials or TPE_TRIALS
        if self.chooses_at_once:
            sampler, trials = ("random", total) if self.sampler == "tpe" else (self.sampler, self.trials)
            return [] if scores else choose_trials(space, sampler, trials, self.seed)
        search, told = TpeSearch(space, self.seed), 0
        while told < len(scores):
            count = min(self.batch, total - told)
            search.ask(count)
            search.tell(scores[told : told + count])
            told += count
        return search.ask(min(self.batch, total - told)) if told < total else []
