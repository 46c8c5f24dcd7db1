"""What commands share that work on this machine's database, without signing in."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator

from loramill.auth.audit_log import Actor
from loramill.auth.models import Role
from loramill.database import Database
from loramill.settings import Settings


@contextlib.contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The database of the environment, brought up to date, closed at the end."""
    database = Database(settings.effective_database_url)
    try:
        database.upgrade()
        yield database
    finally:
        database.close()


def local_name() -> str:
    """The account on this machine that runs a command, as histories name it."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):  # containers run under numbers that have no name
        return f"local:{os.getuid()}"


def local_actor() -> Actor:
    """Whoever runs a command, for the audit log. Who may write the database may do all."""
    return Actor(local_name(), Role.ADMIN, "local")
