"""The client against an API that goes away and comes back."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loramill import client as client_module
from loramill.api_session import ApiError
from loramill.client import Client
from loramill.errors import UnavailableError

EVENTS = [{"type": "note", "message": str(number)} for number in range(5)]


class Api(ThreadingHTTPServer):
    """Sends the events of one task as far as ``known``; the task has ended once all of them are.

    ``refuses`` is the status of every answer, if not 0.
    """

    def __init__(self, port: int, *, known: int, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self.known, self.refuses = known, refuses


class Answers(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        known = self.server.known
        if self.server.refuses:
            self.send_error(self.server.refuses)
        elif self.path.endswith("/events"):
            after = int(self.headers["Last-Event-ID"])
            self._answer("".join(f"data: {json.dumps(EVENTS[n])}\nid: {n + 1}\n\n" for n in range(after, known)))
        else:
            status = "SUCCESS" if known == len(EVENTS) else "PROGRESS"
            self._answer(json.dumps({"task_id": "t", "experiment_id": "e", "status": status}))

    def _answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_parts: object) -> None:
        """Nothing: the test is quiet."""


@contextlib.contextmanager
def served(api: Api) -> Iterator[None]:
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        api.shutdown()
        api.server_close()
        thread.join()


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
    return number


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_SECONDS", 0.05)


def test_events_go_on_where_they_were_when_the_api_was_restarted(port: int) -> None:
    heard = []

    def listen() -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            heard.extend(client.follow("t"))

    with served(Api(port, known=2)):
        listener = threading.Thread(target=listen)
        listener.start()
        time.sleep(0.5)
    time.sleep(0.5)
    with served(Api(port, known=3, refuses=503)):
        time.sleep(0.5)
    with served(Api(port, known=5)):
        listener.join(30)
    assert heard == EVENTS


def test_waiting_outlasts_a_restart(port: int) -> None:
    ended = []

    def wait() -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            ended.append(client.wait("t", seconds=30).status)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.5)
    with served(Api(port, known=2)):
        time.sleep(0.5)
    with served(Api(port, known=5)):
        waiter.join(30)
    assert ended == ["SUCCESS"]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(TimeoutError, match="is away after"):
        client.wait("t", seconds=0.3)


def test_an_api_that_does_not_come_back_is_an_error(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AWAY_SECONDS", 0.3)
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(UnavailableError, match="does not answer"):
        list(client.follow("t"))


def test_a_refusal_ends_it_at_once(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    with served(Api(port, known=2, refuses=403)), Client(url) as client, pytest.raises(ApiError) as caught:
        list(client.follow("t"))
    assert caught.value.status == 403
