"""The change log with its sequencer, policy, credentials, signing keys and the audit."""

from alembic import op

from penstockd.store.script import run_script

revision = "0001"
down_revision = None

# Writers insert one row per changed record into hub.change and, last of all, one row per
# transaction into hub.pending. hub.stamp() alone moves transactions from there into
# hub.log_transaction, giving contiguous numbers to their rows. The order is that of
# hub.pending.seq, which a writer takes when it holds all of its row locks: of two transactions
# that wrote the same key, the later one therefore always has the greater seq.
CHANGE_LOG = """
CREATE SEQUENCE hub.revision;

CREATE TABLE hub.change (
    day       date     NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    txid      xid8     NOT NULL DEFAULT pg_current_xact_id(),
    ordinal   bigint   NOT NULL,
    dataset   text     COLLATE "C" NOT NULL,
    key       text     COLLATE "C" NOT NULL,
    operation smallint NOT NULL,
    before    bytea,
    after     bytea
) PARTITION BY RANGE (day);
CREATE INDEX change_transaction ON hub.change (txid, ordinal);
CREATE TABLE hub.change_default PARTITION OF hub.change DEFAULT;

CREATE TABLE hub.pending (
    seq         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    day         date        NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    row_count   bigint      NOT NULL,
    write_time  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hub.log_transaction (
    first_number bigint      NOT NULL,
    last_number  bigint      PRIMARY KEY,
    txid         xid8        NOT NULL,
    day          date        NOT NULL,
    write_time   timestamptz NOT NULL,
    stamp_time   timestamptz NOT NULL
);

CREATE TABLE hub.log_head (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_number bigint  NOT NULL,
    epoch       text    NOT NULL
);
INSERT INTO hub.log_head (last_number, epoch)
VALUES (0, substr(replace(gen_random_uuid()::text, '-', ''), 1, 12));

CREATE FUNCTION hub.stamp() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    stamped bigint;
    head bigint;
BEGIN
    -- Whoever holds the lock stamps; the others' rows wait for it or for the next call.
    IF NOT pg_try_advisory_xact_lock(hashtext('penstock.sequencer')) THEN
        RETURN 0;
    END IF;
    SELECT last_number INTO head FROM hub.log_head;
    WITH taken AS (
        DELETE FROM hub.pending RETURNING seq, txid, day, row_count, write_time
    ), numbered AS (
        SELECT *, head + sum(row_count) OVER (ORDER BY seq) AS last_number FROM taken
    ), entered AS (
        INSERT INTO hub.log_transaction
            (first_number, last_number, txid, day, write_time, stamp_time)
        SELECT last_number - row_count + 1, last_number, txid, day, write_time, clock_timestamp()
        FROM numbered ORDER BY seq
        RETURNING last_number
    )
    SELECT max(last_number) INTO stamped FROM entered;
    IF stamped IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE hub.log_head SET last_number = stamped;
    PERFORM pg_notify('penstock_log', stamped::text);
    RETURN stamped - head;
END $$;

CREATE FUNCTION hub.add_change_partitions(days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first date := (now() AT TIME ZONE 'UTC')::date;
    name text;
    made integer := 0;
BEGIN
    FOR i IN 0..days LOOP
        name := 'change_' || to_char(first + i, 'YYYYMMDD');
        IF to_regclass('hub.' || name) IS NULL
           AND NOT EXISTS (SELECT FROM hub.change_default WHERE day = first + i) THEN
            EXECUTE format(
                'CREATE TABLE hub.%I PARTITION OF hub.change FOR VALUES FROM (%L) TO (%L)',
                name, first + i, first + i + 1);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
"""

POLICY = """
CREATE TABLE hub.policy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO hub.policy (revision) VALUES (1);

CREATE TABLE hub.role (
    role_id     text PRIMARY KEY,
    description text NOT NULL DEFAULT ''
);

-- What a role may do with one dataset. class_masks: field class -> mask; field_masks: field
-- path -> mask; a mask is clear, hide, null, hash or partial. row_filter: AIP-160, or empty.
CREATE TABLE hub.grant (
    role_id     text   NOT NULL REFERENCES hub.role ON DELETE CASCADE,
    dataset     text   NOT NULL,
    actions     text[] NOT NULL,
    class_masks jsonb  NOT NULL,
    field_masks jsonb  NOT NULL DEFAULT '{}',
    row_filter  text   NOT NULL DEFAULT '',
    PRIMARY KEY (role_id, dataset)
);

CREATE TABLE hub.consumer (
    consumer_id text        PRIMARY KEY,
    title       text        NOT NULL DEFAULT '',
    active      boolean     NOT NULL DEFAULT true,
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hub.consumer_role (
    consumer_id text NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    role_id     text NOT NULL REFERENCES hub.role ON DELETE RESTRICT,
    PRIMARY KEY (consumer_id, role_id)
);

-- digest: HMAC-SHA256 of the secret, keyed outside the database; the secret itself is not kept.
CREATE TABLE hub.credential (
    credential_id text        PRIMARY KEY,
    consumer_id   text        NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    kind          text        NOT NULL CHECK (kind IN ('client_secret', 'api_key')),
    digest        bytea       NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT now(),
    expire_time   timestamptz,
    revoked       boolean     NOT NULL DEFAULT false
);

-- Any change to the above is a new policy revision, announced to every process.
CREATE FUNCTION hub.policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub.policy SET revision = revision + 1;
    PERFORM pg_notify('penstock_policy', '');
    RETURN NULL;
END $$;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.role
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.grant
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.consumer
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.consumer_role
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.credential
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();

-- private_key: PKCS#8 DER, sealed with AES-256-GCM under a key that is not in the database.
CREATE TABLE hub.signing_key (
    key_id      text        PRIMARY KEY,
    private_key bytea       NOT NULL,
    public_jwk  jsonb       NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
"""

AUDIT = """
CREATE TABLE hub.audit_entry (
    entry_id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry_time      timestamptz NOT NULL DEFAULT clock_timestamp(),
    request_id      text        NOT NULL,
    trace_id        text,
    consumer_id     text,
    credential_id   text,
    policy_revision bigint      NOT NULL,
    method          text        NOT NULL,
    dataset         text,
    record_key      text,
    query           jsonb,
    row_count       bigint,
    outcome         text        NOT NULL,
    peer            text
);
CREATE INDEX audit_entry_time ON hub.audit_entry (entry_time);

-- How a streamed answer ended; its audit_entry was durable before its first byte.
CREATE TABLE hub.receipt (
    request_id  text        PRIMARY KEY,
    row_count   bigint      NOT NULL,
    byte_count  bigint      NOT NULL,
    outcome     text        NOT NULL,
    finish_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    """Create the hub's own tables."""
    for script in (CHANGE_LOG, POLICY, AUDIT):
        run_script(op.get_bind(), script)
