"""Who is signed in, in the memory of the page's server: tokens never reach a browser.

A browser holds a random number in a cookie that its scripts cannot read; the tokens behind it stay here. When the
page's process ends, people sign in again; everything else is in the API.
"""

from __future__ import annotations

import functools
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from loramill.client import Client

LIFETIME_SECONDS = 7 * 24 * 3600
TICKET_SECONDS = 60.0
MAX_SIGN_INS = 10_000


@dataclass(eq=False)
class SignIn:
    """One person in one browser.

    Attributes:
        draft: dotted config key -> value: the form as it was left.
    """

    client: Client
    username: str
    user_id: str
    role: str
    language: str | None = None
    draft: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    until: float = field(default_factory=lambda: time.time() + LIFETIME_SECONDS)

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def is_valid(self) -> bool:
        return not self.ended and time.time() < self.until


class SignIns:
    """Sign-ins by the number in the browser's cookie, and tickets: numbers that can be exchanged for a cookie, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_cookie: dict[str, SignIn] = {}
        self._tickets: dict[str, tuple[float, SignIn]] = {}

    def issue_ticket(self, sign_in: SignIn) -> str:
        """For the browser that just signed in: good for a minute, and for one cookie."""
        ticket = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            self._tickets = {key: held for key, held in self._tickets.items() if held[0] > now}
            self._tickets[ticket] = (now + TICKET_SECONDS, sign_in)
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """The number for a new cookie, or ``None``: an unknown, used or old ticket."""
        with self._lock:
            until, sign_in = self._tickets.pop(ticket, (0.0, None))
            if sign_in is None or until < time.monotonic() or not sign_in.is_valid:
                return None
            self._forget_ended()
            cookie = secrets.token_urlsafe(32)
            self._by_cookie[cookie] = sign_in
            return cookie

    def find(self, cookie: str | None) -> SignIn | None:
        with self._lock:
            sign_in = self._by_cookie.get(cookie) if cookie else None
        return sign_in if sign_in is not None and sign_in.is_valid else None

    def forget(self, cookie: str | None) -> None:
        with self._lock:
            self._by_cookie.pop(cookie or "", None)

    def _forget_ended(self) -> None:
        self._by_cookie = {key: held for key, held in self._by_cookie.items() if held.is_valid}
        while len(self._by_cookie) >= MAX_SIGN_INS:
            del self._by_cookie[next(iter(self._by_cookie))]


@functools.cache
def sign_ins() -> SignIns:
    """Those of this process: the server's routes and the page's scripts have to share them."""
    return SignIns()
