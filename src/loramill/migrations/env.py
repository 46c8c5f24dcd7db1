"""Alembic's entry point. The connection comes from ``Database.upgrade``, which holds the lock and the transaction.

Migrations are written by hand and never import the tables of today: they must keep meaning what they meant.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
