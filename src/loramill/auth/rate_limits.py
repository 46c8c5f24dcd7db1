"""Rate limits: sign-ins for each account and address, submits for each user, requests for each caller.

Counted in this process, or in Redis when several processes serve one deployment. When Redis is away the
limits go on in this process: neither is everybody locked out, nor may anybody guess without end.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import TypeVar

from limits import RateLimitItem, parse
from limits.errors import StorageError as CountersUnreachableError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from loramill.errors import ConfigError, Problem, RateLimitedError
from loramill.settings import Settings

IN_PROCESS = "memory://"

LOGIN_LIMIT = "10/15minute"
"""Sign-ins for one account from one address: another address, such as the owner's, has its own count."""

WRONG_PASSWORD_LIMIT = "100/15minute"  # noqa: S105
"""Wrong passwords from one address, for all accounts together."""

REPORTED = parse("1/minute")
"""A flood leaves one refusal a minute in the audit log for each limit and key, so that it cannot fill the disk."""

SERVER_TIMEOUTS = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
"""Seconds."""

Answer = TypeVar("Answer")


class RateLimits:
    """Says ``RateLimitedError`` to whoever is too quick. Windows move: the oldest request counts until it is too old.

    Args:
        storage_url: ``memory://``, or what the ``limits`` package takes: ``redis://host``, ``redis+unix:///socket``.
        login, wrong_password, submit, request: limits such as ``10/15minute``.
    """

    def __init__(
        self,
        storage_url: str = IN_PROCESS,
        *,
        login: str = LOGIN_LIMIT,
        wrong_password: str = WRONG_PASSWORD_LIMIT,
        submit: str = "60/minute",
        request: str = "6000/minute",
    ) -> None:
        self._local = _counters(IN_PROCESS)
        self._shared = self._local if storage_url == IN_PROCESS else _counters(storage_url)
        self._login = parse(login)
        self._wrong_password = parse(wrong_password)
        self._submit = parse(submit)
        self._request = parse(request)

    @classmethod
    def from_settings(cls, settings: Settings, storage_url: str = IN_PROCESS) -> RateLimits:
        """The limits that the environment asks for.

        Raises:
            ConfigError: a limit cannot be understood; all of them are named.
        """
        wanted = {"LORAMILL_SUBMIT_LIMIT": settings.submit_limit, "LORAMILL_REQUEST_LIMIT": settings.request_limit}
        problems = [
            Problem(name, value, "is no limit such as 60/minute")
            for name, value in wanted.items()
            if not _parses(value)
        ]
        if problems:
            raise ConfigError(problems, source="environment")
        return cls(storage_url, submit=settings.submit_limit, request=settings.request_limit)

    def check_login(self, account: str, address: str) -> None:
        """Count a sign-in before its password is looked at: what passes here costs one hash.

        Raises:
            RateLimitedError: too many for this account from this address, or too many wrong ones from the address.
        """
        if not self._ask(lambda counters: counters.test(self._wrong_password, *_key("wrong password", address))):
            raise self._refusal(self._wrong_password, *_key("wrong password", address))
        self._count(self._login, "login", account, address)

    def login_failed(self, address: str) -> None:
        """Remember a wrong password from an address."""
        self._ask(lambda counters: counters.hit(self._wrong_password, *_key("wrong password", address)))

    def login_succeeded(self, account: str, address: str) -> None:
        """Forget what was counted for the account: who knows the password does not guess it."""
        self._ask(lambda counters: counters.clear(self._login, *_key("login", account, address)))

    def check_submit(self, user_id: str) -> None:
        """Count a submit of a user; raises ``RateLimitedError`` when it is one too many."""
        self._count(self._submit, "submit", user_id)

    def check_request(self, caller: str) -> None:
        """Count a request of a user or an address; raises ``RateLimitedError`` when it is one too many."""
        self._count(self._request, "request", caller)

    def _count(self, limit: RateLimitItem, *what: str) -> None:
        key = _key(*what)
        if not self._ask(lambda counters: counters.hit(limit, *key)):
            raise self._refusal(limit, *key)

    def _refusal(self, limit: RateLimitItem, *key: str) -> RateLimitedError:
        reset = self._ask(lambda counters: counters.get_window_stats(limit, *key).reset_time)
        error = RateLimitedError(
            f"Too many requests: at most {limit}.", retry_after=max(1, math.ceil(reset - time.time()))
        )
        error.audited = not self._ask(lambda counters: counters.hit(REPORTED, "reported", *key))
        return error

    def _ask(self, question: Callable[[MovingWindowRateLimiter], Answer]) -> Answer:
        try:
            return question(self._shared)
        except CountersUnreachableError:
            return question(self._local)


def _counters(storage_url: str) -> MovingWindowRateLimiter:
    timeouts = {} if storage_url == IN_PROCESS else SERVER_TIMEOUTS
    return MovingWindowRateLimiter(storage_from_string(storage_url, wrap_exceptions=True, **timeouts))


def _key(*parts: str) -> tuple[str, str]:
    """Kind and a hash of the rest: bounded in length, and two names joined cannot pose as another two."""
    kind, *rest = parts
    joined = "".join(f"{len(part)}:{part}" for part in rest).encode(errors="surrogatepass")
    return kind, hashlib.blake2b(joined, digest_size=16).hexdigest()


def _parses(limit: str) -> bool:
    try:
        parse(limit)
    except ValueError:
        return False
    return True
