"""Feeds whose place the hub keeps, and the stretches that their workers hold."""

from alembic import op

from penstockd.store.script import run_script

revision = "0009"
down_revision = "0008"

# Up to position the log has been given out; lineage changes when a subscription is reset, so that
# leases of before are known as such. A lease that has ended by itself has its expire_time in the
# past and stays until its stretch is given out again. The latest acknowledged ones stay for a
# while, so that to repeat an acknowledgement is no error.
SUBSCRIPTIONS = """
CREATE TABLE hub.subscription (
    consumer_id     text        COLLATE "C" NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    subscription_id text        COLLATE "C" NOT NULL,
    lineage         text        NOT NULL,
    datasets        text[]      NOT NULL,
    filter          text        NOT NULL,
    fields          text        NOT NULL,
    operations      int[]       NOT NULL,
    include_before  boolean     NOT NULL,
    ordered         boolean     NOT NULL,
    position        text        NOT NULL,
    next_lease      bigint      NOT NULL DEFAULT 1,
    create_time     timestamptz NOT NULL DEFAULT now(),
    update_time     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_id, subscription_id)
);
CREATE TABLE hub.subscription_lease (
    consumer_id     text        COLLATE "C" NOT NULL,
    subscription_id text        COLLATE "C" NOT NULL,
    number          bigint      NOT NULL,
    start_cursor    text        NOT NULL,
    start_number    bigint      NOT NULL,
    end_cursor      text        NOT NULL,
    change_count    int         NOT NULL,
    attempt         int         NOT NULL,
    expire_time     timestamptz NOT NULL,
    acknowledged    boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (consumer_id, subscription_id, number),
    FOREIGN KEY (consumer_id, subscription_id) REFERENCES hub.subscription ON DELETE CASCADE
);
CREATE INDEX subscription_lease_open ON hub.subscription_lease
    (consumer_id, subscription_id, start_number) WHERE NOT acknowledged;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), SUBSCRIPTIONS)
