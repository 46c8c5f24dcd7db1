"""Every page, drawn without a browser, against the real API."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from loramill.api.services import AppServices
from loramill.experiments.models import Experiment, Status
from loramill.ui.sign_ins import SignIn
from loramill.ui.texts import read_texts
from ui_pages import Shows, seen

MANY = 10_000
PAGE_SECONDS = 2.0
HOSTILE = "<script>alert(1)</script> **bold** :red[x] `code`\r\n\u202eevil"
NAMES = ("train", "tasks", "experiments", "experiment", "compare", "sweeps", "data", "models", "admin")
SignsIn = Callable[[str], SignIn]
AddRun = Callable[..., str]


@pytest.mark.parametrize("page", NAMES)
def test_a_page_without_anything_says_what_to_do(page: str, shows: Shows, sign_in: SignsIn) -> None:
    test = shows(page, sign_in("newcomer"), "zh-TW")
    texts = read_texts("zh-TW")
    assert "lm-problem" not in seen(test)
    if page != "train":
        expected = {"experiment": "experiment.none", "compare": "compare.none", "admin": "admin.not_allowed"}
        assert texts[expected.get(page, f"{page}.none")] in seen(test)


def test_the_form_has_every_key_and_says_what_is_wrong(shows: Shows, sign_in: SignsIn) -> None:
    from loramill.ui.config_form import FIELDS

    test = shows("train", sign_in("ada"))
    keys = {element.key for kind in ("text_input", "number_input", "selectbox", "multiselect", "toggle")
            for element in test.get(kind)}  # fmt: skip
    assert {f"form.{key}" for key in FIELDS} <= keys
    assert not test.button(key="submit").disabled
    test.text_input(key="form.experiment_name").set_value("/").run()
    assert test.button(key="submit").disabled
    assert "lm-field" in seen(test)


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


def test_nobody_sees_what_is_not_theirs(shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    run = add_run(sign_in("owner").user_id, "secret")
    for page, query in (("experiments", {}), ("models", {}), ("tasks", {"task": run}), ("experiment", {"id": run})):
        test = shows(page, sign_in("stranger"), **query)
        assert "secret" not in seen(test)
        assert len(test.dataframe) == 0


def test_an_administrator_sees_people_and_the_audit_log(shows: Shows, sign_in: SignsIn) -> None:
    test = shows("admin", sign_in("root"))
    assert "root" in list(test.dataframe[0].value["user"])
    assert "login" in list(test.dataframe[1].value["action"])
    assert "start it: loramill serve" in seen(test)


@pytest.mark.parametrize("page", ["experiments", "experiment", "tasks", "models", "compare"])
def test_hostile_texts_are_shown_as_text(page: str, shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("hostile")
    runs = [add_run(person.user_id, "calm", log=HOSTILE) for _ in range(2)]
    change = {"notes": HOSTILE, "add_tags": [HOSTILE]}
    person.client.request("PATCH", f"/experiments/{runs[0]}", json=change)
    test = shows(page, person, id=runs[0], task=runs[0], model=runs[0], ids=",".join(runs))
    assert "<script>" not in seen(test)
    assert "\u202e" not in seen(test)
    assert ":red[x]" not in "".join(str(element.proto.body) for element in test.get("markdown"))


def test_ten_thousand_experiments(shows: Shows, sign_in: SignsIn, services: AppServices, add_run: AddRun) -> None:
    """Processor time of page and API together, which a busy machine does not stretch."""
    person = sign_in("busy")
    add_run(person.user_id, "template")
    fill(services, person.user_id)
    for page in ("experiments", "tasks", "models", "train"):
        shows(page, person)
        started = time.process_time()
        shows(page, person)
        assert time.process_time() - started < PAGE_SECONDS, page


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
