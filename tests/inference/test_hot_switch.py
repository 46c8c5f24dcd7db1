"""Everything about models changes while requests go on: none of them fails, and none gets a mixed reply."""

from __future__ import annotations

import asyncio
import itertools
import random

import httpx

from loramill.inference.batcher import BatchLimits
from loramill.inference.model_service import ModelService
from loramill.inference.request_limits import RequestLimits
from loramill.inference.saved_model import SavedModel
from loramill.inference.service import create_app
from served_models import Experiments

CHANGES = 100
CLIENTS = 8
NAMES = ["a", "b", "c", "d"]
ASKED = [None, "production", "a", "d"]


class Truth:
    """What every version of every model answers; ``a`` is trained anew now and then."""

    def __init__(self, experiments: Experiments) -> None:
        self.experiments = experiments
        self.answers: dict[tuple[str, str], int] = {}
        self._retired = itertools.count()
        for answer, name in enumerate(NAMES):
            self.save(name, answer)

    def save(self, name: str, answer: int) -> None:
        folder = self.experiments.save_constant(f"{name}.part", answer)
        version = SavedModel.read(folder).version
        self.answers[name, version] = answer
        final = self.experiments.results / name
        if final.exists():
            final.rename(self.experiments.results / f"{name}.{next(self._retired)}")
        folder.path.rename(final)

    def check(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        served = response.headers["x-loramill-experiment"], response.headers["x-loramill-adapter-version"]
        for reply in response.json():
            assert (reply["experiment_id"], reply["adapter_version"]) == served
            assert reply["label"] == self.answers[served], "answered by another model than the reply says"


async def change_models(client: httpx.AsyncClient, truth: Truth) -> None:
    """100 switches, aliases, canaries, loads and unloads."""
    draw = random.Random(3)
    for number in range(CHANGES):
        name = draw.choice(NAMES)
        match number % 5:
            case 0:
                response = await client.post(f"/models/{name}/switch")
            case 1:
                response = await client.put(f"/models/{name}/alias/production")
            case 2:
                await asyncio.to_thread(truth.save, "a", number % 10)
                response = await client.post("/models/a/load")
            case 3:
                response = await client.put(f"/models/{name}/canary/default", json={"share": 0.5})
            case _:
                response = await client.post(f"/models/{draw.choice(NAMES[1:])}/unload")  # files of a are on the move
        assert response.status_code in (200, 204, 404, 409), response.text
        await asyncio.sleep(0)


def test_no_request_fails_and_no_reply_is_mixed(experiments: Experiments) -> None:
    truth = Truth(experiments)
    service = ModelService(experiments.options(), batches=BatchLimits(workers=2), limits=RequestLimits(), default="a")
    seen: set[tuple[str, str]] = set()
    done = asyncio.Event()

    async def ask(client: httpx.AsyncClient, seed: int) -> int:
        draw, count = random.Random(seed), 0
        while not done.is_set():
            body = {"text": ["a b c", "x", "q r s t"], "model": draw.choice(ASKED)}
            response = await client.post("/predict", json=body)
            truth.check(response)
            seen.add((response.headers["x-loramill-experiment"], response.headers["x-loramill-adapter-version"]))
            count += 1
        return count

    async def main() -> list[int]:
        await service.start()
        await service.host.set_route("production", service.host.serving.routes["default"])
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asking = [asyncio.create_task(ask(client, seed)) for seed in range(CLIENTS)]
            try:
                await change_models(client, truth)
            finally:
                done.set()
            counts = await asyncio.gather(*asking)
        await service.stop()
        return counts

    assert min(asyncio.run(main())) > 0
    assert {name for name, _ in seen} == set(NAMES)
    assert len([version for name, version in seen if name == "a"]) > 1
