"""Trials proposed by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from loramill.sweeps.space import Choice, Overrides, Range, SearchSpace

if TYPE_CHECKING:
    import optuna


class TpeSearch:
    """Asked for trials and told their scores, a batch at a time; one writer, no shared storage.

    Trials of a batch are asked for together, so the estimator counts those without a score as bad ("constant liar"):
    that keeps them apart.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=8)
        self._space = space
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: list[optuna.Trial] = []

    def ask(self, count: int) -> list[Overrides]:
        """The next trials to run."""
        self._asked = [self._study.ask() for _ in range(count)]
        return [
            {dimension.key: _suggest(trial, dimension) for dimension in self._space.dimensions} for trial in self._asked
        ]

    def tell(self, scores: list[float | None]) -> None:
        """Scores of the trials asked for last, more is better; ``None`` for one that failed."""
        import optuna

        for trial, score in zip(self._asked, scores, strict=True):
            if score is None:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(trial, score)


def _suggest(trial: optuna.Trial, dimension: Choice | Range) -> object:
    if isinstance(dimension, Choice):
        return dimension.values[trial.suggest_int(dimension.key, 0, len(dimension.values) - 1)]
    if dimension.whole:
        return trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.logarithmic)
    return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.logarithmic)
