"""``docker-compose.yml`` as the real Compose reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment_files import ROOT, SECRETS, run, tool
from loramill.settings import Settings

PROFILES = ["postgres", "monitoring", "flower"]
OWN = ["api", "worker", "ui", "inference"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables of this process, without those of loramill, and with every secret."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, **{name: f"value-of-{name}" for name in SECRETS}}


def config(environment: dict[str, str], *arguments: str) -> Any:
    profiles = [argument for profile in PROFILES for argument in ("--profile", profile)]
    command = [tool("docker-compose"), "--env-file", os.devnull, *profiles, "config", *arguments]
    return run(*command, env=environment)


def services(environment: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config(environment, "--format", "json").stdout)["services"]
    return found


def test_compose_takes_the_file(environment: dict[str, str]) -> None:
    done = config(environment, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_is_required(name: str, environment: dict[str, str]) -> None:
    del environment[name]
    done = config(environment, "--quiet")
    assert done.returncode != 0
    assert f"required variable {name} is missing a value" in done.stderr


def test_services_get_the_secrets_that_they_need_and_no_other(environment: dict[str, str]) -> None:
    given = {
        name: {secret for secret in SECRETS if f"value-of-{secret}" in json.dumps(service)}
        for name, service in services(environment).items()
    }
    assert given == {
        "redis": {"REDIS_PASSWORD"},
        "api": {"REDIS_PASSWORD", "JWT_SECRET", "LORAMILL_AUDIT_KEY", "LORAMILL_ADMIN_PASSWORD"},
        "worker": {"REDIS_PASSWORD"},
        "ui": set(),
        "inference": {"REDIS_PASSWORD", "JWT_SECRET", "LORAMILL_INFERENCE_KEY"},
        "postgres": {"POSTGRES_PASSWORD"},
        "prometheus": {"LORAMILL_INFERENCE_KEY"},
        "grafana": {"GRAFANA_PASSWORD"},
        "flower": {"REDIS_PASSWORD", "FLOWER_PASSWORD"},
    }


def test_no_password_stands_in_a_command_line(environment: dict[str, str]) -> None:
    for service in services(environment).values():
        assert "value-of-" not in json.dumps([service.get("command"), service.get("entrypoint")])


def test_every_service_is_hardened(environment: dict[str, str]) -> None:
    for service in services(environment).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert "privileged" not in service


def test_ports_are_open_on_this_machine_only_and_can_be_moved(environment: dict[str, str]) -> None:
    moved = {"API_PORT": "18000", "UI_PORT": "18501", "INFERENCE_PORT": "18002", "REDIS_PORT": "16379"}
    published = {
        port["target"]: (port["host_ip"], port["published"])
        for name, service in services({**environment, **moved}).items()
        for port in service.get("ports", [])
        if name in [*OWN, "redis"]
    }
    assert published == {
        8000: ("127.0.0.1", "18000"),
        8501: ("127.0.0.1", "18501"),
        8002: ("127.0.0.1", "18002"),
        6379: ("127.0.0.1", "16379"),
    }


def test_gpus_are_for_those_that_compute(environment: dict[str, str]) -> None:
    found = services({**environment, "COMPOSE_FILE": "docker-compose.yml:deploy/compose.cuda.yml", "WORKERS": "2"})
    given = {
        name: service["build"]["target"]
        for name, service in found.items()
        if "devices" in service.get("deploy", {}).get("resources", {}).get("reservations", {})
    }
    assert given == {"worker": "worker-cuda", "inference": "inference-cuda"}
    for name, target in given.items():
        assert found[name]["image"] == f"loramill-{target}:latest"
        assert found[name]["build"]["context"] == str(ROOT)
        assert found[name]["read_only"] is True
    assert found["worker"]["deploy"]["replicas"] == 2


def test_the_time_zone_is_taipeis_unless_another_is_named(environment: dict[str, str]) -> None:
    zones = {service["environment"]["TZ"] for name, service in services(environment).items() if name in OWN}
    assert zones == {"Asia/Taipei"}
    moved = services({**environment, "TZ": "Europe/Berlin"})
    assert moved["worker"]["environment"]["TZ"] == "Europe/Berlin"


def test_services_wait_for_what_they_need(environment: dict[str, str]) -> None:
    found = services(environment)
    healthy = {
        name: {other for other, how in found[name]["depends_on"].items() if how["condition"] == "service_healthy"}
        for name in OWN
    }
    assert healthy == {
        "api": {"redis", "postgres"},
        "worker": {"api", "redis"},
        "ui": {"api"},
        "inference": {"api"},
    }
    assert found["api"]["depends_on"]["postgres"]["required"] is False


def test_variables_are_ones_that_loramill_reads(environment: dict[str, str]) -> None:
    known = {str(field.alias) for field in Settings.model_fields.values()} | {"TZ", "FORWARDED_ALLOW_IPS"}
    found = services(environment)
    assert set().union(*(found[name]["environment"] for name in OWN)) <= known


def test_prometheus_scrapes_services_that_are_there(environment: dict[str, str]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    found = services({**environment, "LORAMILL_WORKER_METRICS_PORT": "9100"})  # of a worker outside
    for name in ("api", "inference"):
        (target,) = jobs[f"loramill-{name}"]["static_configs"][0]["targets"]
        assert target in {f"{name}:{one['target']}" for one in found[name]["ports"]}
    (workers,) = jobs["loramill-worker"]["dns_sd_configs"]
    told = found["worker"]["environment"]
    assert workers["names"] == ["worker"]
    assert str(workers["port"]) == told["LORAMILL_WORKER_METRICS_PORT"]
    assert told["LORAMILL_WORKER_METRICS_ADDRESS"] == "0.0.0.0"
