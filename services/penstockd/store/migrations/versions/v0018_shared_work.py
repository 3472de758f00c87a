"""Nodes say which of the shared tasks they take, so that each has its share."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """A node of an earlier version says nothing of it, and is handed nothing."""
    op.execute("ALTER TABLE hub.node ADD COLUMN takes text[] NOT NULL DEFAULT '{}'")
