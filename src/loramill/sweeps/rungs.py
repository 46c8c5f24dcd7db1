"""Training with successive halving: rung by rung, fewer trials on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loramill.engine.bank import AdapterBank
from loramill.sweeps.entry import Entry, comparison_rows
from loramill.sweeps.halving import Halving
from loramill.training.evaluation import best_metric_value, evaluate
from loramill.training.loop import StepObserver, save_checkpoint, train_trials


def train_rung_by_rung(
    bank: AdapterBank,
    entries: Sequence[Entry],
    halving: Halving,
    *,
    should_stop: Callable[[], bool],
    observer: StepObserver,
) -> bool:
    """Train all to the first rung, the best to the next, and so on.

    A trial remembers its scores in its checkpoints, so that a resumed sweep prunes the same ones.

    Returns:
        Whether somebody asked to stop.
    """
    active = list(entries)
    for rung, share in enumerate([*halving.shares(), 1.0]):
        for entry in active:
            entry.run.pause_at = max(1, round(entry.run.trial.plan.total_steps * share))
        runs = [entry.run for entry in active]
        if train_trials(bank, runs, should_stop=should_stop, observer=observer, isolate=True):
            return True
        active = [entry for entry in active if not entry.failed]
        if share < 1 and active:
            active = _prune(bank, active, halving, rung)
    return False


def _prune(bank: AdapterBank, active: list[Entry], halving: Halving, rung: int) -> list[Entry]:
    scores = [_score(bank, entry, halving, rung) for entry in active]
    survivors = {id(active[place]) for place in halving.survivors(scores)}
    for entry in active:
        if id(entry) not in survivors:
            entry.prune()
            measured, best = entry.comparison, entry.run.trial.best_metric
            save_checkpoint(bank, entry.run, metric=best_metric_value(measured.metrics, best) if measured else None)
            entry.context.note(f"Pruned after step {entry.run.trial.progress.step}: others learn faster.")
    return [entry for entry in active if id(entry) in survivors]


def _score(bank: AdapterBank, entry: Entry, halving: Halving, rung: int) -> float:
    """How good a trial is at a rung, on the rows of the comparison; more is better.

    The loss says it, whatever metric chooses checkpoints: it tells trials apart whose accuracy is still that of chance.
    """
    run, trial = entry.run, entry.run.trial
    known = trial.progress.rung_scores
    if rung == len(known):
        rows = comparison_rows(len(run.evaluation), halving.rows_at(rung))
        part = run.evaluation if rows is None else run.evaluation.take(rows)
        entry.comparison = evaluate(bank, trial.index, part, run.label_names)
        known.append(best_metric_value(entry.comparison.metrics, "loss"))
    return known[rung]
