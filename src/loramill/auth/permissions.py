"""Who is asking, and whether they may."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from loramill.auth.audit_log import Actor
from loramill.auth.models import Role
from loramill.auth.tokens import AccessTokens
from loramill.auth.users import UserStore
from loramill.errors import AuthenticationError, PermissionDeniedError, TokenInvalidError


@dataclass(frozen=True)
class CurrentUser:
    """A user whose access token was found good."""

    id: str
    username: str
    role: Role

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    def actor(self, address: str) -> Actor:
        """Who this is in the audit log."""
        return Actor(self.id, self.role, address)


def get_current_user(session: Session, tokens: AccessTokens, token: str | None) -> CurrentUser:
    """The user behind an access token, as the database knows them now.

    The token alone does not decide: a user who was disabled, or given another role or password after it was
    issued, holds a token of an older version.

    Raises:
        AuthenticationError: no token.
        TokenInvalidError: not a good one, or no longer.
    """
    if not token:
        raise AuthenticationError("Nobody is signed in.", fix="Sign in, and send: Authorization: Bearer <token>")
    claims = tokens.read(token)
    user = UserStore(session).find(claims.user_id)
    if user is None or user.disabled or user.token_version != claims.version:
        raise TokenInvalidError("The access token is not valid any more.", fix="Sign in again.")
    return CurrentUser(user.id, user.username, Role(user.role))


def check_admin(user: CurrentUser) -> None:
    """Raises ``PermissionDeniedError`` unless the user is an administrator."""
    if not user.is_admin:
        raise PermissionDeniedError("Only administrators may do this.", fix="Ask an administrator.")


def check_task_owner(user: CurrentUser, owner: str | None) -> None:
    """Refuse what belongs to somebody else.

    Args:
        owner: the owner column of the row. Never a part of its id: that begins with the owner's id for people to
            read, and ``u10_...`` begins with ``u1`` too. ``None`` was made on the machine itself: administrators only.

    Raises:
        PermissionDeniedError: neither the owner nor an administrator.
    """
    if user.is_admin:
        return
    if owner is None or owner != user.id:
        raise PermissionDeniedError("This belongs to somebody else.", fix="Ask its owner or an administrator.")
