from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api_people import AddExperiment, SignIn
from loramill.api.services import AppServices
from loramill.auth.rate_limits import RateLimits
from loramill.auth.users import UserStore
from loramill.config.schema import ExperimentConfig
from loramill.errors import DiskFullError
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.record_file import reindex
from loramill.experiments.store import ExperimentStore
from loramill.jobs.submit import submit_training

CONFIG: dict[str, Any] = {"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}}


def submit(client: TestClient, headers: dict[str, str], **changes: Any) -> dict[str, Any]:
    reply = client.post("/train", json={"config": {**CONFIG, **changes}}, headers=headers)
    assert reply.status_code == 202, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_a_task_is_recorded_before_its_message_leaves(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    ada = sign_in("ada")
    me = client.get("/users/me", headers=ada).json()["user_id"]
    made = submit(client, ada)
    assert made["task_id"].startswith(f"{me}_")
    task = client.get(f"/task/{made['task_id']}", headers=ada).json()
    assert (task["status"], task["owner"], task["experiment_id"]) == ("PENDING", me, made["experiment_id"])
    folder = ExperimentFolder.open(services.settings.results_folder, made["experiment_id"])
    assert folder.read_config_tree()["experiment_name"] == "first"
    messages = [json.loads(message) for message in services.broker.client.lrange("loramill", 0, -1)]
    assert [message["headers"]["argsrepr"] for message in messages].count(f"('{made['experiment_id']}',)") == 1


def test_every_wrong_field_is_named(client: TestClient, sign_in: SignIn) -> None:
    config = {"lora": {"r": 0}, "training": {"learning_rat": 1, "output_dir": "/etc"}}
    reply = client.post("/train", json={"config": config}, headers=sign_in("ada"))
    assert (reply.status_code, reply.json()["code"]) == (422, "config_invalid")
    assert {"lora.r", "training.learning_rat"} <= {error["key"] for error in reply.json()["errors"]}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "dataset_name", "/etc/passwd"),
        ("data", "dataset_name", "../other/rows.csv"),
        ("data", "dataset_name", "~/rows.csv"),
        ("data", "dataset_name", "version:tagged"),
        ("model", "name", "/srv/model"),
        ("model", "name", "a/b/c"),
        ("training", "output_dir", "../../tmp"),
    ],
)
def test_users_name_no_files_of_the_server(
    section: str, key: str, value: str, client: TestClient, sign_in: SignIn
) -> None:
    config = {**CONFIG, section: {**CONFIG.get(section, {}), key: value}}
    reply = client.post("/train", json={"config": config}, headers=sign_in("ada"))
    assert reply.status_code == 422, reply.text
    assert [error["key"] for error in reply.json()["errors"]] == [f"{section}.{key}"]


@pytest.mark.parametrize("extra", [{"owner": "u1"}, {"role": "admin"}, {"status": "SUCCESS"}])
def test_a_body_sets_nothing_that_is_not_its_own(extra: dict[str, str], client: TestClient, sign_in: SignIn) -> None:
    ada = sign_in("ada")
    for method, path, body in (("POST", "/train", {"config": CONFIG}), ("POST", "/login", {"username": "ada"})):
        reply = client.request(method, path, json={**body, **extra}, headers=ada)
        assert reply.status_code == 422
        assert next(iter(extra)) in [error["key"] for error in reply.json()["errors"]]


def test_the_same_key_is_the_same_request_even_at_the_same_moment(client: TestClient, sign_in: SignIn) -> None:
    ada = {**sign_in("ada"), "Idempotency-Key": "key-1"}

    def send(_number: int) -> str:
        reply = client.post("/train", json={"config": CONFIG}, headers=ada)
        assert reply.status_code == 202, reply.text
        task_id: str = reply.json()["task_id"]
        return task_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(8)))) == 1
    other = client.post("/train", json={"config": {**CONFIG, "experiment_name": "other"}}, headers=ada)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    bob = {**sign_in("bob"), "Idempotency-Key": "key-1"}
    assert client.post("/train", json={"config": CONFIG}, headers=bob).status_code == 202


def test_a_quota_holds_when_many_submit_at_once(client: TestClient, sign_in: SignIn, services: AppServices) -> None:
    eve = sign_in("eve")
    with services.database.transaction() as session:
        UserStore(session).set_quota("eve", {"max_concurrent_jobs": 3})

    def send(_number: int) -> int:
        return client.post("/train", json={"config": CONFIG}, headers=eve).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(send, range(8)))
    assert statuses == [202] * 3 + [429] * 5
    refused = client.post("/train", json={"config": CONFIG}, headers=eve)
    assert refused.json()["code"] == "quota_exceeded"
    assert int(refused.headers["Retry-After"]) > 0


def test_what_experiments_hold_on_disk_counts_for_submits_and_uploads(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    fay = sign_in("fay")
    run = client.post("/train", json={"config": CONFIG}, headers=fay).json()["experiment_id"]
    with services.database.transaction() as session:
        UserStore(session).set_quota("fay", {"max_stored_bytes": 1000})
        ExperimentStore(session).get(run).stored_bytes = 1000
    submit = client.post("/train", json={"config": CONFIG}, headers=fay)
    upload = client.post("/datasets?filename=rows.csv", content=b"text,label\na,b\n", headers=fay)
    for refused in (submit, upload):
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded"), refused.text
        assert [problem["key"] for problem in refused.json()["errors"]] == ["max_stored_bytes"]


def test_a_waiting_task_is_cancelled_and_goes_on(client: TestClient, sign_in: SignIn) -> None:
    ada = sign_in("ada")
    task = submit(client, ada)["task_id"]
    assert client.post(f"/task/{task}/cancel", headers=ada).json() == {"task_id": task, "accepted": True}
    assert client.get(f"/task/{task}", headers=ada).json()["status"] == "REVOKED"
    assert client.post(f"/task/{task}/cancel", headers=ada).json()["accepted"] is False
    assert client.post(f"/task/{task}/resume", headers=ada).status_code == 202
    assert client.get(f"/task/{task}", headers=ada).json()["status"] == "PENDING"


def test_a_cancel_on_a_full_disk_is_a_cancel(
    client: TestClient, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise DiskFullError("The disk is full.")

    ada = sign_in("full.disk")
    task = submit(client, ada)["task_id"]
    monkeypatch.setattr("loramill.api.routes.tasks.save_record", refuse)
    assert client.post(f"/task/{task}/cancel", headers=ada).status_code == 202
    assert client.get(f"/task/{task}", headers=ada).json()["status"] == "REVOKED"


@pytest.mark.parametrize("kind", ["task", "sweep"])
def test_what_goes_on_needs_room_for_one_more_job(
    kind: str, client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    name = f"{kind}.again"
    headers = sign_in(name)
    if kind == "task":
        first = f"/task/{submit(client, headers)['task_id']}"
    else:
        body = {"config": CONFIG, "space": {"lora.r": [4, 8]}}
        first = f"/sweeps/{client.post('/sweeps', json=body, headers=headers).json()['sweep_id']}"
    client.post(f"{first}/cancel", headers=headers)
    with services.database.transaction() as session:
        UserStore(session).set_quota(name, {"max_concurrent_jobs": 1, "max_daily_submits": 2})
    second = submit(client, headers)["task_id"]
    refused = client.post(f"{first}/resume", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded"), refused.text
    assert [problem["key"] for problem in refused.json()["errors"]] == ["max_concurrent_jobs"]
    assert client.get(first, headers=headers).json()["status"] == "REVOKED"
    client.post(f"/task/{second}/cancel", headers=headers)
    assert client.post(f"{first}/resume", headers=headers).status_code == 202


def test_resumes_count_as_submits(
    client: TestClient, sign_in: SignIn, services: AppServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = sign_in("resumes")
    task = submit(client, ada)["task_id"]
    client.post(f"/task/{task}/cancel", headers=ada)
    monkeypatch.setattr(services.auth, "limits", RateLimits(submit="1/minute"))
    assert client.post(f"/task/{task}/resume", headers=ada).status_code == 202
    client.post(f"/task/{task}/cancel", headers=ada)
    refused = client.post(f"/task/{task}/resume", headers=ada)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited"), refused.text


def test_a_waiting_and_a_cancelled_task_keep_their_owner_without_the_database(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    ivy = sign_in("ivy")
    waiting, cancelled = submit(client, ivy), submit(client, ivy)
    client.post(f"/task/{cancelled['task_id']}/cancel", headers=ivy)
    runs = [made["experiment_id"] for made in (waiting, cancelled)]
    with services.database.transaction() as session:
        for run in runs:
            ExperimentStore(session).delete(run)
    reindex(services.database, services.settings.results_folder)
    me = client.get("/users/me", headers=ivy).json()["user_id"]
    with services.database.reading() as session:
        rows = [ExperimentStore(session).get(run) for run in runs]
    assert [(row.owner, row.status) for row in rows] == [(me, Status.FAILURE), (me, Status.REVOKED)]


def test_pages_of_tasks_are_ones_own_and_whole(client: TestClient, sign_in: SignIn) -> None:
    zoe = sign_in("zoe")
    made = [submit(client, zoe)["task_id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get("/tasks", params=query, headers=zoe).json()
        seen += [item["task_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("path", ["/tasks", "/sweeps", "/datasets"])
def test_a_list_refuses_a_filter_that_it_does_not_know(path: str, client: TestClient, sign_in: SignIn) -> None:
    """It would show everything as if it were what was asked for."""
    reply = client.get(path, params={"state": "SUCCESS"}, headers=sign_in("ada"))
    assert (reply.status_code, [error["key"] for error in reply.json()["errors"]]) == (422, ["state"])


def test_models_are_found_by_language_and_task(
    client: TestClient, sign_in: SignIn, add_experiment: AddExperiment
) -> None:
    add_experiment("u1")
    for query, found in ({"task": "SEQ_CLS"}, True), ({"task": "CAUSAL_LM"}, False), ({"language": "Klingon"}, False):
        reply = client.get("/models", params=query, headers=sign_in("root"))
        assert (reply.status_code, bool(reply.json()["items"])) == (200, found), query


def test_events_are_replayed_from_where_one_was(
    client: TestClient, sign_in: SignIn, add_experiment: AddExperiment, services: AppServices
) -> None:
    ada = sign_in("ada")
    me = client.get("/users/me", headers=ada).json()["user_id"]
    run = add_experiment(me)
    folder = ExperimentFolder.open(services.settings.results_folder, run)
    with folder.events_file.open("ab") as file:
        file.write(b'{"type": "torn by a ki')
    folder.append_event({"type": "note", "message": "a\nb"})
    first = stream(client, run, ada)
    assert [(event["id"], event["data"]["type"]) for event in first] == [
        ("1", "status"), ("2", "status"), ("4", "note"),
    ]  # fmt: skip
    assert stream(client, run, {**ada, "Last-Event-ID": "2"}) == first[2:]


def stream(client: TestClient, run: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    text = client.get(f"/task/{run}/events", headers=headers).text
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append({**fields, "data": json.loads(fields["data"])})
    return events


def test_dates_may_come_without_a_zone(client: TestClient, sign_in: SignIn) -> None:
    headers = sign_in("dora")
    run = submit(client, headers)["experiment_id"]
    today = datetime.now()
    for start, found in (
        (today.date().isoformat(), [run]),
        ((today - timedelta(minutes=5)).isoformat(), [run]),
        ((today + timedelta(minutes=5)).isoformat(), []),
        ((today + timedelta(minutes=5)).astimezone(UTC).isoformat(), []),
    ):
        query = {"owner": "me", "start_date": start}
        items = client.get("/experiments", params=query, headers=headers).json()["items"]
        assert [item["id"] for item in items] == found, start
    for end, found in (
        (today.date().isoformat(), [run]),  # with its whole day
        ((today.date() - timedelta(days=1)).isoformat(), []),
        ((today - timedelta(minutes=5)).isoformat(), []),
    ):
        query = {"owner": "me", "end_date": end}
        items = client.get("/experiments", params=query, headers=headers).json()["items"]
        assert [item["id"] for item in items] == found, end
    for name, wrong in itertools.product(("start_date", "end_date"), ("0001-01-01", "9999-12-31", "yesterday")):
        reply = client.get("/experiments", params={"owner": "me", name: wrong}, headers=headers)
        assert reply.status_code in (200, 422), wrong


def test_a_run_of_the_shell_is_read_where_its_config_put_it(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    config = ExperimentConfig.model_validate({"training": {"output_dir": "elsewhere"}})
    folder = submit_training(config, settings=services.settings, database=services.database, enqueue=lambda _id: None)
    folder.write_metrics({"eval": {"accuracy": 0.5}})
    shown = client.get(f"/experiments/{folder.id}/metrics", headers=sign_in("root"))
    assert shown.json() == {"eval": {"accuracy": 0.5}}


def test_a_deleted_experiment_ends_its_task(client: TestClient, sign_in: SignIn, services: AppServices) -> None:
    ada = sign_in("ada")
    made = submit(client, ada)
    with services.database.transaction() as session:
        ExperimentStore(session).get(made["experiment_id"]).status = Status.SUCCESS
    assert client.delete(f"/experiments/{made['experiment_id']}", headers=ada).status_code == 204
    assert client.get(f"/task/{made['task_id']}", headers=ada).status_code == 404
    assert not (services.settings.results_folder / made["experiment_id"]).exists()


def test_a_refused_delete_is_recorded_as_refused(
    client: TestClient, sign_in: SignIn, add_experiment: AddExperiment, services: AppServices
) -> None:
    ada = sign_in("ada")
    run = add_experiment(client.get("/users/me", headers=ada).json()["user_id"], Status.STARTED)
    assert client.delete(f"/experiments/{run}", headers=ada).status_code == 409
    assert deletions(client, sign_in("root"), run) == ["conflict"]
    assert ExperimentFolder.open(services.settings.results_folder, run).path.is_dir()
    with services.database.transaction() as session:
        ExperimentStore(session).get(run).status = Status.SUCCESS
    assert client.delete(f"/experiments/{run}", headers=ada).status_code == 204
    assert deletions(client, sign_in("root"), run) == ["ok", "conflict"]


def deletions(client: TestClient, headers: dict[str, str], run: str) -> list[str]:
    """How each try to delete an experiment ended, newest first, as the audit log has it."""
    entries = client.get("/audit/logs", headers=headers).json()
    return [entry["result"] for entry in entries if (entry["action"], entry["target"]) == ("experiment.delete", run)]
