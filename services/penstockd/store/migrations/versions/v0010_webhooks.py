"""Webhooks: endpoints, their secrets, what waits for them, and how each attempt went."""

from alembic import op

from penstockd.store.script import run_script

revision = "0010"
down_revision = "0009"

# hub.webhook: a subscription to the log through its owner's View. scopes: those of the token that
# it was made with, which narrow it for ever; NULL for none. start_number: changes up to it are not
# for this endpoint. headers: the owner's own, sealed, since they may hold secrets. failing_time:
# since when every attempt has failed. replay: changes after replay_number up to replay_end are
# still to be told again.
ENDPOINTS = """
CREATE TABLE hub.webhook (
    webhook_id     text        PRIMARY KEY,
    consumer_id    text        NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    scopes         text[],
    kind           text        NOT NULL CHECK (kind IN ('HTTP', 'LISTEN')),
    title          text        NOT NULL DEFAULT '',
    url            text        NOT NULL DEFAULT '',
    selections     jsonb       NOT NULL,
    options        jsonb       NOT NULL,
    headers        bytea,
    state          text        NOT NULL DEFAULT 'ACTIVE'
                   CHECK (state IN ('ACTIVE', 'PAUSED', 'DISABLED')),
    reason         text        NOT NULL DEFAULT '',
    failing_time   timestamptz,
    warned         smallint    NOT NULL DEFAULT 0,
    start_number   bigint      NOT NULL,
    replay_number  bigint,
    replay_end     bigint,
    create_time    timestamptz NOT NULL DEFAULT now(),
    update_time    timestamptz NOT NULL DEFAULT now(),
    expire_time    timestamptz
);
CREATE INDEX webhook_consumer ON hub.webhook (consumer_id, webhook_id);

-- sealed: AES-256-GCM under a key that is not in the database. expire_time: after a rotation the
-- old secret signs beside the new one until then.
CREATE TABLE hub.webhook_secret (
    webhook_id  text        NOT NULL REFERENCES hub.webhook ON DELETE CASCADE,
    secret_id   text        NOT NULL,
    scheme      text        NOT NULL CHECK (scheme IN ('HMAC', 'ED25519')),
    sealed      bytea       NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz,
    PRIMARY KEY (webhook_id, secret_id)
);

CREATE TABLE hub.webhook_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO hub.webhook_revision (revision) VALUES (1);

CREATE FUNCTION hub.webhook_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub.webhook_revision SET revision = revision + 1;
    PERFORM pg_notify('penstock_webhook', '');
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_inserted AFTER INSERT OR DELETE ON hub.webhook
    FOR EACH STATEMENT EXECUTE FUNCTION hub.webhook_changed();
-- Not for what the keeper itself notes: failing_time, warned, replay_number.
CREATE TRIGGER webhook_updated
    AFTER UPDATE OF url, title, selections, options, headers, state, replay_end ON hub.webhook
    FOR EACH STATEMENT EXECUTE FUNCTION hub.webhook_changed();
CREATE TRIGGER webhook_secret_changed AFTER INSERT OR UPDATE OR DELETE ON hub.webhook_secret
    FOR EACH STATEMENT EXECUTE FUNCTION hub.webhook_changed();
"""

# hub.webhook_event: what a change is to one View class (view_id), stored once for all endpoints
# that see the same. after: the record as that View shows it. hub.webhook_delivery: one message to
# one endpoint, of one event or of several; it is PENDING until claimed, SENDING until settled,
# PARKED behind an earlier one of its order_key. previous: for each event the number of the one
# that the endpoint was told before of the same record. hub.webhook_key keeps those numbers.
DELIVERIES = """
CREATE TABLE hub.webhook_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cursor   text
);
INSERT INTO hub.webhook_head (cursor) VALUES (NULL);

CREATE TABLE hub.webhook_event (
    event_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view_id     text        NOT NULL,
    number      bigint      NOT NULL,
    transaction bigint      NOT NULL,
    dataset     text        NOT NULL,
    key         text        COLLATE "C" NOT NULL,
    operation   smallint    NOT NULL,
    after       bytea,
    changed     text[]      NOT NULL DEFAULT '{}',
    commit_time timestamptz NOT NULL
);

CREATE TABLE hub.webhook_delivery (
    delivery_id   text        COLLATE "C" PRIMARY KEY,
    webhook_id    text        NOT NULL REFERENCES hub.webhook ON DELETE CASCADE,
    cause         text        NOT NULL,
    event_type    text        NOT NULL,
    event_ids     bigint[]    NOT NULL,
    previous      bigint[]    NOT NULL,
    notice        jsonb,
    dataset       text,
    key           text        COLLATE "C",
    order_key     text        COLLATE "C",
    state         text        NOT NULL
                  CHECK (state IN ('PENDING', 'SENDING', 'PARKED', 'DELIVERED', 'DEAD')),
    reason        text        NOT NULL DEFAULT '',
    attempt_count integer     NOT NULL DEFAULT 0,
    tries         integer     NOT NULL DEFAULT 0,
    event_time    timestamptz NOT NULL,
    create_time   timestamptz NOT NULL,
    next_time     timestamptz,
    finish_time   timestamptz
) WITH (fillfactor = 70);
CREATE INDEX webhook_delivery_listed ON hub.webhook_delivery (webhook_id, delivery_id);
CREATE INDEX webhook_delivery_due ON hub.webhook_delivery (webhook_id, next_time, delivery_id)
    WHERE state = 'PENDING';
CREATE INDEX webhook_delivery_order ON hub.webhook_delivery (webhook_id, order_key, delivery_id)
    WHERE state IN ('PENDING', 'SENDING', 'PARKED') AND order_key IS NOT NULL;
CREATE INDEX webhook_delivery_dead ON hub.webhook_delivery (webhook_id, delivery_id)
    WHERE state = 'DEAD';
CREATE INDEX webhook_delivery_sending ON hub.webhook_delivery (webhook_id)
    WHERE state = 'SENDING';

CREATE TABLE hub.webhook_attempt (
    delivery_id   text        COLLATE "C" NOT NULL,
    attempt       integer     NOT NULL,
    webhook_id    text        NOT NULL REFERENCES hub.webhook ON DELETE CASCADE,
    start_time    timestamptz NOT NULL,
    latency_ms    real        NOT NULL,
    delivered     boolean     NOT NULL,
    reason        text        NOT NULL,
    address       text        NOT NULL,
    request_head  text        NOT NULL,
    body_bytes    integer     NOT NULL,
    status        integer,
    reply_head    text        NOT NULL,
    reply_body    bytea       NOT NULL,
    next_time     timestamptz,
    PRIMARY KEY (delivery_id, attempt)
);
CREATE INDEX webhook_attempt_time ON hub.webhook_attempt (webhook_id, start_time);

CREATE TABLE hub.webhook_key (
    webhook_id text   NOT NULL REFERENCES hub.webhook ON DELETE CASCADE,
    dataset    text   NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    number     bigint NOT NULL,
    PRIMARY KEY (webhook_id, dataset, key)
);

-- Notices for the owner: an endpoint fails, for how long it has failed, or it is switched off.
CREATE TABLE hub.webhook_notice (
    notice_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id text        NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    webhook_id  text        NOT NULL,
    type        text        NOT NULL,
    data        jsonb       NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX webhook_notice_consumer ON hub.webhook_notice (consumer_id, notice_id);
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (ENDPOINTS, DELIVERIES):
        run_script(op.get_bind(), script)
