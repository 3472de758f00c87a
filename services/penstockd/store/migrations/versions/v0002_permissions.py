"""What roles may do with the hub itself, and the claims of consumers."""

from alembic import op

from penstockd.store.script import run_script

revision = "0002"
down_revision = "0001"

# permissions: see penstockd.policy.model.Permission. claims: name -> text, used by row filters.
PERMISSIONS = """
ALTER TABLE hub.role ADD COLUMN permissions text[] NOT NULL DEFAULT '{}';
ALTER TABLE hub.consumer ADD COLUMN claims jsonb NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    """Add the columns."""
    run_script(op.get_bind(), PERMISSIONS)
