from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api_people import SignIn
from loramill.api.services import AppServices
from loramill.auth.users import UserStore
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.models import Status
from loramill.experiments.store import ExperimentStore
from loramill.jobs.data_work import DataWork

ROWS = [(f"a fine text of number {number}", number % 2) for number in range(30)]


def csv(rows: list[tuple[str, Any]] = ROWS, header: str = "review,stars") -> bytes:
    return "\n".join([header, *(f"{text},{label}" for text, label in rows)]).encode() + b"\n"


def upload(
    client: TestClient, headers: dict[str, str], content: bytes, path: str = "/datasets", **query: str
) -> dict[str, Any]:
    reply = client.post(path, params={"filename": "reviews.csv", **query}, content=content, headers=headers)
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


def test_from_a_file_to_a_run_and_back(client: TestClient, sign_in: SignIn, services: AppServices) -> None:
    ada = sign_in("keeps.one")
    me = client.get("/users/me", headers=ada).json()["user_id"]
    made = upload(client, ada, csv(), description="thirty rows")
    assert made["dataset_id"].startswith(f"{me}_d")
    assert (made["name"], made["newest"]["rows"], made["newest"]["report"]["total_samples"]) == ("reviews", 30, 30)
    assert made["newest"]["columns"] == {"text_column": "review", "text_pair_column": None, "label_column": "stars"}
    for name in (made["dataset_id"], f"dataset:{made['dataset_id']}@1", made["newest"]["dataset_name"]):
        body = {"config": {"data": {"dataset_name": name}}}
        task = client.post("/train", json=body, headers=ada)
        assert task.status_code == 202, task.text
        folder = ExperimentFolder.open(services.settings.results_folder, task.json()["experiment_id"])
        assert folder.read_config_tree()["data"]["dataset_name"] == made["newest"]["dataset_name"]
        assert client.post("/train", json=body, headers=sign_in("bob")).status_code in (403, 422)
        assert client.delete(f"/datasets/{made['dataset_id']}", headers=ada).status_code == 409
        with services.database.transaction() as session:
            ExperimentStore(session).get(task.json()["experiment_id"]).status = Status.REVOKED
        assert client.delete(f"/experiments/{task.json()['experiment_id']}", headers=ada).status_code == 204
    assert client.delete(f"/datasets/{made['dataset_id']}", headers=ada).status_code == 204
    assert client.get(f"/datasets/{made['dataset_id']}", headers=ada).status_code == 404
    assert not (services.settings.data_folder / "uploads" / made["dataset_id"]).exists()
    stored = made["newest"]["splits"]["train"]["version_id"]
    assert not (services.settings.data_folder / "metadata" / "versions" / f"{stored}.json").exists()


def test_a_data_set_that_a_sweep_waits_for_stays(client: TestClient, sign_in: SignIn) -> None:
    ada = sign_in("sweeps.one")
    made = upload(client, ada, csv())
    body = {"config": {"data": {"dataset_name": made["dataset_id"]}}, "space": {"lora.r": [4, 8]}}
    sweep = client.post("/sweeps", json=body, headers=ada).json()["sweep_id"]
    refused = client.delete(f"/datasets/{made['dataset_id']}", headers=ada)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert sweep in refused.json()["detail"]
    assert client.post(f"/sweeps/{sweep}/cancel", headers=ada).status_code == 202
    assert client.delete(f"/datasets/{made['dataset_id']}", headers=ada).status_code == 204


def test_a_delete_that_has_to_wait_too_long_deletes_nothing(
    client: TestClient, sign_in: SignIn, services: AppServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = sign_in("waits.one")
    own = f"/datasets/{upload(client, ada, csv([('a text that nobody else has', 1), *ROWS]))['dataset_id']}"
    with monkeypatch.context() as patched:
        patched.setattr(services.datasets, "_work", DataWork(services.settings, at_once=1, patience=0.01))
        with services.datasets._work.turn():
            assert client.delete(own, headers=ada).status_code == 429
    assert client.get(own, headers=ada).status_code == 200
    assert client.delete(own, headers=ada).status_code == 204


def test_versions_are_cleaned_compared_and_shown(client: TestClient, sign_in: SignIn) -> None:
    ada = sign_in("ada")
    made = upload(client, ada, csv([*ROWS, ("<b>marked</b> up", 1), ("  ", 0)]))
    own = f"/datasets/{made['dataset_id']}"
    report = client.post(f"{own}/validate", json={}, headers=ada).json()
    assert {"html_tags", "text_empty"} <= {finding["code"] for finding in report["findings"]}
    assert client.post(f"{own}/validate", headers=ada).json() == report
    rules = {"validation_rules": {"remove_html": True}}
    cleaned = client.post(f"{own}/clean", json=rules, headers=ada).json()
    assert (cleaned["version"], cleaned["kind"], cleaned["rows"]) == (2, "clean", 31)
    assert cleaned["changes"] == {"html_tags repaired": 1, "outer_whitespace repaired": 1, "text_empty dropped": 1}
    later = upload(client, ada, csv([*ROWS[:-1], (ROWS[-1][0], 7)]), f"{own}/versions")
    assert later["version"] == 3
    changes = client.get(f"{own}/diff", params={"before": 1, "after": 3}, headers=ada).json()
    assert (changes["relabelled"], changes["removed"], changes["added"]) == (1, 2, 0)
    rows = client.get(f"{own}/rows", params={"first": 29, "count": 5, "version": 3}, headers=ada).json()
    assert rows == [{"text": ROWS[-1][0], "label": "7"}]
    assert client.get(f"{own}/analysis", headers=ada).json()["train"]["rows"] == 30
    page = client.get(f"{own}/report", headers=ada)
    assert page.headers["content-security-policy"].endswith("sandbox")
    assert "Data report: reviews" in page.text
    assert [version["version"] for version in client.get(f"{own}/versions", headers=ada).json()] == [1, 2, 3]
    assert client.get(own, headers=ada).json()["newest"]["version"] == 3
    assert client.get(f"{own}/report", params={"version": 9}, headers=ada).status_code == 404


@pytest.mark.parametrize("evaluated", ["validation", "dev"])
def test_an_archive_brings_its_splits(client: TestClient, sign_in: SignIn, evaluated: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mine/train.csv", csv())
        archive.writestr(f"mine/{evaluated}.csv", csv(ROWS[:4]))
        archive.writestr("mine/test.csv", csv(ROWS[:5]))
        archive.writestr("__MACOSX/._train.csv", b"clutter")
    made = upload(client, sign_in("ada"), content.getvalue(), filename="mine.zip")
    splits = made["newest"]["splits"]
    assert {name: split["rows"] for name, split in splits.items()} == {"train": 30, evaluated: 4, "test": 5}
    trained = f"version:{splits['train']['version_id']}+{splits[evaluated]['version_id']}"
    assert made["newest"]["dataset_name"] == trained


@pytest.mark.parametrize(
    ("filename", "content", "code"),
    [
        ("rows.exe", b"x", "request_invalid"),
        ("../../rows", b"x", "request_invalid"),
        ("rows.csv", b"", "dataset_empty"),
        ("rows.csv", b"only,one,line\n", "dataset_empty"),
        ("rows.csv", b"a,b\n1,2\n3,4\n", "column_missing"),
        ("rows.parquet", b"PAR1 is not enough", "data_unreadable"),
        ("rows.jsonl", b'{"text": ' * 5000, "data_unreadable"),
        ("rows.zip", b"PK no archive", "data_unreadable"),
        ("rows.csv.gz", b"\x1f\x8bno", "data_unreadable"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    filename: str, content: bytes, code: str, client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    reply = client.post("/datasets", params={"filename": filename}, content=content, headers=sign_in("ada"))
    assert (reply.status_code, reply.json()["code"]) == (422, code), reply.text
    assert str(services.settings.home) not in reply.text
    assert not [*(services.settings.data_folder / "uploads").glob(".staging-*")]


def test_a_form_is_no_file(client: TestClient, sign_in: SignIn) -> None:
    """Its borders would be read as rows."""
    for path in ("/datasets", "/datasets?filename=rows.csv"):
        reply = client.post(path, files={"file": ("rows.csv", csv())}, headers=sign_in("ada"))
        assert (reply.status_code, [error["key"] for error in reply.json()["errors"]]) == (422, ["body"])
        assert "--data-binary" in reply.json()["fix"]


def test_a_file_that_is_too_large_or_too_much_is_refused(
    client: TestClient, sign_in: SignIn, services: AppServices
) -> None:
    eve = sign_in("eva")
    large = (b"x" * 2**20 for _ in range(3))
    reply = client.post("/datasets", params={"filename": "a.csv"}, content=large, headers=eve)
    assert (reply.status_code, reply.json()["code"]) == (413, "request_too_large")
    with services.database.transaction() as session:
        UserStore(session).set_quota("eva", {"max_stored_bytes": 100})
    reply = client.post("/datasets", params={"filename": "a.csv"}, content=csv(), headers=eve)
    assert (reply.status_code, reply.json()["code"]) == (429, "quota_exceeded")


def test_a_tar_with_a_link_is_refused(client: TestClient, sign_in: SignIn) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        link = tarfile.TarInfo("train.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    reply = client.post(
        "/datasets", params={"filename": "a.tar.gz"}, content=content.getvalue(), headers=sign_in("ada")
    )
    assert (reply.status_code, reply.json()["code"]) == (422, "data_unreadable")
    assert "root" not in reply.text


def test_data_sets_are_ones_own(client: TestClient, sign_in: SignIn, add_dataset: Any) -> None:
    ida, root = sign_in("ida"), sign_in("root")
    me = client.get("/users/me", headers=ida).json()["user_id"]
    made = [add_dataset(me) for _ in range(3)]
    first = client.get("/datasets", params={"limit": 2}, headers=ida).json()
    second = client.get("/datasets", params={"cursor": first["next_cursor"]}, headers=ida).json()
    assert [item["dataset_id"] for item in first["items"] + second["items"]] == made[::-1]
    assert {item["owner"] for item in client.get("/datasets", headers=root).json()["items"]} > {me}
    assert client.post("/train", json={"config": {"data": {"dataset_name": made[0]}}}, headers=root).status_code == 202
