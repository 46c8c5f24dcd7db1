"""Refresh tokens: each can be used once, for its successor. Using one again ends the whole sign-in.

A stolen token thus works at most until its owner, or the thief, is the second to use it
(RFC 9700, section 4.14.2). Functions work in the caller's session and never commit.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from loramill.auth.models import TokenFamily, User

REFRESH_LIFETIME = timedelta(days=30)
"""From sign-in; rotation does not extend it."""

PREFIX = "lmr"
"""Makes a token that leaked into a log or a commit easy to find."""

FAMILY_BYTES = 16


class Refusal(StrEnum):
    """Why a refresh token was not exchanged."""

    UNKNOWN = "unknown"
    ENDED = "ended"
    RACED = "raced"
    REUSED = "reused"


@dataclass(frozen=True)
class Rotation:
    """Outcome of an exchange: the user, and either the successor or the reason why there is none."""

    user: User | None
    token: str | None = None
    refusal: Refusal | None = None


def start_family(session: Session, user: User, *, lifetime: timedelta = REFRESH_LIFETIME) -> str:
    """Begin a sign-in and return its first refresh token; forgets the user's expired ones."""
    now = datetime.now(UTC)
    session.execute(delete(TokenFamily).where(TokenFamily.user_number == user.number, TokenFamily.expires_at < now))
    family_id = secrets.token_hex(FAMILY_BYTES)
    token = _new_token(family_id)
    session.add(
        TokenFamily(
            id=family_id,
            user_number=user.number,
            token_hash=_hash(token),
            created_at=now,
            rotated_at=now,
            expires_at=now + lifetime,
        )
    )
    session.flush()
    return token


def rotate(session: Session, token: str, *, received_at: datetime) -> Rotation:
    """Exchange a refresh token for its successor: one compare-and-swap, so that of many at once one wins.

    A token whose successor was handed out before this request came in is reuse, and revokes the family.
    One that only lost a race (its request was already here) is refused, and the winner's token stays good.

    Args:
        received_at: when the request arrived, before any waiting.
    """
    family = _find_family(session, token)
    if family is None:
        return Rotation(None, refusal=Refusal.UNKNOWN)
    user = session.get_one(User, family.user_number)
    now = datetime.now(UTC)
    if family.revoked_at is not None or family.expires_at <= now or user.disabled:
        return Rotation(user, refusal=Refusal.ENDED)
    successor = _new_token(family.id)
    if _swap(session, family.id, token, successor, now):
        return Rotation(user, token=successor)
    session.refresh(family)
    if family.revoked_at is None and family.rotated_at >= received_at:
        return Rotation(user, refusal=Refusal.RACED)
    revoke_family(session, family.id)
    return Rotation(user, refusal=Refusal.REUSED)


def end_family(session: Session, token: str) -> User | None:
    """Sign out: revoke the family of a refresh token, also of an old one. Returns whose it was."""
    family = _find_family(session, token)
    if family is None:
        return None
    revoke_family(session, family.id)
    return session.get_one(User, family.user_number)


def revoke_family(session: Session, family_id: str) -> None:
    session.execute(
        update(TokenFamily)
        .where(TokenFamily.id == family_id, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=datetime.now(UTC))
    )


def revoke_all(session: Session, user: User) -> None:
    """End every sign-in of a user, and make the access tokens handed out so far invalid."""
    session.execute(update(User).where(User.number == user.number).values(token_version=User.token_version + 1))
    session.execute(
        update(TokenFamily)
        .where(TokenFamily.user_number == user.number, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=datetime.now(UTC))
    )


def _swap(session: Session, family_id: str, token: str, successor: str, now: datetime) -> bool:
    swapped = session.scalar(
        update(TokenFamily)
        .where(TokenFamily.id == family_id, TokenFamily.token_hash == _hash(token), TokenFamily.revoked_at.is_(None))
        .values(token_hash=_hash(successor), rotated_at=now)
        .returning(TokenFamily.id)
        .execution_options(synchronize_session=False)
    )
    return swapped is not None


def _find_family(session: Session, token: str) -> TokenFamily | None:
    """The family that a token names. Its id is random and only ever inside its tokens: who knows it had one."""
    prefix, _, rest = token.partition("_")
    family_id = rest.partition("_")[0]
    if prefix != PREFIX or len(family_id) != 2 * FAMILY_BYTES or not family_id.isalnum():
        return None
    return session.get(TokenFamily, family_id)


def _new_token(family_id: str) -> str:
    return f"{PREFIX}_{family_id}_{secrets.token_urlsafe(32)}"


def _hash(token: str) -> str:
    """A plain hash is enough: unlike a password, 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
