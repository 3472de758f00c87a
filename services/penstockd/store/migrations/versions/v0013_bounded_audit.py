"""Audit entries that are bounded, and indexed by hashes."""

from alembic import op

from penstockd.store.script import run_script

revision = "0013"
down_revision = "0012"

# A key that a caller names is of any length; what an index holds is not. The two other texts in an
# index, low_key and high_key, are left out where they are longer than a key may be.
BOUNDED_AUDIT = """
DROP INDEX hub.audit_entry_record;
CREATE INDEX audit_entry_record ON hub.audit_entry (hashtextextended(record_key, 0))
    WHERE record_key IS NOT NULL;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), BOUNDED_AUDIT)
