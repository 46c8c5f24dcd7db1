"""Models that cannot be served, over HTTP: each a named error, and everything else is answered as before."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from loramill.engine.peft_format import CONFIG_FILE, WEIGHTS_FILE
from loramill.inference.batcher import BatchLimits
from loramill.inference.model_service import ModelService
from loramill.inference.request_limits import RequestLimits
from loramill.inference.service import create_app
from served_models import Experiments, drawn_adapter

Spoil = Callable[[Path], object]


def rewrite_tensors(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(final_model: Path) -> None:
        tensors = load_file(final_model / WEIGHTS_FILE)
        save_file({name: change(name, tensor) for name, tensor in tensors.items()}, final_model / WEIGHTS_FILE)

    return spoil


def rewrite_json(name: str, **values: object) -> Spoil:
    def spoil(final_model: Path) -> None:
        content = json.loads((final_model / name).read_text())
        (final_model / name).write_text(json.dumps(content | values))

    return spoil


SPOILED: dict[str, Spoil] = {
    "NaN weights": rewrite_tensors(lambda name, tensor: torch.full_like(tensor, float("nan"))),
    "another shape": rewrite_tensors(lambda name, tensor: tensor[:1].clone()),
    "renamed pickle": lambda folder: (folder / WEIGHTS_FILE).write_bytes(pickle.dumps({"a": 1})),
    "half a file": lambda folder: (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-100]),
    "no weights": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "for another base": rewrite_json("labels.json", base_hash="0" * 64),
    "DoRA": rewrite_json(CONFIG_FILE, use_dora=True),
    "not LoRA": rewrite_json(CONFIG_FILE, peft_type="IA3"),
}


@pytest.fixture
def client(experiments: Experiments) -> Iterator[TestClient]:
    experiments.save_constant("good", 3)
    service = ModelService(
        experiments.options(), batches=BatchLimits(), limits=RequestLimits(), registry=None, default="good"
    )
    with TestClient(create_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as opened:
        yield opened


@pytest.mark.parametrize("kind", SPOILED)
def test_a_model_that_cannot_be_served(client: TestClient, experiments: Experiments, kind: str) -> None:
    folder = experiments.save("bad", drawn_adapter(experiments.base, 1))
    SPOILED[kind](folder.final_model)
    requests = (
        client.post("/models/bad/load"),
        client.post("/models/bad/switch"),
        client.put("/models/bad/alias/mine"),
        client.put("/models/bad/canary/default", json={"share": 0.5}),
        client.post("/predict", json={"text": "a", "model": "bad"}),
    )
    for response in requests:
        assert (response.status_code, response.json()["code"]) == (422, "adapter_invalid"), response.text
    assert client.post("/predict", json={"text": "a b"}).json()["label"] == 3
    assert [model["experiment_id"] for model in client.get("/models").json()["models"]] == ["good"]
