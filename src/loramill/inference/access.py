"""Who may ask a service, and who may change what it serves."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loramill.auth.keys import load_or_create_key, signing_secret
from loramill.database import Database
from loramill.errors import AuthenticationError, PermissionDeniedError
from loramill.settings import Settings

TOKEN_LIFETIME = 5.0
"""Seconds that a token found good is not looked up again."""

KNOWN_TOKENS = 1000
KEY_FILE = "inference_key"
OPEN_PATHS = ("/health", "/v2/health", "/docs", "/openapi.json")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Request:
    """What decides about a request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def manages(self) -> bool:
        """Whether it changes what is served."""
        return self.path.startswith("/models") and self.method != "GET"

    @property
    def credential(self) -> str | None:
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key")


class Access:
    """Lets requests in.

    Args:
        api_key: opens everything; without one, nobody has to sign in.
        is_admin: reads an access token of the API: whether its user is an administrator; raises
            ``TokenInvalidError``. It may read the database, so it is called in a thread.
        local_only: the service listens on this machine alone. Requests that a web page of somebody else makes the
            browser send, directly or through a host name that it controls, are refused.
    """

    def __init__(
        self,
        api_key: str | None = None,
        is_admin: Callable[[str], bool] | None = None,
        *,
        local_only: bool = False,
    ) -> None:
        self._api_key = api_key
        self._is_admin = is_admin
        self._local_only = local_only
        self._known: dict[str, tuple[float, bool]] = {}

    async def check(self, request: Request) -> None:
        """
        Raises:
            AuthenticationError: no key and no token, or a wrong one.
            PermissionDeniedError: an administrator's request from somebody else, or another site's.
        """
        self._refuse_other_sites(request)
        if self._api_key is None or request.path.startswith(OPEN_PATHS):
            return
        credential = request.credential
        if not credential:
            raise AuthenticationError("This service asks for a key.", fix="Send: Authorization: Bearer <key or token>")
        if hmac.compare_digest(credential.encode(), self._api_key.encode()):
            return
        if self._is_admin is None:
            raise AuthenticationError("The key is wrong.", fix="See `loramill serve --help` for where it comes from.")
        if not await self._token_is_admin(credential) and request.manages:
            raise PermissionDeniedError("Only administrators may change what is served.", fix="Ask an administrator.")

    def _refuse_other_sites(self, request: Request) -> None:
        host = _host_name(request.headers.get("host", ""))
        if self._local_only and host not in LOOPBACK_NAMES:
            raise PermissionDeniedError(
                f"This service answers to {', '.join(LOOPBACK_NAMES)} only, not to {host[:100]!r}."
            )
        origin = request.headers.get("origin")
        if origin and _host_name(origin.partition("://")[2]) != host:
            raise PermissionDeniedError("This service answers no requests of other sites' pages.")

    async def _token_is_admin(self, token: str) -> bool:
        until, admin = self._known.get(token, (0.0, False))
        if until < time.monotonic():
            if self._is_admin is None:
                raise AssertionError("asked for a token's role without a way to read tokens")
            admin = await asyncio.to_thread(self._is_admin, token)
            if len(self._known) >= KNOWN_TOKENS:
                self._known.clear()
            self._known[token] = (time.monotonic() + TOKEN_LIFETIME, admin)
        return admin


def open_access(settings: Settings, host: str, *, wanted: bool | None = None) -> Access:
    """The rule for a service that listens on ``host``.

    Args:
        wanted: whether callers sign in; by default they do where others can reach the service, and wherever
            ``LORAMILL_INFERENCE_KEY`` is set.
    """
    local = is_loopback(host)
    needed = wanted if wanted is not None else not local or settings.inference_key is not None
    if not needed:
        return Access(local_only=local)
    return Access(inference_key(settings), _token_reader(settings), local_only=local)


def inference_key(settings: Settings) -> str:
    """``LORAMILL_INFERENCE_KEY``, or a random one that this home folder keeps for itself."""
    if settings.inference_key:
        return settings.inference_key.get_secret_value()
    return load_or_create_key(settings.secrets_folder / KEY_FILE)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token_reader(settings: Settings) -> Callable[[str], bool]:
    from loramill.auth.permissions import get_current_user
    from loramill.auth.tokens import AccessTokens

    tokens = AccessTokens(signing_secret(settings))
    database = Database(settings.effective_database_url)

    def is_admin(token: str) -> bool:
        with database.reading() as session:
            return get_current_user(session, tokens, token).is_admin

    return is_admin


def _host_name(authority: str) -> str:
    """The host of ``host:port`` or ``[::1]:port``, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()
