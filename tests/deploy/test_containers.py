"""The images really built, and the services really started, hurt, scaled and removed. Tests run in this order.

They need a Docker engine; ``tests/deploy/with_docker.sh`` brings one along where there is none.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployment_files import ROOT
from docker_stack import BUILD_SECONDS, Stack, copy_checkout, docker, download_torch, engine_answers, wait_until
from loramill.client import Client, Task

pytestmark = [
    pytest.mark.containers,
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.timeout(BUILD_SECONDS + 300),
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers"),
]

IMAGES = ["api", "ui", "worker", "inference"]
SERVICES = [*IMAGES, "redis"]
MAX_MEGABYTES = {"api": 400, "ui": 400}
JOB_SECONDS = 300
PLANTED = "results/planted-secret.txt"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Images are there afterwards; nothing else is."""
    checkout, wheelhouse = (tmp_path_factory.mktemp(name) for name in ("checkout", "wheelhouse"))
    copy_checkout(checkout)
    download_torch(wheelhouse)
    (checkout / PLANTED).parent.mkdir()
    (checkout / PLANTED).write_text("must stay outside")
    stack = Stack(checkout, wheelhouse)
    try:
        yield stack
    finally:
        if (checkout / ".env").exists():
            stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def built(stack: Stack) -> Stack:
    stack.make("docker-build", seconds=BUILD_SECONDS)
    return stack


@pytest.fixture(scope="module")
def running(built: Stack) -> Stack:
    said = built.make("start-services")
    assert "Random secrets were written to .env" in said
    assert built.url("UI_PORT").replace("127.0.0.1", "localhost") in said
    return built


@pytest.fixture
def client(running: Stack) -> Iterator[Client]:
    with running.client() as client:
        yield client


def image(name: str) -> Any:
    return json.loads(docker("image", "inspect", name))[0]


def sample_config(name: str, rows: int) -> dict[str, Any]:
    """The quickstart on fewer rows."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "quickstart.yaml").read_text(encoding="utf-8"))
    config["experiment_name"] = name
    config["data"] |= {"train_samples": rows, "eval_samples": 200}
    return config


def test_images_are_small(built: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    base = image("python:3.11-slim")["Size"]
    sizes = {name: (image(f"loramill-test-{name}:latest")["Size"] - base) / 1e6 for name in IMAGES}
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{name} image: {size:.0f} MB over its base" for name, size in sizes.items()) + "\n")
    assert {name: sizes[name] for name, limit in MAX_MEGABYTES.items() if sizes[name] > limit} == {}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_and_says_what_it_is(name: str, built: Stack) -> None:
    config = image(f"loramill-test-{name}:latest")["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]
    assert config["Labels"]["org.opencontainers.image.title"] == "loramill"
    assert {"LORAMILL_ENV=production", "LORAMILL_HOME=/var/lib/loramill"} <= set(config["Env"])


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_no_secret_and_nothing_of_this_machine(name: str, built: Stack) -> None:
    tag = f"loramill-test-{name}:latest"
    search = f"find / -xdev \\( -name .env -o -name {Path(PLANTED).name} -o -path /wheelhouse/\\* \\) 2>/dev/null; true"
    assert docker("run", "--rm", "--entrypoint", "sh", tag, "-c", search) == ""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", tag)
    assert not re.search(r"(SECRET|PASSWORD|TOKEN|_KEY)=", history)


def test_the_page_and_the_api_do_without_torch(built: Stack) -> None:
    for name in ("api", "ui"):
        code = "import importlib.util as u; print([n for n in ('torch', 'transformers') if u.find_spec(n)])"
        assert docker("run", "--rm", "--entrypoint", "python", f"loramill-test-{name}:latest", "-c", code) == "[]"


def test_all_services_are_healthy(running: Stack) -> None:
    health = {name: running.inspect(running.containers(name)[0])["State"]["Health"]["Status"] for name in SERVICES}
    assert health == dict.fromkeys(SERVICES, "healthy")


def test_the_page_answers(running: Stack) -> None:
    assert httpx.get(running.url("UI_PORT")).text.count("<title>") == 1
    assert httpx.get(f"{running.url('UI_PORT')}/_stcore/health").text == "ok"
    assert httpx.get(f"{running.url('API_PORT')}/docs").is_success


@pytest.mark.parametrize("name", SERVICES)
def test_no_process_is_root_or_may_write_where_it_should_not(name: str, running: Stack) -> None:
    (container,) = running.containers(name)
    users = [line.split()[0] for line in docker("top", container, "-eo", "uid,pid").splitlines()[1:]]
    assert users
    assert "0" not in users
    host = running.inspect(container)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "Read-only file system" in docker("exec", container, "touch", "/usr/written", check=False)


def test_a_job_succeeds_and_its_model_is_served(client: Client, running: Stack) -> None:
    done = client.wait(client.train(sample_config("first", 2400)).task_id, seconds=JOB_SECONDS)
    assert (done.status, done.error) == ("SUCCESS", None)
    assert done.result is not None
    assert done.result["eval"]["accuracy"] > 0.6

    url = f"{running.url('INFERENCE_PORT')}/predict"
    body = {"text": "A warm, funny film with a cast that never puts a foot wrong."}
    assert httpx.post(url, json=body).status_code == 401
    for credential in (f"Bearer {running.secret('LORAMILL_INFERENCE_KEY')}", client.authorization):
        reply = httpx.post(url, json=body, headers={"Authorization": credential}, timeout=60).json()
        assert (reply["experiment_id"], reply["label_name"]) == (done.experiment_id, "positive")


def test_the_api_offers_the_shipped_configs(client: Client) -> None:
    names = {preset["name"] for preset in client.request("GET", "/config/presets")}
    assert names == {file.stem for file in (ROOT / "config").glob("*.yaml")}


def test_logs_and_restarts_are_a_target_each(running: Stack) -> None:
    assert "jobs at a time" in running.make("logs-services", "service=worker").replace("job at", "jobs at")
    before = running.inspect(running.containers("ui")[0])["State"]["StartedAt"]
    running.make("restart-services", "service=ui")
    assert running.inspect(running.containers("ui")[0])["State"]["StartedAt"] > before


def started(client: Client, *tasks: Task) -> bool:
    return all(client.task(task.task_id).status in ("STARTED", "PROGRESS") for task in tasks)


def test_nothing_is_lost_when_the_queue_is_killed(client: Client, running: Stack) -> None:
    running.redis("SET", "kept", "yes")
    jobs = [client.train(sample_config(f"queue{number}", 1000)) for number in range(3)]
    wait_until(lambda: started(client, jobs[0]), "the first job runs")
    wait_until(lambda: running.redis("INFO", "persistence").count("aof_pending_bio_fsync:0") == 1, "written to disk")
    running.kill("redis")
    late = client.train(sample_config("submitted_meanwhile", 400))
    wait_until(lambda: len(running.containers("redis")) == 1, "redis is started again")
    wait_until(lambda: httpx.get(f"{running.url('API_PORT')}/health/ready").is_success, "ready again")
    assert running.redis("GET", "kept") == "yes"
    ended = [client.wait(job.task_id, seconds=JOB_SECONDS) for job in [*jobs, late]]
    assert [(job.status, job.attempt) for job in ended] == [("SUCCESS", 1)] * 4


def test_two_workers_work_at_once_and_one_that_goes_gives_its_job_back(client: Client, running: Stack) -> None:
    running.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "worker=2")
    assert len(running.containers("worker")) == 2
    jobs = [client.train(sample_config(f"beside{number}", 4000)) for number in range(2)]
    wait_until(lambda: started(client, *jobs), "two jobs run at the same time")
    running.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "worker=1")
    assert len(running.containers("worker")) == 1
    ended = [client.wait(job.task_id, seconds=2 * JOB_SECONDS) for job in jobs]
    assert [job.status for job in ended] == ["SUCCESS", "SUCCESS"]
    assert sum(job.attempt for job in ended) == 3  # one of them was given back once


def test_data_outlives_the_containers(running: Stack) -> None:
    with running.client() as client:
        before = [item["id"] for item in client.experiments()["items"]]
    running.make("stop-services")
    assert running.containers() == []
    assert "Random secrets" not in running.make("start-services")
    with running.client() as client:
        assert [item["id"] for item in client.experiments()["items"]] == before
        assert client.request("GET", "/audit/logs")


def test_down_with_volumes_leaves_nothing(running: Stack) -> None:
    running.compose("down", "--volumes")
    assert running.leftovers() == ""
