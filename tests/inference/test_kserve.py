from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from loramill.experiments.folder import ExperimentFolder
from loramill.inference.batcher import BatchLimits
from loramill.inference.model_service import ModelService
from loramill.inference.predictor import Predictor
from loramill.inference.request_limits import RequestLimits
from loramill.inference.service import create_app
from served_models import Experiments, drawn_adapter

TEXTS = ["a b c", "z z z z", "x y"]


@pytest.fixture
def client(experiments: Experiments) -> Iterator[TestClient]:
    """A service of a model of three classes, one of three topics, and a regression."""
    experiments.save("classes", drawn_adapter(experiments.base, 5))
    topics = drawn_adapter(experiments.base, 6)
    experiments.save("topics", topics, problem_type="multi_label_classification", label_names=["x", "y", "z"])
    score = drawn_adapter(experiments.base, 7, labels=1)
    experiments.save("score", score, problem_type="regression", label_names=[])
    service = ModelService(experiments.options(), batches=BatchLimits(), limits=RequestLimits())
    with TestClient(create_app(service), base_url="http://127.0.0.1") as opened:
        yield opened


def text_input(texts: list[str], name: str = "text") -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts}


def infer(client: TestClient, model: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": [text_input(TEXTS)], **body})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    assert reply["model_version"] == response.headers["x-loramill-adapter-version"]
    return reply


def outputs(reply: dict[str, Any]) -> dict[str, dict[str, Any]]:
    for tensor in reply["outputs"]:
        size = 1
        for side in tensor["shape"]:
            size *= side
        assert len(tensor["data"]) == size
    return {tensor["name"]: tensor for tensor in reply["outputs"]}


def test_classes(client: TestClient, experiments: Experiments) -> None:
    reply = infer(client, "classes", id="42")
    assert (reply["id"], reply["model_name"]) == ("42", "classes")
    found = outputs(reply)
    expected = Predictor.open(ExperimentFolder(experiments.results / "classes")).predict(TEXTS)
    assert found["label"]["data"] == [one.answer.label for one in expected]
    assert found["label_name"]["data"] == [one.answer.label_name for one in expected]
    assert found["logits"]["shape"] == [3, 3]
    logits = [float(value) for one in expected for value in one.logits]
    assert found["logits"]["data"] == pytest.approx(logits, abs=1e-5)
    assert {name: tensor["datatype"] for name, tensor in found.items()} == {
        "label": "INT64",
        "label_name": "BYTES",
        "probability": "FP32",
        "logits": "FP32",
    }


def test_topics_are_a_row_of_zeros_and_ones(client: TestClient) -> None:
    found = outputs(infer(client, "topics"))
    assert found["label"]["shape"] == [3, 3]
    assert found["label"]["data"] == [int(value > 0) for value in found["logits"]["data"]]


def test_a_regression_is_a_value(client: TestClient) -> None:
    found = outputs(infer(client, "score"))
    assert found["value"]["data"] == found["logits"]["data"]


def test_only_the_outputs_that_are_wanted(client: TestClient) -> None:
    reply = infer(client, "classes", outputs=[{"name": "probability"}])
    assert [tensor["name"] for tensor in reply["outputs"]] == ["probability"]


def test_pairs(client: TestClient) -> None:
    pairs = ["d", "e f", "g"]
    reply = infer(client, "classes", inputs=[text_input(TEXTS), text_input(pairs, "text_pair")])
    body = client.post("/predict", json={"text": TEXTS, "text_pair": pairs, "model": "classes"}).json()
    assert outputs(reply)["probability"]["data"] == pytest.approx([one["probability"] for one in body], abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": []},
        {"inputs": [text_input(["a"], "text_pair")]},
        {"inputs": [text_input(["a"]), text_input(["b"])]},
        {"inputs": [{**text_input(["a"]), "shape": [2]}]},
        {"inputs": [{**text_input(["a"]), "shape": [1, 1, 1]}]},
        {"inputs": [{**text_input(["a"]), "shape": []}]},
        {"inputs": [{**text_input(["a"]), "datatype": "FP32"}]},
        {"inputs": [{**text_input(["a"]), "data": [1]}]},
        {"inputs": [{**text_input(["a", "b"]), "shape": [2, 1], "data": [["a", "b"], []]}]},
        {"inputs": [{**text_input(["a"]), "shape": [2, 1], "data": [["a"]]}]},
        {"inputs": [text_input(["a"]), text_input(["b", "c"], "text_pair")]},
        {"outputs": [{"name": "nothing"}]},
    ],
)
def test_what_does_not_fit_is_named(client: TestClient, changes: dict[str, Any]) -> None:
    response = client.post("/v2/models/classes/infer", json={"inputs": [text_input(TEXTS)], **changes})
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid"), response.text


def test_a_column_of_texts_is_a_list_of_texts(client: TestClient) -> None:
    expected = outputs(infer(client, "classes"))["label"]
    for data in (TEXTS, [[text] for text in TEXTS]):
        reply = infer(client, "classes", inputs=[{**text_input(TEXTS), "shape": [3, 1], "data": data}])
        assert outputs(reply)["label"] == expected


def test_a_version_in_the_address_is_the_one_that_answers(client: TestClient) -> None:
    versions = {name: client.get(f"/v2/models/{name}").json()["versions"][0] for name in ("classes", "topics")}
    client.put("/models/classes/alias/mine")
    client.put("/models/topics/canary/mine", json={"share": 0.5})
    for name, version in [*versions.items(), *(("mine", version) for version in versions.values())]:
        path = f"/v2/models/{name}/versions/{version}"
        reply = client.post(f"{path}/infer", json={"inputs": [text_input(TEXTS)]})
        assert (reply.status_code, reply.json()["model_version"]) == (200, version)
        assert client.get(f"{path}/ready").json() == {"name": name, "ready": True}
        assert client.get(path).json()["versions"] == [version]
    wrong = f"/v2/models/classes/versions/{versions['topics']}"
    replies = (
        client.post(f"{wrong}/infer", json={"inputs": [text_input(TEXTS)]}),
        client.get(f"{wrong}/ready"),
        client.get(wrong),
    )
    for reply in replies:
        assert (reply.status_code, reply.json()["code"]) == (404, "model_not_found")
        assert versions["classes"] in reply.json()["detail"]


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json"])
def test_binary_tensors_are_refused_with_what_to_send(client: TestClient, content_type: str) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
    header = json.dumps({"inputs": [tensor]}).encode()
    response = client.post(
        "/v2/models/classes/infer",
        content=header + b"\x01\0\0\0a",
        headers={"content-type": content_type, "inference-header-content-length": str(len(header))},
    )
    assert (response.status_code, response.json()["code"]) == (422, "request_invalid")
    assert "binary" in response.json()["detail"]
    assert "binary_data=False" in response.json()["fix"]


def test_a_client_need_not_say_that_it_sends_json(client: TestClient) -> None:
    """tritonclient does not, and refuses what it is told."""
    content = json.dumps({"inputs": [text_input(TEXTS)]}).encode()
    response = client.post("/v2/models/classes/infer", content=content)
    assert "content-type" not in response.request.headers
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v2/models/nothing/infer", 404, "There is no experiment 'nothing'."),
        ("/v2/models/classes/infer", 422, "inputs: Field required"),
        ("/v2/repository/index", 404, "Not Found"),
        ("/v2/health/live", 405, "Method Not Allowed"),
    ],
)
def test_an_error_is_where_clients_of_the_protocol_read_it(
    client: TestClient, path: str, status: int, said: str
) -> None:
    body = {"inputs": [text_input(TEXTS)]} if "nothing" in path else {}
    response = client.post(path, json=body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["error"].startswith(said)
    assert "error" not in client.post(path.replace("/v2/", "/v1/"), json={}).json()


def test_metadata(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "loramill"
    for model in ("classes", "topics", "score"):
        described = client.get(f"/v2/models/{model}").json()
        given = outputs(infer(client, model))
        assert [(tensor["name"], tensor["datatype"]) for tensor in described["outputs"]] == [
            (name, tensor["datatype"]) for name, tensor in given.items()
        ]
        assert [tensor["shape"][1:] for tensor in described["outputs"]] == [
            tensor["shape"][1:] for tensor in given.values()
        ]
    assert client.get("/v2/models/classes/ready").json() == {"name": "classes", "ready": True}
    assert client.get("/v2/models/nothing/ready").status_code == 404
