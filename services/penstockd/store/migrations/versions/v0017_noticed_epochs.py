"""The hub notices by itself that the database has gone back in time."""

from alembic import op

from penstockd.store.script import run_script

revision = "0017"
down_revision = "0016"

# hub.epoch_head: the newest epoch, and in which cluster and on which timeline it began. A dump that
# is restored is in another cluster; a standby that takes over, or a backup that is recovered, is on
# another timeline. Where neither changes, as when a volume is put back, a process of the hub knows
# of something that the database has not any more.
EPOCHS = """
ALTER TABLE hub.epoch ADD COLUMN declared boolean NOT NULL DEFAULT true;

-- The one that is written to now; a server in recovery has none.
CREATE FUNCTION hub.timeline() RETURNS text LANGUAGE sql VOLATILE
RETURN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);

CREATE TABLE hub.epoch_head (
    epoch    bigint NOT NULL,
    cluster  text   NOT NULL,
    timeline text   NOT NULL
);
CREATE UNIQUE INDEX epoch_head_one ON hub.epoch_head ((true));
INSERT INTO hub.epoch_head (epoch, cluster, timeline)
SELECT coalesce(max(epoch), 0), hub.cluster(), hub.timeline() FROM hub.epoch;

-- Numbers that somebody outside the database compares go on from where none that was undone is.
CREATE FUNCTION hub.open_epoch(reason text, is_declared boolean, sealed bigint)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
BEGIN
    INSERT INTO hub.epoch (begin_time, because, last_number, checkpoint, declared)
    SELECT clock_timestamp(), reason, last_number, sealed, is_declared FROM hub.log_head
    RETURNING epoch INTO opened;
    PERFORM setval('hub.revision', nextval('hub.revision') + 1048576);
    UPDATE hub.trust SET revision = revision + 1048576;
    UPDATE hub.webhook_revision SET revision = revision + 1048576;
    PERFORM set_config('penstock.comment', 'the database has gone back in time', true);
    UPDATE hub.policy SET revision = revision + 1000;
    UPDATE hub.epoch_head
    SET epoch = opened, cluster = hub.cluster(), timeline = hub.timeline();
    PERFORM pg_notify('penstock_policy', ''), pg_notify('penstock_webhook', '');
    RETURN opened;
END $$;

-- Why the database must have gone back in time; NULL if nothing says so. A process has heard of a
-- place in the log, and the database said at a time that it is there: no epoch has begun since.
CREATE FUNCTION hub.sign_of_return(known bigint, known_mark bytea, known_time timestamptz)
RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head hub.epoch_head;
BEGIN
    SELECT * INTO head FROM hub.epoch_head;
    RETURN CASE
        WHEN head.cluster <> hub.cluster() THEN 'another cluster'
        WHEN head.timeline <> hub.timeline() THEN 'another timeline'
        WHEN known >= (SELECT oldest_number FROM hub.log_head)
            AND hub.mark_at(known) IS DISTINCT FROM known_mark
            AND NOT EXISTS (SELECT FROM hub.epoch WHERE begin_time > known_time)
            THEN 'changes are missing' END;
END $$;

-- The epoch of now, a new one if the database has gone back in time.
CREATE FUNCTION hub.notice_epoch(known bigint, known_mark bytea, known_time timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reason text := hub.sign_of_return(known, known_mark, known_time);
BEGIN
    IF reason IS NOT NULL THEN
        PERFORM FROM hub.epoch_head FOR UPDATE;
        reason := hub.sign_of_return(known, known_mark, known_time);
    END IF;
    IF reason IS NOT NULL THEN
        RETURN hub.open_epoch(reason, false, NULL);
    END IF;
    RETURN (SELECT epoch FROM hub.epoch_head);
END $$;

-- The same for whoever has a checkpoint of the audit, of a time, that the database has not.
CREATE FUNCTION hub.notice_lost_checkpoint(signed_time timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM hub.epoch_head FOR UPDATE;
    IF NOT EXISTS (SELECT FROM hub.epoch WHERE begin_time > signed_time) THEN
        RETURN hub.open_epoch('checkpoints are missing', false, NULL);
    END IF;
    RETURN (SELECT epoch FROM hub.epoch_head);
END $$;

REVOKE ALL ON FUNCTION hub.open_epoch(text, boolean, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION hub.notice_epoch(bigint, bytea, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION hub.notice_lost_checkpoint(timestamptz) FROM PUBLIC;
"""

# Of which epochs consumers have been told, whose place the hub keeps.
TOLD = """
ALTER TABLE hub.subscription ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
UPDATE hub.subscription SET epoch = (SELECT epoch FROM hub.epoch_head);
ALTER TABLE hub.webhook_head ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
UPDATE hub.webhook_head SET epoch = (SELECT epoch FROM hub.epoch_head);
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (EPOCHS, TOLD):
        run_script(op.get_bind(), script)
