"""The service as a process: how it starts, is told to end, is killed, and comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_runs import loramill, start_loramill
from loramill.cli.listening import bind, listen
from served_models import Experiments
from small_models import save_small_model

START_SECONDS = 120.0
"""On a machine that does many things at once."""


@pytest.fixture(scope="module")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model("bert", tmp_path_factory.mktemp("small_bert"))


@pytest.fixture
def experiments(tmp_path: Path, small_bert: Path) -> Experiments:
    results = tmp_path / "results"
    results.mkdir()
    return Experiments(results, small_bert)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def call(port: int, path: str, body: object = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read() or b"null")


def wait_until_ready(port: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            call(port, "/health/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail(f"not ready: {process.communicate(timeout=10) if process.poll() is not None else 'still starting'}")


@pytest.fixture
def start(experiments: Experiments) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a service on a port and waits until it is ready."""
    running: list[subprocess.Popen[str]] = []

    def start_service(port: int, *arguments: str) -> subprocess.Popen[str]:
        process = start_loramill(
            experiments.results.parent, "serve", *arguments, "--port", str(port), "--device", "cpu"
        )
        running.append(process)
        wait_until_ready(port, process)
        return process

    yield start_service
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_killed_service_comes_back_with_the_same_set(
    experiments: Experiments, start: Callable[..., subprocess.Popen[str]]
) -> None:
    for answer, name in enumerate(("a", "b", "c")):
        experiments.save_constant(name, answer)
    port = free_port()
    first = start(port, "a")
    call(port, "/models/b/alias/production", method="PUT")
    call(port, "/models/c/canary/production", {"share": 0.5}, "PUT")
    call(port, "/models/b/switch", method="POST")
    before = call(port, "/models")
    assert {model["experiment_id"] for model in before["models"]} == {"a", "b", "c"}
    first.kill()
    assert first.wait(10) == -signal.SIGKILL
    second = start(port)
    assert call(port, "/predict", {"text": "x"})["experiment_id"] == "b"
    until = time.monotonic() + 30
    while (after := call(port, "/models")) != before and time.monotonic() < until:
        time.sleep(0.05)  # what no name leads to is loaded once requests are taken
    assert after == before
    second.terminate()
    assert second.wait(30) == 0
    shutil.rmtree(experiments.results / "b")  # what somebody switched to is gone, and no other answers in its name
    third = start(port)
    third.terminate()
    assert "Serving no default (b cannot be served: There is no experiment 'b'" in third.communicate(timeout=30)[1]


def ask(port: int, asked: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """What `make predict-<asked>` runs."""
    environment = {**os.environ, "INFERENCE_PORT": str(port), "PREDICT_TEXT": text}
    command = [sys.executable, "scripts/ask_service.py", asked]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_make_asks_the_service(experiments: Experiments, start: Callable[..., subprocess.Popen[str]]) -> None:
    port = free_port()
    nobody = ask(port, "health")
    assert nobody.returncode == 1
    assert "make serve" in nobody.stderr
    experiments.save_constant("a", 1)
    start(port)
    assert json.loads(ask(port, "health").stdout)["experiment_id"] == "a"
    assert json.loads(ask(port, "text", 'it\'s $5 of "fun"').stdout)["label"] == 1
    for asked in ("positive", "negative"):
        reply = ask(port, asked)
        assert json.loads(reply.stdout)["label_name"] == "class 1"
        assert "POST /predict: A " in reply.stderr
    empty = ask(port, "text")
    assert (empty.returncode, json.loads(empty.stdout)["code"]) == (1, "text_empty")


@pytest.mark.slow
def test_services_on_free_ports_keep_their_sets_apart(experiments: Experiments) -> None:
    experiments.save_constant("a", 1)
    process = start_loramill(experiments.results.parent, "serve", "--port", "0", "--device", "cpu")
    try:
        address = next(line for line in process.stderr or () if line.startswith("Serving a on ")).rpartition(":")[2]
    finally:
        process.kill()
        process.communicate()
    assert [file.name for file in experiments.results.glob("serving_*.json")] == [f"serving_{int(address)}.json"]


@pytest.mark.slow
def test_told_to_end_it_answers_what_it_has_accepted(
    experiments: Experiments, start: Callable[..., subprocess.Popen[str]]
) -> None:
    experiments.save_constant("a", 1)
    port = free_port()
    process = start(port)
    replies: list[object] = []
    body = {"text": ["a b c d e f g h i j k l m n o p"] * 1000}
    asking = [threading.Thread(target=lambda: replies.append(call(port, "/predict", body))) for _ in range(4)]
    for thread in asking:
        thread.start()
    until = time.monotonic() + 30
    while "waiting_texts 0.0" in _metrics(port) and time.monotonic() < until and not replies:
        time.sleep(0.005)
    process.terminate()
    for thread in asking:
        thread.join(60)
    _, errors = process.communicate(timeout=60)
    assert [len(reply) for reply in replies] == [1000] * 4  # type: ignore[arg-type]
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_told_to_end_while_it_loads_it_ends_at_once(experiments: Experiments) -> None:
    labels = experiments.save_constant("a", 1).final_model / "labels.json"
    labels.unlink()
    os.mkfifo(labels)
    process = start_loramill(experiments.results.parent, "serve", "a", "--port", str(free_port()), "--device", "cpu")
    with labels.open("w"):  # opens once the service reads it, which then waits for what never comes
        process.terminate()
        try:
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_what_cannot_be_served_ends_the_command_with_a_sentence(experiments: Experiments) -> None:
    home = experiments.results.parent
    unknown = loramill(home, "serve", "nothing", "--port", str(free_port()))
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "error [model_not_found]: There is no experiment 'nothing'" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    folder = experiments.save_constant("bad", 1)
    (folder.final_model / "adapter_model.safetensors").write_bytes(b"\x80\x04.")
    bad = loramill(home, "serve", "bad", "--port", str(free_port()))
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "error [adapter_invalid]" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.slow
def test_of_two_that_start_on_one_port_the_second_ends_with_a_sentence(experiments: Experiments) -> None:
    experiments.save_constant("a", 1)
    port = free_port()
    process = start_loramill(experiments.results.parent, "serve", "a", "--port", str(port), "--device", "cpu")
    try:
        _wait_until_bound(port)
        with bind("127.0.0.1", port) as other:  # both may, as long as nobody listens
            listen(other)
            _, errors = process.communicate(timeout=START_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 2
    assert f"--port: 127.0.0.1:{port} cannot be listened on: Address already in use" in errors
    assert "Serving" not in errors
    assert "Traceback" not in errors


def _wait_until_bound(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return
        time.sleep(0.01)
    pytest.fail(f"nothing has bound port {port}")


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text: str = response.read().decode()
        return text
