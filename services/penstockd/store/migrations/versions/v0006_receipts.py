"""Receipts of exports, from their start to their end."""

from alembic import op

from penstockd.store.script import run_script

revision = "0006"
down_revision = "0005"

# A receipt is written before the first byte of its export, as RUNNING, and once more at the end.
# request_digest: what the export was asked for and read with; only the same may go on with it.
# snapshot: the name of the state it reads, while there is somebody to hold it; session_pid and
# session_start: the database's session of that holder. When it is gone from pg_stat_activity, the
# worker is too, and a receipt that is still RUNNING will never be anything else.
RECEIPTS = """
DROP TABLE hub.receipt;
CREATE TABLE hub.receipt (
    receipt_id      text        PRIMARY KEY,
    request_id      text        NOT NULL,
    consumer_id     text        NOT NULL,
    dataset         text        NOT NULL,
    format          text        NOT NULL,
    request_digest  bytea       NOT NULL,
    policy_revision bigint      NOT NULL,
    cursor          text        NOT NULL,
    state           text        NOT NULL
                    CHECK (state IN ('RUNNING', 'COMPLETE', 'FAILED', 'CANCELLED')),
    reason          text        NOT NULL DEFAULT '',
    row_count       bigint      NOT NULL DEFAULT 0,
    byte_count      bigint      NOT NULL DEFAULT 0,
    sha256          bytea,
    start_time      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finish_time     timestamptz,
    resume_count    integer     NOT NULL DEFAULT 0,
    snapshot        text,
    session_pid     integer     NOT NULL,
    session_start   timestamptz NOT NULL
);
CREATE INDEX receipt_request ON hub.receipt (request_id);
CREATE INDEX receipt_snapshot ON hub.receipt (snapshot) WHERE snapshot IS NOT NULL;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), RECEIPTS)
