from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest
import torch

from loramill.errors import OverloadedError, PredictionError, UnavailableError
from loramill.inference.answers import Logits
from loramill.inference.batcher import Batcher, BatchLimits, BatchReport
from loramill.inference.predictor import Predictor
from loramill.inference.runner import BaseRunner
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel
from served_models import Experiments, drawn_adapter

Result = TypeVar("Result")
TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]


@pytest.fixture
def models(experiments: Experiments) -> list[ServedModel]:
    base = LoadedBase.load(str(experiments.model), device=torch.device("cpu"), dtype=torch.float32)
    folders = [experiments.save(f"run{seed}", drawn_adapter(experiments.base, seed)) for seed in range(3)]
    return [ServedModel.load(SavedModel.read(folder), base) for folder in folders]


def run(
    limits: BatchLimits, use: Callable[[Batcher], Awaitable[Result]], reports: list[BatchReport] | None = None
) -> Result:
    """Run ``use`` on a batcher, and close it."""

    async def main() -> Result:
        batcher = Batcher(limits, (reports if reports is not None else []).append)
        try:
            return await use(batcher)
        finally:
            await batcher.close()

    return asyncio.run(main())


class Gate:
    """Holds every forward pass until it is opened, and counts those that wait at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)
        inner = BaseRunner.run

        def held(runner: BaseRunner, texts: list) -> list[Logits]:
            self.waiting.release()
            assert self.opened.wait(30)
            return inner(runner, texts)

        monkeypatch.setattr(BaseRunner, "run", held)

    async def someone_waits(self) -> None:
        assert await asyncio.to_thread(self.waiting.acquire, timeout=30)


@pytest.mark.parametrize("workers", [1, 3])
def test_many_callers_get_what_each_would_get_alone(models: list[ServedModel], workers: int) -> None:
    async def use(batcher: Batcher) -> list[list[Logits]]:
        calls = [batcher.classify(model, [text], None) for text in TEXTS for model in models]
        calls += [batcher.classify(model, TEXTS, None) for model in models]
        return await asyncio.gather(*calls)

    found = run(BatchLimits(workers=workers, batch_tokens=64), use)
    alone = [[one.logits for one in Predictor(model).predict(TEXTS)] for model in models]
    for position, logits in enumerate(found[: len(TEXTS) * len(models)]):
        text, model = divmod(position, len(models))
        np.testing.assert_allclose(logits[0], alone[model][text], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[-len(models) :], alone, rtol=0, atol=1e-5)


def test_pairs(models: list[ServedModel]) -> None:
    pairs = TEXTS[::-1]
    found = run(BatchLimits(), lambda batcher: batcher.classify(models[0], TEXTS, pairs))
    expected = [one.logits for one in Predictor(models[0]).predict(TEXTS, pairs)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_callers_that_come_while_it_computes_share_the_next_batch(
    models: list[ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, reports = Gate(monkeypatch), list[BatchReport]()

    async def use(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.classify(models[0], ["a"], None))
        await gate.someone_waits()
        others = [asyncio.create_task(batcher.classify(model, TEXTS, None)) for model in models]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *others)

    run(BatchLimits(workers=1, batch_tokens=10_000), use, reports)
    assert [(report.texts, report.models) for report in reports] == [(1, 1), (3 * len(TEXTS), 3)]


def test_a_caller_alone_does_not_wait_for_company(models: list[ServedModel]) -> None:
    async def use(batcher: Batcher) -> float:
        await batcher.classify(models[0], ["a"], None)
        start = asyncio.get_running_loop().time()
        for _ in range(3):
            await batcher.classify(models[0], ["a"], None)
        return asyncio.get_running_loop().time() - start

    assert run(BatchLimits(wait_seconds=20.0), use) < 20.0


def test_too_many_waiting_texts_are_refused_at_once_with_a_time_to_come_back(
    models: list[ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def use(batcher: Batcher) -> None:
        taken = asyncio.create_task(batcher.classify(models[0], ["a"], None))
        await gate.someone_waits()
        waiting = [asyncio.create_task(batcher.classify(models[0], ["a"], None)) for _ in range(5)]
        await asyncio.sleep(0)
        assert batcher.queued_texts == 5
        with pytest.raises(OverloadedError) as caught:
            await batcher.classify(models[0], ["a"], None)
        assert caught.value.retry_after >= 1
        gate.opened.set()
        await asyncio.gather(taken, *waiting)
        assert batcher.queued_texts == 0
        await batcher.classify(models[0], ["a"], None)

    run(BatchLimits(workers=1, queued_texts=5), use)


def test_closing_answers_what_was_accepted_and_takes_nothing_more(
    models: list[ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    async def main() -> None:
        batcher = Batcher(BatchLimits(workers=1))
        accepted = [asyncio.create_task(batcher.classify(models[0], TEXTS, None)) for _ in range(4)]
        await gate.someone_waits()
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await batcher.classify(models[0], ["a"], None)
        gate.opened.set()
        await closing
        assert [len(logits) for logits in await asyncio.gather(*accepted)] == [len(TEXTS)] * 4

    asyncio.run(main())


def test_a_model_that_fails_fails_alone(models: list[ServedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = models[0], models[1]
    bad.adapter.head[-1].linear.weight.resize_(0)  # type: ignore[no-untyped-call]
    gate = Gate(monkeypatch)

    async def use(batcher: Batcher) -> list[list[Logits] | BaseException]:
        first = asyncio.create_task(batcher.classify(good, ["a"], None))
        await gate.someone_waits()
        both = [asyncio.create_task(batcher.classify(model, TEXTS, None)) for model in (bad, good)]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        return await asyncio.gather(*both, return_exceptions=True)

    failed, answered = run(BatchLimits(workers=1, batch_tokens=10_000), use)
    assert isinstance(failed, PredictionError)
    assert bad.saved.experiment_id in str(failed)
    expected = [one.logits for one in Predictor(good).predict(TEXTS)]
    np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-5)


def test_a_text_that_the_tokenizer_cannot_read_fails_alone(models: list[ServedModel]) -> None:
    async def use(batcher: Batcher) -> list[list[Logits] | BaseException]:
        calls = [batcher.classify(models[0], [text], None) for text in ("a", "\ud800", "b")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert batcher.queued_texts == 0
        return found

    good, bad, other = run(BatchLimits(), use)
    assert isinstance(bad, PredictionError)
    assert not isinstance(good, BaseException)
    assert not isinstance(other, BaseException)


def test_a_caller_that_goes_away_harms_nobody(models: list[ServedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def use(batcher: Batcher) -> list[Logits]:
        gone = asyncio.create_task(batcher.classify(models[0], ["a"], None))
        await gate.someone_waits()
        gone.cancel()
        stays = asyncio.create_task(batcher.classify(models[0], ["b"], None))
        await asyncio.sleep(0)
        gate.opened.set()
        return await stays

    assert len(run(BatchLimits(workers=1), use)) == 1
