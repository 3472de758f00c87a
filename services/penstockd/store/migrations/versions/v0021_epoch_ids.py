"""Epochs have random ids, and a mark belongs to one numbering of the log."""

from alembic import op

from penstockd.store.script import run_script

revision = "0021"
down_revision = "0020"

# A volume that is put back twice gives out the number of the next epoch twice, and a standby's
# clock may be another. So epochs are told apart by random ids. ``previous`` is the id of the one
# before: the ids of an epoch and of all before it are its chain. Whoever has seen the database in
# an epoch remembers its chain. If the newest epoch is then one of the chain but its last, the
# database has gone back to before the last one began; if it is in no place of the chain, it has
# begun since, or after a return of which it tells.
IDS = """
ALTER TABLE hub.epoch
    ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN previous uuid,
    ADD COLUMN lost_checkpoint bytea;
CREATE UNIQUE INDEX epoch_id ON hub.epoch (id);
UPDATE hub.epoch AS e
SET previous = coalesce(
    (SELECT b.id FROM hub.epoch AS b WHERE b.epoch < e.epoch ORDER BY b.epoch DESC LIMIT 1),
    gen_random_uuid());
ALTER TABLE hub.epoch ALTER COLUMN previous SET NOT NULL;

ALTER TABLE hub.epoch_head ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
UPDATE hub.epoch_head AS h SET id = e.id FROM hub.epoch AS e WHERE e.epoch = h.epoch;

-- The ids of all epochs, the newest last.
CREATE FUNCTION hub.epoch_chain() RETURNS uuid[] LANGUAGE sql STABLE
RETURN ARRAY(SELECT previous FROM hub.epoch ORDER BY epoch) || (SELECT id FROM hub.epoch_head);
"""

# Numbers that somebody compares skip past all that were undone, and by a random step: two futures
# of one volume would otherwise give out the same ones.
OPENING = """
CREATE OR REPLACE FUNCTION hub.open_epoch(reason text, is_declared boolean, sealed bigint)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
    opened_id uuid;
    step bigint := 1048576 + floor(random() * 1099511627776)::bigint;
BEGIN
    INSERT INTO hub.epoch (begin_time, because, last_number, checkpoint, declared, previous)
    SELECT clock_timestamp(), reason, l.last_number, sealed, is_declared, h.id
    FROM hub.log_head AS l, hub.epoch_head AS h
    RETURNING epoch, id INTO opened, opened_id;
    PERFORM setval('hub.revision', nextval('hub.revision') + step);
    UPDATE hub.trust SET revision = revision + step;
    UPDATE hub.webhook_revision SET revision = revision + step;
    PERFORM set_config('penstock.comment', 'the database has gone back in time', true);
    -- People read this number: it stays shorter.
    UPDATE hub.policy SET revision = revision + 1000 + floor(random() * 1000000000)::bigint;
    UPDATE hub.epoch_head
    SET epoch = opened, id = opened_id, cluster = hub.cluster(), timeline = hub.timeline();
    PERFORM pg_notify('penstock_policy', ''), pg_notify('penstock_webhook', '');
    RETURN opened;
END $$;
"""

NOTICING = """
DROP FUNCTION hub.notice_epoch(bigint, bytea, timestamptz);
DROP FUNCTION hub.sign_of_return(bigint, bytea, timestamptz);
DROP FUNCTION hub.notice_lost_checkpoint(timestamptz);

-- Why the database must have gone back in time; NULL if nothing says so. ``known`` is the chain of
-- the epoch in which a process has last seen the database, which then had a place of the log.
CREATE FUNCTION hub.sign_of_return(known uuid[], known_number bigint, known_mark bytea)
RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head hub.epoch_head;
    place int;
BEGIN
    SELECT * INTO head FROM hub.epoch_head;
    place := array_position(known, head.id);
    RETURN CASE
        WHEN head.cluster <> hub.cluster() THEN 'another cluster'
        WHEN head.timeline <> hub.timeline() THEN 'another timeline'
        WHEN place < cardinality(known) THEN 'an epoch is missing'
        WHEN place = cardinality(known)
            AND known_number >= (SELECT oldest_number FROM hub.log_head)
            AND hub.mark_at(known_number) IS DISTINCT FROM known_mark
            THEN 'changes are missing' END;
END $$;

-- The chain of the epoch of now, which is a new one if the database has gone back in time.
CREATE FUNCTION hub.notice_epoch(known uuid[], known_number bigint, known_mark bytea)
RETURNS uuid[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reason text := hub.sign_of_return(known, known_number, known_mark);
BEGIN
    IF reason IS NOT NULL THEN
        PERFORM FROM hub.epoch_head FOR UPDATE;
        reason := hub.sign_of_return(known, known_number, known_mark);
    END IF;
    IF reason IS NOT NULL THEN
        PERFORM hub.open_epoch(reason, false, NULL);
    END IF;
    RETURN hub.epoch_chain();
END $$;

-- The same for whoever has a checkpoint of the audit that the database has not; ``known`` is the
-- chain of the epoch in which the database had it. Files of earlier versions do not say; there each
-- checkpoint begins one epoch.
CREATE FUNCTION hub.notice_lost_checkpoint(known uuid[], digest bytea)
RETURNS uuid[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
    noticed boolean;
BEGIN
    PERFORM FROM hub.epoch_head FOR UPDATE;
    IF cardinality(known) > 0 THEN
        noticed := NOT (SELECT id = ANY (known) FROM hub.epoch_head);
    ELSE
        noticed := EXISTS (SELECT FROM hub.epoch WHERE lost_checkpoint = digest);
    END IF;
    IF NOT noticed THEN
        opened := hub.open_epoch('checkpoints are missing', false, NULL);
        UPDATE hub.epoch SET lost_checkpoint = digest WHERE epoch = opened;
    END IF;
    RETURN hub.epoch_chain();
END $$;

REVOKE ALL ON FUNCTION hub.notice_epoch(uuid[], bigint, bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION hub.notice_lost_checkpoint(uuid[], bytea) FROM PUBLIC;
"""

# A transaction that was committed before the database's return, but numbered after the state to
# which it returned, is numbered again: by another number, or after other transactions. Its mark was
# drawn when it was written, so a cursor of the lost future could pass. The mark of a place is now
# drawn when the place is numbered. The mark of the writing still names the transaction in cursors
# whose snapshot saw it without a number.
MARKS = """
ALTER TABLE hub.log_transaction ADD COLUMN written_mark bytea;

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
            (first_number, last_number, revision, day, write_time, stamp_time, mark, written_mark)
        SELECT last_number - row_count + 1, last_number, revision, day, write_time,
               clock_timestamp(), hub.new_mark(), mark
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
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (IDS, OPENING, NOTICING, MARKS):
        run_script(op.get_bind(), script)
