"""Access tokens: JWT signed with HS256, valid for 30 minutes, never stored."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from loramill.auth.models import Role, User
from loramill.errors import TokenInvalidError

ALGORITHM = "HS256"
ISSUER = "loramill"
ACCESS = "access"
ACCESS_LIFETIME = timedelta(minutes=30)
CLOCK_LEEWAY = timedelta(seconds=5)
"""Machines of one deployment may differ by this much."""

CLAIMS = ("sub", "role", "ver", "iat", "exp", "jti", "iss", "type")
WELL_FORMED = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
MAX_TOKEN_CHARACTERS = 1024


@dataclass(frozen=True)
class Claims:
    """What an access token says. The database has the last word on role and version: see ``get_current_user``."""

    user_id: str
    role: Role
    version: int
    token_id: str


class AccessTokens:
    """Issues and reads access tokens.

    Args:
        secret: HS256 key of at least 32 bytes.
        lifetime: from issue to expiry.
    """

    def __init__(self, secret: str, *, lifetime: timedelta = ACCESS_LIFETIME) -> None:
        self._secret = secret
        self.lifetime = lifetime

    def issue(self, user: User) -> str:
        now = datetime.now(UTC)
        claims = {
            "sub": user.id,
            "role": user.role,
            "ver": user.token_version,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_urlsafe(16),
            "iss": ISSUER,
            "type": ACCESS,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def read(self, token: str) -> Claims:
        """What a token says, once its signature, times, issuer and type are found right.

        Raises:
            TokenInvalidError: one error for everything that can be wrong, so that a forger learns nothing from it.
        """
        try:
            return self._read(token)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise TokenInvalidError(
                "The access token is not valid, or no longer.", fix="Refresh it, or sign in again."
            ) from error

    def _read(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_CHARACTERS or not WELL_FORMED.fullmatch(token):
            raise ValueError("not a token")
        claims = jwt.decode(
            token,
            self._secret,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            leeway=CLOCK_LEEWAY,
            options={"require": list(CLAIMS)},
        )
        if claims["type"] != ACCESS or type(claims["ver"]) is not int:
            raise ValueError("not an access token")
        return Claims(claims["sub"], Role(claims["role"]), claims["ver"], claims["jti"])
