from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text

from loramill.auth.authentication import Authentication
from loramill.auth.models import Role, User
from loramill.auth.passwords import Passwords
from loramill.auth.rate_limits import RateLimits
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.errors import ConfigError, LoginFailedError, LoramillError, RateLimitedError, TokenInvalidError
from loramill.settings import Settings

AddUser = Callable[..., User]
PASSWORD = "correct horse battery"
HOME, AWAY = "192.0.2.1", "198.51.100.7"


class Counting(Passwords):
    """Counts the hashes that it computes."""

    def __init__(self) -> None:
        super().__init__(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        self.hashes = 0

    def matches(self, password: str, stored: str | None) -> bool:
        self.hashes += 1
        return super().matches(password, stored)


def results(auth: Authentication) -> list[tuple[str | None, str, str, str]]:
    return [(entry.user_id, entry.action, entry.target, entry.result) for entry in reversed(auth.audit.query())]


def test_signing_in_gives_tokens_that_work(auth: Authentication, add_user: AddUser) -> None:
    add_user("ada", role=Role.ADMIN)
    signed_in = auth.sign_in("Ada", PASSWORD, address=HOME)
    assert (signed_in.user_id, signed_in.role, signed_in.expires_in) == ("u1", "admin", 1800)
    assert auth.current_user(signed_in.token).username == "ada"
    refreshed = auth.refresh(signed_in.refresh_token, address=HOME)
    assert auth.current_user(refreshed.token).id == "u1"
    assert refreshed.refresh_token != signed_in.refresh_token
    auth.sign_out(refreshed.refresh_token, address=HOME)
    with pytest.raises(TokenInvalidError):
        auth.refresh(refreshed.refresh_token, address=HOME)
    assert results(auth) == [
        ("u1", "login", "u1", "ok"),
        ("u1", "token.refresh", "u1", "ok"),
        ("u1", "logout", "u1", "ok"),
        ("u1", "token.refresh", "u1", "token_invalid: ended"),
    ]


def test_unknown_wrong_and_disabled_look_the_same(auth: Authentication, add_user: AddUser, database: Database) -> None:
    add_user("ada")
    add_user("bob")
    with database.transaction() as session:
        UserStore(session).set_disabled("bob", True)
    errors = []
    for name, password in (("eve", PASSWORD), ("ada", "wrong"), ("bob", PASSWORD), ("", ""), ("\ud800", "\ud800")):
        with pytest.raises(LoginFailedError) as caught:
            auth.sign_in(name, password, address=HOME)
        errors.append(str(caught.value))
        assert caught.value.audited
    assert len(set(errors)) == 1
    assert [(who, target) for who, _, target, _ in results(auth)] == [
        (None, "unknown user"),
        (None, "u1"),
        (None, "u2"),
        (None, "unknown user"),
        (None, "unknown user"),
    ]


def test_using_a_refresh_token_again_ends_the_sign_in_and_is_recorded(auth: Authentication, add_user: AddUser) -> None:
    add_user("ada")
    first = auth.sign_in("ada", PASSWORD, address=HOME)
    second = auth.refresh(first.refresh_token, address=HOME)
    for token in (first.refresh_token, second.refresh_token):
        with pytest.raises(TokenInvalidError):
            auth.refresh(token, address=AWAY)
    assert results(auth)[2:] == [
        ("u1", "token.refresh", "u1", "token_invalid: reused"),
        ("u1", "token.refresh", "u1", "token_invalid: ended"),
    ]


def test_a_hundred_concurrent_refreshes_give_one_pair_of_tokens(auth: Authentication, add_user: AddUser) -> None:
    add_user("ada")
    token = auth.sign_in("ada", PASSWORD, address=HOME).refresh_token
    received_at = datetime.now(UTC)
    gate = threading.Barrier(100)
    outcomes: list[str] = []
    winners = []

    def refresh() -> None:
        gate.wait()
        try:
            winners.append(auth.refresh(token, address=HOME, received_at=received_at))
            outcomes.append("ok")
        except LoramillError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=refresh) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"ok": 1, "token_invalid": 99}
    auth.refresh(winners[0].refresh_token, address=HOME)
    assert auth.audit.verify().as_dict() == {"intact": True, "rows": 102, "anchored": 102, "findings": []}


def test_a_login_flood_costs_ten_hashes_and_the_owner_still_gets_in(auth: Authentication, add_user: AddUser) -> None:
    add_user("ada")
    auth.passwords = counting = Counting()
    outcomes: list[str] = []

    def flood() -> None:
        for number in range(25):
            try:
                auth.sign_in("ADA" if number % 2 else "ada", f"guess {number}", address=AWAY)
            except LoramillError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"login_failed": 10, "rate_limited": 190}
    assert counting.hashes == 10
    assert auth.sign_in("ada", PASSWORD, address=HOME).user_id == "u1"
    assert len(auth.audit.query()) == 12, "ten wrong passwords, one row for the flood, one sign-in"


def test_the_owner_at_the_flooded_address_gets_in_later(auth: Authentication, add_user: AddUser) -> None:
    add_user("ada")
    auth.limits = RateLimits(login="3/1second")
    for _ in range(9):
        with pytest.raises((LoginFailedError, RateLimitedError)):
            auth.sign_in("ada", "a guess", address=HOME)
    with pytest.raises(RateLimitedError) as caught:
        auth.sign_in("ada", PASSWORD, address=HOME)
    threading.Event().wait(caught.value.retry_after + 0.1)
    auth.sign_in("ada", PASSWORD, address=HOME)


def test_one_address_may_not_guess_through_all_accounts(auth: Authentication, add_user: AddUser) -> None:
    auth.limits = RateLimits(wrong_password="3/15minute")
    for name in ("ada", "bob", "eve"):
        add_user(name)
        with pytest.raises(LoginFailedError):
            auth.sign_in(name, "a guess", address=AWAY)
    with pytest.raises(RateLimitedError):
        auth.sign_in("ada", PASSWORD, address=AWAY)
    auth.sign_in("ada", PASSWORD, address=HOME)


def test_unknown_names_are_limited_too(auth: Authentication) -> None:
    auth.passwords = counting = Counting()
    for _ in range(15):
        with pytest.raises((LoginFailedError, RateLimitedError)):
            auth.sign_in("nobody", "a guess", address=AWAY)
    assert counting.hashes == 10


def test_a_stronger_hash_replaces_the_old_one_at_sign_in(
    auth: Authentication, add_user: AddUser, database: Database
) -> None:
    add_user("ada")
    auth.passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    auth.sign_in("ada", PASSWORD, address=HOME)
    with database.reading() as session:
        assert "m=16,t=2" in UserStore(session).get("ada").password_hash
    auth.sign_in("ada", PASSWORD, address=HOME)


def test_a_password_that_changes_while_it_is_checked_does_not_sign_in(
    auth: Authentication, add_user: AddUser, database: Database
) -> None:
    add_user("ada")

    class Slow(Counting):
        def matches(self, password: str, stored: str | None) -> bool:
            with database.transaction() as session:
                UserStore(session).set_password_hash("ada", self.hash("another password"))
            return super().matches(password, stored)

    auth.passwords = Slow()
    with pytest.raises(LoginFailedError):
        auth.sign_in("ada", PASSWORD, address=HOME)


def test_no_secret_is_kept_anywhere(
    auth: Authentication, add_user: AddUser, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_user("ada")
    signed_in = auth.sign_in("ada", PASSWORD, address=HOME)
    refreshed = auth.refresh(signed_in.refresh_token, address=HOME)
    for attempt in (
        lambda: auth.sign_in(PASSWORD, "ada", address=HOME),  # fields mixed up
        lambda: auth.sign_in("ada", "wrong password", address=HOME),
        lambda: auth.refresh(signed_in.refresh_token, address=HOME),
        lambda: auth.current_user(signed_in.token + "x"),
    ):
        with pytest.raises(LoramillError) as caught:
            attempt()
        assert PASSWORD not in str(caught.value)
    kept = (tmp_path / "audit.anchor").read_text() + caplog.text
    with database.reading() as session:
        for table in ("users", "token_family", "audit_log"):
            kept += str(session.execute(text(f"SELECT * FROM {table}")).all())
    for secret in (PASSWORD, "wrong password", signed_in.token, refreshed.refresh_token, signed_in.refresh_token):
        assert secret not in kept


def test_everything_from_the_environment(settings: Callable[..., Settings], database: Database, tmp_path: Path) -> None:
    auth = Authentication.from_settings(settings(), database)
    with database.transaction() as session:
        UserStore(session).create("ada", password_hash=auth.passwords.hash(PASSWORD))
    signed_in = auth.sign_in("ada", PASSWORD, address=HOME)
    again = Authentication.from_settings(settings(), database)
    assert again.current_user(signed_in.token).id == "u1"
    assert again.audit.verify().intact
    assert sorted(file.name for file in (tmp_path / ".loramill").iterdir()) == ["audit_key", "jwt_secret"]
    with pytest.raises(ConfigError):
        Authentication.from_settings(settings(environment="production", jwt_secret="short"), database)
