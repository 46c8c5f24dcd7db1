"""The models of a service: loaded, verified, named, switched and dropped while requests go on.

Everything here runs on the event loop, except reading files, which a thread of its own does. A request gets an
immutable ``ServedModel`` once and keeps it to its end, so nothing that happens to names meanwhile can mix two versions
in a reply.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from loramill.errors import ConflictError, LoramillError, ModelNotFoundError, NotFoundError
from loramill.inference.model_memory import ModelMemory
from loramill.inference.model_names import RememberedNames
from loramill.inference.saved_model import finished_experiments
from loramill.inference.served_model import LoadedBase, ServedModel
from loramill.inference.serving_set import DEFAULT_ROUTE, Route, ServingFile, ServingSet

log = logging.getLogger(__name__)

NEWEST_TRIED = 10
"""So many of the newest experiments are tried for the default, until one can be served."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class HostOptions:
    """Where models are and how they are kept.

    Attributes:
        state_file: remembers the serving set; services that share it serve the same.
        adapter_bytes: memory for adapters; the one that was used least recently goes first.
    """

    results_folder: Path
    state_file: Path
    device: torch.device
    dtype: torch.dtype
    adapter_bytes: int = 4 << 30


class ModelHost:
    """Every model that one process serves.

    Args:
        resolve: asks the model registry for the experiment behind a name; ``None`` when it knows none.
        on_drop: told of a base that no model needs any more.
    """

    def __init__(
        self,
        options: HostOptions,
        *,
        resolve: Callable[[str], str | None] = lambda name: None,
        on_drop: Callable[[LoadedBase], None] = lambda base: None,
    ) -> None:
        self._options = options
        self._memory = ModelMemory(options.results_folder, options.device, options.dtype, on_drop)
        self._names = RememberedNames(options.results_folder, resolve)
        self._loads: dict[tuple[str, bool], asyncio.Task[ServedModel]] = {}
        self._files = ThreadPoolExecutor(1, thread_name_prefix="model-files")
        self._changing = asyncio.Lock()
        self._file = ServingFile(options.state_file)
        self.serving = ServingSet()
        self.failures: dict[str, LoramillError] = {}

    @property
    def resident(self) -> list[ServedModel]:
        """Models in memory, the least recently used first."""
        return self._memory.models

    @property
    def default(self) -> str | None:
        """The experiment that is meant where no model is named; it may be one that cannot be served."""
        route = self.serving.routes.get(DEFAULT_ROUTE)
        return route.model if route else None

    def find(self, name: str | None = None) -> ServedModel | None:
        """The model behind a name, if it is in memory; no file is read, so that requests may call it.

        A canary gets its share by chance, request by request.
        """
        return self._memory.use(self._target(name or DEFAULT_ROUTE))

    async def get(self, name: str | None = None) -> ServedModel:
        """The model behind a name: an id, a name of this service, an alias or stage of the registry, or ``latest``.

        What is not in memory is loaded first.

        Raises:
            ModelNotFoundError: nothing has this name.
            AdapterFormatError: it cannot be served.
        """
        found = self.find(name)
        if found is not None:
            return found
        return await self._loaded(await self._experiment_id(name or DEFAULT_ROUTE))

    async def load(self, name: str) -> ServedModel:
        """Load the model behind a name, or load it again from its files; the canary of a name is not meant.

        Requests get it once it is verified, and never before.

        Raises:
            ModelNotFoundError, AdapterFormatError: what was served before is still served.
        """
        return await self._load_once(await self.meant(name), any_version=True)

    async def meant(self, name: str) -> str:
        """The experiment behind a name for somebody who changes what is served: never by chance the name's canary.

        Raises:
            ModelNotFoundError: nothing has this name.
        """
        route = self.serving.routes.get(name)
        return route.model if route else await self._experiment_id(name)

    async def is_experiment(self, name: str) -> bool:
        """Whether a name is the id of an experiment, served or not."""
        return await self._in_thread((self._options.results_folder / name).is_dir)

    async def unload(self, experiment_id: str) -> None:
        """Drop a model. Requests that have it already are still answered.

        Raises:
            ModelNotFoundError: it is not served.
            ConflictError: a name leads to it.
        """
        if experiment_id not in self.serving.models:
            raise ModelNotFoundError(f"The model {experiment_id!r} is not served.", fix="See GET /models.")
        if names := self.serving.names_of(experiment_id):
            raise ConflictError(
                f"{', '.join(names)} would lead nowhere without {experiment_id}.", fix="Let it lead to another first."
            )
        await self._change(lambda serving: serving.without_model(experiment_id))
        self._memory.drop(experiment_id)
        self._drop_unused_bases()

    async def set_route(self, name: str, route: Route) -> None:
        """Let a name lead to a model from now on, or to two; every one of them is loaded and verified before.

        Raises:
            ModelNotFoundError, AdapterFormatError: the name leads where it led.
        """
        for experiment_id in route.models:
            await self._loaded(experiment_id)
        await self._change(lambda serving: serving.with_route(name, route))

    async def remove_route(self, name: str) -> None:
        """
        Raises:
            NotFoundError: this service has no such name.
        """
        if name not in self.serving.routes:
            raise NotFoundError(f"This service has no name {name[:80]!r}.", fix="See GET /models.")
        await self._change(lambda serving: serving.without_route(name))

    async def restore(self) -> None:
        """Read what was served before the last end, and load what its names lead to; ``restore_others`` does the rest.

        What fails is kept in ``failures``, and keeps nothing else from being served.

        Raises:
            CorruptFileError: the file of the serving set cannot be read.
        """
        self.serving = self._file.read()
        await self._load_all(model for route in self.serving.routes.values() for model in route.models)

    async def restore_others(self) -> None:
        """Load the models that no name leads to, as far as their files are still the same."""
        await self._load_all(list(self.serving.models))

    async def serve_first(self, name: str) -> None:
        """Let the default lead to the model that the service was started for, until somebody switches.

        Raises:
            ModelNotFoundError, AdapterFormatError: the default leads where it led.
        """
        experiment_id = (await self.get(name)).saved.experiment_id
        await self._change(lambda serving: serving.with_default_of_start(experiment_id))

    async def serve_newest(self) -> None:
        """Let the default lead to the newest finished experiment that can be served, unless somebody has switched it.

        Those that cannot be served are logged and kept in ``failures``. Without any experiment there is no default yet.

        Raises:
            LoramillError: none of the newest can be served; the default leads where it led.
        """
        newest = await self._in_thread(lambda: finished_experiments(self._options.results_folder)[:NEWEST_TRIED])
        refused: list[LoramillError] = []
        for experiment in newest:
            try:
                await self._loaded(experiment.id)
            except LoramillError as error:
                log.warning("The newest experiment %s cannot be served: %s", experiment.id, error)
                self.failures[experiment.id] = error
                refused.append(error)
            else:
                await self._change(partial(ServingSet.with_newest, experiment_id=experiment.id))
                return
        if refused:
            raise refused[0]

    async def follow(self) -> None:
        """Serve what another service with the same file has decided meanwhile, if it has.

        Raises:
            CorruptFileError: the file of the serving set cannot be read; all is as before.
        """
        if await asyncio.to_thread(self._file.has_changed):
            async with self._changing:
                await self._adopt(await asyncio.to_thread(self._file.read))

    def close(self) -> None:
        """End the thread that reads files."""
        self._files.shutdown(wait=True, cancel_futures=True)

    def _target(self, name: str) -> str:
        """The id that a name leads to, or the name itself where only files or the registry can tell."""
        route = self.serving.routes.get(name)
        if route is not None:
            return route.canary if route.canary and random.random() < route.share else route.model  # noqa: S311
        return self._names.remembered(name) or name

    async def _experiment_id(self, name: str) -> str:
        target = self._target(name)
        if target != name or target in self.serving.models:
            return target
        if name == DEFAULT_ROUTE:
            await self.serve_newest()
            if DEFAULT_ROUTE not in self.serving.routes:
                raise ModelNotFoundError("No experiment has finished yet.", fix="Train one: make quickstart.")
            return self._target(name)
        return await self._in_thread(lambda: self._names.look_up(name))

    async def _load_all(self, experiment_ids: Iterable[str]) -> None:
        for experiment_id in dict.fromkeys(experiment_ids):
            if experiment_id not in self._memory and experiment_id not in self.failures:
                try:
                    await self._load_once(experiment_id)
                except LoramillError as error:
                    self.failures[experiment_id] = error

    async def _loaded(self, experiment_id: str) -> ServedModel:
        return self._memory.get(experiment_id) or await self._load_once(experiment_id)

    async def _load_once(self, experiment_id: str, *, any_version: bool = False) -> ServedModel:
        """Load a model; callers that want the same one at the same time wait for the same load."""
        key = (experiment_id, any_version)
        task = self._loads.get(key)
        if task is None:
            task = asyncio.create_task(self._load(experiment_id, any_version))
            self._loads[key] = task
            task.add_done_callback(lambda _: self._loads.pop(key, None))
        return await asyncio.shield(task)

    async def _load(self, experiment_id: str, any_version: bool) -> ServedModel:
        pinned = None if any_version else self.serving.models.get(experiment_id)
        model = await self._in_thread(lambda: self._memory.read(experiment_id, pinned))
        if self.serving.models.get(experiment_id) != model.saved.version:
            await self._change(lambda serving: serving.with_model(experiment_id, model.saved.version))
        self._memory.keep(model)
        self._memory.use(experiment_id)
        self.failures.pop(experiment_id, None)
        self._shrink()
        return model

    async def _change(self, change: Callable[[ServingSet], ServingSet]) -> None:
        """Serve another set from now on, and return when that is on disk; if it cannot be, all is as before."""
        async with self._changing:
            before, self.serving = self.serving, change(self.serving)
            try:
                written = await asyncio.to_thread(self._file.change, before, change)
            except BaseException:
                self.serving = before
                raise
            if written != self.serving:
                await self._adopt(written)

    async def _adopt(self, serving: ServingSet) -> None:
        """Serve a set that another service has changed, once everything is in memory that would be asked for at once.

        What cannot be read is kept in ``failures``, and in memory as it was.
        """
        named = {model for route in serving.routes.values() for model in route.models}
        for experiment_id in dict.fromkeys([*self._memory, *named]):
            version, resident = serving.models.get(experiment_id), self._memory.get(experiment_id)
            if version is None or (resident and resident.saved.version == version):
                continue
            try:
                self._memory.keep(await self._in_thread(partial(self._memory.read, experiment_id, version)))
                self.failures.pop(experiment_id, None)
            except LoramillError as error:
                self.failures[experiment_id] = error
        self.serving = serving
        for experiment_id in self._memory:
            if experiment_id not in serving.models:
                self._memory.drop(experiment_id)
        self._shrink()
        self._drop_unused_bases()

    def _shrink(self) -> None:
        """Keep to the limit of memory; a name keeps its model there."""
        self._memory.shrink(self._options.adapter_bytes, lambda model: bool(self.serving.names_of(model)))

    def _drop_unused_bases(self) -> None:
        if not self._loads:  # one of them may be about to use it
            self._memory.drop_unused_bases()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)
