"""Trials proposed by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from loramill.sweeps.space import Choice, Overrides, Range, SearchSpace

if TYPE_CHECKING:
    import optuna

ASKS_FOR_A_TRIAL = 10
"""How often the estimator may propose what was tried before; then one that was not is drawn."""


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
        self._space, self._seed = space, seed
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: list[optuna.Trial] = []
        self._tried: set[str] = set()

    def ask(self, count: int) -> list[Overrides]:
        """The next trials to run, unlike each other and all before; the space has at least so many more.

        What is proposed again stays open meanwhile: counted as bad, it drives the next proposal away.
        """
        import optuna

        repeated: list[optuna.Trial] = []
        new = [self._ask_for_another(repeated) for _ in range(count)]
        for trial in repeated:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._asked = [trial for trial, _ in new]
        return [overrides for _, overrides in new]

    def _ask_for_another(self, repeated: list[optuna.Trial]) -> tuple[optuna.Trial, Overrides]:
        for attempt in range(ASKS_FOR_A_TRIAL + 1):
            if attempt == ASKS_FOR_A_TRIAL:
                self._study.enqueue_trial(self._draw_untried())
            trial = self._study.ask()
            overrides = {dimension.key: _suggest(trial, dimension) for dimension in self._space.dimensions}
            if repr(overrides) not in self._tried:
                break
            repeated.append(trial)
        self._tried.add(repr(overrides))
        return trial, overrides

    def _draw_untried(self) -> Overrides:
        """A random combination as the study's parameters: a choice is the place of its value."""
        drawn = self._space.sample(len(self._tried) + 1, self._seed)
        untried = next(overrides for overrides in drawn if repr(overrides) not in self._tried)
        return {
            key: dimension.values.index(value) if isinstance(dimension, Choice) else value
            for dimension, (key, value) in zip(self._space.dimensions, untried.items(), strict=True)
        }

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
