"""A day of the audit is counted before the checkpoint that states its drop is signed."""

from alembic import op

from penstockd.store.script import run_script

revision = "0029"
down_revision = "0028"

# A large day takes long to count. While a transaction holds the newest checkpoint, the sealer waits
# for it, so the day is counted before: hub.count_audit_day locks the partition against entries that
# come late and notes the count; hub.drop_audit_day, later in the same transaction, takes the note.
# Only the owner can write notes, and a rollback that frees the lock removes the note as well.
COUNTS = """
CREATE TABLE hub.audit_count (
    day         date   PRIMARY KEY,
    entries     bigint NOT NULL,
    transaction xid8   NOT NULL DEFAULT pg_current_xact_id()
);

-- Counts the entries in the partition of a day; until the end of the transaction, no more come.
CREATE FUNCTION hub.count_audit_day(wanted date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part regclass := to_regclass('hub.audit_entry_' || to_char(wanted, 'YYYYMMDD'));
    counted bigint := 0;
    patience text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    IF wanted >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN
        RAISE object_not_in_prerequisite_state
            USING MESSAGE = format('the audit of %s cannot be dropped: it is not over', wanted);
    END IF;
    IF part IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', part);
        EXECUTE format('SELECT count(*) FROM %s', part) INTO counted;
    END IF;
    INSERT INTO hub.audit_count (day, entries) VALUES (wanted, counted)
    ON CONFLICT (day) DO UPDATE
    SET entries = excluded.entries, transaction = excluded.transaction;
    -- The sealer may hold the number of the next checkpoint for a moment.
    PERFORM set_config('lock_timeout', patience, true);
    RETURN counted;
END $$;

-- Drops the day of an archive, if the day is over and counted, no earlier day is left, and its
-- whole chain is sealed, signed, archived, and stated as dropped by a signed checkpoint (PRUNE).
-- Nobody but the owner could remove an entry otherwise.
CREATE OR REPLACE FUNCTION hub.drop_audit_day(pruned bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    archived hub.audit_archive;
    part regclass;
    counted bigint;
    removed bigint;
    refusal text;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    SELECT * INTO archived FROM hub.audit_archive WHERE checkpoint = pruned;
    IF NOT FOUND THEN
        RAISE object_not_in_prerequisite_state
            USING MESSAGE = format('no archive has the checkpoint %s', pruned);
    END IF;
    part := to_regclass('hub.audit_entry_' || to_char(archived.day, 'YYYYMMDD'));
    DELETE FROM hub.audit_count
    WHERE day = archived.day AND transaction = pg_current_xact_id() RETURNING entries INTO counted;
    DELETE FROM hub.audit_entry_default WHERE day = archived.day;
    GET DIAGNOSTICS removed = ROW_COUNT;
    refusal := CASE
        WHEN archived.day >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN 'it is not over'
        WHEN counted IS NULL THEN 'this transaction has not counted it'
        WHEN EXISTS (SELECT FROM hub.audit_chain WHERE day < archived.day)
            THEN 'an earlier day is not archived'
        WHEN NOT EXISTS (
            SELECT FROM hub.audit_chain AS c
            WHERE c.day = archived.day AND c.last_sequence = archived.entries
            AND c.checked_sequence = archived.entries AND c.last_hash = archived.last_hash)
            THEN 'its chain is not the one that was archived, or is not signed to its end'
        WHEN NOT EXISTS (
            SELECT FROM hub.audit_checkpoint AS c WHERE c.kind = 'SEAL' AND c.day = archived.day
            AND c.sequence = archived.entries AND c.hash = archived.last_hash)
            THEN 'no checkpoint signs the end of its chain'
        WHEN NOT EXISTS (
            SELECT FROM hub.audit_checkpoint AS c
            WHERE c.number = pruned AND c.kind = 'PRUNE' AND c.day = archived.day
            AND c.sequence = archived.entries AND c.hash = archived.last_hash
            AND c.number = (SELECT max(number) FROM hub.audit_checkpoint))
            THEN 'the newest checkpoint does not state that it is dropped'
        WHEN counted + removed <> archived.entries
            THEN format('it has %s entries, and its chain has %s',
                counted + removed, archived.entries)
        END;
    IF refusal IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE =
            format('the audit of %s cannot be dropped: %s', archived.day, refusal);
    END IF;
    DELETE FROM hub.audit_seal WHERE day = archived.day;
    DELETE FROM hub.audit_chain WHERE day = archived.day;
    IF part IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', part);
    END IF;
END $$;
REVOKE ALL ON FUNCTION hub.count_audit_day(date) FROM PUBLIC;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), COUNTS)
