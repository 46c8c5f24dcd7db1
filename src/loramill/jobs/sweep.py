"""A sweep as recorded work: one experiment for each trial, and a file that says what belongs together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from loramill.config.keys import set_key
from loramill.config.load import parse_config
from loramill.config.schema import ExperimentConfig, shortened_name
from loramill.database import Database
from loramill.errors import NotFoundError
from loramill.experiments.folder import ExperimentFolder, is_plain_name
from loramill.experiments.models import Experiment
from loramill.experiments.record_file import save_record
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.files import write_json
from loramill.jobs.folders import new_folders, recorded_config, reserve_folder, write_down
from loramill.jobs.record import EventSink, RunRecord
from loramill.monitor.logs import open_run_log
from loramill.settings import Settings
from loramill.sweeps.halving import Halving
from loramill.sweeps.search import Search
from loramill.sweeps.space import Overrides

if TYPE_CHECKING:
    from loramill.sweeps.run import TrialOutcome

STATUS = {"finished": "SUCCESS", "pruned": "PRUNED", "stopped": "REVOKED", "failed": "FAILURE"}

DELETED = "DELETED"
"""State of a trial that somebody removed; its score still counts for what the search asks for next."""

ENDED = ("SUCCESS", "PRUNED", "FAILURE", DELETED)
"""States of a trial that a resumed sweep leaves as it is."""


@dataclass
class TrialEntry:
    """One trial of a sweep, as ``sweep.json`` keeps it."""

    experiment_id: str
    overrides: Overrides
    status: str = "PENDING"
    score: float | None = None


@dataclass
class Sweep:
    """``results/sweeps/<id>/sweep.json``.

    Attributes:
        metric: what chooses the best trial.
        search: how its trials are chosen, for those that are still to come when it is resumed.
        config: what all trials have in common, as a tree.
        registered: the trial that was moved to staging as the best.
    """

    sweep_id: str
    metric: str
    halving: Halving | None = None
    trials: list[TrialEntry] = field(default_factory=list)
    search: Search | None = None
    config: dict[str, Any] = field(default_factory=dict)
    registered: str | None = None

    @property
    def best(self) -> TrialEntry | None:
        """The finished trial with the best score; the earlier one of equals."""
        scored = [trial for trial in self.trials if trial.status == "SUCCESS" and trial.score is not None]
        return max(scored, key=lambda trial: trial.score or 0.0, default=None)

    @property
    def kept(self) -> list[TrialEntry]:
        """The trials that nobody deleted."""
        return [trial for trial in self.trials if trial.status != DELETED]

    def folder(self, settings: Settings) -> Path:
        return settings.results_folder / "sweeps" / self.sweep_id

    def trial_folder(self, settings: Settings, entry: TrialEntry) -> ExperimentFolder:
        """
        Raises:
            NotFoundError: the trial was deleted.
        """
        output_dir = entry.overrides.get("training.output_dir") or self.config.get("training", {}).get("output_dir")
        results = settings.home / str(output_dir) if output_dir else settings.results_folder
        return ExperimentFolder.open(results, entry.experiment_id)

    def note_deleted(self, settings: Settings, database: Database) -> None:
        """Mark the trials whose files or row were deleted: they are not trained, chosen or shown any more.

        A record that knows no trial at all was lost, and ``reindex`` brings it back.
        """
        with database.reading() as session:
            rows = set(session.scalars(select(Experiment.id).where(Experiment.sweep_id == self.sweep_id)))
        for trial in self.kept:
            try:
                self.trial_folder(settings, trial)
                if rows and trial.experiment_id not in rows:
                    trial.status = DELETED
            except NotFoundError:
                trial.status = DELETED

    def save(self, settings: Settings) -> None:
        folder = self.folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sweep.json", {**asdict(self), "best": self.best.experiment_id if self.best else None})

    @classmethod
    def load(cls, settings: Settings, sweep_id: str) -> Sweep:
        """
        Raises:
            NotFoundError: there is no such sweep.
        """
        file = settings.results_folder / "sweeps" / sweep_id / "sweep.json"
        if not is_plain_name(sweep_id) or not file.is_file():
            raise NotFoundError(f"No sweep {sweep_id!r}.", fix="See `loramill experiments list`.")
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        halving = Halving(**stored["halving"]) if stored["halving"] else None
        trials = [TrialEntry(**trial) for trial in stored["trials"]]
        search = Search.restore(stored["search"]) if stored.get("search") else None
        more = {"search": search, "config": stored.get("config", {}), "registered": stored.get("registered")}
        return cls(stored["sweep_id"], stored["metric"], halving, trials, **more)


class SweepRunner:
    """Submits and runs the trials of one sweep, a batch at a time."""

    def __init__(
        self,
        sweep: Sweep,
        *,
        settings: Settings,
        database: Database,
        on_event: EventSink,
        should_stop: Callable[[], bool],
    ) -> None:
        self.sweep = sweep
        self.settings, self.database = settings, database
        self._on_event, self._should_stop = on_event, should_stop

    def say(self, message: str) -> None:
        """Tell a person something about the sweep as a whole."""
        self._on_event({"type": "note", "message": message})

    def submit(
        self, config: ExperimentConfig, batch: Sequence[Overrides], owner: str | None = None
    ) -> list[TrialEntry]:
        """Record an experiment for each trial, all or none.

        Raises:
            ConfigError: a value of the sweep is not allowed.
        """
        first = len(self.sweep.trials) + 1
        configs = [trial_config(config, overrides, number) for number, overrides in enumerate(batch, start=first)]
        entries: list[TrialEntry] = []
        with new_folders() as folders, self.database.transaction() as session:
            for own, overrides in zip(configs, batch, strict=True):
                folder = reserve_folder(own, self.settings)
                folders.append(folder)
                write_down(folder, own)
                new = NewExperiment.from_config(folder.id, own, owner=owner, sweep_id=self.sweep.sweep_id)
                ExperimentStore(session).create(new)
                entries.append(TrialEntry(folder.id, dict(overrides)))
        self.sweep.trials += entries
        self.sweep.save(self.settings)
        for folder in folders:
            save_record(self.database, folder.path.parent, folder.id)
        return entries

    def run(self, entries: Sequence[TrialEntry], *, resume: bool = False) -> None:
        """Train these trials and record how each ended, as soon as it has.

        Raises:
            LoramillError: the sweep cannot go on; the row of every trial that had not ended says so.
        """
        from loramill.sweeps.run import SweepTrial, run_sweep

        with contextlib.ExitStack() as stack:
            records = [self._open(entry, stack) for entry in entries]
            trials = [SweepTrial(config, folder, record.emit) for config, folder, record in records]
            going = {
                entry.experiment_id: (entry, record) for entry, (_, _, record) in zip(entries, records, strict=True)
            }
            for _, _, record in records:
                record.started(resumed=resume)
            try:
                for config, _, record in records:
                    record.report_to_trackers(config)
                for outcome in run_sweep(
                    trials,
                    data_folder=self.settings.data_folder,
                    should_stop=self._should_stop,
                    halving=self.sweep.halving,
                    resume=resume,
                ):
                    self._note(*going.pop(outcome.experiment_id), outcome)
            except Exception as error:
                for _, record in going.values():
                    record.failed(error)
                raise
            except KeyboardInterrupt:  # a second Ctrl-C, as in a run
                for _, record in going.values():
                    record.interrupted()
                raise

    def _open(
        self, entry: TrialEntry, stack: contextlib.ExitStack
    ) -> tuple[ExperimentConfig, ExperimentFolder, RunRecord]:
        folder = self.sweep.trial_folder(self.settings, entry)
        config = recorded_config(folder)
        log = stack.enter_context(open_run_log(folder.log_file, config.system.log_level))

        def tell(event: dict[str, Any]) -> None:
            self._on_event({**event, "experiment_id": entry.experiment_id})

        return config, folder, RunRecord(self.database, folder, log, tell)

    def _note(self, entry: TrialEntry, record: RunRecord, outcome: TrialOutcome) -> None:
        """The row first: a kill before the file is saved costs a trial's last stage, not its record."""
        if outcome.status == "stopped":
            record.stopped()
        elif outcome.error is not None:
            record.failed(outcome.error)
        else:
            record.finished(outcome.metrics)
        entry.status, entry.score = STATUS[outcome.status], outcome.score
        self.sweep.metric = outcome.metric or self.sweep.metric
        self.sweep.save(self.settings)


def new_sweep(config: ExperimentConfig, *, halving: Halving | None, search: Search | None = None) -> Sweep:
    """A sweep without trials yet."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d_%H%M%S_%f")
    return Sweep(
        sweep_id=f"{config.experiment_name}_sweep_{stamp}",
        metric=config.training.metric_for_best_model.removeprefix("eval_"),
        halving=halving,
        search=search,
        config=config.model_dump(mode="json"),
    )


def trial_config(config: ExperimentConfig, overrides: Overrides, number: int) -> ExperimentConfig:
    """The config of one trial.

    Raises:
        ConfigError: a value of the sweep is not allowed.
    """
    tree = config.model_dump(mode="json")
    tree["experiment_name"] = shortened_name(config.experiment_name, f"_t{number:02d}")
    for key, value in overrides.items():
        set_key(tree, key, value)
    return parse_config(tree, source=f"trial {number}")


def iter_unfinished(sweep: Sweep) -> Iterator[TrialEntry]:
    """The trials that an interrupted sweep still owes."""
    return (trial for trial in sweep.trials if trial.status not in ENDED)
