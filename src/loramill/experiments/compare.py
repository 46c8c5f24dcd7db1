"""Runs side by side: what was set differently, what came out, and whether the difference is more than luck.

A winner is named only when, on the same evaluated rows, it beats every other run by both a paired bootstrap and
McNemar's test, after Holm's correction for their number. Rows are paired by their place in the data version, which is
the same for a run that read a file and one that read the stored rows. Everything is read from the folders.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loramill.errors import ConfigError, Problem
from loramill.experiments.curves import Curve, read_curves
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.metrics import flatten_metrics
from loramill.experiments.predictions import Predictions, read_predictions
from loramill.experiments.significance import bootstrap_means, bootstrap_p, holm, mcnemar_p

SIGNIFICANT = 0.05
MIN_RUNS, MAX_RUNS = 2, 100
NOT_A_PARAMETER = frozenset({"experiment_name", "training.output_dir"})

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairTest:
    """The leader against one other run on the rows that both evaluated.

    Attributes:
        difference: mean score of the leader minus that of the other, with its 95% interval (``low`` to ``high``).
        mcnemar_p: ``None`` where rows are not right or wrong (regression).
        adjusted_p: the larger of the p-values, corrected for the number of pairs.
    """

    leader: str
    other: str
    rows: int
    difference: float
    low: float
    high: float
    bootstrap_p: float
    mcnemar_p: float | None
    adjusted_p: float


@dataclass(frozen=True)
class Verdict:
    """Who wins, if anyone does, and why.

    Attributes:
        score: what rows were compared by: ``accuracy``, or ``loss`` for regression (then less is better).
        leader: the run with the best mean score, which a winner is but not the other way round.
    """

    winner: str | None
    reason: str
    score: str | None = None
    leader: str | None = None
    pairs: tuple[PairTest, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, in the order asked for.

    Attributes:
        parameters: dotted config key -> value of each run; only keys that differ.
        metrics: name -> value of each run, ``None`` where a run lacks it.
        curves: name -> curve of each run, empty where a run lacks it.
    """

    ids: tuple[str, ...]
    parameters: dict[str, tuple[Any, ...]]
    metrics: dict[str, tuple[float | None, ...]]
    curves: dict[str, tuple[Curve, ...]]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def compare_runs(folders: Sequence[ExperimentFolder]) -> Comparison:
    """Compare 2 to 100 runs.

    Raises:
        ConfigError: too few, too many, or one of them twice.
        CorruptFileError: a file of a run cannot be read.
    """
    ids = tuple(folder.id for folder in folders)
    if not MIN_RUNS <= len(ids) <= MAX_RUNS or len(set(ids)) < len(ids):
        problem = Problem("experiments", list(ids), f"name {MIN_RUNS} to {MAX_RUNS} different experiments")
        raise ConfigError([problem], source="compare")
    configs = [dict(flatten_config(folder.read_config_tree())) for folder in folders]
    metrics = [flatten_metrics(folder.read_metrics()) for folder in folders]
    curves = [read_curves(folder.read_events()) for folder in folders]
    return Comparison(
        ids=ids,
        parameters=_differing(configs),
        metrics={name: tuple(found.get(name) for found in metrics) for name in _names(metrics)},
        curves={name: tuple(found.get(name, ()) for found in curves) for name in _names(curves)},
        verdict=judge(folders),
    )


def flatten_config(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten_config(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def judge(folders: Sequence[ExperimentFolder]) -> Verdict:
    """Whether one run is better than each of the others, on the rows that all of them evaluated."""
    ids = [folder.id for folder in folders]
    found = [read_predictions(folder, everything=False) for folder in folders]
    predictions = [one for one in found if one is not None]
    if obstacle := _obstacle(folders, found):
        return Verdict(None, f"No winner: {obstacle}")
    positions = [one.position for one in predictions if one.position is not None]
    rows = functools.reduce(np.intersect1d, positions)
    if len(rows) == 0:
        return Verdict(None, "No winner: no row was evaluated by all of them.")
    score = "accuracy" if all(one.is_classification for one in predictions) else "loss"
    scores = np.stack([_scores(*one, rows, score) for one in zip(predictions, positions, strict=True)])
    leader = int(scores.mean(axis=1).argmax())
    pairs = _test_pairs(ids, scores, leader, by_class=score == "accuracy")
    won = all(pair.adjusted_p < SIGNIFICANT and pair.difference > 0 for pair in pairs)
    return Verdict(ids[leader] if won else None, _reason(pairs, score, won=won), score, ids[leader], pairs)


def _obstacle(folders: Sequence[ExperimentFolder], found: Sequence[Predictions | None]) -> str | None:
    """Why these runs cannot be tested against each other, if they cannot."""
    lacking = [folder.id for folder, predictions in zip(folders, found, strict=True) if predictions is None]
    if lacking:
        return f"{', '.join(lacking)} saved no predictions."
    versions = {folder.id: folder.read_data().get("eval") for folder in folders}
    if None in versions.values() or len(set(versions.values())) > 1:
        named = ", ".join(f"{run} on {str(version)[:12]}" for run, version in versions.items())
        return f"they were evaluated on different data ({named})."
    placeless = [folder.id for folder, one in zip(folders, found, strict=True) if one and one.position is None]
    if placeless:
        return f"{', '.join(placeless)} evaluated a part of the rows and did not save which; train again to compare."
    return None


def _scores(predictions: Predictions, position: Rows, rows: Rows, score: str) -> Floats:
    """Scores of the rows at ``rows`` of the version, where more is better."""
    order = np.argsort(position, kind="stable")
    places = order[np.searchsorted(position, rows, sorter=order)]
    values = predictions.right if score == "accuracy" else -predictions.loss
    return np.asarray(values[places], dtype=np.float64)


def _test_pairs(ids: Sequence[str], scores: Floats, leader: int, *, by_class: bool) -> tuple[PairTest, ...]:
    others = [index for index in range(len(ids)) if index != leader]
    differences = (scores[leader] - scores[others]).T
    means = bootstrap_means(differences)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    bootstrapped = [bootstrap_p(means[:, pair]) for pair in range(len(others))]
    mcnemar = [_mcnemar(differences[:, pair]) if by_class else None for pair in range(len(others))]
    adjusted = holm([max(p, m or 0.0) for p, m in zip(bootstrapped, mcnemar, strict=True)])
    return tuple(
        PairTest(
            leader=ids[leader],
            other=ids[other],
            rows=len(differences),
            difference=float(differences[:, pair].mean()),
            low=float(low[pair]),
            high=float(high[pair]),
            bootstrap_p=bootstrapped[pair],
            mcnemar_p=mcnemar[pair],
            adjusted_p=adjusted[pair],
        )
        for pair, other in enumerate(others)
    )


def _mcnemar(differences: Floats) -> float:
    return mcnemar_p(int((differences > 0).sum()), int((differences < 0).sum()))


def _reason(pairs: Sequence[PairTest], score: str, *, won: bool) -> str:
    closest = max(pairs, key=lambda pair: (pair.adjusted_p, -pair.difference))
    unit, factor = ("points of accuracy", 100) if score == "accuracy" else ("of loss", 1)
    lead = f"{closest.difference * factor:.2f} {unit} (95% {closest.low * factor:.2f} to {closest.high * factor:.2f})"
    chance = f"p {closest.adjusted_p:.3f} on {closest.rows:,} rows"
    if won:
        return f"{closest.leader} beats every other run; the closest, {closest.other}, by {lead}, {chance}."
    return f"No winner: {closest.leader} leads {closest.other} by {lead}, {chance}, which may be luck."


def _differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    values = {key: tuple(config.get(key) for config in configs) for key in _names(configs)}
    return {
        key: found
        for key, found in values.items()
        if key not in NOT_A_PARAMETER and any(value != found[0] for value in found)
    }


def _names(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key, in the order of first sight."""
    return list(dict.fromkeys(name for mapping in found for name in mapping))
