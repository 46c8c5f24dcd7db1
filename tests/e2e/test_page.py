"""The page in a real browser, against the whole service with a real worker."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Locator, expect

from chromium import PATIENCE_MS, Person, running_chromium
from loramill.client import Client
from loramill.settings import Settings
from small_models import save_small_model
from small_runs import OTHERS

I18N = Path(__file__).parents[2] / "src" / "loramill" / "ui" / "i18n"
ADMIN, PASSWORD = "root", "correct horse battery"
HOSTILE = "<img src=x onerror=alert(1)> **bold** \u202e:red[x]"

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("home")
    ports = {name: str(free_port()) for name in ("API_PORT", "UI_PORT", "INFERENCE_PORT")}
    people = {"LORAMILL_ADMIN_USER": ADMIN, "LORAMILL_ADMIN_PASSWORD": PASSWORD}
    with pytest.MonkeyPatch.context() as environment:
        for field in Settings.model_fields.values():
            environment.delenv(str(field.alias), raising=False)
        for name, value in {"LORAMILL_HOME": str(home), **ports, **people}.items():
            environment.setenv(name, value)
        save_small_model("bert", home / "model")
        write_reviews(home / "reviews.csv")
        yield Settings.load()


@pytest.fixture(scope="module")
def product(settings: Settings) -> Iterator[psutil.Process]:
    """``loramill up`` that has said ``ready``."""
    command = [sys.executable, "-c", "from loramill.cli.main import main; main()", "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as product:
        assert product.stdout is not None
        try:
            lines = iter(product.stdout.readline, "")
            assert any(line.strip() == "ready" for line in lines)
            yield psutil.Process(product.pid)
        finally:
            product.send_signal(signal.SIGINT)
            product.wait(30)


@pytest.fixture(scope="module")
def browser(product: psutil.Process) -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


Comes = Callable[[str], Person]


@pytest.fixture
def comes(browser: Browser, settings: Settings) -> Iterator[Comes]:
    """Somebody opens a browser that asks for a language."""
    people: list[Person] = []

    def come(language: str) -> Person:
        texts = json.loads((I18N / f"{language}.json").read_text(encoding="utf-8"))
        person = Person(
            browser, f"http://127.0.0.1:{settings.ui_port}", "en-US" if language == "en" else language, texts
        )
        people.append(person)
        person.opens()
        return person

    yield come
    for person in people:
        assert person.dialogs == []
        person.context.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def write_reviews(file: Path) -> None:
    """Two hundred rows that a small model can learn, an empty one, a repeated one and one with HTML.

    Lengths differ, and only the first and last letter tell the label: else a model learns places and lengths instead,
    and says anything of a text of another length.
    """
    draw, texts = random.Random(7), dict[str, str]()
    between = [letter for letter in OTHERS if letter not in "bg"]
    while len(texts) < 200:
        label = ("bad", "good")[len(texts) % 2]
        letters = " ".join(draw.choices(between, k=draw.randint(3, 6)))
        texts.setdefault(f"{label[0]} {letters} {label[0]}", label)
    lines = ["text,label", *(f"{text},{label}" for text, label in texts.items())]
    lines += [",good", lines[1], "<b>b</b> k m n b,bad"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh-TW"])
def test_from_data_to_a_served_model(language: str, comes: Comes, settings: Settings) -> None:
    person = comes(language)
    person.signs_in(ADMIN, PASSWORD)
    uploads_and_cleans(person, settings.home / "reviews.csv")
    first = trains(person, settings, name=f"first {language}", epochs=20, reload=True)
    second = trains(person, settings, name=f"second {language}", epochs=2)
    compares(person, second, first)
    promotes_and_predicts(person, first)
    person.presses("action.sign_out")
    expect(person.field("sign_in.username")).to_be_visible()
    person.page.reload()
    expect(person.field("sign_in.username")).to_be_visible()


def uploads_and_cleans(person: Person, file: Path) -> None:
    person.goes_to("nav.data")
    person.sees(person.says("data.about"))
    person.page.wait_for_selector("input[type=file]", state="attached")
    if not person.button("action.upload").is_visible():
        person.page.get_by_text(person.says("data.upload"), exact=True).click()
    person.page.locator("input[type=file]").set_input_files(file)
    person.sees("reviews.csv")
    person.writes("data.name", HOSTILE)
    person.presses("action.upload")
    person.sees(person.says("data.by_rule"))
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩")
    expect(person.page.locator(".lm-heading h2")).to_have_text(shown)
    expect(person.page.locator(".lm-tile", has_text=person.says("data.rows")).first).to_contain_text("203")
    person.presses("action.clean")
    expect(person.page.locator(".lm-tile", has_text=person.says("data.rows")).first).to_contain_text("201")
    assert "version=2" in person.page.url
    person.presses("action.train_on_it")
    person.sees(person.says("train.about"))


def trains(person: Person, settings: Settings, *, name: str, epochs: int, reload: bool = False) -> str:
    """Fill the form in, submit, watch it end; returns the id of the experiment."""
    person.goes_to("nav.train")
    person.writes("field.experiment_name", name)
    person.chooses_or_types("field.model.name", str(settings.home / "model"))
    person.writes("field.training.num_train_epochs", str(epochs))
    person.writes("field.training.learning_rate", "0.01")
    person.unfolds("section.training")  # of equally accurate checkpoints the first stays, unsure as it is
    person.writes("field.training.metric_for_best_model", "loss")
    expect(person.field("field.experiment_name")).to_have_value(name)
    person.sees(person.says("train.no_problems"))
    person.presses("action.submit")
    heading = person.page.locator(".lm-heading h2")
    expect(heading).to_contain_text(name.replace(" ", "_").split("_")[0])
    if reload:
        person.page.wait_for_selector(".lm-bar", timeout=PATIENCE_MS)
        person.page.reload()
        expect(heading).to_contain_text(name.split(" ")[0])
    person.sees_badge("status.SUCCESS")
    expect(person.page.locator(".lm-steps .lm-step-done")).to_have_count(4)
    expect(person.page.locator(".lm-tile", has_text=person.says("metric.accuracy")).first).to_contain_text(
        re.compile(r"\d")
    )
    return heading.inner_text()


def compares(person: Person, *ids: str) -> None:
    person.goes_to("nav.experiments")
    person.sees(person.says("experiments.about"))
    person.ticks(0, 1)
    person.presses("action.compare")
    person.sees(person.says("compare.verdict"))
    assert all(part.replace(" ", "+") in person.page.url.replace("%20", "+") for part in ids)
    expect(person.page.get_by_test_id("stVegaLiteChart").first).to_be_visible()


def promotes_and_predicts(person: Person, model: str) -> None:
    person.goes_to("nav.models")
    person.sees(person.says("models.about"))
    person.ticks(1)
    expect(person.page.locator(".lm-heading p").first).to_have_text(model)
    person.page.get_by_role("radio", name=person.says("stage.production")).or_(
        person.page.get_by_role("button", name=person.says("stage.production"))
    ).first.click()
    person.writes("models.reason", HOSTILE)
    person.presses("action.move")
    person.sees_badge("stage.production")
    for text, label in (("b k m n b", "bad"), ("g k m n g", "good")):
        person.page.get_by_label(person.says("models.text"), exact=True).fill(text)
        person.presses("action.try")
        expect(person.page.locator(".lm-card .lm-big")).to_have_text(label, timeout=PATIENCE_MS)


def test_two_people_and_a_sign_in_that_ends(comes: Comes, settings: Settings) -> None:
    root, ada = comes("en"), comes("zh-TW")
    root.signs_in(ADMIN, PASSWORD)
    root.goes_to("nav.admin")
    root.writes("sign_in.username", "ada")
    root.writes("sign_in.password", PASSWORD)
    root.presses("action.create")
    expect(root.field("sign_in.username")).to_have_value("")
    ada.signs_in("ada", PASSWORD)
    expect(ada.page.get_by_role("link", name=ada.says("nav.admin"))).to_have_count(0)
    ada.goes_to("nav.experiments")
    ada.sees(ada.says("experiments.none"))
    ada.opens("/admin")
    ada.sees(ada.says("admin.not_allowed"))
    root.goes_to("nav.experiments")
    expect(total_tile(root)).to_be_visible()
    with Client(f"http://127.0.0.1:{settings.api_port}") as client:
        client.sign_in(ADMIN, PASSWORD)
        client.request("PATCH", "/users/ada", json={"disabled": True})
    ada.goes_to("nav.tasks")
    ada.sees(ada.says("sign_in.ended"))
    root.page.reload()
    expect(total_tile(root)).to_be_visible()


def test_a_run_resumed_elsewhere_is_seen_to_go_on(comes: Comes, settings: Settings) -> None:
    """Nobody touches the page between its end and the new one."""
    person = comes("en")
    person.signs_in(ADMIN, PASSWORD)
    config = {
        "experiment_name": "elsewhere",
        "model": {"name": str(settings.home / "model")},
        "data": {"dataset_name": str(settings.home / "reviews.csv")},
        "training": {"num_train_epochs": 5000},
    }
    with Client(f"http://127.0.0.1:{settings.api_port}") as client:
        client.sign_in(ADMIN, PASSWORD)
        task = client.train(config).task_id
        client.cancel(task)
        client.wait(task, seconds=60)
        person.opens(f"/tasks?task={task}")
        person.sees_badge("status.REVOKED")
        client.resume(task)
        expect(person.button("action.cancel")).to_be_visible()
        client.cancel(task)
        client.wait(task, seconds=60)
        person.sees_badge("status.REVOKED")


def test_an_api_that_dies_and_comes_back_with_another_key(
    comes: Comes, settings: Settings, product: psutil.Process
) -> None:
    person = comes("en")
    person.signs_in(ADMIN, PASSWORD)
    kill_api(product)
    for key in settings.secrets_folder.glob("*jwt*"):
        key.unlink()  # every access token that is out is worth nothing from now on
    person.goes_to("nav.experiments")
    person.sees(person.says("error.unavailable"))
    until = time.monotonic() + PATIENCE_MS / 1000
    while total_tile(person).count() == 0 and time.monotonic() < until:
        if person.button("action.try_again").is_visible():
            person.presses("action.try_again")
        time.sleep(1)
    expect(total_tile(person)).to_be_visible()
    expect(person.page.locator(".lm-problem")).to_have_count(0)


def total_tile(person: Person) -> Locator:
    """Numbers that only the API knows; the page's own words stand there without it."""
    return person.page.locator(".lm-tile", has_text=person.says("stats.total"))


def kill_api(product: psutil.Process) -> None:
    for process in product.children(recursive=True):
        if process.cmdline()[-1] == "api":
            process.kill()
            return
    pytest.fail("no API is running")


def test_no_page_is_slow(comes: Comes, settings: Settings) -> None:
    """Every page is drawn with what the earlier tests left; ten thousand experiments are another test."""
    person = comes("en")
    person.signs_in(ADMIN, PASSWORD)
    for name in ("train", "tasks", "experiments", "sweeps", "data", "models", "admin"):
        person.goes_to(f"nav.{name}")
        person.sees(person.says(f"{name}.about"))
        expect(person.page.locator(".lm-problem")).to_have_count(0)
