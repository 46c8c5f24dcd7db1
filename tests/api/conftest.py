"""The API with its real database and its real queue, and people who use it. All tests share one: it starts slowly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from api_people import AddExperiment, SignIn
from loramill.api.app import create_app
from loramill.api.services import AppServices
from loramill.auth.audit_log import Actor
from loramill.auth.models import Role
from loramill.auth.passwords import Passwords
from loramill.auth.users import UserStore
from loramill.config.schema import ExperimentConfig
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.control import request_cancel
from loramill.jobs.data_child import answer
from loramill.jobs.data_work import DataWork
from loramill.jobs.datasets import Datasets, NewData
from loramill.jobs.job_tables import JobKind
from loramill.jobs.submit import submit_training
from loramill.jobs.submit_sweep import SweepSubmission, submit_sweep_for_user
from loramill.jobs.sweep import Sweep
from loramill.settings import Settings
from loramill.sweeps.search import Search

PASSWORD = "correct horse battery"


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as environment:
        for field in Settings.model_fields.values():
            environment.delenv(str(field.alias), raising=False)
        yield Settings(home=tmp_path_factory.mktemp("home"), submit_limit="10000/minute", upload_limit_mb=2)  # type: ignore[call-arg]


@pytest.fixture(scope="package")
def client(settings: Settings) -> Iterator[TestClient]:
    """Speaks to the app; what the app does not expect becomes a reply, as it would be for anybody."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="package")
def services(client: TestClient) -> AppServices:
    services: AppServices = client.app.state.services  # type: ignore[attr-defined]
    return services


@pytest.fixture(scope="package")
def sign_in(services: AppServices) -> SignIn:
    """Makes a user unless there is one (``root`` is an administrator), and returns the headers that say so."""
    cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

    def sign(username: str) -> dict[str, str]:
        with services.database.transaction() as session:
            store = UserStore(session)
            role = Role.ADMIN if username == "root" else Role.USER
            user = store.find_by_name(username) or store.create(username, password_hash=cheap.hash(PASSWORD), role=role)
        return {"Authorization": f"Bearer {services.auth.tokens.issue(user)}"}

    return sign


@pytest.fixture(scope="package")
def add_experiment(services: AppServices) -> AddExperiment:
    """An experiment of an owner that has ended, with some files, and its id."""

    def add(owner: str | None, status: Status = Status.SUCCESS, name: str = "run") -> str:
        config = ExperimentConfig(experiment_name=name)
        folder = submit_training(
            config, settings=services.settings, database=services.database, enqueue=lambda _id: None, owner=owner
        )
        finish(services, folder, status)
        return folder.id

    return add


@pytest.fixture(scope="package")
def add_dataset(services: AppServices) -> Callable[[str], str]:
    """A data set of an owner with one version, and its id. Its file is read here, which is faster than elsewhere."""

    class HereAndNow(DataWork):
        def _ask(self, request: str) -> dict[str, Any]:
            return answer(json.loads(request))

    settings = services.settings
    datasets = Datasets(settings, services.database, services.auth.audit, HereAndNow(settings))

    def add(owner: str) -> str:
        with datasets.staging("rows.csv") as file:
            file.write_text("text,label\n" + "".join(f"a text of number {row},{row % 2}\n" for row in range(20)))
            dataset, _ = datasets.add(NewData(file, "rows.csv"), Actor(owner, "user", "here"))
        return dataset.id

    return add


@pytest.fixture(scope="package")
def add_sweep(services: AppServices) -> Callable[[str], str]:
    """A sweep of an owner that was cancelled, with a report, and its id."""

    def add(owner: str) -> str:
        submission = SweepSubmission(ExperimentConfig(), Search(("lora.r=4,8",)), None, Actor(owner, "user", "here"))
        row = submit_sweep_for_user(
            submission,
            settings=services.settings,
            database=services.database,
            audit=services.auth.audit,
            enqueue=lambda _id: None,
        )
        with services.database.transaction() as session:
            request_cancel(session, row.id, JobKind.SWEEP)
        sweep = Sweep.load(services.settings, row.id)
        (sweep.folder(services.settings) / "report.html").write_text("<h1>Sweep</h1>")
        return row.id

    return add


def finish(services: AppServices, folder: ExperimentFolder, status: Status) -> None:
    folder.append_event({"type": "status", "status": "STARTED"})
    folder.append_event({"type": "status", "status": status})
    folder.log_file.write_text("one\ntwo\nthree\n")
    folder.report_file.write_text("<h1>Report</h1>")
    folder.final_model.mkdir()
    (folder.final_model / "adapter.bin").write_bytes(b"weights")
    metrics = {"eval": {"accuracy": 0.9}}
    folder.write_metrics(metrics)
    with services.database.transaction() as session:
        store = ExperimentStore(session)
        store.get(folder.id).status = status
        store.record_metrics(folder.id, metrics)


def row_of(services: AppServices, experiment_id: str) -> Experiment:
    with services.database.reading() as session:
        return ExperimentStore(session).get(experiment_id)
