"""The shapes in which subscriptions show records."""

from alembic import op

from penstockd.store.script import run_script

revision = "0028"
down_revision = "0027"

SHAPES = """
ALTER TABLE hub.subscription ADD shapes text[] NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), SHAPES)
