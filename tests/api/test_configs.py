"""Configs before they are submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api_people import SignIn
from loramill.api.routes.configs import _refused, presets_in
from loramill.api.routes.curves import thin


def test_presets_are_the_shipped_configs(client: TestClient, sign_in: SignIn) -> None:
    presets = {preset["name"]: preset for preset in client.get("/config/presets", headers=sign_in("ada")).json()}
    assert {"default", "quickstart", "bert_chinese"} <= presets.keys()
    assert presets["quickstart"]["summary"] == "MiniLM-L6 on English movie reviews"
    assert presets["quickstart"]["config"]["training"]["seed"] == 42


def test_presets_are_read_from_among_other_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mine.yaml").write_text("# My own\nlora: {r: 2}\n", encoding="utf-8")
    (tmp_path / "half.yaml").write_text("lora: {r: ", encoding="utf-8")
    (tmp_path / "foreign.yaml").write_text("services: {web: {image: nginx}}", encoding="utf-8")
    assert [(preset.name, preset.summary) for preset in presets_in(tmp_path)] == [("mine", "My own")]
    foreign, half = caplog.messages
    assert foreign.startswith(f"{tmp_path / 'foreign.yaml'} is no preset: ")
    assert "services: " in foreign
    assert half.startswith(f"{tmp_path / 'half.yaml'} is no preset: ")
    assert "is not YAML" in half


def test_a_check_names_every_problem_and_submits_nothing(client: TestClient, sign_in: SignIn) -> None:
    headers = sign_in("ada")
    before = client.get("/tasks", headers=headers).json()["items"]
    wrong = {"lora": {"r": 0}, "training": {"learning_rat": 1}}
    found = client.post("/config/check", json={"config": wrong}, headers=headers).json()
    assert {problem["key"] for problem in found["problems"]} == {"lora.r", "training.learning_rat"}
    assert found["config"] is None
    foreign = {"data": {"dataset_name": "/etc/passwd"}}
    found = client.post("/config/check", json={"config": foreign}, headers=headers).json()
    assert [problem["key"] for problem in found["problems"]] == ["data.dataset_name"]
    good = client.post("/config/check", json={"config": {}}, headers=headers).json()
    assert (good["problems"], good["config"]["lora"]["r"]) == ([], 8)
    assert client.get("/tasks", headers=headers).json()["items"] == before


def test_a_failed_plan_says_why() -> None:
    reply = _refused("noise\nerror [dataset_empty]: rows.csv has no rows.\n")
    assert reply.problem == {"code": "dataset_empty", "message": "rows.csv has no rows."}


def test_thinned_curves_keep_both_ends() -> None:
    curve = tuple((float(step), step / 10) for step in range(1000))
    thinned = thin(curve, 11)
    assert (len(thinned), thinned[0], thinned[-1]) == (11, curve[0], curve[-1])
    assert thin(curve[:5], 11) == list(curve[:5])
