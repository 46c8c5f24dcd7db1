"""Running a sweep to its end, from its beginning or from wherever it was interrupted."""

from __future__ import annotations

from collections import Counter

from loramill.config.load import parse_config
from loramill.database import Database
from loramill.errors import TrainingError
from loramill.experiments.record_file import changing
from loramill.experiments.sweep_report import SweepView, SweptTrial, write_sweep_report
from loramill.jobs.sweep import Sweep, SweepRunner, iter_unfinished
from loramill.settings import Settings


def run_search(runner: SweepRunner, *, resume: bool = False) -> None:
    """Run the trials that are still owed, then batch after batch of what the search asks for.

    Raises:
        ConfigError: a value of the sweep is not allowed; nothing was recorded of it.
        LoramillError: the sweep cannot go on; it can be resumed.
    """
    sweep = runner.sweep
    sweep.note_deleted(runner.settings, runner.database)
    if owed := list(iter_unfinished(sweep)):
        runner.run(owed, resume=resume)
    while sweep.search is not None and not list(iter_unfinished(sweep)):
        batch = sweep.search.next_batch([trial.score for trial in sweep.trials])
        if not batch:
            return
        if sweep.search.chooses_at_once and len(batch) < (sweep.search.trials or 0):
            runner.say(f"There are only {len(batch)} different trials; {sweep.search.trials} were asked for.")
        runner.run(runner.submit(parse_config(sweep.config), batch))


def close_sweep(sweep: Sweep, *, settings: Settings, database: Database, by: str) -> None:
    """Move the best trial's model to ``staging`` and write the page of the sweep; a stopped one gets its page too.

    Args:
        by: who runs the sweep, for the model's history.
    """
    sweep.note_deleted(settings, database)
    if sweep.best is not None and not list(iter_unfinished(sweep)):
        _register_best(sweep, settings, database, by)
    sweep.save(settings)
    write_sweep_report(sweep.folder(settings), view_of(sweep, settings))


def require_best(sweep: Sweep) -> None:
    """
    Raises:
        TrainingError: the sweep came to its end and has no model to show for it.
    """
    if sweep.best is None:
        ends = Counter(trial.status for trial in sweep.trials)
        raise TrainingError(
            f"No trial of {sweep.sweep_id} succeeded: {', '.join(f'{count} {end}' for end, count in ends.items())}.",
            fix="The logs.txt of each trial says why; start a new sweep with other values.",
        )


def view_of(sweep: Sweep, settings: Settings) -> SweepView:
    """What a page shows of a sweep: the trials that were not deleted."""
    trials = []
    for entry in sweep.kept:
        folder = sweep.trial_folder(settings, entry)
        value = folder.read_metrics().get("eval", {}).get(sweep.metric) if entry.score is not None else None
        trials.append(SweptTrial(folder, entry.overrides, entry.status, value, entry.score))
    best = sweep.best.experiment_id if sweep.best else None
    return SweepView(sweep.sweep_id, sweep.metric, best, trials)


def _register_best(sweep: Sweep, settings: Settings, database: Database, by: str) -> None:
    """A stage that somebody gave since is left alone."""
    best = sweep.best
    if best is None or sweep.registered == best.experiment_id:
        return
    results = sweep.trial_folder(settings, best).path.parent
    reason = f"best {sweep.metric} of {len(sweep.trials)} trials of sweep {sweep.sweep_id}"
    with changing(database, results, best.experiment_id) as (store, registry):
        before = store.find(sweep.registered) if sweep.registered else None
        if before is not None and before.stage == "staging":  # it makes room for the best of all
            registry.set_stage(before.id, None, by=by, reason="another trial of its sweep is better")
        if store.get(best.experiment_id).stage is None:
            registry.set_stage(best.experiment_id, "staging", by=by, reason=reason)
    sweep.registered = best.experiment_id
