from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from loramill.inference.runner import TokenisedText
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel
from loramill.inference.text_queue import Job, TextQueue, WaitingText
from served_models import Experiments


@pytest.fixture
def models(experiments: Experiments) -> list[ServedModel]:
    """Two models, each on a base object of its own."""
    saved = SavedModel.read(experiments.save_constant("run", 1))
    device = torch.device("cpu")
    bases = [LoadedBase.load(str(experiments.model), device=device, dtype=torch.float32) for _ in range(2)]
    return [ServedModel.load(saved, base) for base in bases]


def push(queue: TextQueue, model: ServedModel, arrived: float, lengths: list[int]) -> Job:
    loop = asyncio.new_event_loop()
    job = Job(model, ["text"] * len(lengths), None, arrived, loop.create_future())
    loop.close()
    ids = [np.zeros(length, dtype=np.int64) for length in lengths]
    queue.push(job, [TokenisedText(model, row, row) for row in ids])
    return job


def places(batch: list[WaitingText]) -> set[tuple[float, int]]:
    return {(waiting.job.arrived, waiting.index) for waiting in batch}


def test_everything_that_fits_goes_together(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=100)
    push(queue, models[0], 1.0, [10, 20])
    push(queue, models[0], 2.0, [30])
    assert (len(queue), queue.tokens, queue.is_full) == (3, 60, False)
    assert places(queue.take(1)) == {(1.0, 0), (1.0, 1), (2.0, 0)}
    assert (len(queue), queue.tokens) == (0, 0)


def test_the_oldest_goes_first_with_those_of_its_length(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=50)
    push(queue, models[0], 1.0, [20])
    push(queue, models[0], 2.0, [90])
    push(queue, models[0], 3.0, [5])
    push(queue, models[0], 4.0, [19])
    assert queue.is_full
    assert places(queue.take(1)) == {(1.0, 0), (4.0, 0), (3.0, 0)}
    assert places(queue.take(1)) == {(2.0, 0)}, "longer than a whole batch: alone"


def test_no_text_waits_for_ever_behind_those_that_fit_better(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=50)
    push(queue, models[0], 0.0, [100])
    for arrival in range(1, 50):
        push(queue, models[0], float(arrival), [10] * 5)
    assert places(queue.take(1)) == {(0.0, 0)}


def test_idle_workers_share_what_waits(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=1000)
    push(queue, models[0], 1.0, [10] * 8)
    assert len(queue.take(2)) == 4
    assert len(queue.take(1)) == 4


def test_one_batch_has_one_base(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=1000)
    push(queue, models[0], 1.0, [10])
    push(queue, models[1], 2.0, [10])
    push(queue, models[0], 3.0, [10])
    assert places(queue.take(1)) == {(1.0, 0), (3.0, 0)}
    assert queue.oldest_arrival == 2.0
    assert places(queue.take(1)) == {(2.0, 0)}


def test_one_text_overtakes_the_rest_of_a_long_list(models: list[ServedModel]) -> None:
    queue = TextQueue(batch_tokens=1000)
    push(queue, models[0], 1.0, [10] * 1000)
    push(queue, models[0], 1.1, [10])
    first = places(queue.take(1))
    assert {(1.1, 0), (1.0, 0)} <= first
    assert len(first) == 100
