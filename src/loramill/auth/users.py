"""The people who may sign in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from loramill.auth.models import Role, User
from loramill.auth.quotas import Quota, quota_of
from loramill.auth.refresh_tokens import revoke_all
from loramill.errors import ConfigError, ConflictError, NotFoundError, Problem

USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
USER_ID = re.compile(r"u([1-9]\d{0,17})", re.ASCII)
RESERVED_NAMES = frozenset({"me", "local", "system", "unknown", "anonymous", "loramill"})


@dataclass(frozen=True)
class UserInfo:
    """What may be shown of a user: everything but the password's hash."""

    user_id: str
    username: str
    role: str
    disabled: bool
    created_at: datetime
    max_concurrent_jobs: int | None
    max_daily_submits: int | None
    max_stored_experiments: int | None
    max_stored_bytes: int | None

    @classmethod
    def of(cls, user: User) -> UserInfo:
        shown = {field.name: getattr(user, field.name) for field in fields(cls) if field.name != "user_id"}
        return cls(user_id=user.id, **shown)

    def as_dict(self) -> dict[str, object]:
        return {**vars(self), "created_at": self.created_at.isoformat()}


LOCK_QUOTA = (
    select(*(getattr(User, limit.name) for limit in fields(Quota)))
    .where(User.number == bindparam("user"))
    .with_for_update()
)


class UserStore:
    """The users in one database session; never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, username: str, *, password_hash: str, role: Role = Role.USER) -> User:
        """Add a user. Names are kept in lower case, so that ``Ada`` and ``ada`` are one person.

        Raises:
            ConfigError: the name may not be used.
            ConflictError: it is taken.
        """
        check_username(username)
        if self.find_by_name(username) is not None:
            raise ConflictError(f"There is a user {username.lower()!r} already.")
        user = User(
            username=username.lower(),
            role=role,
            password_hash=password_hash,
            disabled=False,
            created_at=datetime.now(UTC),
        )
        self._session.add(user)
        self._session.flush()
        return user

    def count(self) -> int:
        return self._session.scalar(select(func.count()).select_from(User)) or 0

    def everybody(self) -> list[User]:
        """All users, oldest first, disabled ones too."""
        return [*self._session.scalars(select(User).order_by(User.number))]

    def find(self, user_id: str) -> User | None:
        number = _number(user_id)
        return None if number is None else self._session.get(User, number)

    def find_by_name(self, username: str) -> User | None:
        if not USERNAME.fullmatch(username.lower()):
            return None
        return self._session.scalar(select(User).where(User.username == username.lower()))

    def get(self, reference: str) -> User:
        """A user by id (``u1``) or name; the two never look alike. Raises ``NotFoundError``."""
        user = self.find(reference) or self.find_by_name(reference)
        if user is None:
            raise NotFoundError("There is no such user.", fix="List them with: loramill users list")
        return user

    def lock(self, user_id: str) -> User:
        """A user whose row nobody else changes or locks until the transaction ends. Raises ``NotFoundError``."""
        number = _number(user_id) or self.get(user_id).number
        user = self._session.get(User, number, with_for_update=True, populate_existing=True)
        return user or self.get(user_id)  # which says that there is none

    def lock_quota(self, user_id: str) -> Quota:
        """What a user may use, as ``lock`` reads it: nobody else locks it until the transaction ends.

        Raises:
            NotFoundError: there is no such user.
        """
        number = _number(user_id) or self.get(user_id).number
        limits = self._session.connection().execute(LOCK_QUOTA, {"user": number}).first()
        return quota_of(self.get(user_id) if limits is None else limits)

    def set_password_hash(self, reference: str, password_hash: str) -> User:
        """Change a password; every sign-in with the old one ends."""
        user = self.lock(reference)
        user.password_hash = password_hash
        revoke_all(self._session, user)
        return user

    def set_disabled(self, reference: str, disabled: bool) -> User:
        """Lock a user out at once, or let them in again.

        Raises:
            ConflictError: it is the last administrator.
        """
        if disabled:
            self._check_other_admin(reference)
        user = self.lock(reference)
        user.disabled = disabled
        if disabled:
            revoke_all(self._session, user)
        return user

    def set_role(self, reference: str, role: Role) -> User:
        """Make somebody an administrator, or no longer; they sign in again to notice.

        Raises:
            ConflictError: it is the last administrator.
        """
        if role != Role.ADMIN:
            self._check_other_admin(reference)
        user = self.lock(reference)
        user.role = role
        revoke_all(self._session, user)
        return user

    def set_quota(self, reference: str, limits: Mapping[str, int | None]) -> User:
        """Set some of the user's limits; ``None`` goes back to the default.

        Raises:
            ConfigError: a limit is unknown or negative; all of them are named.
        """
        known = [field.name for field in fields(Quota)]
        problems = [
            Problem(name, value, "is no limit of a user") for name, value in limits.items() if name not in known
        ]
        problems += [Problem(name, value, "must not be negative") for name, value in limits.items() if (value or 0) < 0]
        if problems:
            raise ConfigError(problems, source="quota")
        user = self.lock(reference)
        for name, value in limits.items():
            setattr(user, name, value)
        return user

    def _check_other_admin(self, reference: str) -> None:
        """Locks all administrators, so that two who demote each other at the same moment do not both succeed."""
        user = self.get(reference)
        admins = select(User.number).where(User.role == Role.ADMIN, ~User.disabled).order_by(User.number)
        if [*self._session.scalars(admins.with_for_update())] == [user.number]:
            raise ConflictError(f"{user.username!r} is the last administrator.", fix="Make somebody else one first.")


def check_username(username: str) -> None:
    """Raises ``ConfigError`` when a name may not be used."""
    name = username.lower()
    problem = None
    if not USERNAME.fullmatch(name):
        problem = "must be 1 to 64 of the letters a-z, digits and . _ @ -, with a letter or digit first"
    elif USER_ID.fullmatch(name):
        problem = "looks like a user id"
    elif name in RESERVED_NAMES:
        problem = "is reserved"
    if problem:
        raise ConfigError([Problem("username", username[:64], problem)], source="user")


def _number(user_id: str) -> int | None:
    match = USER_ID.fullmatch(user_id)
    return int(match.group(1)) if match else None
