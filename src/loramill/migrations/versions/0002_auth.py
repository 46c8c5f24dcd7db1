"""Users, refresh-token families, and an audit log that the database itself keeps append-only.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)

SQLITE_GUARDS = (
    """CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
       BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END""",
    """CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
       BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END""",
    # INSERT OR REPLACE deletes the old row without firing the trigger above
    """CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log
       WHEN EXISTS (SELECT 1 FROM audit_log WHERE sequence = NEW.sequence)
       BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END""",
)
POSTGRESQL_GUARDS = (
    """CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'audit_log is append-only'; END $$""",
    """CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE ON audit_log
       FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()""",
    """CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
       FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()""",
)


def upgrade() -> None:
    _create_users()
    _create_token_family()
    _create_audit_log()


def downgrade() -> None:
    for table in ("audit_log", "token_family", "users"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_refuse()")


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        sa.Column("username", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("token_version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("max_concurrent_jobs", sa.Integer),
        sa.Column("max_daily_submits", sa.Integer),
        sa.Column("max_stored_experiments", sa.Integer),
        sa.Column("max_stored_bytes", Number),
        sa.CheckConstraint("role IN ('user', 'admin')", name="users_role"),
        sqlite_autoincrement=True,
    )


def _create_token_family() -> None:
    op.create_table(
        "token_family",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_number", Number, sa.ForeignKey("users.number", ondelete="CASCADE"), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("rotated_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("revoked_at", Time),
    )
    op.create_index("token_family_user", "token_family", ["user_number", "expires_at"])


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("sequence", Number, primary_key=True, autoincrement=False),
        sa.Column("time", Number, nullable=False),
        sa.Column("user_id", sa.String(64)),
        sa.Column("role", sa.String(16)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
    )
    op.create_index("audit_log_time", "audit_log", ["time"])
    op.create_index("audit_log_user", "audit_log", ["user_id", "sequence"])
    op.create_index("audit_log_role", "audit_log", ["role", "sequence"])
    guards = POSTGRESQL_GUARDS if op.get_bind().dialect.name == "postgresql" else SQLITE_GUARDS
    for statement in guards:
        op.execute(statement)
