from __future__ import annotations

from collections.abc import Callable

import pytest

from loramill.auth.audit_log import Actor
from loramill.auth.authentication import Authentication
from loramill.auth.models import Role, User
from loramill.auth.permissions import CurrentUser, check_admin, check_task_owner
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.errors import AuthenticationError, PermissionDeniedError, TokenInvalidError

AddUser = Callable[..., User]

ADA = CurrentUser("u1", "ada", Role.USER)
ROOT = CurrentUser("u2", "root", Role.ADMIN)


def test_the_user_behind_a_token(auth: Authentication, add_user: AddUser) -> None:
    token = auth.tokens.issue(add_user("ada"))
    assert auth.current_user(token) == ADA
    assert ADA.actor("192.0.2.1") == Actor("u1", Role.USER, "192.0.2.1")


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_nobody_is_signed_in(token: str | None, auth: Authentication) -> None:
    with pytest.raises(AuthenticationError) as caught:
        auth.current_user(token)
    assert caught.value.code == "not_signed_in"


CHANGES: dict[str, Callable[[UserStore], object]] = {
    "disabled": lambda store: store.set_disabled("ada", True),
    "disabled and let in again": lambda store: (store.set_disabled("ada", True), store.set_disabled("ada", False)),
    "role": lambda store: store.set_role("ada", Role.ADMIN),
    "password": lambda store: store.set_password_hash("ada", "another"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_token_ends_with_what_it_was_issued_for(
    change: Callable[[UserStore], object], auth: Authentication, add_user: AddUser, database: Database
) -> None:
    token = auth.tokens.issue(add_user("ada"))
    auth.current_user(token)
    with database.transaction() as session:
        change(UserStore(session))
    with pytest.raises(TokenInvalidError):
        auth.current_user(token)


def test_a_token_of_a_user_who_does_not_exist(auth: Authentication) -> None:
    token = auth.tokens.issue(User(number=99, username="ghost", role=Role.ADMIN, token_version=1))
    with pytest.raises(TokenInvalidError):
        auth.current_user(token)


def test_the_database_decides_about_the_role_not_the_token(
    auth: Authentication, add_user: AddUser, database: Database
) -> None:
    """A token that says admin, signed by us, of the right version, for somebody who is not one."""
    user = add_user("ada")
    token = auth.tokens.issue(User(number=user.number, username="ada", role=Role.ADMIN, token_version=1))
    assert auth.current_user(token).role == Role.USER


def test_only_administrators_pass_the_admin_check() -> None:
    check_admin(ROOT)
    with pytest.raises(PermissionDeniedError):
        check_admin(ADA)


def test_owners_and_administrators_pass_the_owner_check() -> None:
    check_task_owner(ADA, "u1")
    check_task_owner(ROOT, "u1")
    check_task_owner(ROOT, None)


@pytest.mark.parametrize("owner", ["u10", "u11", "u", "U1", "u1 ", "u1_task", "", "u2", "ada", None])
def test_nobody_else_passes_however_alike_the_owner_looks(owner: str | None) -> None:
    with pytest.raises(PermissionDeniedError):
        check_task_owner(ADA, owner)
