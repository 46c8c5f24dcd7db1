"""The people who may sign in; for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from loramill.api.dependencies import NAME, Address, Admin, User
from loramill.api.schemas import ChangePassword, ChangeUser, NewUser
from loramill.api.services import Services
from loramill.auth.models import Role
from loramill.auth.users import UserInfo, UserStore, check_username

router = APIRouter(prefix="/users", tags=["users"])


@router.get("/me")
def me(user: User, services: Services) -> UserInfo:
    """Who you are."""
    with services.database.reading() as session:
        return UserInfo.of(UserStore(session).get(user.id))


@router.post("/me/password", status_code=204)
def change_own_password(body: ChangePassword, user: User, services: Services, address: Address) -> None:
    """Change your password; every sign-in ends, this one too."""
    old, new = body.password.get_secret_value(), body.new_password.get_secret_value()
    services.auth.change_password(user, old, new, address=address)


@router.get("")
def list_users(_admin: Admin, services: Services) -> list[UserInfo]:
    """Everybody, disabled ones too."""
    with services.database.reading() as session:
        return [UserInfo.of(user) for user in UserStore(session).everybody()]


@router.post("", status_code=201)
def create(body: NewUser, admin: Admin, services: Services, address: Address) -> UserInfo:
    """Add a user."""
    check_username(body.username)  # before a password is hashed for nothing
    password_hash = services.auth.passwords.hash(body.password.get_secret_value())
    with services.auth.audit.transaction(admin.actor(address), "user.create", body.username) as session:
        user = UserStore(session).create(body.username, password_hash=password_hash, role=Role(body.role))
        return UserInfo.of(user)


@router.patch("/{user_id}")
def change(
    user_id: Annotated[str, Path(pattern=NAME)], body: ChangeUser, admin: Admin, services: Services, address: Address
) -> UserInfo:
    """Disable or enable a user, or give them another role or password; their sign-ins end."""
    new_hash = services.auth.passwords.hash(body.password.get_secret_value()) if body.password else None
    with services.auth.audit.transaction(admin.actor(address), action_of(body), user_id) as session:
        store = UserStore(session)
        if body.role is not None:
            store.set_role(user_id, Role(body.role))
        if new_hash is not None:
            store.set_password_hash(user_id, new_hash)
        if body.disabled is not None:
            store.set_disabled(user_id, body.disabled)
        return UserInfo.of(store.get(user_id))


def action_of(change: ChangeUser) -> str:
    """What the audit log calls a change, as the commands of ``loramill users`` do."""
    actions = [f"user.set_role.{change.role}"] if change.role else []
    actions += ["user.set_password"] if change.password else []
    actions += [] if change.disabled is None else ["user.disable" if change.disabled else "user.enable"]
    return ", ".join(actions) or "user.change"
