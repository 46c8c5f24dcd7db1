"""The keys that sign tokens and seal the audit log, and the rule for which ones are good enough."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from loramill.errors import ConfigError, Problem
from loramill.files import named_storage_errors
from loramill.settings import Settings

MIN_SECRET_BYTES = 32
"""HS256 needs a key at least as long as its output (RFC 7518, section 3.2)."""

MIN_DISTINCT_CHARACTERS = 10
"""Fewer means typed by hand: 64 random hexadecimal digits practically never have fewer."""

EXAMPLE_WORDS = ("changeme", "example", "placeholder", "insecure", "default", "secret", "password")
"""Found in the secrets of tutorials and templates, once everything but letters and digits is left out."""

PUBLISHED_SECRETS = (
    "a-string-secret-at-least-256-bits-long",  # jwt.io
    "your-256-bit-secret",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # the FastAPI tutorial
)


def require_strong_secret(settings: Settings) -> None:
    """Refuse to start in production with a ``JWT_SECRET`` that is missing, short, or known to everybody.

    Raises:
        ConfigError: says what is wrong with it, and never the secret.
    """
    if settings.environment != "production":
        return
    weakness = secret_weakness(settings.jwt_secret.get_secret_value() if settings.jwt_secret else "")
    if weakness:
        raise ConfigError(
            [Problem("JWT_SECRET", None, weakness)],
            source="environment",
            fix="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
        )


def secret_weakness(secret: str) -> str | None:
    """Why a signing secret must not be used; ``None`` when it is good."""
    letters = "".join(character for character in secret.lower() if character.isalnum())
    if not secret:
        return "is not set"
    if len(secret.encode()) < MIN_SECRET_BYTES:
        return f"is shorter than {MIN_SECRET_BYTES} bytes"
    if secret in PUBLISHED_SECRETS or any(word in letters for word in EXAMPLE_WORDS):
        return "is an example from a tutorial or a template"
    if len(set(secret)) < MIN_DISTINCT_CHARACTERS:
        return f"has fewer than {MIN_DISTINCT_CHARACTERS} distinct characters"
    return None


def signing_secret(settings: Settings) -> str:
    """``JWT_SECRET``, or a random one that this home folder keeps for itself.

    Raises:
        ConfigError: see ``require_strong_secret``.
    """
    require_strong_secret(settings)
    if settings.jwt_secret:
        return settings.jwt_secret.get_secret_value()
    return load_or_create_key(settings.secrets_folder / "jwt_secret")


def audit_key(settings: Settings) -> str:
    """``LORAMILL_AUDIT_KEY``, or a random one that this home folder keeps for itself."""
    if settings.audit_key:
        return settings.audit_key.get_secret_value()
    return load_or_create_key(settings.secrets_folder / "audit_key")


def load_or_create_key(path: Path) -> str:
    """Read a key, or make one (256 random bits) that only the owner of the file can read.

    Processes that start at the same time get the same key: the file appears whole, and only once.

    Raises:
        UnwritableError, DiskFullError, StorageError: it could not be written.
    """
    with named_storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(32))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(staged, path)  # unlike a rename, never replaces the key that another process made
            finally:
                staged.unlink()
        return path.read_text(encoding="ascii").strip()
