"""Receipts count records beside rows, and cells that do not hold their values exactly."""

from alembic import op

from penstockd.store.script import run_script

revision = "0031"
down_revision = "0030"

COUNTS = """
ALTER TABLE hub.receipt ADD record_count bigint NOT NULL DEFAULT 0;
ALTER TABLE hub.receipt ADD lossy_cells jsonb NOT NULL DEFAULT '{}';
UPDATE hub.receipt SET record_count = row_count WHERE row_count > 0;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), COUNTS)
