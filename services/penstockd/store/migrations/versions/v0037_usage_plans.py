"""Usage is also counted by plan, from the entries on that are written after this."""

from alembic import op

from penstockd.store.script import run_script

revision = "0037"
down_revision = "0036"

# Entries up to ``after_entry`` were counted without a plan, and their usage may be signed: they
# belong to the same series for ever.
PLANS = """
CREATE TABLE hub.usage_plans (after_entry bigint NOT NULL);
CREATE UNIQUE INDEX usage_plans_one ON hub.usage_plans ((true));
INSERT INTO hub.usage_plans SELECT coalesce(max(entry_id), 0) FROM hub.audit_entry;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), PLANS)
