"""The first administrator: from the environment, once, on an empty user table. None is built in."""

from __future__ import annotations

from loramill.auth.audit_log import Actor
from loramill.auth.authentication import Authentication
from loramill.auth.models import Role
from loramill.auth.users import UserStore, check_username
from loramill.database import take_turns
from loramill.errors import ConfigError, Problem
from loramill.settings import Settings

FIRST_ADMIN_LOCK = 7_264_533

ENVIRONMENT = Actor("environment", None, "local")


def ensure_first_admin(settings: Settings, auth: Authentication) -> str | None:
    """Make the administrator that the environment names, unless there are users already. Returns the new id.

    Raises:
        ConfigError: only one of name and password is set, or one of them may not be used.
    """
    username, password = settings.admin_user, settings.admin_password
    if username is None and password is None:
        return None
    with auth.database.reading() as session:
        if UserStore(session).count():
            return None
    if username is None or password is None:
        missing = "LORAMILL_ADMIN_USER" if username is None else "LORAMILL_ADMIN_PASSWORD"
        raise ConfigError([Problem(missing, None, "is not set, and the other one is")], source="environment")
    check_username(username)
    password_hash = auth.passwords.hash(password.get_secret_value())
    with auth.database.transaction() as session:
        take_turns(session, FIRST_ADMIN_LOCK)
        store = UserStore(session)
        if store.count():  # another process was faster
            return None
        admin = store.create(username, password_hash=password_hash, role=Role.ADMIN)
        auth.audit.record(session, ENVIRONMENT, "user.create", admin.id)
        return admin.id
