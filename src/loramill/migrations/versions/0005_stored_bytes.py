"""What experiments hold on disk, which their owners' quotas count.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("experiment", sa.Column("stored_bytes", number, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("experiment", "stored_bytes")
