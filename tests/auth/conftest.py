from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from loramill.auth.audit_chain import AnchorFile
from loramill.auth.audit_log import AuditLog
from loramill.auth.authentication import Authentication
from loramill.auth.models import Role, User
from loramill.auth.passwords import Passwords
from loramill.auth.rate_limits import RateLimits
from loramill.auth.tokens import AccessTokens
from loramill.auth.users import UserStore
from loramill.database import Database
from loramill.settings import Settings

SIGNING_KEY = "kR3xgq0pZ7w2VbNf9sLdYtH4mJc6uEa8"
PASSWORD = "correct horse battery"

AddUser = Callable[..., User]


@pytest.fixture
def passwords() -> Passwords:
    """Real argon2id, at the lowest cost that it knows."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def audit(database: Database, tmp_path: Path) -> AuditLog:
    return AuditLog(database, key="sealing key of the tests", anchor=AnchorFile(tmp_path / "audit.anchor"))


@pytest.fixture
def auth(database: Database, passwords: Passwords, audit: AuditLog) -> Authentication:
    return Authentication(
        database, passwords=passwords, tokens=AccessTokens(SIGNING_KEY), limits=RateLimits(), audit=audit
    )


@pytest.fixture
def add_user(database: Database, passwords: Passwords) -> AddUser:
    def add(username: str, password: str = PASSWORD, role: Role = Role.USER) -> User:
        with database.transaction() as session:
            return UserStore(session).create(username, password_hash=passwords.hash(password), role=role)

    return add


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings of an empty home, with nothing from the environment of the machine."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)

    def make(**known: object) -> Settings:
        return Settings(home=tmp_path, **known)  # type: ignore[arg-type]

    return make
