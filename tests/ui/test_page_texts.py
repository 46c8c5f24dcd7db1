"""What strangers wrote stays text on every page, and nothing English is left in Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from loramill.config.schema import ExperimentConfig
from loramill.ui.config_form import flatten
from loramill.ui.sign_ins import SignIn
from ui_pages import VIEWS, AddRun, Shows, SignsIn, fields_of, seen

HOSTILE = "<script>alert(1)</script> **bold** :red[x] `code`\r\n\u202eevil"
Hostile = tuple[SignIn, dict[str, str]]


@pytest.fixture(scope="module")
def hostile(sign_in: SignsIn, add_run: AddRun, tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    """Somebody all of whose things have names and texts that want to be more than text."""
    person = sign_in("hostile")
    runs = [add_run(person.user_id, "calm", log=HOSTILE) for _ in range(2)]
    person.client.request("PATCH", f"/experiments/{runs[0]}", json={"notes": HOSTILE, "add_tags": [HOSTILE]})
    file = tmp_path_factory.mktemp("data") / "data.jsonl"
    rows = [{"text": f"{HOSTILE} {number}", "label": f"{HOSTILE[:30]}{number % 2}"} for number in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = person.client.upload(file, name=HOSTILE[:100])["dataset_id"]
    config = ExperimentConfig().model_dump(mode="json")
    body = {"config": config, "space": {"lora.r": [1, 2]}, "sampler": "grid"}
    sweep = person.client.request("POST", "/sweeps", json=body)["sweep_id"]
    person.draft = flatten(config) | {"data.dataset_name": dataset, "experiment_name": HOSTILE, "model.name": HOSTILE}
    query = {
        "id": runs[0],
        "task": runs[0],
        "model": runs[0],
        "ids": ",".join(runs),
        "dataset": dataset,
        "sweep": sweep,
    }
    return person, query


@pytest.mark.parametrize(("page", "tab"), VIEWS)
def test_hostile_texts_are_shown_as_text(page: str, tab: str, shows: Shows, hostile: Hostile) -> None:
    person, query = hostile
    test = shows(page, person, tab=tab, **query)
    assert "lm-problem" not in seen(test)
    for text in texts_of(test):
        assert "<script>" not in text or text in plain_texts_of(test)
        assert "\u202e" not in text
    assert ":red[x]" not in "".join(str(element.proto.body) for element in test.get("markdown"))


def texts_of(test: AppTest) -> Iterator[str]:
    """All that a page shows, of whatever kind."""
    yield seen(test)
    yield from plain_texts_of(test)
    for kind in ("expander", "tab", "button", "text_input", "number_input", "selectbox", "multiselect", "toggle"):
        yield from (str(getattr(element, "label", "")) for element in test.get(kind))


def plain_texts_of(test: AppTest) -> list[str]:
    """What Streamlit shows as it is: cells, options, code, and what one may edit."""
    cells = [str(cell) for table in test.dataframe for cell in table.value.to_numpy().ravel()]
    heads = [str(name) for table in test.dataframe for name in table.value.columns]
    options = [str(option) for kind in ("selectbox", "multiselect") for box in test.get(kind) for option in box.options]
    return [*cells, *heads, *options, *(element.value for element in test.code)]


@pytest.mark.parametrize(("page", "tab"), VIEWS)
def test_no_english_is_left_in_chinese(page: str, tab: str, shows: Shows, sign_in: SignsIn, add_run: AddRun) -> None:
    person = sign_in("root" if page == "admin" else "reader")
    runs = [add_run(person.user_id, name) for name in ("one", "two")]
    query = {"id": runs[0], "task": runs[0], "ids": ",".join(runs)}
    test = shows(page, person, "zh-TW", tab=tab, **query)
    shown = [*texts_of(test), *(str(getattr(field, "help", "")) for field in fields_of(test))]
    for text in shown:
        words = re.sub(r"<[^>]*>|`[^`]*`|\(arXiv[^)]*\)|[\w .-]+_\d{8}_\d{6}", " ", text)
        assert re.findall(r"[A-Za-z]{2,} [A-Za-z]{2,} [A-Za-z]{2,}", words) == [], text
