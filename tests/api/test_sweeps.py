from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api_people import SignIn
from loramill.api.services import AppServices
from loramill.config.schema import ExperimentConfig
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore, NewExperiment
from loramill.jobs.control import get_job
from loramill.jobs.job_tables import JobKind
from loramill.jobs.lease import claim
from loramill.jobs.sweep import Sweep, TrialEntry

BODY: dict[str, Any] = {
    "config": {"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}},
    "space": {"lora.r": [4, 8], "training.learning_rate": "1e-4,1e-3"},
}


def submit(client: TestClient, headers: dict[str, str], **changes: Any) -> str:
    reply = client.post("/sweeps", json={**BODY, **changes}, headers=headers)
    assert reply.status_code == 202, reply.text
    sweep_id: str = reply.json()["sweep_id"]
    return sweep_id


def test_a_sweep_is_recorded_before_its_message_leaves(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    ada = {**sign_in("ada"), "Idempotency-Key": "sweep-1"}
    sweep_id = submit(client, ada, halving={"keep": 2}, priority=3)
    assert submit(client, ada, halving={"keep": 2}) == sweep_id
    assert client.post("/sweeps", json=BODY, headers=ada).status_code == 409
    shown = client.get(f"/sweeps/{sweep_id}", headers=ada).json()
    assert (shown["status"], shown["trials"], shown["best"], shown["metric"]) == ("PENDING", {}, None, "accuracy")
    kept = Sweep.load(services.settings, sweep_id)
    assert kept.search is not None
    assert kept.search.space == ("lora.r=4,8", "training.learning_rate=1e-4,1e-3")
    messages = [json.loads(message) for message in services.broker.client.lrange("loramill", 0, -1)]
    assert [message["headers"]["argsrepr"] for message in messages].count(f"('{sweep_id}',)") == 1
    assert client.get("/sweeps", headers=ada).json()["items"][0]["sweep_id"] == sweep_id


def test_trials_belong_to_their_sweep(client: TestClient, sign_in: SignIn, services: AppServices) -> None:
    ada = sign_in("ada")
    sweep_id = submit(client, ada)
    me = client.get("/users/me", headers=ada).json()["user_id"]
    sweep = Sweep.load(services.settings, sweep_id)
    with services.database.transaction() as session:
        taken = claim(session, sweep_id, worker="w")
        assert taken is not None
        assert taken.kind == JobKind.SWEEP
        for number in (1, 2):
            new = NewExperiment.from_config(f"{sweep_id}_t{number}", ExperimentConfig(), owner=me, sweep_id=sweep_id)
            ExperimentStore(session).create(new)
            sweep.trials.append(TrialEntry(new.id, {"lora.r": number}))
        assert claim(session, f"{sweep_id}_t1", worker="w") is None, "no worker takes a trial by itself"
        ExperimentStore(session).get(f"{sweep_id}_t1").status = Status.SUCCESS
        sweep.trials[0].status, sweep.trials[0].score = "SUCCESS", 0.75
    sweep.save(services.settings)
    shown = client.get(f"/sweeps/{sweep_id}", headers=ada).json()
    assert shown["trials"] == {"PENDING": 1, "SUCCESS": 1}
    assert shown["best"] == {"experiment_id": f"{sweep_id}_t1", "overrides": {"lora.r": 1}, "score": 0.75}
    trials = client.get(f"/sweeps/{sweep_id}/trials", headers=ada).json()
    assert [(trial["status"], trial["score"]) for trial in trials] == [("SUCCESS", 0.75), ("PENDING", None)]
    with services.database.transaction() as session:
        ExperimentStore(session).delete(f"{sweep_id}_t1")
    trials = client.get(f"/sweeps/{sweep_id}/trials", headers=ada).json()
    assert [trial["status"] for trial in trials] == ["DELETED", "PENDING"]
    assert client.post(f"/task/{sweep_id}_t2/cancel", headers=ada).status_code == 409
    assert client.post(f"/sweeps/{sweep_id}/cancel", headers=ada).json()["accepted"] is True
    with services.database.reading() as session:
        assert get_job(session, sweep_id, JobKind.SWEEP).cancel_requested


def test_a_waiting_sweep_is_cancelled_with_its_trials_and_goes_on(client: TestClient, sign_in: SignIn) -> None:
    ada = sign_in("ada")
    sweep_id = submit(client, ada)
    assert client.post(f"/sweeps/{sweep_id}/cancel", headers=ada).json()["accepted"] is True
    assert client.get(f"/sweeps/{sweep_id}", headers=ada).json()["status"] == "REVOKED"
    assert client.get(f"/sweeps/{sweep_id}/events", headers=ada).text == ""
    assert client.post(f"/sweeps/{sweep_id}/resume", headers=ada).status_code == 202
    assert client.get(f"/sweeps/{sweep_id}", headers=ada).json()["status"] == "PENDING"
    assert client.post(f"/sweeps/{sweep_id}/resume", headers=ada).status_code == 409


@pytest.mark.parametrize(
    ("space", "key"),
    [
        ({"lora.rr": [4]}, "lora.rr"),
        ({"lora.r": [0, 4]}, "lora.r"),
        ({"training.learning_rate": "1..2"}, "--trials"),
        ({"model.name": ["/etc"]}, "model.name"),
        ({"data.dataset_name": ["sample:movie_reviews"]}, "data.dataset_name"),
        ({"training.output_dir": ["/tmp"]}, "training.output_dir"),
        ({"training.seed": [*range(1001)]}, "trials"),
        ({}, "space"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_anything_is_recorded(
    space: dict[str, Any], key: str, client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    folder = services.settings.results_folder / "sweeps"
    before = len([*folder.glob("*")])
    reply = client.post("/sweeps", json={**BODY, "space": space}, headers=sign_in("ada"))
    assert reply.status_code == 422, reply.text
    assert key in [error["key"] for error in reply.json()["errors"]]
    assert len([*folder.glob("*")]) == before


def test_tpe_takes_a_few_trials_of_a_large_space(client: TestClient, sign_in: SignIn) -> None:
    body = {**BODY, "space": {"training.seed": [*range(1001)]}, "sampler": "tpe"}
    assert client.post("/sweeps", json=body, headers=sign_in("ada")).status_code == 202
