"""What feeds need of the change log: its oldest place, records as they stood, and its pruning."""

from alembic import op

from penstockd.store.script import run_script

revision = "0008"
down_revision = "0007"

# Every number up to oldest_number has been pruned. change_key finds the history of one record:
# what it was at a number is the before-image of its first change after that number.
HISTORY = """
ALTER TABLE hub.log_head ADD COLUMN oldest_number bigint NOT NULL DEFAULT 0;
CREATE INDEX change_key ON hub.change (key);
CREATE INDEX log_transaction_txid ON hub.log_transaction (txid);
CREATE INDEX log_transaction_stamp ON hub.log_transaction USING brin (stamp_time);
"""

# A record that refers to another one is found by the index of its table, as long as it refers to
# it. Those that no longer do, but did at some place in the log, are found here. Each dataset with
# references has a trigger on its table (see store.migrate): its key and reference fields are the
# trigger's arguments.
LOST_REFERENCES = """
CREATE TABLE hub.lost_reference (
    txid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
    dataset text COLLATE "C" NOT NULL,
    field   text COLLATE "C" NOT NULL,
    target  text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL
);
CREATE INDEX lost_reference_target ON hub.lost_reference (dataset, field, target);
CREATE INDEX lost_reference_txid ON hub.lost_reference (txid);

CREATE FUNCTION hub.note_lost_references() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    field text;
BEGIN
    FOR i IN 2 .. TG_NARGS - 1 LOOP
        field := TG_ARGV[i];
        IF TG_OP = 'DELETE' THEN
            EXECUTE format(
                'INSERT INTO hub.lost_reference (dataset, field, target, key)'
                ' SELECT %1$L, %2$L, o.%2$I, o.%3$I FROM gone AS o WHERE o.%2$I IS NOT NULL',
                TG_ARGV[0], field, TG_ARGV[1]);
        ELSE
            EXECUTE format(
                'INSERT INTO hub.lost_reference (dataset, field, target, key)'
                ' SELECT %1$L, %2$L, o.%2$I, o.%3$I FROM gone AS o JOIN come AS n'
                ' ON n.%3$I = o.%3$I WHERE o.%2$I IS NOT NULL AND o.%2$I IS DISTINCT FROM n.%2$I',
                TG_ARGV[0], field, TG_ARGV[1]);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
"""

# Forgets all numbers up to ``upto``, which must be the last of a transaction. Partitions are
# dropped when the log has nothing of their day left; a partition is small work to look through,
# as days of whole transactions are known. What has no number yet is never touched.
PRUNE = """
CREATE FUNCTION hub.prune_log(upto bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    kept date;
    part record;
    oldest_txid xid8;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    SELECT oldest_number INTO before FROM hub.log_head FOR UPDATE;
    SELECT max(last_number) INTO upto FROM hub.log_transaction WHERE last_number <= upto;
    IF upto IS NULL OR upto <= before THEN
        RETURN 0;
    END IF;
    UPDATE hub.log_head SET oldest_number = upto;
    DELETE FROM hub.log_transaction WHERE last_number <= upto;
    SELECT least(min(day), (now() AT TIME ZONE 'UTC')::date), min(txid) INTO kept, oldest_txid
    FROM (
        SELECT day, txid FROM hub.log_transaction UNION ALL SELECT day, txid FROM hub.pending
    ) AS t;
    FOR part IN
        SELECT c.oid::regclass AS name
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'hub.change'::regclass AND c.relname ~ '^change_[0-9]{8}$'
        AND to_date(substr(c.relname, 8), 'YYYYMMDD') < kept
    LOOP
        EXECUTE format('DROP TABLE %s', part.name);
    END LOOP;
    DELETE FROM hub.change_default WHERE day < kept;
    DELETE FROM hub.lost_reference
    WHERE txid < least(oldest_txid, pg_snapshot_xmin(pg_current_snapshot()));
    RETURN upto - before;
END $$;
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (HISTORY, LOST_REFERENCES, PRUNE):
        run_script(op.get_bind(), script)
