"""Micro-batching: texts of many callers and many models share forward passes, off the event loop.

Workers take what waits as soon as they are free, so batches grow with the load by themselves. A worker waits a little
for company only when it was busy just now, since the callers that it answered are about to come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from loramill.errors import OverloadedError, PredictionError, UnavailableError
from loramill.inference.answers import Logits
from loramill.inference.runner import MERGE_AFTER, BaseRunner, TokenisedText, tokenised_texts
from loramill.inference.served_model import LoadedBase, ServedModel
from loramill.inference.text_queue import Job, TextQueue, WaitingText

MEMORY = 0.9
"""Weight of the past in running means."""

WAIT_SHARE = 0.25
"""A text waits for company for this share of a forward pass: a larger batch saves more than that."""


@dataclass(frozen=True)
class BatchLimits:
    """How texts are packed.

    Attributes:
        workers: forward passes at the same time, each in a thread of its own.
        threads: CPU threads of one forward pass.
        batch_tokens: tokens of one forward pass.
        wait_seconds: the longest that a text waits for company; less where forward passes are short.
        queued_texts: more waiting texts than this are refused.
        merge_after: batches in a row that were for one model alone, after which it gets merged weights.
    """

    workers: int = 1
    threads: int = 1
    batch_tokens: int = 1024
    wait_seconds: float = 0.02
    queued_texts: int = 4096
    merge_after: int = MERGE_AFTER


@dataclass(frozen=True)
class BatchReport:
    """One forward pass, for the metrics."""

    texts: int
    tokens: int
    models: int
    seconds: float


class Batcher:
    """Answers texts for any number of callers on one event loop.

    Args:
        on_batch: called after every forward pass, in the worker's thread.
    """

    def __init__(self, limits: BatchLimits, on_batch: Callable[[BatchReport], None] = lambda report: None) -> None:
        self._limits = limits
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._arrivals: deque[Job] = deque()
        self._queue = TextQueue(limits.batch_tokens)
        self._runners: dict[LoadedBase, BaseRunner] = {}
        self._answered: deque[tuple[float, int]] = deque()
        self._busy = 0
        self._closing = False
        self._pace = _RunningMean()
        self._batch_seconds = _RunningMean()
        self.queued_texts = 0
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(limits.workers)]
        for worker in self._workers:
            worker.start()

    async def classify(self, model: ServedModel, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Logits]:
        """The logits of every text, ``[labels]`` each, all from this version of the model.

        Raises:
            OverloadedError: too many texts wait already.
            UnavailableError: the batcher is closing.
            PredictionError: the model failed on one of the texts.
        """
        if not texts:
            return []
        job = Job(model, texts, pairs, time.monotonic(), asyncio.get_running_loop().create_future())
        with self._changed:
            self._refuse_if_full(len(texts))
            self.queued_texts += len(texts)
            self._arrivals.append(job)
            self._changed.notify()
        return await job.future

    async def close(self) -> None:
        """Take nothing more, answer what was accepted, and end the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            await asyncio.to_thread(worker.join)

    def forget(self, base: LoadedBase) -> None:
        """Drop what is kept for a base that nothing is served from any more."""
        self._runners.pop(base, None)

    def _refuse_if_full(self, texts: int) -> None:
        if self._closing:
            raise UnavailableError("The service is stopping.", fix="Send the request again in a moment.")
        if self.queued_texts + texts > self._limits.queued_texts:
            seconds = math.ceil(self.queued_texts / self._pace.value) if self._pace.value else 1
            raise OverloadedError(
                f"{self.queued_texts} texts wait already, and {self._limits.queued_texts} are allowed.",
                retry_after=min(max(1, seconds), 60),
            )

    def _work(self) -> None:
        torch.set_num_threads(self._limits.threads)
        while (batch := self._next_batch()) is not None:
            start = time.monotonic()
            self._run(batch)
            self._finish(batch, time.monotonic() - start)

    def _next_batch(self) -> list[WaitingText] | None:
        """The texts to answer next; ``None`` at the end. Tokenises what has arrived on the way."""
        while True:
            with self._changed:
                while not self._arrivals:
                    patience = self._patience()
                    if patience is None and self._closing:
                        return None
                    if patience == 0:
                        return self._take()
                    self._changed.wait(patience)
                jobs = list(self._arrivals)
                self._arrivals.clear()
            tokenised = _tokenise(jobs)
            with self._changed:
                for job, texts in tokenised:
                    self._queue.push(job, texts)
                self.queued_texts -= sum(len(job.texts) for job in jobs if job.error)
                self._changed.notify_all()

    def _patience(self) -> float | None:
        """Seconds that the next batch may still wait for company, 0 when it should go; ``None`` without texts."""
        if not len(self._queue):
            return None
        now = time.monotonic()
        longest = min(self._limits.wait_seconds, WAIT_SHARE * self._batch_seconds.value)
        while self._answered and self._answered[0][0] < now - longest:
            self._answered.popleft()
        expected = sum(texts for _, texts in self._answered)
        if self._closing or self._queue.is_full or len(self._queue) >= expected:
            return 0
        return max(0, self._queue.oldest_arrival + longest - now)

    def _take(self) -> list[WaitingText]:
        batch = self._queue.take(self._limits.workers - self._busy)
        self.queued_texts -= len(batch)
        self._busy += 1
        self._answered.clear()
        return batch

    def _run(self, batch: Sequence[WaitingText]) -> None:
        """Answer a batch; when it fails, every model in it by itself, so that a bad one fails alone."""
        runner = self._runner(batch[0].text.model.base)
        try:
            for waiting, logits in zip(batch, runner.run([waiting.text for waiting in batch]), strict=True):
                waiting.job.logits[waiting.index] = logits
        except Exception as error:
            models = dict.fromkeys(waiting.text.model for waiting in batch)
            if len(models) > 1:
                for model in models:
                    self._run([waiting for waiting in batch if waiting.text.model is model])
                return
            for waiting in batch:
                waiting.job.error = error

    def _runner(self, base: LoadedBase) -> BaseRunner:
        with self._changed:
            if base not in self._runners:
                self._runners[base] = BaseRunner(base, merge_after=self._limits.merge_after)
            return self._runners[base]

    def _finish(self, batch: Sequence[WaitingText], seconds: float) -> None:
        done = []
        with self._changed:
            for waiting in batch:
                waiting.job.missing -= 1
                if not waiting.job.missing:
                    done.append(waiting.job)
            self._busy -= 1
            self._answered.append((time.monotonic(), len(batch)))
            self._pace.add(self._limits.workers * len(batch) / max(seconds, 1e-6))
            self._batch_seconds.add(seconds)
        _deliver(done)
        models = len({waiting.text.model for waiting in batch})
        self._on_batch(BatchReport(len(batch), sum(waiting.tokens for waiting in batch), models, seconds))


class _RunningMean:
    """A mean in which the past counts less and less; 0 before the first value."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, value: float) -> None:
        self.value = MEMORY * self.value + (1 - MEMORY) * value if self.value else value


def _tokenise(jobs: Sequence[Job]) -> list[tuple[Job, list[TokenisedText]]]:
    """The texts of every job as tokens, in one call for jobs that are read alike."""
    alike: dict[tuple[LoadedBase, int, bool], list[Job]] = {}
    for job in jobs:
        key = (job.model.base, job.model.saved.labels.max_length, job.pairs is not None)
        alike.setdefault(key, []).append(job)
    return [found for (base, max_length, _), group in alike.items() for found in _read(base, max_length, group)]


def _read(base: LoadedBase, max_length: int, jobs: Sequence[Job]) -> list[tuple[Job, list[TokenisedText]]]:
    """Tokens of every job's texts; a job that the tokenizer cannot read fails alone."""
    texts = [text for job in jobs for text in job.texts]
    pairs = [pair for job in jobs for pair in job.pairs or ()]
    try:
        rows = base.tokenize(texts, pairs or None, max_length=max_length)
    except Exception as error:  # whatever the tokenizers package raises
        if len(jobs) > 1:
            return [found for job in jobs for found in _read(base, max_length, [job])]
        jobs[0].error = error
        _deliver(jobs)
        return []
    found, first = [], 0
    for job in jobs:
        last = first + len(job.texts)
        found.append((job, tokenised_texts(job.model, rows, first, last)))
        first = last
    return found


def _deliver(jobs: Sequence[Job]) -> None:
    """Hand finished jobs to the event loop that waits for them; one wake-up for all of them."""
    if jobs:
        with contextlib.suppress(RuntimeError):  # the loop was closed without waiting for its callers
            jobs[0].future.get_loop().call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller went away
            continue
        if job.error is None:
            job.future.set_result(job.logits)
        elif isinstance(job.error, PredictionError):
            job.future.set_exception(job.error)
        else:
            failure = PredictionError(f"The model {job.model.saved.experiment_id} failed: {job.error}")
            failure.__cause__ = job.error
            job.future.set_exception(failure)
