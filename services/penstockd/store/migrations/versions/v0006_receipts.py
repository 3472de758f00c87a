"""Receipts of exports, from their start to their end."""

from alembic import op

from penstockd.store.script import run_script

revision = "0006"
down_revision = "0005"

RECEIPTS = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), RECEIPTS)
