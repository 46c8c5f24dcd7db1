"""Every page, drawn without a browser, against the real API."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from streamlit.testing.v1 import AppTest

from loramill.api.services import AppServices
from loramill.client import Client
from loramill.config.schema import ExperimentConfig
from loramill.experiments.models import Experiment, Status
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
from loramill.ui.config_form import FIELDS, flatten
from loramill.ui.experiment_table import key_for_rows
from loramill.ui.texts import LANGUAGES, read_texts
from ui_pages import NAMES, PASSWORD, SCRIPT, VIEWS, AddRun, Shows, SignsIn, fields_of, seen

MANY = 10_000
PAGE_SECONDS = 2.0


@pytest.mark.parametrize("page", NAMES)
def test_a_page_without_anything_says_what_to_do(page: str, shows: Shows, sign_in: SignsIn) -> None:
    test = shows(page, sign_in("newcomer"), "zh-TW")
    texts = read_texts("zh-TW")
    assert "lm-problem" not in seen(test)
    if page != "train":
        expected = {"experiment": "experiment.none", "compare": "compare.none", "admin": "admin.not_allowed"}
        assert texts[expected.get(page, f"{page}.none")] in seen(test)


def test_a_newcomers_sweep_starts_from_what_works_without_a_hub(shows: Shows, sign_in: SignsIn) -> None:
    assert shows("sweeps", sign_in("newcomer")).selectbox(key="sweep_base").value == "quickstart"


def test_a_wrong_password_is_said_and_then_the_right_one_signs_in(
    sign_in: SignsIn, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in("forgetful")
    test = AppTest.from_string(SCRIPT.format(page="sign_in"), default_timeout=120).run()
    with Client(settings.effective_api_url) as client:
        monkeypatch.setattr("loramill.ui.pages.sign_in.new_client", lambda: client)
        for password in ("not this one", PASSWORD):
            test.text_input(key="username").input("forgetful")
            test.text_input(key="password").input(password)
            test.button[0].click().run()
            refused = read_texts("en")["error.login_failed"] in seen(test)
            assert refused == (password != PASSWORD)
            assert read_texts("en")["sign_in.ended"] not in seen(test)
    assert test.session_state["sign_in"].username == "forgetful"


def test_versions_of_the_data_are_asked_for_once_in_a_while(
    shows: Shows, sign_in: SignsIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = sign_in("versions")
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f"film number {row},{row % 2}\n" for row in range(20)))
    dataset = person.client.upload(file, name="reviews")["dataset_id"]
    file.write_text("text,label\n" + "".join(f"book number {row},{row % 2}\n" for row in range(30)))
    person.client.upload(file, dataset_id=dataset)
    asked = []

    def versions(client: Client, dataset_id: str) -> list[dict[str, Any]]:
        asked.append(dataset_id)
        found: list[dict[str, Any]] = client.request("GET", f"/datasets/{dataset_id}/versions")
        return found

    monkeypatch.setattr(Client, "dataset_versions", versions)
    test = shows("train", person, data=f"{dataset}@1")
    assert "reviews: 20 rows" in seen(test)
    for rank in (4, 8, 16):
        test.number_input(key="form.lora.r").set_value(rank).run()
        assert "reviews: 20 rows" in seen(test)
    assert 1 <= len(asked) < 4


def test_the_form_has_every_key_and_says_what_is_wrong(shows: Shows, sign_in: SignsIn) -> None:
    test = shows("train", sign_in("ada"))
    keys = {element.key for kind in ("text_input", "number_input", "selectbox", "multiselect", "toggle")
            for element in test.get(kind)}  # fmt: skip
    assert {f"form.{key}" for key in FIELDS} <= keys
    assert not test.button(key="submit").disabled
    test.text_input(key="form.experiment_name").set_value("/").run()
    assert test.button(key="submit").disabled
    assert "lm-field" in seen(test)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_field_says_what_it_is_and_does(language: str, shows: Shows, sign_in: SignsIn) -> None:
    test = shows("train", sign_in("ada"), language)
    texts = read_texts(language)
    for key, field in FIELDS.items():
        element = next(found for found in fields_of(test) if found.key == f"form.{key}")
        assert element.label == texts[f"field.{key}"]
        about = texts[f"about.{key}"] if language != "en" else field.description
        assert element.help == f"{about}  \n`{key}`"


def test_the_newer_keys_reach_the_config(shows: Shows, sign_in: SignsIn) -> None:
    person = sign_in("newer")
    test = shows("train", person)
    test.text_input(key="form.experiment_name").set_value("newer keys")
    test.text_input(key="form.lora.layers_to_transform").set_value("4, 5")
    test.selectbox(key="form.lora.init_lora_weights").set_value("pissa")
    test.toggle(key="form.training.base_dropout").set_value(True)
    test.run()
    assert not test.button(key="submit").disabled
    test.toggle(key="form.lora.use_dora").set_value(True).run()
    assert test.button(key="submit").disabled  # not with pissa
    test.selectbox(key="form.lora.init_lora_weights").set_value("default").run()
    test.button(key="submit").click().run()
    (task,) = person.client.tasks()
    lora = person.client.request("GET", f"/experiments/{task.experiment_id}/config")
    assert lora["lora"]["layers_to_transform"] == [4, 5]
    assert lora["lora"]["use_dora"]
    assert lora["training"]["base_dropout"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("lora.r", 0, "must be at least 1, not 0"),
        ("training.learning_rate", 1e30, "must be at most 1.0, not 1e+30"),
        ("training.learning_rate", None, "a value is needed here"),
    ],
)
def test_a_number_that_cannot_be_is_said_below_its_field(
    key: str, value: float | None, said: str, shows: Shows, sign_in: SignsIn
) -> None:
    """And not kept back by the browser, so that the run starts with another one than the reader sees."""
    test = shows("train", sign_in("numbers"))
    test.number_input(key=f"form.{key}").set_value(value).run()
    assert not test.exception
    assert said in seen(test)
    assert test.button(key="submit").disabled


def test_the_preset_that_the_form_is_equal_to_is_marked(shows: Shows, sign_in: SignsIn) -> None:
    test = shows("train", sign_in("marks"))
    assert test.session_state["preset"] == "quickstart"
    test.number_input(key="form.lora.r").set_value(4).run()
    assert test.session_state["preset"] is None


def test_what_is_wrong_is_said_in_chinese(shows: Shows, sign_in: SignsIn) -> None:
    person = sign_in("mistaken")
    person.draft = flatten(ExperimentConfig().model_dump(mode="json")) | {"lora.lora_alpha": 0}
    test = shows("train", person, "zh-TW")
    assert "必須是大於 0.0 的數，不能是 0" in seen(test)


def test_a_form_emptied_under_what_one_writes_is_filled_again(shows: Shows, sign_in: SignsIn) -> None:
    """Streamlit does so when one writes while the page comes; a person empties one field at a time."""
    test = shows("train", sign_in("hasty"))
    rank = test.number_input(key="form.lora.r").value
    test.text_input(key="form.experiment_name").set_value("hasty")
    for field in test.number_input:
        field.set_value(None)
    test.run()
    assert test.text_input(key="form.experiment_name").value == "hasty"
    assert test.number_input(key="form.lora.r").value == rank
    assert not test.button(key="submit").disabled
    test.number_input(key="form.lora.r").set_value(None).run()
    assert test.number_input(key="form.lora.r").value is None
    assert test.button(key="submit").disabled


def test_a_run_is_submitted_once(shows: Shows, sign_in: SignsIn, services: AppServices) -> None:
    person = sign_in("grace")
    test = shows("train", person)
    test.text_input(key="form.experiment_name").set_value("from the page").run()
    test.button(key="submit").click().run()
    (task,) = person.client.tasks()
    assert task.experiment_id.startswith("from the page_")


def test_a_finished_task_is_shown_with_its_result(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("ada")
    run = add_run(person.user_id, "finished")
    test = shows("tasks", person, task=run)
    assert run in seen(test)
    assert "0.9" in seen(test)
    assert test.code[0].value == "one line"


def test_experiments_are_listed_filtered_and_compared(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("lists")
    ids = [add_run(person.user_id, name) for name in ("first", "second")]
    test = shows("experiments", person)
    assert list(test.dataframe[0].value["name"]) == ["second", "first"]
    test = shows("experiments", person, name="fir")
    assert list(test.dataframe[0].value["name"]) == ["first"]
    test = shows("compare", person, ids=",".join(ids))
    assert "No winner" in seen(test)
    test = shows("experiment", person, id=ids[0])
    assert "first" in seen(test)


def test_a_reload_keeps_the_page_and_its_number(
    shows: Shows, sign_in: SignsIn, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loramill.ui.pages.experiments.PAGE", 1)
    person = sign_in("turns")
    for name in ("first", "second", "third"):
        add_run(person.user_id, name)
    test = shows("experiments", person)
    for _ in range(2):
        test.button(key="page_next").click().run()
    reloaded = shows("experiments", person, **test.query_params)
    for page, name in ((3, "first"), (2, "second"), (1, "third")):
        assert list(reloaded.dataframe[0].value["name"]) == [name]
        assert f"page {page} of 3" in seen(reloaded)
        if page > 1:
            reloaded.button(key="page_back").click().run()


def test_ticks_do_not_pass_to_rows_that_take_the_places_of_others() -> None:
    keys = {key_for_rows("table", ids) for ids in (["a", "b"], ["b", "a"], ["c", "a", "b"], ["a"])}
    assert len(keys) == 4
    assert key_for_rows("table", ["a", "b"]) in keys


def test_a_model_that_the_list_lacks_is_shown_and_no_other(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("archivist")
    older, newer = (add_run(person.user_id, name) for name in ("older", "newer"))
    person.client.request("PATCH", f"/experiments/{older}", json={"archived": True})
    test = shows("models", person, model=older)
    assert older in seen(test)
    assert list(test.dataframe[0].value["name"]) == ["newer"]
    assert newer not in seen(test)


def test_nobody_sees_what_is_not_theirs(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    run = add_run(sign_in("owner").user_id, "secret")
    for page, query in (("experiments", {}), ("models", {}), ("tasks", {"task": run}), ("experiment", {"id": run})):
        test = shows(page, sign_in("stranger"), **query)
        assert "secret" not in seen(test)
        assert len(test.dataframe) == 0


def test_data_whose_labels_are_numbers_has_no_classes(shows: Shows, sign_in: SignsIn, tmp_path: Path) -> None:
    person = sign_in("numbers")
    file = tmp_path / "rated.csv"
    file.write_text("text,label\n" + "".join(f"film number {row},{row / 7:.2f}\n" for row in range(1, 40)))
    dataset = person.client.upload(file, name="rated")["dataset_id"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        said = seen(shows("data", person, dataset=dataset))
    assert read_texts("en")["data.no_classes"] in said
    assert read_texts("en")["data.balanced"] not in said


def test_what_cleaning_changed_is_said_in_the_readers_language(shows: Shows, sign_in: SignsIn, tmp_path: Path) -> None:
    person = sign_in("cleans")
    file = tmp_path / "marked.csv"
    file.write_text("text,label\n" + "".join(f"<b>film</b> number {row},{row % 2}\n" for row in range(20)))
    dataset = person.client.upload(file, name="marked")["dataset_id"]
    person.client.clean_dataset(dataset, version=1, rules={"remove_html": True})
    changes = shows("data", person, "zh-TW", dataset=dataset, tab="versions").dataframe[0].value
    assert "HTML 標籤: 修復 20 筆" in changes[read_texts("zh-TW")["column.changes"]][0]


def test_an_administrator_sees_people_and_the_audit_log(shows: Shows, sign_in: SignsIn) -> None:
    root = sign_in("root")
    assert "root" in list(shows("admin", root).dataframe[0].value["user"])
    audit = shows("admin", root, tab="audit").dataframe[0].value
    assert "login" in list(audit["action"])
    assert audit["time"].dt.year.min() >= 2026
    assert "start it: loramill serve" in seen(shows("admin", root, tab="health"))


def test_a_new_user_that_is_refused_stays_in_the_form(shows: Shows, sign_in: SignsIn) -> None:
    test = shows("admin", sign_in("root"))
    for password, left in (("short", "hired"), (PASSWORD, "")):
        name, secret = test.text_input[:2]
        name.input("hired")
        secret.input(password)
        next(button for button in test.button if button.label == read_texts("en")["action.create"]).click().run()
        assert not test.exception
        assert test.text_input[0].value == left
    assert "hired" in list(test.dataframe[0].value["user"])


def test_a_tab_asks_for_its_own_things_only(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("tabs")
    run = add_run(person.user_id, log="what was logged")
    assert len(shows("experiment", person, id=run).code) == 0
    assert shows("experiment", person, id=run, tab="log").code[0].value == "what was logged"


def test_a_failed_run_says_why_and_what_to_do(
    shows: Shows, sign_in: SignsIn, add_run: AddRun, services: AppServices
) -> None:
    person = sign_in("fails")
    run = add_run(person.user_id, status=Status.FAILURE)
    with services.database.transaction() as session:
        failed = ExperimentStore(session).get(run)
        failed.error_code, failed.error_message = "worker_lost", "The training process ended with exit code 9. See it."
    for page, query in (("experiment", {"id": run}), ("tasks", {"task": run})):
        said = seen(shows(page, person, "zh-TW", **query))
        texts = read_texts("zh-TW")
        assert texts["error.worker_lost"] in said
        assert texts["todo.worker_lost"] in said
        assert "訓練程序以結束代碼 9 中斷。" in said


def test_ten_thousand_experiments(
    shows: Shows,
    sign_in: SignsIn,
    services: AppServices,
    add_run: AddRun,
    record_property: Callable[[str, object], None],
) -> None:
    """Processor time of page and API together, which a busy machine does not stretch."""
    person = sign_in("busy")
    runs = [add_run(person.user_id, f"template {number}") for number in range(2)]
    fill(services, person.user_id)
    query = {"id": runs[0], "ids": ",".join(runs)}
    person.role = "admin"
    for page, tab in VIEWS:
        shows(page, person, tab=tab, **query)
        started = time.process_time()
        shows(page, person, tab=tab, **query)
        seconds = time.process_time() - started
        record_property(f"{page} {tab}".strip(), round(seconds, 2))
        assert seconds < PAGE_SECONDS, (page, tab)


def fill(services: AppServices, owner: str) -> None:
    with services.database.transaction() as session:
        template = session.query(Experiment).filter_by(owner=owner).first()
        assert template is not None
        columns = {column.key: getattr(template, column.key) for column in Experiment.__mapper__.column_attrs}
        columns.pop("number")
        now = datetime.now(UTC)
        rows = [
            {**columns, "id": f"many_{number}", "folder": f"many_{number}", "task_id": f"{owner}_many_{number}",
             "created_at": now - timedelta(seconds=number), "status": Status.SUCCESS, "idempotency_key": None}
            for number in range(MANY)
        ]  # fmt: skip
        session.execute(insert(Experiment), rows)
