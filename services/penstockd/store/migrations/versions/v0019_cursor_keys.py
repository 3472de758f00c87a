"""Cursors are sealed under a succession of keys."""

from alembic import op

from penstockd.store.script import run_script

revision = "0019"
down_revision = "0018"

# Keys are derived from the root secret by their numbers. A key seals from seal_time on, and opens
# until the next one has sealed for as long as the log is kept. log_number is the log's last number
# when the key was made: unsealed cursors are valid up to that of the first key. Processes follow
# changes of these keys as they do those of signing keys.
CURSOR_KEYS = """
CREATE TABLE hub.cursor_key (
    number     integer     PRIMARY KEY CHECK (number > 0),
    seal_time  timestamptz NOT NULL,
    log_number bigint      NOT NULL
);
INSERT INTO hub.cursor_key (number, seal_time, log_number)
SELECT 1, now(), last_number FROM hub.log_head;
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.cursor_key
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), CURSOR_KEYS)
