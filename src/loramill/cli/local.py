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


def local_actor() -> Actor:
    """Whoever runs a command, for the audit log: the account on this machine. Who may write the database may do all."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers that have no name
        account = str(os.getuid())
    return Actor(f"local:{account}", Role.ADMIN, "local")
