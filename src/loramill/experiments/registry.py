"""The model registry: every finished run is a model; a stage says what it is for, an alias names one for callers.

Each move is kept for good with who made it, when and why.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from loramill.errors import ConfigError, ConflictError, NotFoundError, Problem
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.models import Experiment, ModelAlias, RegistryEvent, Status
from loramill.experiments.search import ExperimentPage, Order, find_page
from loramill.experiments.store import ExperimentStore

STAGES = ("staging", "production", "archived")


@dataclass(frozen=True)
class RegistryMove:
    """One line of a model's history."""

    experiment_id: str
    kind: str
    """``stage`` or ``alias``."""
    old_value: str | None
    new_value: str | None
    by: str
    at: datetime
    reason: str

    def as_dict(self) -> dict[str, str | None]:
        return {**asdict(self), "at": self.at.isoformat()}


class ModelRegistry:
    """Stages and aliases of the models in one database session; it never commits.

    Attributes:
        touched: ids of the experiments whose history it added to.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._store = ExperimentStore(session)
        self.touched: set[str] = set()

    def search(
        self,
        wanted: ExperimentFilter | None = None,
        *,
        order: Order | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ExperimentPage:
        """Models, best accuracy first unless told otherwise; the filter names base, language, task, tag, stage."""
        finished = ExperimentFilter(**{**vars(wanted or ExperimentFilter()), "status": Status.SUCCESS})
        return find_page(self._session, finished, order or Order("eval_accuracy"), limit, cursor)

    def set_stage(self, experiment_id: str, stage: str | None, *, by: str, reason: str = "") -> None:
        """Move a model to a stage; ``None`` takes it out of all.

        Raises:
            ConfigError: there is no such stage.
            ConflictError: the run has not finished, so it has no model.
        """
        if stage is not None and stage not in STAGES:
            raise ConfigError([Problem("stage", stage, f"must be one of {', '.join(STAGES)}")], source="registry")
        experiment = self._model(experiment_id)
        self._note(experiment, "stage", experiment.stage, stage, by, reason)
        experiment.stage = stage
        self._session.flush()

    def set_alias(self, alias: str, experiment_id: str, *, by: str, reason: str = "") -> None:
        """Let a name point at a model, whatever it pointed at before.

        Raises:
            ConfigError: the name is not 1 to 64 of letters, digits, '-', '_' and '.'.
            ConflictError: the run has not finished, so it has no model.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", alias, re.ASCII):
            message = "use 1 to 64 letters, digits, '-', '_' or '.'"
            raise ConfigError([Problem("alias", alias[:80], message)], source="registry")
        experiment = self._model(experiment_id)
        known = self._session.get(ModelAlias, alias)
        if known is None:
            self._session.add(ModelAlias(name=alias, experiment_number=experiment.number))
        else:
            before = self._session.get_one(Experiment, known.experiment_number)
            if before.number != experiment.number:
                self._note(before, "alias", alias, None, by, reason)
            known.experiment_number = experiment.number
        self._note(experiment, "alias", None, alias, by, reason)
        self._session.flush()

    def remove_alias(self, alias: str, *, by: str, reason: str = "") -> None:
        """
        Raises:
            NotFoundError: no model has this alias.
        """
        known = self._alias(alias)
        experiment = self._session.get_one(Experiment, known.experiment_number)
        self._note(experiment, "alias", alias, None, by, reason)
        self._session.delete(known)
        self._session.flush()

    def resolve(self, alias: str) -> str:
        """The id of the experiment that an alias points at.

        Raises:
            NotFoundError: no model has this alias.
        """
        return self._session.get_one(Experiment, self._alias(alias).experiment_number).id

    def newest_in_stage(self, stage: str) -> str:
        """The id of the experiment that came to a stage last, among those that are in it now.

        Raises:
            NotFoundError: none is.
        """
        statement = (
            select(Experiment.id)
            .join(RegistryEvent, RegistryEvent.experiment_number == Experiment.number)
            .where(Experiment.stage == stage, RegistryEvent.kind == "stage", RegistryEvent.new_value == stage)
            .order_by(RegistryEvent.at.desc(), RegistryEvent.number.desc())
        )
        found = self._session.scalar(statement.limit(1))
        if found is None:
            raise NotFoundError(f"No model is in the stage {stage[:80]!r}.")
        return found

    def aliases(self, experiment_id: str) -> list[str]:
        number = self._store.get(experiment_id).number
        statement = select(ModelAlias.name).where(ModelAlias.experiment_number == number)
        return list(self._session.scalars(statement.order_by(ModelAlias.name)))

    def history(self, experiment_id: str) -> list[RegistryMove]:
        """Every move of one model, oldest first."""
        number = self._store.get(experiment_id).number
        statement = select(RegistryEvent).where(RegistryEvent.experiment_number == number)
        events = self._session.scalars(statement.order_by(RegistryEvent.number))
        return [RegistryMove(experiment_id, e.kind, e.old_value, e.new_value, e.by, e.at, e.reason) for e in events]

    def restore(self, experiment_id: str, moves: list[RegistryMove], aliases: list[str]) -> None:
        """Put back a history that was saved with the files; for ``reindex``, into an empty record."""
        experiment = self._store.get(experiment_id)
        for move in moves:
            self._note(experiment, move.kind, move.old_value, move.new_value, move.by, move.reason, move.at)
        for alias in aliases:
            if self._session.get(ModelAlias, alias) is None:
                self._session.add(ModelAlias(name=alias, experiment_number=experiment.number))
        self._session.flush()

    def _model(self, experiment_id: str) -> Experiment:
        experiment = self._store.get(experiment_id)
        if experiment.status != Status.SUCCESS:
            raise ConflictError(
                f"Experiment {experiment_id!r} is {experiment.status} and has no finished model.",
                fix="Choose one with status SUCCESS.",
            )
        return experiment

    def _alias(self, alias: str) -> ModelAlias:
        known = self._session.get(ModelAlias, alias)
        if known is None:
            raise NotFoundError(f"No model has the alias {alias!r}.", fix="See `loramill models list`.")
        return known

    def _note(
        self,
        experiment: Experiment,
        kind: str,
        old_value: str | None,
        new_value: str | None,
        by: str,
        reason: str,
        at: datetime | None = None,
    ) -> None:
        self.touched.add(experiment.id)
        self._session.add(
            RegistryEvent(
                experiment_number=experiment.number,
                kind=kind,
                old_value=old_value,
                new_value=new_value,
                by=by,
                at=at or datetime.now(UTC),
                reason=reason,
            )
        )
