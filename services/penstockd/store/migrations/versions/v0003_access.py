"""Policy history, and what administration of access needs."""

from alembic import op

from penstockd.store.script import run_script

revision = "0003"
down_revision = "0002"

ACCESS = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), ACCESS)
