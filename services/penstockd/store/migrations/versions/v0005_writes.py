"""Stored replies of calls that carry a request id."""

from alembic import op

from penstockd.store.script import run_script

revision = "0005"
down_revision = "0004"

# One row for each call with a request id that was done; it commits with what the call wrote. digest
# is of the request, sight of what the caller could see: a reply is given again as it is only to who
# sees the same. reply is NULL where a replay reads the record again in any case.
WRITES = """
CREATE TABLE hub.stored_reply (
    consumer_id text        COLLATE "C" NOT NULL,
    request_id  text        COLLATE "C" NOT NULL,
    method      text        NOT NULL,
    digest      bytea       NOT NULL,
    sight       bytea       NOT NULL,
    reply       bytea,
    row_count   bigint      NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_id, request_id)
);
CREATE INDEX stored_reply_time ON hub.stored_reply (create_time);
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), WRITES)
