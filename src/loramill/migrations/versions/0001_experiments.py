"""Experiments: the run record with its queue state, metrics, tags, data links and model registry.

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_experiment()
    _create_config()
    _create_metric()
    _create_tag()
    _create_data_link()
    _create_registry()


def downgrade() -> None:
    for table in ("model_alias", "registry_event", "data_link", "tag", "metric", "experiment_config", "experiment"):
        op.drop_table(table)


def _create_experiment() -> None:
    op.create_table(
        "experiment",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(255), nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("folded_name", sa.String(255), nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("model_name", sa.String(255), nullable=False),
        sa.Column("dataset_name", sa.String(255), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("language", sa.String(32)),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("started_at", Time),
        sa.Column("finished_at", Time),
        sa.Column("train_runtime", sa.Float(53)),
        sa.Column("eval_accuracy", sa.Float(53)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("sweep_id", sa.String(255)),
        sa.Column("parent_id", sa.String(255)),
        sa.Column("parent_relation", sa.String(16)),
        sa.Column("stage", sa.String(16)),
        sa.Column("task_id", sa.String(255), unique=True),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.String(255)),
        sa.Column("lease_until", Time),
        sa.Column("not_before", Time),
        sa.Column("setbacks", sa.Integer, nullable=False, server_default="0"),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("resume", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("progress", sa.JSON),
    )
    for column in ("created_at", "folded_name", "train_runtime", "eval_accuracy"):
        op.create_index(f"experiment_{column}", "experiment", [column, "number", "archived"])
    for column in ("status", "owner", "model_name", "dataset_name", "sweep_id"):
        op.create_index(f"experiment_{column}", "experiment", [column, "created_at", "number", "archived"])
    op.create_index("experiment_idempotency", "experiment", ["owner", "idempotency_key"], unique=True)


def _create_config() -> None:
    op.create_table("experiment_config", _experiment_key(), sa.Column("value", sa.JSON, nullable=False))


def _create_metric() -> None:
    op.create_table(
        "metric",
        _experiment_key(),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("value", sa.Float(53), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("metric_name_value", "metric", ["name", "value", "experiment_number"])


def _create_tag() -> None:
    op.create_table(
        "tag", _experiment_key(), sa.Column("name", sa.String(255), primary_key=True), sqlite_with_rowid=False
    )
    op.create_index("tag_name", "tag", ["name", "experiment_number"])


def _create_data_link() -> None:
    op.create_table(
        "data_link",
        _experiment_key(),
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("version_id", sa.String(128), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("data_link_version", "data_link", ["version_id", "experiment_number"])


def _create_registry() -> None:
    op.create_table(
        "registry_event",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        _experiment_key(primary_key=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("old_value", sa.String(255)),
        sa.Column("new_value", sa.String(255)),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("registry_event_experiment", "registry_event", ["experiment_number", "number"])
    op.create_table(
        "model_alias",
        sa.Column("name", sa.String(64), primary_key=True),
        _experiment_key(primary_key=False),
    )
    op.create_index("ix_model_alias_experiment_number", "model_alias", ["experiment_number"])


def _experiment_key(*, primary_key: bool = True) -> sa.Column[int]:
    return sa.Column(
        "experiment_number",
        Number,
        sa.ForeignKey("experiment.number", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )
