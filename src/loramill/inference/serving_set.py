"""What a service serves, as one small file: a restart, planned or not, serves the same again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from loramill.errors import CorruptFileError
from loramill.files import named_storage_errors, write_json

DEFAULT_ROUTE = "default"
"""The name that requests without a model mean."""

LOCK_SECONDS = 10
"""A change waits so long for that of another service, which takes milliseconds."""


@dataclass(frozen=True)
class Route:
    """Where a name leads.

    Attributes:
        model: experiment id.
        canary: another experiment id that gets ``share`` (0 to 1) of the requests.
    """

    model: str
    canary: str | None = None
    share: float = 0.0

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model, self.canary) if self.canary else (self.model,)


@dataclass(frozen=True)
class ServingSet:
    """The models of a service and its names for them; never changed in place, so that readers see one state.

    Attributes:
        models: experiment id -> the version that was verified.
        routes: name -> route; ``DEFAULT_ROUTE`` is one of them.
        default_was_switched: somebody chose the default while the service ran, and it stays at the next start; else it
            is then what that start asks for, or the newest experiment.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    default_was_switched: bool = False

    def with_model(self, experiment_id: str, version: str) -> ServingSet:
        return replace(self, models={**self.models, experiment_id: version})

    def without_model(self, experiment_id: str) -> ServingSet:
        return replace(self, models={name: version for name, version in self.models.items() if name != experiment_id})

    def with_route(self, name: str, route: Route) -> ServingSet:
        switched = self.default_was_switched or name == DEFAULT_ROUTE
        return replace(self, routes={**self.routes, name: route}, default_was_switched=switched)

    def with_default_of_start(self, experiment_id: str) -> ServingSet:
        """The default is what this start asked for; the next one may ask for another."""
        routes = {**self.routes, DEFAULT_ROUTE: Route(experiment_id)}
        return replace(self, routes=routes, default_was_switched=False)

    def with_newest(self, experiment_id: str) -> ServingSet:
        """The default is the newest model, unless somebody has switched it."""
        switched = self.default_was_switched and DEFAULT_ROUTE in self.routes
        return self if switched else self.with_default_of_start(experiment_id)

    def without_route(self, name: str) -> ServingSet:
        return replace(self, routes={known: route for known, route in self.routes.items() if known != name})

    def names_of(self, experiment_id: str) -> list[str]:
        """The names that lead to a model, as canary too."""
        return sorted(name for name, route in self.routes.items() if experiment_id in route.models)

    def write(self, path: Path) -> None:
        """
        Raises:
            DiskFullError, UnwritableError, StorageError: the old file is untouched.
        """
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ServingSet:
        """What was written; an empty set when there is no file.

        Raises:
            CorruptFileError: the file is something else.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            routes = {str(name): Route(**route) for name, route in stored["routes"].items()}
            models = {str(name): str(version) for name, version in stored["models"].items()}
            return cls(models, routes, bool(stored.get("default_was_switched", False)))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptFileError(
                f"{path} does not say what was served: {error!r}", fix="Delete it, then load the models again."
            ) from error


class ServingFile:
    """The serving set on disk, which several services may share: replicas on one home serve the same.

    A change is made to what the file says by then, so that no service undoes what another has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
        self._seen: tuple[int, int] | None = None

    def read(self) -> ServingSet:
        """
        Raises:
            CorruptFileError: see ``ServingSet.read``.
        """
        self._seen = self._stamp()  # first: what is written while this reads is then seen the next time
        return ServingSet.read(self._path)

    def has_changed(self) -> bool:
        """Whether somebody else has written since this service last read or wrote."""
        return self._stamp() not in (None, self._seen)

    def change(self, known: ServingSet, change: Callable[[ServingSet], ServingSet]) -> ServingSet:
        """Write what ``change`` makes of the set: of ``known``, or of what others have written meanwhile.

        Raises:
            DiskFullError, UnwritableError, StorageError: the old file is untouched.
            CorruptFileError: see ``ServingSet.read``.
        """
        with named_storage_errors(self._path), self._lock:
            changed = change(ServingSet.read(self._path) if self.has_changed() else known)
            changed.write(self._path)
            self._seen = self._stamp()
        return changed

    def _stamp(self) -> tuple[int, int] | None:
        """What differs after every write, since each one makes a new file; ``None`` without a file.

        The file is opened for it: network file systems ask the server then, and answer ``stat`` from memory.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
