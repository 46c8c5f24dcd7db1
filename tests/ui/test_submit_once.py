"""What is submitted once arrives once, however often somebody clicks."""

from __future__ import annotations

import re
from typing import Any

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.runtime.scriptrunner_utils.script_run_context import get_script_run_ctx
from streamlit.testing.v1 import AppTest

from loramill.client import Client
from loramill.ui import submit_once
from loramill.ui.texts import read_texts
from ui_pages import Shows, SignsIn

FORMS = {"train": ("action.submit", "/train"), "sweeps": ("action.start_sweep", "/sweeps")}


@pytest.fixture(params=FORMS)
def page(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def form(page: str, shows: Shows, sign_in: SignsIn, request: pytest.FixtureRequest) -> AppTest:
    """A form that is ready to be sent, of somebody who has sent nothing yet."""
    test = shows(page, sign_in(re.sub(r"\W", "-", request.node.name)))
    if page == "sweeps":
        test.text_input(key="values_0").input("4,8")
    return test


def click(test: AppTest, page: str) -> AppTest:
    label = read_texts("en")[FORMS[page][0]]
    next(button for button in test.button if button.label == label).click()
    return test


def jobs(test: AppTest) -> int:
    client = test.session_state["sign_in"].client
    return len(client.tasks()) + len(client.request("GET", "/sweeps")["items"])


def test_a_click_while_the_answer_is_under_way(form: AppTest, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clicked = click(form, page)._tree.get_widget_states()
    ask, sent = Client.request, []

    def request(client: Client, method: str, path: str, **options: Any) -> Any:
        reply = ask(client, method, path, **options)
        context = get_script_run_ctx()
        if (method, path) == ("POST", FORMS[page][1]):
            sent.append(path)
            if len(sent) == 1 and context and context.script_requests:
                context.script_requests.request_rerun(RerunData(widget_states=clicked))
        return reply

    monkeypatch.setattr(Client, "request", request)
    form.run()
    assert len(sent) == 2
    assert jobs(form) == 1


def test_a_click_right_after_the_answer(form: AppTest, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_once, "DOUBLE_CLICK_SECONDS", 60.0)
    for _ in range(2):
        click(form, page).run()
    assert jobs(form) == 1


def test_the_same_again_a_while_later_is_another_job(form: AppTest, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_once, "DOUBLE_CLICK_SECONDS", -1.0)
    for _ in range(2):
        click(form, page).run()
    assert jobs(form) == 2


def test_what_was_changed_is_another_job(form: AppTest, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_once, "DOUBLE_CLICK_SECONDS", 60.0)
    click(form, page).run()
    if page == "sweeps":
        form.text_input(key="values_0").input("4,16")
    else:
        form.number_input(key="form.lora.r").set_value(4)
    click(form, page).run()
    assert jobs(form) == 2
