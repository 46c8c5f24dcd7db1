"""Who is signed in, and the cookie that finds them again."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from loramill.client import Client
from loramill.ui import sign_ins as module
from loramill.ui.browser_session import close_session, open_session
from loramill.ui.sign_ins import SignIn, sign_ins


@pytest.fixture
def person() -> SignIn:
    return SignIn(Client("http://127.0.0.1:1"), "ada", "u1", "user")


@pytest.fixture
def browser() -> TestClient:
    routes = [Route("/session", open_session, methods=["POST"]), Route("/session", close_session, methods=["DELETE"])]
    return TestClient(Starlette(routes=routes), base_url="http://127.0.0.1:8501")


def test_a_ticket_is_good_once(person: SignIn, browser: TestClient) -> None:
    ticket = sign_ins().issue_ticket(person)
    reply = browser.post("/session", content=ticket)
    assert reply.status_code == 204
    cookie = reply.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert sign_ins().find(browser.cookies["loramill_page_8501"]) is person
    assert browser.post("/session", content=ticket).status_code == 403


@pytest.mark.parametrize("ticket", ["", "guess", "x" * 10_000, "\xff"])
def test_what_is_no_ticket_opens_nothing(ticket: str, browser: TestClient) -> None:
    assert browser.post("/session", content=ticket.encode("latin-1")).status_code == 403


def test_other_sites_are_refused(person: SignIn, browser: TestClient) -> None:
    ticket = sign_ins().issue_ticket(person)
    foreign = {"Origin": "http://evil.example"}
    assert browser.post("/session", content=ticket, headers=foreign).status_code == 403
    assert browser.delete("/session", headers=foreign).status_code == 403
    own = {"Origin": "http://127.0.0.1:8501"}
    assert browser.post("/session", content=ticket, headers=own).status_code == 204


def test_signing_out_forgets_the_cookie(person: SignIn, browser: TestClient) -> None:
    browser.post("/session", content=sign_ins().issue_ticket(person))
    person.ended = True
    reply = browser.delete("/session")
    assert reply.status_code == 204
    assert "Max-Age=0" in reply.headers["set-cookie"]


def test_signing_out_leaves_the_cookie_of_whoever_signed_in_meanwhile(person: SignIn, browser: TestClient) -> None:
    browser.post("/session", content=sign_ins().issue_ticket(person))
    other = SignIn(person.client, "eve", "u2", "user")
    browser.post("/session", content=sign_ins().issue_ticket(other))
    person.ended = True
    assert "set-cookie" not in browser.delete("/session").headers
    assert sign_ins().find(browser.cookies["loramill_page_8501"]) is other


def test_what_has_ended_is_not_found(person: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = sign_ins().redeem(sign_ins().issue_ticket(person))
    person.ended = True
    assert sign_ins().find(cookie) is None
    monkeypatch.setattr(module, "TICKET_SECONDS", -1.0)
    assert sign_ins().redeem(sign_ins().issue_ticket(SignIn(person.client, "ada", "u1", "user"))) is None
