"""Signing in, staying signed in, signing out: what the routes and the commands call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from loramill.auth.audit_log import DONE, Actor, AuditLog
from loramill.auth.keys import signing_secret
from loramill.auth.models import User
from loramill.auth.passwords import Passwords
from loramill.auth.permissions import CurrentUser, get_current_user
from loramill.auth.rate_limits import IN_PROCESS, RateLimits
from loramill.auth.refresh_tokens import Rotation, end_family, rotate, start_family
from loramill.auth.tokens import AccessTokens
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.errors import LoginFailedError, LoramillError, PermissionDeniedError, TokenInvalidError
from loramill.settings import Settings


@dataclass(frozen=True)
class SignedIn:
    """What a client gets. ``expires_in`` is the life of ``token`` in seconds."""

    token: str
    user_id: str
    role: str
    refresh_token: str
    expires_in: int


class Authentication:
    """Everything around being signed in. Opens its own transactions, and records each outcome in the audit log.

    No password is hashed while a transaction is open: it would keep every other writer waiting.
    """

    def __init__(
        self, database: Database, *, passwords: Passwords, tokens: AccessTokens, limits: RateLimits, audit: AuditLog
    ) -> None:
        self.database = database
        self.passwords = passwords
        self.tokens = tokens
        self.limits = limits
        self.audit = audit

    @classmethod
    def from_settings(cls, settings: Settings, database: Database, *, limits_url: str = IN_PROCESS) -> Authentication:
        """What the environment asks for.

        Raises:
            ConfigError: a weak secret in production, or a limit that cannot be understood.
        """
        return cls(
            database,
            passwords=Passwords(),
            tokens=AccessTokens(signing_secret(settings)),
            limits=RateLimits.from_settings(settings, limits_url),
            audit=AuditLog.from_settings(settings, database),
        )

    def sign_in(self, username: str, password: str, *, address: str) -> SignedIn:
        """Exchange name and password for tokens.

        Raises:
            LoginFailedError: no such user, wrong password or disabled; which of them is not told.
            RateLimitedError: too many attempts.
        """
        account = username.lower()
        with self.database.reading() as session:
            user = UserStore(session).find_by_name(account)
        try:
            self.limits.check_login(account, address)
            checked = self._check_password(user, password, address)
        except LoramillError as error:
            nobody = Actor(None, None, address)
            self.audit.record_refusal(nobody, "login", user.id if user else "unknown user", error)
            raise
        self.limits.login_succeeded(account, address)
        return self._open(checked, self.passwords.rehash(password, checked.password_hash), address)

    def refresh(self, refresh_token: str, *, address: str, received_at: datetime | None = None) -> SignedIn:
        """Exchange a refresh token for new tokens, once.

        Args:
            received_at: when the request arrived; tells a lost race from a token that is used again.

        Raises:
            TokenInvalidError: unknown, expired, revoked, or used before; the last ends the whole sign-in.
        """
        with self.database.transaction() as session:
            rotation = rotate(session, refresh_token, received_at=received_at or datetime.now(UTC))
            self.audit.record(session, _holder(rotation.user, address), "token.refresh", *_outcome(rotation))
        if rotation.user is None or rotation.token is None:
            error = TokenInvalidError("The refresh token is not valid, or no longer.", fix="Sign in again.")
            error.audited = True
            raise error
        return self._signed_in(rotation.user, rotation.token)

    def sign_out(self, refresh_token: str, *, address: str) -> None:
        """End the sign-in of a refresh token; nothing happens when there is none."""
        with self.database.transaction() as session:
            user = end_family(session, refresh_token)
            if user is not None:
                self.audit.record(session, _holder(user, address), "logout", user.id)

    def change_password(self, user: CurrentUser, password: str, new_password: str, *, address: str) -> None:
        """Give a user who is signed in another password; every sign-in with the old one ends.

        Raises:
            PermissionDeniedError: the present password is another one: a stolen token does not replace it.
            RateLimitedError: too many attempts.
            ConfigError: the new one may not be used.
        """
        with self.database.reading() as session:
            known = UserStore(session).get(user.id)
        self.limits.check_login(user.username, address)
        try:
            self._check_password(known, password, address)
        except LoginFailedError:
            raise PermissionDeniedError("The present password is another one.", fix="Ask an administrator.") from None
        new_hash = self.passwords.hash(new_password)
        with self.audit.transaction(user.actor(address), "user.set_password", user.id) as session:
            UserStore(session).set_password_hash(user.id, new_hash)
        self.limits.login_succeeded(user.username, address)

    def current_user(self, token: str | None) -> CurrentUser:
        """See ``get_current_user``."""
        with self.database.reading() as session:
            return get_current_user(session, self.tokens, token)

    def _check_password(self, user: User | None, password: str, address: str) -> User:
        right = self.passwords.matches(password, user.password_hash if user else None)
        if user is None or not right or user.disabled:
            self.limits.login_failed(address)
            raise _login_failed()
        return user

    def _open(self, checked: User, new_hash: str | None, address: str) -> SignedIn:
        with self.audit.transaction(_holder(checked, address), "login", checked.id) as session:
            user = UserStore(session).lock(checked.id)
            if user.disabled or user.password_hash != checked.password_hash:  # changed while the password was checked
                raise _login_failed()
            user.password_hash = new_hash or user.password_hash
            refresh_token = start_family(session, user)
        return self._signed_in(user, refresh_token)

    def _signed_in(self, user: User, refresh_token: str) -> SignedIn:
        return SignedIn(
            token=self.tokens.issue(user),
            user_id=user.id,
            role=user.role,
            refresh_token=refresh_token,
            expires_in=int(self.tokens.lifetime.total_seconds()),
        )


def _login_failed() -> LoginFailedError:
    return LoginFailedError("Wrong user name or password, or the account is disabled.")


def _holder(user: User | None, address: str) -> Actor:
    return Actor(user.id, user.role, address) if user else Actor(None, None, address)


def _outcome(rotation: Rotation) -> tuple[str, str]:
    """Target and result in the audit log."""
    target = rotation.user.id if rotation.user else "unknown token"
    return target, f"{TokenInvalidError.code}: {rotation.refusal}" if rotation.refusal else DONE
