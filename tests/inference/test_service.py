"""The service over HTTP, with the real app and the real models."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from starlette.testclient import TestClient

from loramill.inference.access import Access
from loramill.inference.batcher import BatchLimits
from loramill.inference.model_host import ModelHost
from loramill.inference.model_service import FOLLOW_SECONDS, ModelService
from loramill.inference.predictor import Predictor
from loramill.inference.request_limits import RequestLimits
from loramill.inference.service import create_app
from served_models import Experiments, drawn_adapter

Open = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def serve(experiments: Experiments) -> Open:
    """Opens a client of a service; keywords go to ``ModelService``."""

    @contextmanager
    def open_client(access: Access | None = None, **options: Any) -> Iterator[TestClient]:
        service = ModelService(
            experiments.options(),
            batches=options.pop("batches", BatchLimits(workers=2)),
            limits=options.pop("limits", RequestLimits()),
            **options,
        )
        with TestClient(create_app(service, access), base_url="http://127.0.0.1", raise_server_exceptions=False) as it:
            yield it

    return open_client


@pytest.fixture
def client(experiments: Experiments, serve: Open) -> Iterator[TestClient]:
    """A service of two constant models, ``a`` says 1 and ``b`` says 2; the default is ``b``, the newest."""
    experiments.save_constant("a", 1)
    experiments.save_constant("b", 2)
    with serve() as opened:
        yield opened


def predict(client: TestClient, text: object, **more: object) -> Any:
    response = client.post("/predict", json={"text": text, **more})
    assert response.status_code == 200, response.text
    return response.json()


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:loramill:problem:{code}")
    assert body["title"]
    assert body["detail"]
    return body


def test_the_reply_of_the_description(client: TestClient) -> None:
    response = client.post("/predict", json={"text": "a b c"})
    body = response.json()
    assert list(body)[:5] == ["label", "probability", "latency_ms", "base_model", "language"]
    assert (body["label"], body["label_name"], body["experiment_id"], body["language"]) == (
        2,
        "class 2",
        "b",
        "English",
    )
    assert 0.99 < body["probability"] <= 1.0
    assert body["latency_ms"] > 0
    assert response.headers["x-loramill-experiment"] == "b"
    assert response.headers["x-loramill-adapter-version"] == body["adapter_version"]


def test_an_experiment_may_have_a_name_of_any_letters(experiments: Experiments, serve: Open) -> None:
    experiments.save_constant("情感 分析", 1)
    with serve() as client:
        response = client.post("/predict", json={"text": "x"})
        assert (response.status_code, response.json()["experiment_id"]) == (200, "情感 分析")
        assert unquote(response.headers["x-loramill-experiment"]) == "情感 分析"
        inputs = [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}]
        assert client.post(f"/v2/models/{quote('情感 分析')}/infer", json={"inputs": inputs}).status_code == 200


def test_a_list_gets_a_list_in_its_order(experiments: Experiments, serve: Open) -> None:
    folder = experiments.save("run", drawn_adapter(experiments.base, 5))
    texts = ["a b c", "z z z z", "x y", "q"]
    expected = Predictor.open(folder).predict(texts)
    with serve() as client:
        found = predict(client, texts)
        assert isinstance(predict(client, ["a"]), list)
    assert [one["label"] for one in found] == [one.answer.label for one in expected]
    chances = [one.answer.probability for one in expected]
    assert [one["probability"] for one in found] == pytest.approx(chances, abs=1e-5)


def test_pairs_in_both_ways_are_the_same(experiments: Experiments, serve: Open) -> None:
    experiments.save("run", drawn_adapter(experiments.base, 5))
    with serve() as client:
        first = predict(client, ["a b", "c"], text_pair=["d", "e f"])
        second = predict(client, [["a b", "d"], ["c", "e f"]])
        third = predict(client, "a b", text_pair="d")
        alone = predict(client, "a b")
    drop = {"latency_ms"}
    strip = [
        [{key: value for key, value in one.items() if key not in drop} for one in found] for found in (first, second)
    ]
    assert strip[0] == strip[1]
    assert third["probability"] == pytest.approx(first[0]["probability"], abs=1e-5)
    assert alone["probability"] != pytest.approx(third["probability"], abs=1e-5)


def test_other_kinds_of_labels(experiments: Experiments, serve: Open) -> None:
    several = drawn_adapter(experiments.base, 5)
    experiments.save("topics", several, problem_type="multi_label_classification", label_names=["x", "y", "z"])
    score = drawn_adapter(experiments.base, 6, labels=1)
    experiments.save("score", score, problem_type="regression", label_names=[])
    with serve() as client:
        topics = predict(client, "a b c", model="topics")
        value = predict(client, "a b c", model="score")
    assert isinstance(topics["label"], list)
    assert len(topics["label"]) == len(topics["probability"]) == len(topics["label_name"])
    assert isinstance(value["label"], float)
    assert (value["probability"], value["label_name"]) == (None, None)


class Registry:
    """Knows one alias."""

    def resolve(self, name: str) -> str | None:
        return {"production": "a"}.get(name)


def test_a_model_by_every_kind_of_name(experiments: Experiments, serve: Open) -> None:
    for answer, name in enumerate(("a", "b", "c")):
        experiments.save_constant(name, answer)
    with serve(registry=Registry(), default="b") as client:
        client.put("/models/c/alias/mine")
        asked = {None: 1, "default": 1, "a": 0, "mine": 2, "production": 0, "latest": 2}
        for name, answer in asked.items():
            assert predict(client, "x", model=name)["label"] == answer, name


def test_the_model_of_a_start_is_the_default_of_that_start(experiments: Experiments, serve: Open) -> None:
    """A start without one takes the newest, unless somebody switched while the service ran."""
    for answer, name in enumerate(("a", "b", "c")):
        experiments.save_constant(name, answer)
    for _ in range(2):  # the second is what comes after kill -9
        with serve(default="a") as client:
            assert predict(client, "x")["experiment_id"] == "a"
    shutil.rmtree(experiments.results / "a")
    with serve() as client:
        assert predict(client, "x")["experiment_id"] == "c"
        client.post("/models/b/switch")
    with serve() as client:
        assert predict(client, "x")["experiment_id"] == "b"


def test_a_newest_model_that_is_broken_leaves_the_next_newest(
    experiments: Experiments, serve: Open, caplog: pytest.LogCaptureFixture
) -> None:
    experiments.save_constant("good", 1)
    for name in ("bad", "worse"):
        (experiments.save_constant(name, 2).final_model / "adapter_model.safetensors").write_bytes(b"\x80\x04.")
    with serve() as client:
        assert predict(client, "x")["experiment_id"] == "good"
        assert client.get("/models/good").json()["names"] == ["default"]
        states = {model["experiment_id"]: model["state"] for model in client.get("/models").json()["models"]}
    assert states == {"good": "memory", "bad": "failed", "worse": "failed"}
    assert re.findall(r"newest experiment (\w+) cannot be served", caplog.text) == ["worse", "bad"]


def test_a_service_starts_without_any_model_that_can_be_served(experiments: Experiments, serve: Open) -> None:
    (experiments.save_constant("bad", 2).final_model / "adapter_model.safetensors").write_bytes(b"\x80\x04.")
    with serve() as client:
        problem(client.post("/predict", json={"text": "x"}), 422, "adapter_invalid")
        assert client.get("/models").json()["models"][0]["state"] == "failed"
        experiments.save_constant("bad", 1)
        assert predict(client, "x")["experiment_id"] == "bad"
        assert client.app.state.service.host.failures == {}  # type: ignore[attr-defined]


def test_a_model_is_loaded_by_every_kind_of_name_too(experiments: Experiments, serve: Open) -> None:
    for answer, name in enumerate(("a", "b", "c")):
        experiments.save_constant(name, answer)
    with serve(registry=Registry(), default="b") as client:
        client.put("/models/b/alias/mine")
        client.put("/models/c/canary/mine", json={"share": 1.0})
        named = {"production": "a", "mine": "b", "default": "b", "latest": "c", "a": "a"}
        for name, experiment_id in named.items():
            response = client.post(f"/models/{name}/load")
            assert (response.status_code, response.json().get("experiment_id")) == (200, experiment_id), name
        assert {model["experiment_id"] for model in client.get("/models").json()["models"]} == {"a", "b", "c"}


def test_a_text_in_another_language_gets_a_warning(client: TestClient) -> None:
    assert predict(client, "the cast is good")["warning"] is None
    body = predict(client, "這部電影很好看")
    assert "written in Chinese" in body["warning"]
    assert body["text_language"] == "Chinese"


BAD_BODIES: list[tuple[object, int, str]] = [
    ({"text": ""}, 422, "text_empty"),
    ({"text": "  \n"}, 422, "text_empty"),
    ({"text": []}, 422, "text_empty"),
    ({"text": ["a", ""]}, 422, "text_empty"),
    ({"text": "x" * 1_000_000}, 413, "text_too_long"),
    ({"text": ["x"] * 10_000}, 413, "too_many_texts"),
    ({"text": 5}, 422, "request_invalid"),
    ({"text": None}, 422, "request_invalid"),
    ({"text": {"a": 1}}, 422, "request_invalid"),
    ({"text": ["a", 5]}, 422, "request_invalid"),
    ({"text": [["a", "b", "c"]]}, 422, "request_invalid"),
    ({}, 422, "request_invalid"),
    ([], 422, "request_invalid"),
    ({"text": "a", "texts": "b"}, 422, "request_invalid"),
    ({"text": "a", "text_pair": ["b", "c"]}, 422, "request_invalid"),
    ({"text": "a", "model": ""}, 422, "request_invalid"),
    ({"text": "a", "model": "x" * 300}, 422, "request_invalid"),
    ({"text": "a", "model": "nothing"}, 404, "model_not_found"),
    ({"text": "a", "model": "../b"}, 404, "model_not_found"),
    ({"text": "a", "model": "\u0000"}, 404, "model_not_found"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES)
def test_bad_input_is_named_and_the_service_stays_up(client: TestClient, body: object, status: int, code: str) -> None:
    problem(client.post("/predict", json=body), status, code)
    assert predict(client, "a")["label"] == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"text": "\\ud800"}', b'{"text": NaN}', b"\0" * 100, b'"text"'],
)
def test_what_is_no_json_is_named_and_the_service_stays_up(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert predict(client, "a")["label"] == 2


def test_an_unknown_model_does_not_tell_where_models_are_kept(client: TestClient) -> None:
    body = problem(client.post("/predict", json={"text": "a", "model": "nothing"}), 404, "model_not_found")
    assert body["detail"] == "There is no experiment 'nothing'."


def test_a_body_that_is_no_json_is_the_field_at_fault(client: TestClient) -> None:
    response = client.post("/predict", content=b"{bad", headers={"content-type": "application/json"})
    assert [error["key"] for error in problem(response, 422, "request_invalid")["errors"]] == ["body"]


def test_a_form_is_told_which_header_is_missing(client: TestClient) -> None:
    """What curl sends with ``-d`` and nothing else."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    response = client.post("/predict", content=b'{"text": "a"}', headers=form)
    assert "Content-Type: application/json" in problem(response, 422, "request_invalid")["fix"]


def test_every_field_at_fault_is_listed(client: TestClient) -> None:
    body = problem(client.post("/predict", json={"text": 5, "model": 6, "other": 7}), 422, "request_invalid")
    assert sorted(error["key"] for error in body["errors"]) == ["model", "other", "text"]


def test_a_body_that_is_too_large_is_refused_with_and_without_a_length(experiments: Experiments, serve: Open) -> None:
    experiments.save_constant("a", 1)
    with serve(limits=RequestLimits(body_bytes=1000)) as client:
        problem(client.post("/predict", json={"text": "x" * 2000}), 413, "request_too_large")
        chunks = (b"x" * 100 for _ in range(100))
        problem(client.post("/predict", content=chunks), 413, "request_too_large")
        assert predict(client, "a")["label"] == 1


def test_overload_says_when_to_come_back(experiments: Experiments, serve: Open) -> None:
    experiments.save_constant("a", 1)
    with serve(batches=BatchLimits(queued_texts=3)) as client:
        response = client.post("/predict", json={"text": ["x"] * 4})
        problem(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert predict(client, "a")["label"] == 1


def test_switching_loading_aliases_and_canaries(client: TestClient, experiments: Experiments) -> None:
    assert client.post("/models/a/switch").json() == {"model": "a", "canary": None, "share": 0.0}
    assert predict(client, "x")["label"] == 1
    assert client.put("/models/b/alias/production").status_code == 200
    assert predict(client, "x", model="production")["label"] == 2
    assert client.put("/models/a/canary/production", json={"share": 1.0}).json()["canary"] == "a"
    assert predict(client, "x", model="production")["label"] == 1
    assert client.put("/models/a/canary/production", json={"share": 0}).json()["canary"] is None
    assert predict(client, "x", model="production")["label"] == 2
    problem(client.post("/models/b/unload"), 409, "conflict")
    assert client.delete("/models/b/alias/production").status_code == 204
    assert client.post("/models/b/unload").status_code == 204
    assert [model["experiment_id"] for model in client.get("/models").json()["models"]] == ["a"]
    experiments.save_constant("a", 7)
    assert predict(client, "x")["label"] == 1
    assert client.post("/models/a/load").json()["state"] == "memory"
    assert predict(client, "x")["label"] == 7


def test_a_name_stands_for_its_model_and_not_for_the_canary_where_it_is_used_to_change_things(
    client: TestClient,
) -> None:
    client.put("/models/a/alias/stable")
    client.put("/models/b/canary/stable", json={"share": 1.0})
    assert predict(client, "x", model="stable")["label"] == 2
    assert client.post("/models/stable/switch").json()["model"] == "a"
    assert client.put("/models/stable/alias/copy").json()["model"] == "a"
    client.post("/models/b/switch")
    assert client.put("/models/stable/canary/default", json={"share": 0.5}).json()["canary"] == "a"


def test_no_name_hides_an_experiment(client: TestClient) -> None:
    for taken in ("b", "latest"):
        problem(client.put(f"/models/a/alias/{taken}"), 409, "conflict")
    assert predict(client, "x", model="b")["label"] == 2


def test_mistakes_with_models_are_named(client: TestClient, experiments: Experiments) -> None:
    for path in ("/models/none/switch", "/models/none/load", "/models/none/unload"):
        problem(client.post(path), 404, "model_not_found")
    problem(client.get("/models/none"), 404, "model_not_found")
    problem(client.put("/models/none/alias/x"), 404, "model_not_found")
    problem(client.put("/models/a/alias/.hidden"), 422, "request_invalid")
    problem(client.delete("/models/a/alias/none"), 404, "not_found")
    problem(client.delete("/models/b/alias/default"), 409, "conflict")
    problem(client.put("/models/a/canary/none", json={"share": 0.5}), 404, "not_found")
    problem(client.put("/models/b/canary/default", json={"share": 0.5}), 409, "conflict")
    problem(client.put("/models/a/canary/default", json={"share": 1.5}), 422, "request_invalid")
    problem(client.get("/nothing"), 404, "not_found")
    problem(client.get("/predict"), 405, "method_not_allowed")
    assert predict(client, "x")["label"] == 2


def test_a_model_that_cannot_be_loaded_again_is_shown_with_its_error(
    client: TestClient, experiments: Experiments
) -> None:
    weights = experiments.results / "b" / "artifacts" / "final_model" / "adapter_model.safetensors"
    weights.write_bytes(b"\x80\x04pickle")
    problem(client.post("/models/b/load"), 422, "adapter_invalid")
    problem(client.post("/predict", json={"text": "x", "model": "a/../b"}), 404, "model_not_found")
    assert predict(client, "x")["label"] == 2
    assert client.get("/models/b").json()["state"] == "memory"


def test_health(client: TestClient) -> None:
    for path in ("/health/live", "/v2/health/live"):
        assert client.get(path).json() == {"live": True}
    for path in ("/health/ready", "/v2/health/ready"):
        assert client.get(path).json() == {"ready": True}
    body = client.get("/health").json()
    assert (body["status"], body["experiment_id"], body["models"]) == ("ok", "b", 1)


def test_without_any_model_the_service_is_up_and_says_so(serve: Open) -> None:
    with serve() as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/health").json()["experiment_id"] is None
        body = problem(client.post("/predict", json={"text": "x"}), 404, "model_not_found")
        assert "No experiment has finished" in body["detail"]


def test_metrics(client: TestClient) -> None:
    predict(client, ["a", "b"])
    client.post("/predict", json={"text": ""})
    text = client.get("/metrics").text
    assert 'loramill_inference_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'loramill_inference_requests_total{route="/predict",status="422"} 1.0' in text
    assert re.search(r'loramill_inference_texts_total{experiment="b",version="\w+"} 2.0', text)
    assert "loramill_inference_models 1.0" in text
    assert "loramill_inference_waiting_texts 0.0" in text
    assert re.search(r"loramill_inference_batch_texts_sum 2.0", text)


def test_two_services_count_for_themselves(experiments: Experiments, serve: Open) -> None:
    experiments.save_constant("a", 1)
    with serve() as first, serve() as second:
        predict(first, "x")
        assert 'route="/predict"' not in second.get("/metrics").text


def test_a_switch_reaches_the_other_replicas(
    client: TestClient, serve: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow, failed = ModelHost.follow, set[ModelHost]()

    async def fail_once(host: ModelHost) -> None:
        if host not in failed:
            failed.add(host)
            raise RuntimeError("the first time")
        await follow(host)

    monkeypatch.setattr(ModelHost, "follow", fail_once)
    with serve() as replica:
        assert predict(replica, "x")["label"] == 2
        assert client.post("/models/a/switch").status_code == 200
        until = time.monotonic() + 5 * FOLLOW_SECONDS
        while predict(replica, "x")["label"] != 1:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert "could not be followed" in caplog.text, "a failure is told, and does not end it"


def test_openapi_shows_an_example_for_every_way_to_ask(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        body = {key: value for key, value in example["value"].items() if key != "model"}
        assert client.post("/predict", json=body).status_code == 200
    paths = {"/predict", "/models", "/models/{model}/switch", "/v2/models/{model}/infer", "/health", "/metrics"}
    assert paths <= set(document["paths"])
    assert client.get("/docs").status_code == 200


def test_a_service_with_a_key(experiments: Experiments, serve: Open) -> None:
    experiments.save_constant("a", 1)
    with serve(Access("s3cret")) as client:
        response = client.post("/predict", json={"text": "x"})
        problem(response, 401, "not_signed_in")
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/health/ready").status_code == 200
        client.headers["authorization"] = "Bearer s3cret"
        assert predict(client, "x")["label"] == 1


def test_an_unexpected_failure_is_named_without_its_details(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("loramill.inference.routes.predict.read_texts", fail)
    response = client.post("/predict", json={"text": "x"})
    problem(response, 500, "internal_error")
    assert "a secret" not in response.text


def test_a_request_is_handled_on_the_event_loop_alone(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread pool hand-over costs more than the rest of a request's handling, and stalls behind forward passes."""

    async def fail(*_arguments: object) -> None:
        raise AssertionError("through the thread pool")

    for module in ("fastapi.dependencies.utils", "fastapi.routing"):
        monkeypatch.setattr(f"{module}.run_in_threadpool", fail)
    assert predict(client, "x")["label"] == 2


def test_nothing_is_left_at_module_level() -> None:
    source = Path("src/loramill/inference/service.py").read_text(encoding="utf-8")
    assert not re.search(r"^\w+ = create_app", source, re.MULTILINE)
