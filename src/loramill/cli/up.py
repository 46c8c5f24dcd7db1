"""``loramill up``: the whole product with one command, and without Docker."""

from __future__ import annotations

import importlib.util
import signal
import threading
import time
from collections.abc import Callable, Sequence

import httpx
import typer

from loramill.auth.users import UserStore
from loramill.cli.components import LOOK_SECONDS, Component, in_home, running
from loramill.cli.listening import require_free
from loramill.cli.local import open_database
from loramill.database import Database
from loramill.errors import UnavailableError
from loramill.experiments.store import ExperimentStore
from loramill.settings import Settings
from loramill.tasks.broker import Broker, open_broker
from loramill.tasks.worker import present_workers

START_SECONDS = 120.0
LATE_SECONDS = 2.0
HOST = "127.0.0.1"

app = typer.Typer()


@app.command()
def up() -> None:
    """Start API, worker, queue, page and inference; end them all with Ctrl-C."""
    settings = Settings.load()
    ports = {"API_PORT": settings.api_port, "UI_PORT": settings.ui_port, "INFERENCE_PORT": settings.inference_port}
    require_free(HOST, ports)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    in_home(settings.home.absolute())
    with open_broker(settings) as broker, open_database(settings) as database:
        served_now = _has_model(database)
        components = plan_components(settings, broker, with_inference=served_now)
        late = None if served_now else inference_component(settings)
        with running(components):  # what joins them later is ended, too
            for component in components:
                typer.echo(f"{component.name:<10} {component.where}")
            wait_until_all_answer(components, stop)
            if not stop.is_set():
                say_ready(database)
            watch(components, stop, late, lambda: _has_model(database))
            typer.echo("Ending; running jobs save a checkpoint and go on the next time.")


def say_ready(database: Database) -> None:
    """To programs, and to somebody who has never been here."""
    typer.echo("ready")
    with database.reading() as session:
        nobody = UserStore(session).count() == 0
    if nobody:
        typer.echo("Nobody can sign in yet. In another terminal: loramill users create-admin NAME", err=True)


def plan_components(settings: Settings, broker: Broker, *, with_inference: bool) -> list[Component]:
    """What runs from the start: inference needs an experiment, the page its package."""
    api = f"http://{HOST}:{settings.api_port}"
    page = f"http://{HOST}:{settings.ui_port}"
    components = [
        Component("API", ["api"], lambda: _is_ok(f"{api}/health/ready"), f"{api}/docs"),
        Component("worker", ["worker"], lambda: bool(present_workers(broker)), "takes jobs from the queue"),
    ]
    if importlib.util.find_spec("loramill.ui") is not None:
        components.append(Component("page", ["ui"], lambda: _is_ok(f"{page}/_stcore/health"), page))
    if with_inference:
        components.append(inference_component(settings))
    return components


def inference_component(settings: Settings) -> Component:
    url = f"http://{HOST}:{settings.inference_port}"
    return Component("inference", ["serve"], lambda: _is_ok(f"{url}/health/ready"), f"{url}/docs")


def wait_until_all_answer(components: Sequence[Component], stop: threading.Event) -> None:
    """
    Raises:
        UnavailableError: one ended, or does not answer.
    """
    until = time.monotonic() + START_SECONDS
    waiting = list(components)
    while waiting and not stop.is_set():
        waiting = [component for component in waiting if not component.answers()]
        for component in waiting:
            ended = component.process is not None and component.process.poll() is not None
            if ended or time.monotonic() > until:
                raise UnavailableError(f"{component.name} does not start.", fix="Its output above says why.")
        stop.wait(LOOK_SECONDS)


def watch(
    components: list[Component], stop: threading.Event, late: Component | None, is_due: Callable[[], bool]
) -> None:
    """Replace what dies, until it is time to end; start what could not run before, as soon as it can.

    Args:
        components: those that run; ``late`` joins them.
    """
    look_at = time.monotonic() + LATE_SECONDS
    while not stop.wait(LOOK_SECONDS):
        for component in components:
            exit_code = component.replace_if_dead()
            if exit_code is not None:
                typer.echo(f"{component.name} ended with exit code {exit_code}; it is started again.", err=True)
        if late is not None and time.monotonic() > look_at:
            look_at = time.monotonic() + LATE_SECONDS
            if is_due():
                late.start()
                components.append(late)
                typer.echo(f"{late.name:<10} {late.where}")
                late = None


def _has_model(database: Database) -> bool:
    with database.reading() as session:
        return ExperimentStore(session).newest() is not None


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.HTTPError:
        return False
