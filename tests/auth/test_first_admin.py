from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from loramill.auth.authentication import Authentication
from loramill.auth.first_admin import ensure_first_admin
from loramill.auth.models import Role, User
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.errors import ConfigError, LoginFailedError
from loramill.settings import Settings

MakeSettings = Callable[..., Settings]
PASSWORD = SecretStr("from the environment")


def test_nobody_is_built_in(settings: MakeSettings, auth: Authentication, database: Database) -> None:
    assert ensure_first_admin(settings(), auth) is None
    with database.reading() as session:
        assert UserStore(session).count() == 0


def test_the_environment_makes_one_administrator_once(settings: MakeSettings, auth: Authentication) -> None:
    assert ensure_first_admin(settings(admin_user="Root", admin_password=PASSWORD), auth) == "u1"
    assert auth.sign_in("root", "from the environment", address="192.0.2.1").role == Role.ADMIN
    changed = settings(admin_user="root", admin_password=SecretStr("another password"))
    assert ensure_first_admin(changed, auth) is None
    with pytest.raises(LoginFailedError):
        auth.sign_in("root", "another password", address="192.0.2.1")
    assert [(entry.user_id, entry.action, entry.target) for entry in auth.audit.query(user_id="environment")] == [
        ("environment", "user.create", "u1")
    ]


def test_once_there_are_users_the_environment_is_not_read(
    settings: MakeSettings, auth: Authentication, add_user: Callable[..., User]
) -> None:
    add_user("ada")
    assert ensure_first_admin(settings(admin_user="root"), auth) is None
    assert ensure_first_admin(settings(admin_user="<>", admin_password=SecretStr("short")), auth) is None


@pytest.mark.parametrize(
    ("known", "key"),
    [
        ({"admin_user": "root"}, "LORAMILL_ADMIN_PASSWORD"),
        ({"admin_password": PASSWORD}, "LORAMILL_ADMIN_USER"),
        ({"admin_user": "root", "admin_password": SecretStr("short")}, "password"),
        ({"admin_user": "a b", "admin_password": PASSWORD}, "username"),
    ],
)
def test_half_a_pair_or_a_bad_one_is_refused(
    known: dict[str, object], key: str, settings: MakeSettings, auth: Authentication
) -> None:
    with pytest.raises(ConfigError) as caught:
        ensure_first_admin(settings(**known), auth)
    assert caught.value.problems[0].key == key
    assert "from the environment" not in str(caught.value)


def test_processes_that_start_together_make_one(settings: MakeSettings, auth: Authentication) -> None:
    known = settings(admin_user="root", admin_password=PASSWORD)
    gate = threading.Barrier(8)
    made = []

    def start() -> None:
        gate.wait()
        made.append(ensure_first_admin(known, auth))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len([user_id for user_id in made if user_id]) == 1
    assert len(auth.audit.query()) == 1
