"""What the routes of the service call: names, models, batches and metrics together, without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from loramill.errors import LoramillError, ModelNotFoundError
from loramill.inference.answers import read_answer
from loramill.inference.batcher import Batcher, BatchLimits
from loramill.inference.model_host import HostOptions, ModelHost
from loramill.inference.model_names import RegistryNames
from loramill.inference.predictor import Prediction
from loramill.inference.request_limits import RequestLimits, Texts
from loramill.inference.served_model import LoadedBase, ServedModel
from loramill.inference.serving_set import DEFAULT_ROUTE
from loramill.inference.telemetry import Telemetry

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
"""How soon a service does what another one with the same serving set was told."""


class ModelService:
    """Everything of one service but its HTTP.

    Args:
        registry: names that the model registry gives; ``None`` where only ids and the service's own names count.
        default: experiment id, alias or stage that requests without a model get, until somebody switches; by default
            what somebody had switched to, or the newest experiment.
    """

    def __init__(
        self,
        options: HostOptions,
        *,
        batches: BatchLimits,
        limits: RequestLimits,
        registry: RegistryNames | None = None,
        default: str | None = None,
    ) -> None:
        self.limits = limits
        self.telemetry = Telemetry()
        self.ready = False
        self._batch_limits = batches
        self._default = default
        self._batcher: Batcher | None = None
        self._background: list[asyncio.Task[None]] = []
        self.host = ModelHost(
            options, resolve=registry.resolve if registry else lambda name: None, on_drop=self._forget_base
        )
        self.telemetry.observe_gauges(
            waiting=lambda: self._batcher.queued_texts if self._batcher else 0,
            models=lambda: len(self.host.resident),
            nbytes=lambda: sum(model.nbytes for model in self.host.resident),
        )

    async def start(self) -> None:
        """Load what is to be served, and take requests from then on. Models without a name follow in the background.

        Raises:
            ModelNotFoundError, AdapterFormatError: the default that was asked for cannot be served.
            CorruptFileError: the file of the serving set cannot be read.
        """
        self._batcher = Batcher(self._batch_limits, self.telemetry.count_batch)
        await self.host.restore()
        if self._default:
            await self.host.serve_first(self._default)
        elif not self.host.serving.default_was_switched:
            with contextlib.suppress(LoramillError):  # it is logged; the default of before goes on
                await self.host.serve_newest()
        self._background = [asyncio.create_task(work) for work in (self.host.restore_others(), self._follow())]
        self.ready = True

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        self.ready = False
        for task in self._background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._batcher:
            await self._batcher.close()
        self.host.close()

    async def model(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model behind a name, loaded if it is not in memory.

        Args:
            version: of the models that a name leads to, the one with this version.

        Raises:
            ModelNotFoundError, AdapterFormatError: there is no such model or version, or it cannot be served.
        """
        if version is None:
            return self.host.find(name) or await self.host.get(name)
        route = self.host.serving.routes.get(name or DEFAULT_ROUTE)
        found = [await self.host.get(model) for model in (route.models if route else (name,))]
        for model in found:
            if model.saved.version == version:
                return model
        there = " and ".join(model.saved.version for model in found)
        raise ModelNotFoundError(f"The model {name!r} has the version {there}, not {version[:100]!r}.")

    async def predict(self, name: str | None, texts: Texts, version: str | None = None) -> list[Prediction]:
        """The answer of one version of one model for every text.

        Args:
            version: see ``model``.

        Raises:
            ModelNotFoundError, AdapterFormatError: there is no such model, or it cannot be served.
            OverloadedError, UnavailableError: not now.
            PredictionError: the model failed on one of the texts.
        """
        start = time.perf_counter()
        model = await self.model(name, version)
        return await self._answer(model, texts, start)

    async def _answer(self, model: ServedModel, texts: Texts, start: float) -> list[Prediction]:
        if self._batcher is None:
            raise AssertionError("start() comes before predict()")
        logits = await self._batcher.classify(model, texts.firsts, texts.seconds)
        latency_ms = (time.perf_counter() - start) * 1000
        answers = [read_answer(values, model.saved.labels) for values in logits]
        self.telemetry.count_texts(model, len(texts))
        rows = zip(answers, logits, texts.firsts, strict=True)
        return [Prediction(answer, values, latency_ms, model, text) for answer, values, text in rows]

    async def _follow(self) -> None:
        """Do what other services with the same file do, as long as this one runs."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.host.follow()
            except Exception:  # whatever it was, the next change is followed again
                log.exception("What other services serve could not be followed")

    def _forget_base(self, base: LoadedBase) -> None:
        if self._batcher:
            self._batcher.forget(base)
