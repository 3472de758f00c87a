"""Days of the audit can be archived to a file and dropped."""

from alembic import op

from penstockd.store.script import run_script

revision = "0027"
down_revision = "0026"

# One row for each day that was dropped, or for each part of one: entries that got the date of a
# dropped day later, because a clock was set back, form another chain of that day.
ARCHIVE = """
CREATE TABLE hub.audit_archive (
    checkpoint   bigint      PRIMARY KEY,
    day          date        NOT NULL,
    entries      bigint      NOT NULL,
    last_hash    bytea       NOT NULL,
    file         text        NOT NULL,
    size         bigint      NOT NULL,
    node_id      text        NOT NULL,
    host         text        NOT NULL,
    folder       text        NOT NULL,
    archive_time timestamptz NOT NULL DEFAULT now()
);

-- Drops the day of an archive, if the day is over, no earlier day is left, and its whole chain is
-- sealed, signed, archived, and stated as dropped by a signed checkpoint (PRUNE). Nobody but the
-- owner could remove an entry otherwise. The lock of the day keeps out entries that come late.
CREATE FUNCTION hub.drop_audit_day(pruned bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    archived hub.audit_archive;
    part regclass;
    counted bigint := 0;
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
    IF part IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', part);
        EXECUTE format('SELECT count(*) FROM %s', part) INTO counted;
    END IF;
    DELETE FROM hub.audit_entry_default WHERE day = archived.day;
    GET DIAGNOSTICS removed = ROW_COUNT;
    counted := counted + removed;
    refusal := CASE
        WHEN archived.day >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN 'it is not over'
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
        WHEN counted <> archived.entries
            THEN format('it has %s entries, and its chain has %s', counted, archived.entries)
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

-- Drops partitions of days before a day, if these are over and have neither entries nor a chain;
-- returns how many.
CREATE FUNCTION hub.drop_empty_audit_days(before date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part record;
    used boolean;
    dropped integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR part IN
        SELECT c.oid::regclass AS name
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'hub.audit_entry'::regclass AND c.relname ~ '^audit_entry_[0-9]{8}$'
        AND to_date(substr(c.relname, 13), 'YYYYMMDD')
            < least(before, (clock_timestamp() AT TIME ZONE 'UTC')::date)
        AND NOT EXISTS (
            SELECT FROM hub.audit_chain AS a
            WHERE a.day = to_date(substr(c.relname, 13), 'YYYYMMDD'))
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part.name) INTO used;
        CONTINUE WHEN used;
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', part.name);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part.name) INTO used;
        CONTINUE WHEN used;
        EXECUTE format('DROP TABLE %s', part.name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION hub.drop_audit_day(bigint), hub.drop_empty_audit_days(date) FROM PUBLIC;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), ARCHIVE)
