"""Processes of before revision 0021 get no new connection: they would not see a failover."""

from alembic import op

from penstockd.store.script import run_script

revision = "0023"
down_revision = "0022"

# They ask hub.notice_epoch(bigint, bytea, timestamptz) about each new connection, without types in
# the call: with a single function of this name, the server takes its types. So this one has the
# name for itself, and its error is one that they report as an outage of the database. The function
# that compares ids has another name.
REFUSING = """
ALTER FUNCTION hub.notice_epoch(uuid[], bigint, bytea) RENAME TO notice_return;

CREATE FUNCTION hub.notice_epoch(known bigint, known_mark bytea, known_time timestamptz)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE cannot_connect_now USING
        MESSAGE = 'the database was migrated to a later version of the hub',
        HINT = 'Stop the nodes of the earlier version.';
END $$;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), REFUSING)
