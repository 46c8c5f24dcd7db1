"""Tables of who may sign in, what keeps them signed in, and what was done."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from loramill.database import Base, Number, UtcDateTime


class Role(StrEnum):
    """What a user may do: ``admin`` everything, ``user`` what is their own."""

    USER = "user"
    ADMIN = "admin"


class User(Base):
    """A person who may sign in. Users are disabled, never deleted, so that an id always means the same person.

    A quota that is null means the default (``quotas.DEFAULT_QUOTA``).
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'admin')", name="users_role"),
        {"sqlite_autoincrement": True},  # a number is never given out twice
    )

    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    username: Mapped[str] = mapped_column(String(64), unique=True, doc="In lower case.")
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(Text, doc="argon2id with its parameters and salt.")
    disabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    token_version: Mapped[int] = mapped_column(
        default=1, server_default="1", doc="Counted up to make every access token handed out before invalid."
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    max_concurrent_jobs: Mapped[int | None]
    max_daily_submits: Mapped[int | None]
    max_stored_experiments: Mapped[int | None]
    max_stored_bytes: Mapped[int | None] = mapped_column(Number)

    @property
    def id(self) -> str:
        """The readable id, such as ``u1``: what owner columns, tokens and the audit log hold."""
        return f"u{self.number}"


class TokenFamily(Base):
    """One sign-in: the chain of refresh tokens that replace each other. Only the newest token's hash is kept."""

    __tablename__ = "token_family"
    __table_args__ = (Index("token_family_user", "user_number", "expires_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_number: Mapped[int] = mapped_column(Number, ForeignKey("users.number", ondelete="CASCADE"))
    token_hash: Mapped[str] = mapped_column(String(64), doc="SHA-256 of the newest token, in hex.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    rotated_at: Mapped[datetime] = mapped_column(UtcDateTime, doc="When the newest token was handed out.")
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """One thing that was done or refused. The database refuses to change or delete a row (migration 0002)."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("audit_log_time", "time"),
        Index("audit_log_user", "user_id", "sequence"),
        Index("audit_log_role", "role", "sequence"),
    )

    sequence: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False, doc="1, 2, 3 ... no gaps.")
    time: Mapped[int] = mapped_column(Number, doc="Unix microseconds: an integer is sealed the same on every database.")
    user_id: Mapped[str | None] = mapped_column(String(64), doc="Null when nobody was signed in.")
    role: Mapped[str | None] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(64), doc="noun.verb, such as user.disable.")
    target: Mapped[str] = mapped_column(String(255))
    result: Mapped[str] = mapped_column(String(64), doc="ok, or the code of the error that refused it.")
    address: Mapped[str] = mapped_column(String(64), doc="Network address of the caller; local for this machine.")
    previous: Mapped[str] = mapped_column(String(64), doc="Seal of the row before.")
    seal: Mapped[str] = mapped_column(String(64), doc="HMAC-SHA256 of all the other columns, in hex.")
