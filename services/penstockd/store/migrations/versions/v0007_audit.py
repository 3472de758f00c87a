"""The chain over the audit, its checkpoints, and the index of disclosures."""

from alembic import op

from penstockd.store.script import run_script

revision = "0007"
down_revision = "0006"

# One row a call, partitioned by the day of its insertion; a streamed reply has one more when it
# ends (phase END), and one for each million of keys before that (PART). txid is how the sealer
# finds what it has not seen yet: entries become visible in another order than that of their ids.
# keys: what a reply of several records held (see penstockd.audit.keys), low_key and high_key its
# bounds; shown: which fields, under which rule, by digest.
ENTRIES = """
ALTER TABLE hub.audit_entry RENAME TO audit_entry_before;
ALTER INDEX hub.audit_entry_pkey RENAME TO audit_entry_before_pkey;
DROP INDEX hub.audit_entry_time;

CREATE SEQUENCE hub.audit_entry_id;
CREATE TABLE hub.audit_entry (
    entry_id        bigint      NOT NULL DEFAULT nextval('hub.audit_entry_id'),
    day             date        NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')::date,
    entry_time      timestamptz NOT NULL DEFAULT clock_timestamp(),
    txid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    phase           text        NOT NULL DEFAULT 'CALL',
    request_id      text        NOT NULL,
    trace_id        text,
    consumer_id     text,
    credential_id   text,
    policy_revision bigint      NOT NULL,
    method          text        NOT NULL,
    surface         text,
    dataset         text        COLLATE "C",
    record_key      text        COLLATE "C",
    query           json,
    shown           bytea,
    row_count       bigint,
    byte_count      bigint,
    receipt_id      text,
    outcome         text        NOT NULL,
    peer            text,
    low_key         text        COLLATE "C",
    high_key        text        COLLATE "C",
    keys            bytea,
    PRIMARY KEY (entry_id, day)
) PARTITION BY RANGE (day);
ALTER TABLE hub.audit_entry ALTER COLUMN keys SET STORAGE EXTERNAL;  -- compressed already
CREATE INDEX audit_entry_txid ON hub.audit_entry (txid);
CREATE INDEX audit_entry_time ON hub.audit_entry USING brin (entry_time) WITH (autosummarize = on);
CREATE INDEX audit_entry_record ON hub.audit_entry (dataset, record_key)
    WHERE record_key IS NOT NULL;
CREATE INDEX audit_entry_records ON hub.audit_entry (dataset, entry_time, low_key, high_key)
    WHERE record_key IS NULL AND shown IS NOT NULL;
CREATE INDEX audit_entry_end ON hub.audit_entry (request_id) WHERE phase = 'END';
CREATE TABLE hub.audit_entry_default PARTITION OF hub.audit_entry DEFAULT;

INSERT INTO hub.audit_entry
    (entry_id, day, entry_time, request_id, trace_id, consumer_id, credential_id, policy_revision,
     method, dataset, record_key, query, row_count, outcome, peer)
SELECT entry_id, (entry_time AT TIME ZONE 'UTC')::date, entry_time, request_id, trace_id,
       consumer_id, credential_id, policy_revision, method, dataset, record_key, query::text::json,
       row_count, outcome, peer
FROM hub.audit_entry_before ORDER BY entry_id;
SELECT setval('hub.audit_entry_id', max(entry_id)) FROM hub.audit_entry HAVING count(*) > 0;
DROP TABLE hub.audit_entry_before;

CREATE FUNCTION hub.add_audit_partitions(days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first date := (now() AT TIME ZONE 'UTC')::date;
    name text;
    made integer := 0;
BEGIN
    FOR i IN 0..days LOOP
        name := 'audit_entry_' || to_char(first + i, 'YYYYMMDD');
        IF to_regclass('hub.' || name) IS NULL
           AND NOT EXISTS (SELECT FROM hub.audit_entry_default WHERE day = first + i) THEN
            EXECUTE format(
                'CREATE TABLE hub.%I PARTITION OF hub.audit_entry FOR VALUES FROM (%L) TO (%L)',
                name, first + i, first + i + 1);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;

-- What callers were shown of records: fields with masks, roles and row filters, as canonical JSON.
-- Named by the digest of that, so that an entry holds 16 bytes and the chain over the entries
-- covers this table too.
CREATE TABLE hub.audit_shown (
    digest  bytea PRIMARY KEY,
    content text  NOT NULL
);
"""

# hub.audit_seal: the entries of a day in the order of its chain, by groups; hashes holds 32 bytes
# for each. hub.audit_chain: where each day's chain stands, and the checkpoint that it hangs from.
CHAIN = """
CREATE TABLE hub.audit_chain (
    day              date   PRIMARY KEY,
    anchor           bigint NOT NULL,
    last_sequence    bigint NOT NULL,
    last_hash        bytea  NOT NULL,
    checked_sequence bigint NOT NULL
);

CREATE TABLE hub.audit_seal (
    day            date     NOT NULL,
    first_sequence bigint   NOT NULL,
    entry_ids      bigint[] NOT NULL,
    hashes         bytea    NOT NULL,
    PRIMARY KEY (day, first_sequence)
);

CREATE TABLE hub.audit_checkpoint (
    number          bigint      PRIMARY KEY,
    checkpoint_time timestamptz NOT NULL,
    kind            text        NOT NULL,
    day             date        NOT NULL,
    sequence        bigint      NOT NULL,
    hash            bytea       NOT NULL,
    previous        bytea       NOT NULL,
    public_key      bytea       NOT NULL,
    signature       bytea       NOT NULL
);

-- What the sealer has seen: entries that are not visible in this snapshot are new to it.
CREATE TABLE hub.audit_head (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    snapshot pg_snapshot NOT NULL
);
INSERT INTO hub.audit_head (snapshot) VALUES ('1:1:');
"""


def upgrade() -> None:
    """Make the audit anew with room for proofs; the entries that there are stay."""
    for script in (ENTRIES, CHAIN):
        run_script(op.get_bind(), script)
