"""Passwords: argon2id, with a bound on length, on the time that a guess takes, and on guesses at one time."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import threading
import unicodedata
from collections.abc import Iterator

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from loramill.errors import ConfigError, Problem, RateLimitedError

MIN_CHARACTERS = 12
MAX_BYTES = 1024
"""A longer one is refused before any work is done on it."""

HASH_WAIT_SECONDS = 5.0


class Passwords:
    """Hashes and checks passwords.

    Args:
        hasher: argon2id's cost; the default is argon2-cffi's (RFC 9106, low memory: 64 MiB, 3 passes, 4 lanes).
        concurrent: hashes computed at one time. One needs the hasher's memory, so that a flood of sign-ins
            would otherwise take 64 MiB for every thread of the server.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, concurrent: int | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._slots = threading.BoundedSemaphore(concurrent or os.cpu_count() or 1)

    def hash(self, password: str) -> str:
        """The argon2id string to store for a new password.

        Raises:
            ConfigError: too short or too long.
            RateLimitedError: too many hashes at one time.
        """
        problem = password_problem(password)
        if problem:
            raise ConfigError([problem], source="password")
        with self._slot():
            return self._hasher.hash(_normalized(password))

    def matches(self, password: str, stored: str | None) -> bool:
        """Whether the password belongs to the stored hash.

        ``None`` (there is no such user) costs as much as a wrong password, so that the time does not tell
        which names exist.

        Raises:
            RateLimitedError: too many hashes at one time.
        """
        if _too_long(password):
            return False
        nobody = self._nobody  # made at the first check of any user, so that its cost tells nothing either
        with self._slot():
            try:
                self._hasher.verify(nobody if stored is None else stored, _normalized(password))
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def rehash(self, password: str, stored: str) -> str | None:
        """A new hash of a password that was found right, when the stored one has other parameters than today's."""
        if not self._hasher.check_needs_rehash(stored):
            return None
        with self._slot():
            return self._hasher.hash(_normalized(password))

    @functools.cached_property
    def _nobody(self) -> str:
        """A hash that no password fits, as expensive as all others."""
        return self._hasher.hash(secrets.token_urlsafe(16))

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=HASH_WAIT_SECONDS):
            raise RateLimitedError("Too many people are signing in at this moment.", retry_after=int(HASH_WAIT_SECONDS))
        try:
            yield
        finally:
            self._slots.release()


def password_problem(password: str) -> Problem | None:
    """Why a new password is refused. Length only, as NIST SP 800-63B advises: no rules about kinds of characters."""
    if _too_long(password):
        return Problem("password", None, f"must be text of at most {MAX_BYTES} bytes")
    if len(_normalized(password)) < MIN_CHARACTERS:
        return Problem("password", None, f"must have at least {MIN_CHARACTERS} characters")
    return None


def _too_long(password: str) -> bool:
    """Also true for what is no text at all: lone surrogates, which JSON can carry and UTF-8 cannot."""
    try:
        return len(password) > MAX_BYTES or len(password.encode()) > MAX_BYTES
    except UnicodeEncodeError:
        return True


def _normalized(password: str) -> str:
    """One form for characters that keyboards enter in several ways (NIST SP 800-63B, section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
