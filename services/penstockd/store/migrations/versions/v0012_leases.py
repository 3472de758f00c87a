"""Leases of the keepers' work, and the settings that nodes must share."""

from alembic import op

from penstockd.store.script import run_script

revision = "0012"
down_revision = "0011"

# hub.singleton: who does what only one may do at a time. The term is part of the key: raising it
# waits for every transaction that has the row locked FOR KEY SHARE, which is each transaction of
# the holder, and such a lock waits for it; a renewal does neither.
# hub.node: nodes that live, with the settings that all must share; no secrets are in them.
LEASES = """
CREATE TABLE hub.singleton (
    name         text        NOT NULL UNIQUE,
    term         bigint      NOT NULL,
    node_id      text        NOT NULL,
    host         text        NOT NULL,
    acquire_time timestamptz NOT NULL,
    expire_time  timestamptz NOT NULL,
    PRIMARY KEY (name, term)
) WITH (fillfactor = 50);

CREATE TABLE hub.node (
    node_id     text        PRIMARY KEY,
    host        text        NOT NULL,
    settings    jsonb       NOT NULL,
    stands_by   boolean     NOT NULL DEFAULT false,
    start_time  timestamptz NOT NULL,
    expire_time timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The term under which the keeper claimed a delivery: a result of another term is not its own.
ALTER TABLE hub.webhook_delivery ADD COLUMN claim_term bigint;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), LEASES)
