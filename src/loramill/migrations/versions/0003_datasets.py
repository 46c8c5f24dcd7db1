"""Data sets that people uploaded.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", Time, nullable=False),
    )
    op.create_index("dataset_owner", "dataset", ["owner", "number"])
    op.create_table(
        "dataset_version",
        _dataset_number(),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("bytes", Number, nullable=False),
        sa.Column("rows", Number, nullable=False),
        sa.Column("summary", sa.JSON, nullable=False),
    )
    op.create_table(
        "dataset_split",
        _dataset_number(),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("split", sa.String(64), primary_key=True),
        sa.Column("stored_id", sa.String(64), nullable=False),
        sa.Column("rows", Number, nullable=False),
    )
    op.create_index("dataset_split_stored", "dataset_split", ["stored_id", "dataset_number"])


def downgrade() -> None:
    for table in ("dataset_split", "dataset_version", "dataset"):
        op.drop_table(table)


def _dataset_number() -> sa.Column[int]:
    return sa.Column(
        "dataset_number",
        Number,
        sa.ForeignKey("dataset.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
