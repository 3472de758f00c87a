"""Marks of log transactions, and epochs: a database that goes back in time is recognised."""

from alembic import op

from penstockd.store.script import run_script

revision = "0011"
down_revision = "0010"

# What belongs to one transaction was found by its id, which another cluster gives out again: after
# a dump and restore rows of two transactions had one. A write transaction draws a number of
# hub.revision anyway, which no restore gives out twice within one database, and says so in a
# setting of its transaction (see store.writer). Ids of before stay what they are, below 0.
# What waits for a number gets it first, so that no cursor names a transaction of before.
REVISIONS = """
LOCK TABLE hub.pending;
SELECT pg_advisory_xact_lock(hashtext('penstock.sequencer'));
SELECT hub.stamp();

ALTER TABLE hub.change ALTER COLUMN txid DROP DEFAULT;
ALTER TABLE hub.change ALTER COLUMN txid TYPE bigint USING -(txid::text::bigint);
ALTER TABLE hub.change RENAME COLUMN txid TO revision;
ALTER TABLE hub.change
    ALTER COLUMN revision SET DEFAULT current_setting('penstock.revision')::bigint;
ALTER TABLE hub.pending ALTER COLUMN txid DROP DEFAULT;
ALTER TABLE hub.pending ALTER COLUMN txid TYPE bigint USING -(txid::text::bigint);
ALTER TABLE hub.pending RENAME COLUMN txid TO revision;
ALTER TABLE hub.pending
    ALTER COLUMN revision SET DEFAULT current_setting('penstock.revision')::bigint;
ALTER TABLE hub.log_transaction ALTER COLUMN txid TYPE bigint USING -(txid::text::bigint);
ALTER TABLE hub.log_transaction RENAME COLUMN txid TO revision;
ALTER INDEX hub.log_transaction_txid RENAME TO log_transaction_revision;

DROP INDEX hub.lost_reference_txid;
ALTER TABLE hub.lost_reference DROP COLUMN txid;
ALTER TABLE hub.lost_reference
    ADD COLUMN day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date;
CREATE INDEX lost_reference_day ON hub.lost_reference USING brin (day);
"""

# Every transaction has a random mark, which its numbers in the log keep. A cursor carries the mark
# at its number: if the database goes back in time and gives the number out again, it gives it to a
# transaction with another mark. The head has the mark of its last number, and that at its oldest
# one, whose transaction is pruned; where there is no number yet, the mark is 0. Cursors of before
# have none: they are good up to marked_after, where the log ended when the marks were introduced.
MARKS = """
CREATE FUNCTION hub.new_mark() RETURNS bytea LANGUAGE sql VOLATILE
RETURN substr(sha256(uuid_send(gen_random_uuid())), 1, 8);

ALTER TABLE hub.pending ADD COLUMN mark bytea NOT NULL DEFAULT hub.new_mark();
ALTER TABLE hub.log_transaction ADD COLUMN mark bytea NOT NULL DEFAULT hub.new_mark();
ALTER TABLE hub.log_transaction ALTER COLUMN mark DROP DEFAULT;
ALTER TABLE hub.log_head
    ADD COLUMN mark bytea NOT NULL DEFAULT '\\x0000000000000000',
    ADD COLUMN oldest_mark bytea NOT NULL DEFAULT '\\x0000000000000000',
    ADD COLUMN marked_after bigint NOT NULL DEFAULT 0;
UPDATE hub.log_head SET oldest_mark = hub.new_mark() WHERE oldest_number > 0;
UPDATE hub.log_head AS h
SET marked_after = last_number, mark = coalesce(
    (SELECT t.mark FROM hub.log_transaction AS t WHERE t.last_number = h.last_number), oldest_mark);

-- The mark at a number: that of the transaction which has it. NULL where there is none any more,
-- or none yet.
CREATE FUNCTION hub.mark_at(number bigint) RETURNS bytea LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN number = h.oldest_number THEN h.oldest_mark
                WHEN number > h.oldest_number THEN (
                    SELECT t.mark FROM hub.log_transaction AS t
                    WHERE t.last_number >= number ORDER BY t.last_number LIMIT 1) END
    FROM hub.log_head AS h
);

CREATE OR REPLACE FUNCTION hub.stamp() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    stamped bigint;
    last_mark bytea;
    head bigint;
BEGIN
    -- Whoever holds the lock stamps; the others' rows wait for it or for the next call.
    IF NOT pg_try_advisory_xact_lock(hashtext('penstock.sequencer')) THEN
        RETURN 0;
    END IF;
    SELECT last_number INTO head FROM hub.log_head;
    WITH taken AS (
        DELETE FROM hub.pending RETURNING seq, revision, day, row_count, write_time, mark
    ), numbered AS (
        SELECT *, head + sum(row_count) OVER (ORDER BY seq) AS last_number FROM taken
    ), entered AS (
        INSERT INTO hub.log_transaction
            (first_number, last_number, revision, day, write_time, stamp_time, mark)
        SELECT last_number - row_count + 1, last_number, revision, day, write_time,
               clock_timestamp(), mark
        FROM numbered ORDER BY seq
        RETURNING last_number, mark
    )
    SELECT last_number, mark INTO stamped, last_mark FROM entered
    ORDER BY last_number DESC LIMIT 1;
    IF stamped IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE hub.log_head SET last_number = stamped, mark = last_mark;
    PERFORM pg_notify('penstock_log', stamped::text || ' ' || encode(last_mark, 'hex'));
    RETURN stamped - head;
END $$;

CREATE OR REPLACE FUNCTION hub.prune_log(upto bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    last_mark bytea;
    kept date;
    part record;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    SELECT oldest_number INTO before FROM hub.log_head FOR UPDATE;
    SELECT last_number, mark INTO upto, last_mark FROM hub.log_transaction
    WHERE last_number <= upto ORDER BY last_number DESC LIMIT 1;
    IF upto IS NULL OR upto <= before THEN
        RETURN 0;
    END IF;
    UPDATE hub.log_head SET oldest_number = upto, oldest_mark = last_mark;
    DELETE FROM hub.log_transaction WHERE last_number <= upto;
    SELECT least(min(day), (now() AT TIME ZONE 'UTC')::date) INTO kept
    FROM (SELECT day FROM hub.log_transaction UNION ALL SELECT day FROM hub.pending) AS t;
    FOR part IN
        SELECT c.oid::regclass AS name
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'hub.change'::regclass AND c.relname ~ '^change_[0-9]{8}$'
        AND to_date(substr(c.relname, 8), 'YYYYMMDD') < kept
    LOOP
        EXECUTE format('DROP TABLE %s', part.name);
    END LOOP;
    DELETE FROM hub.change_default WHERE day < kept;
    DELETE FROM hub.lost_reference WHERE day < kept;
    RETURN upto - before;
END $$;
"""

# The id of the transaction that made the policy's revision may be another's in another cluster;
# with the time at which it began it is not. Or a change there would be no revision.
POLICY = """
ALTER TABLE hub.policy ADD COLUMN transaction_time timestamptz;

CREATE OR REPLACE FUNCTION hub.policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub.policy
    SET revision = revision + 1, txid = pg_current_xact_id(), transaction_time = now()
    WHERE (txid, transaction_time) IS DISTINCT FROM (pg_current_xact_id(), now());
    IF FOUND THEN
        PERFORM pg_notify('penstock_policy', '');
    END IF;
    RETURN NULL;
END $$;
"""

# What is outside the hub carries a cursor or a lease's name, too. An event keeps the mark at its
# number, since its delivery may be made when the log has it no longer; a lease has a random token,
# since the number of a lease is given out again by a database that has gone back.
HOLDERS = """
ALTER TABLE hub.webhook_event ADD COLUMN mark bytea NOT NULL DEFAULT '\\x';
ALTER TABLE hub.subscription_lease ADD COLUMN token text NOT NULL DEFAULT '';
"""


# The sealer finds new entries by their transactions' ids. Those of another cluster, from which the
# database was restored, say nothing: entries up to foreign_id are found by whether they are sealed,
# once, and those after it by their ids. To know which is which, nobody may be about to add one.
AUDIT = """
CREATE FUNCTION hub.cluster() RETURNS text LANGUAGE sql STABLE
RETURN (
    SELECT system_identifier::text || '/' || (
        SELECT oid::text FROM pg_database WHERE datname = current_database())
    FROM pg_control_system()
);

ALTER TABLE hub.audit_head
    ADD COLUMN cluster text NOT NULL DEFAULT '',
    ADD COLUMN foreign_id bigint NOT NULL DEFAULT 0,
    ADD COLUMN foreign_txid xid8 NOT NULL DEFAULT '0',
    ADD COLUMN foreign_sealed boolean NOT NULL DEFAULT true;
UPDATE hub.audit_head SET cluster = hub.cluster();

CREATE FUNCTION hub.rebase_audit() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    LOCK TABLE hub.audit_entry IN SHARE ROW EXCLUSIVE MODE;
    UPDATE hub.audit_head SET
        cluster = hub.cluster(), snapshot = '1:1:', foreign_sealed = false,
        foreign_id = (SELECT coalesce(max(entry_id), 0) FROM hub.audit_entry),
        foreign_txid = (SELECT coalesce(max(txid), '0') FROM hub.audit_entry);
END $$;
REVOKE ALL ON FUNCTION hub.rebase_audit() FROM PUBLIC;

-- Each time that somebody declared the database to have gone back in time.
CREATE TABLE hub.epoch (
    epoch       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begin_time  timestamptz NOT NULL DEFAULT now(),
    because     text        NOT NULL,
    last_number bigint      NOT NULL,
    checkpoint  bigint
);
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (REVISIONS, MARKS, POLICY, HOLDERS, AUDIT):
        run_script(op.get_bind(), script)
