"""From a name to an experiment: an id, ``latest``, or an alias or a stage of the model registry."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from loramill.errors import ModelNotFoundError, NotFoundError
from loramill.experiments.folder import ExperimentFolder, results_holding
from loramill.inference.saved_model import LATEST, find_experiment, find_served
from loramill.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from loramill.database import Database

NAME_LIFETIME = 2.0
"""Seconds that the experiment behind a name is remembered: how soon a promotion is followed."""

KNOWN_NAMES = 10_000
"""Names remembered; callers could send any number of them."""

Found = TypeVar("Found")


class RegistryNames:
    """The names that the model registry of this home gives; it has none while there is no database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None

    def resolve(self, name: str) -> str | None:
        """The experiment that an alias names, or the one that came last to a stage; ``None`` without one."""
        from loramill.experiments.registry import STAGES, ModelRegistry

        def find(session: Session) -> str | None:
            registry = ModelRegistry(session)
            with contextlib.suppress(NotFoundError):
                return registry.resolve(name)
            return registry.newest_in_stage(name) if name in STAGES else None

        return self._read(find)

    def results_of(self, experiment_id: str) -> Path | None:
        """Where the experiment lies by its row, as ``training.output_dir`` of its config said; ``None`` without one."""
        from loramill.experiments.store import ExperimentStore

        config = self._read(lambda session: ExperimentStore(session).get(experiment_id).config)
        return results_holding(self._settings.results_folder, experiment_id, config) if config else None

    def _read(self, find: Callable[[Session], Found]) -> Found | None:
        """What ``find`` finds; ``None`` where there is no such row, no table yet, or no database."""
        from sqlalchemy.exc import SQLAlchemyError

        database = self._open()
        if database is None:
            return None
        try:
            with database.reading() as session:
                return find(session)
        except (NotFoundError, SQLAlchemyError):
            return None

    def _open(self) -> Database | None:
        if self._database is None:
            file = self._settings.results_folder / "experiments.db"
            if self._settings.database_url or file.is_file():
                from loramill.database import Database  # SQLAlchemy: only where a name is no experiment

                self._database = Database(self._settings.effective_database_url)
        return self._database


class RememberedNames:
    """Names that files or the registry were asked for, with the experiments that they led to, for a moment."""

    def __init__(self, results_folder: Path, ask_registry: Callable[[str], str | None]) -> None:
        self._results_folder = results_folder
        self._ask_registry = ask_registry
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def remembered(self, name: str) -> str | None:
        """The experiment that the name led to a moment ago; no file is read."""
        until, experiment_id = self._known.get(name, (0.0, ""))
        return experiment_id if until > time.monotonic() else None

    def look_up(self, name: str) -> str:
        """The experiment that the name leads to now.

        Raises:
            ModelNotFoundError: nothing has this name.
        """
        found = self._ask(name)
        self._known[name] = (time.monotonic() + NAME_LIFETIME, found)
        while len(self._known) > KNOWN_NAMES:
            self._known.popitem(last=False)
        return found

    def _ask(self, name: str) -> str:
        try:
            return find_served(self._results_folder, name).id
        except ModelNotFoundError:
            known = None if name == LATEST else self._ask_registry(name)
            if known is None:
                raise
            return known


def resolve_experiment(settings: Settings, name: str) -> ExperimentFolder:
    """The experiment that a caller means.

    Raises:
        NotFoundError: nothing has this name.
    """
    try:
        return find_experiment(settings.results_folder, name)
    except NotFoundError as error:
        names = RegistryNames(settings)
        known = names.resolve(name) or name
        results = names.results_of(known)
        if results is None:  # at the shell the folder may be another than somebody thinks
            raise NotFoundError(f"{error.message} Looked in {settings.results_folder}.", fix=error.fix) from error
        return find_experiment(results, known)
