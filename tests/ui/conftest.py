"""The real API behind a real socket, and pages that ask it; all tests share one, since it starts slowly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from streamlit.testing.v1 import AppTest

from loramill.api.app import create_app
from loramill.api.services import AppServices
from loramill.auth.models import Role
from loramill.auth.passwords import Passwords
from loramill.auth.users import UserStore
from loramill.client import Client
from loramill.config.schema import ExperimentConfig
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.submit import submit_training
from loramill.settings import Settings
from loramill.ui import services as page_services
from loramill.ui.sign_ins import SignIn
from ui_pages import PASSWORD, SCRIPT, Shows


@pytest.fixture(scope="package")
def api_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory, api_port: int) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as environment:
        for field in Settings.model_fields.values():
            environment.delenv(str(field.alias), raising=False)
        environment.setenv("LORAMILL_HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("API_PORT", str(api_port))
        environment.setenv("INFERENCE_PORT", "1")  # nothing listens there
        page_services.settings.cache_clear()
        yield Settings.load()
    page_services.settings.cache_clear()


@pytest.fixture(scope="package")
def app(settings: Settings, api_port: int) -> Iterator[FastAPI]:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=api_port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield app
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="package")
def services(app: FastAPI) -> AppServices:
    services: AppServices = app.state.services
    return services


@pytest.fixture(scope="package")
def sign_in(services: AppServices, api_port: int) -> Iterator[Callable[[str], SignIn]]:
    """Makes a user unless there is one (``root`` is an administrator), and signs them in."""
    cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

    def sign(username: str) -> SignIn:
        with services.database.transaction() as session:
            store = UserStore(session)
            role = Role.ADMIN if username == "root" else Role.USER
            if store.find_by_name(username) is None:
                store.create(username, password_hash=cheap.hash(PASSWORD), role=role)
        client = connections.enter_context(Client(f"http://127.0.0.1:{api_port}"))
        reply = client.sign_in(username, PASSWORD)
        return SignIn(client, username, reply["user_id"], reply["role"])

    with contextlib.ExitStack() as connections:
        yield sign


@pytest.fixture(scope="package")
def add_run(services: AppServices) -> Callable[..., str]:
    """A run that has ended, with events, metrics and a log, and its id."""

    def add(owner: str, name: str = "run", status: Status = Status.SUCCESS, log: str = "one line\n") -> str:
        folder = submit_training(
            ExperimentConfig(experiment_name=name),
            settings=services.settings,
            database=services.database,
            enqueue=lambda _id: None,
            owner=owner,
        )
        finish(services, folder, status, log)
        return folder.id

    return add


def finish(services: AppServices, folder: ExperimentFolder, status: Status, log: str) -> None:
    for step in range(1, 4):
        numbers = {"loss": 1 / step, "learning_rate": 1e-3, "samples_per_second": 100.0}
        folder.append_event({"time": float(step), "type": "log", "step": step, **numbers})
    folder.append_event({"time": 4.0, "type": "eval", "step": 3, "metrics": {"eval_accuracy": 0.9, "eval_loss": 0.3}})
    folder.log_file.write_text(log, encoding="utf-8")
    metrics: dict[str, Any] = {"eval": {"accuracy": 0.9, "loss": 0.3}, "train": {"runtime": 2.5}}
    folder.write_metrics(metrics)
    with services.database.transaction() as session:
        store = ExperimentStore(session)
        store.get(folder.id).status = status
        store.record_metrics(folder.id, metrics)


@pytest.fixture
def shows() -> Shows:
    """Draws one page for somebody, and returns what is seen; nothing may have failed unexpectedly."""

    def show(page: str, person: SignIn, /, language: str = "en", **query: str) -> AppTest:
        test = AppTest.from_string(SCRIPT.format(page=page), default_timeout=120)
        test.session_state["sign_in"] = person
        test.session_state["language"] = language
        for name, value in query.items():
            test.query_params[name] = value
        test.run()
        assert not test.exception, test.exception
        return test

    return show
