from __future__ import annotations

import threading
import time

import pytest
from argon2 import PasswordHasher
from hypothesis import given, settings
from hypothesis import strategies as st

from loramill.auth import passwords as module
from loramill.auth.passwords import MAX_BYTES, MIN_CHARACTERS, Passwords, password_problem
from loramill.errors import ConfigError, RateLimitedError

CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
GOOD = "correct horse battery"


def test_a_password_matches_its_own_hash_and_no_other(passwords: Passwords) -> None:
    stored = passwords.hash(GOOD)
    assert passwords.matches(GOOD, stored)
    assert not passwords.matches(GOOD + " ", stored)
    assert not passwords.matches(GOOD, passwords.hash("another password"))


def test_the_same_password_is_never_stored_the_same_way_twice(passwords: Passwords) -> None:
    assert passwords.hash(GOOD) != passwords.hash(GOOD)


def test_the_default_cost_is_the_one_of_rfc_9106() -> None:
    assert Passwords().hash(GOOD).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=MIN_CHARACTERS, max_size=60))
def test_any_text_that_is_accepted_can_sign_in(password: str) -> None:
    if password_problem(password) is None:
        assert CHEAP.matches(password, CHEAP.hash(password))


@pytest.mark.parametrize("password", ["", "x" * (MIN_CHARACTERS - 1), "x" * (MAX_BYTES + 1), "密" * 400, "\ud800" * 20])
def test_passwords_of_the_wrong_length_are_refused_without_showing_them(password: str, passwords: Passwords) -> None:
    with pytest.raises(ConfigError) as caught:
        passwords.hash(password)
    assert caught.value.problems[0].key == "password"
    assert caught.value.problems[0].value is None


def test_an_endless_password_costs_no_hash() -> None:
    class NeverAsked(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # noqa: A002
            raise AssertionError(f"asked about {len(password)} characters")

    passwords = Passwords(NeverAsked(time_cost=1, memory_cost=8, parallelism=1))
    assert not passwords.matches("x" * (MAX_BYTES + 1), passwords.hash(GOOD))
    assert not passwords.matches("密" * 400, None)


def test_both_ways_to_type_a_character_are_one(passwords: Passwords) -> None:
    assert passwords.matches("caf\u00e9 au lait, s'il", passwords.hash("cafe\u0301 au lait, s'il"))


def test_a_broken_hash_is_a_wrong_password_not_a_crash(passwords: Passwords) -> None:
    for stored in ("", "plain", "$argon2id$v=19$m=8,t=1,p=1$AAAA", "$2b$12$abcdefghijklmnopqrstuv"):
        assert not passwords.matches(GOOD, stored)


def test_a_hash_of_other_parameters_is_made_anew(passwords: Passwords) -> None:
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    old = passwords.hash(GOOD)
    new = stronger.rehash(GOOD, old)
    assert new is not None
    assert "m=16,t=2" in new
    assert stronger.matches(GOOD, new)
    assert stronger.rehash(GOOD, new) is None


def test_an_unknown_user_costs_as_much_as_a_wrong_password() -> None:
    """Medians, alternating, at a cost where the hash is most of the time."""
    passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=8192, parallelism=1))
    stored = passwords.hash(GOOD)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(40):
        known = turn % 2 == 0
        started = time.thread_time()
        assert not passwords.matches("a wrong password", stored if known else None)
        seconds[known].append(time.thread_time() - started)
    known_median, unknown_median = (sorted(seconds[known])[10] for known in (True, False))
    assert 0.5 < known_median / unknown_median < 2


def test_no_more_hashes_at_one_time_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASH_WAIT_SECONDS", 0.01)
    running, most = [], []
    lock = threading.Lock()

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # noqa: A002
            with lock:
                running.append(1)
                most.append(len(running))
            time.sleep(0.05)
            with lock:
                running.pop()
            return super().verify(hash, password)

    passwords = Passwords(Watched(time_cost=1, memory_cost=8, parallelism=1), concurrent=2)
    stored = passwords.hash(GOOD)
    outcomes: list[bool | RateLimitedError] = []

    def guess() -> None:
        try:
            outcomes.append(passwords.matches(GOOD, stored))
        except RateLimitedError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 2
    assert True in outcomes
    assert any(isinstance(outcome, RateLimitedError) for outcome in outcomes)
    assert passwords.matches(GOOD, stored), "the slots must be free again"
