from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from loramill.auth.models import Role, User
from loramill.auth.quotas import DEFAULT_QUOTA
from loramill.auth.users import USERNAME, UserInfo, UserStore, check_username
from loramill.database import Database
from loramill.errors import ConfigError, ConflictError, NotFoundError

AddUser = Callable[..., User]


def test_ids_are_readable_and_count_up(add_user: AddUser) -> None:
    assert [add_user(name).id for name in ("ada", "bob", "eve")] == ["u1", "u2", "u3"]


def test_names_differ_in_more_than_case(add_user: AddUser, database: Database) -> None:
    add_user("Ada.L")
    with pytest.raises(ConflictError):
        add_user("ada.l")
    with database.reading() as session:
        assert UserStore(session).get("ADA.l").username == "ada.l"


def test_two_who_take_one_name_at_the_same_moment(database: Database) -> None:
    outcomes = []

    def create() -> None:
        try:
            with database.transaction() as session:
                outcomes.append(UserStore(session).create("ada", password_hash="").id)
        except (ConflictError, IntegrityError):
            outcomes.append(None)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([outcome for outcome in outcomes if outcome]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".hidden",
        "-x",
        "a b",
        "a/b",
        "../up",
        "a\x00",
        "ada\n",
        "密碼",
        "x" * 65,
        "u1",
        "U22",
        "me",
        "Local",
        "<b>",
    ],
)
def test_names_that_may_not_be_used(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_username(name)
    assert caught.value.problems[0].key == "username"


@given(st.text(max_size=80))
def test_a_name_is_plain_or_refused(name: str) -> None:
    try:
        check_username(name)
    except ConfigError:
        return
    assert USERNAME.fullmatch(name.lower())
    assert name.lower().isascii()
    assert not {"/", "\\", "\x00", " "} & set(name)


def test_users_are_found_by_id_or_name(add_user: AddUser, database: Database) -> None:
    ada = add_user("ada")
    with database.reading() as session:
        store = UserStore(session)
        assert store.get("u1").number == store.get("ada").number == ada.number
        for nobody in ("u2", "u01", "u-1", "u1 ", "u", "u" + "9" * 30, "u\u0661", "bob", "", "\ud800", "a\x00"):
            assert store.find(nobody) is None
            with pytest.raises(NotFoundError):
                store.get(nobody)


def test_a_user_is_shown_without_the_hash(add_user: AddUser) -> None:
    info = UserInfo.of(add_user("ada", role=Role.ADMIN)).as_dict()
    assert "argon2" not in str(info)
    assert (info["user_id"], info["username"], info["role"], info["disabled"]) == ("u1", "ada", "admin", False)
    created = datetime.fromisoformat(str(info["created_at"]))
    assert abs((datetime.now(UTC) - created).total_seconds()) < 60


def test_a_role_that_does_not_exist_is_refused_by_the_database(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.add(User(username="x", role="root", password_hash="", created_at=datetime.now(UTC)))


def test_the_last_administrator_stays(add_user: AddUser, database: Database) -> None:
    add_user("root", role=Role.ADMIN)
    add_user("ada")
    for change in (lambda store: store.set_disabled("root", True), lambda store: store.set_role("root", Role.USER)):
        with pytest.raises(ConflictError, match="last administrator"), database.transaction() as session:
            change(UserStore(session))
    with database.transaction() as session:
        UserStore(session).set_role("ada", Role.ADMIN)
        UserStore(session).set_disabled("root", True)
    with pytest.raises(ConflictError), database.transaction() as session:
        UserStore(session).set_role("ada", Role.USER)


def test_administrators_who_demote_each_other_do_not_both_succeed(add_user: AddUser, database: Database) -> None:
    names = ["root", "ada", "bob"]
    for name in names:
        add_user(name, role=Role.ADMIN)
    refused = []

    def demote(name: str) -> None:
        try:
            with database.transaction() as session:
                UserStore(session).set_role(name, Role.USER)
        except ConflictError:
            refused.append(name)

    threads = [threading.Thread(target=demote, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    with database.reading() as session:
        assert [user.username for user in UserStore(session).everybody() if user.role == Role.ADMIN] == refused


def test_a_quota_is_locked_by_id_or_name(add_user: AddUser, database: Database) -> None:
    user_id = add_user("ada").id
    with database.transaction() as session:
        store = UserStore(session)
        store.set_quota(user_id, {"max_daily_submits": 3})
        session.flush()
        assert store.lock_quota(user_id) == store.lock_quota("ada") == replace(DEFAULT_QUOTA, max_daily_submits=3)
        for nobody in ("u99", "nobody"):
            with pytest.raises(NotFoundError):
                store.lock_quota(nobody)


def test_quotas_are_set_one_by_one_and_taken_back(add_user: AddUser, database: Database) -> None:
    add_user("ada")
    with database.transaction() as session:
        UserStore(session).set_quota("ada", {"max_daily_submits": 5, "max_stored_bytes": 2**40})
    with database.transaction() as session:
        user = UserStore(session).set_quota("ada", {"max_daily_submits": None})
        assert (user.max_daily_submits, user.max_stored_bytes) == (None, 2**40)
    with pytest.raises(ConfigError) as caught, database.transaction() as session:
        UserStore(session).set_quota("ada", {"max_jobs": 1, "max_daily_submits": -1})
    assert [problem.key for problem in caught.value.problems] == ["max_jobs", "max_daily_submits"]
