"""Policy history, and what administration of access needs."""

from alembic import op

from penstockd.store.script import run_script

revision = "0003"
down_revision = "0002"

ACCESS = """
-- The transaction that made the revision: however many statements it has, it makes one.
ALTER TABLE hub.policy ADD COLUMN txid xid8;

CREATE OR REPLACE FUNCTION hub.policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub.policy SET revision = revision + 1, txid = pg_current_xact_id()
    WHERE txid IS DISTINCT FROM pg_current_xact_id();
    IF FOUND THEN
        PERFORM pg_notify('penstock_policy', '');
    END IF;
    RETURN NULL;
END $$;

-- All roles, and all consumers with roles and claims, as one revision leaves them. Revisions that
-- differ in credentials only share one.
CREATE TABLE hub.policy_document (
    digest   bytea PRIMARY KEY,
    document jsonb NOT NULL
);

CREATE TABLE hub.policy_revision (
    revision      bigint      PRIMARY KEY,
    create_time   timestamptz NOT NULL DEFAULT clock_timestamp(),
    consumer_id   text,
    database_user text        NOT NULL DEFAULT '',
    comment       text        NOT NULL DEFAULT '',
    request_id    text        NOT NULL DEFAULT '',
    digest        bytea       NOT NULL REFERENCES hub.policy_document
);

CREATE FUNCTION hub.policy_now() RETURNS jsonb LANGUAGE sql STABLE AS $$
SELECT jsonb_build_object(
    'roles', (
        SELECT coalesce(jsonb_object_agg(r.role_id, jsonb_build_object(
            'description', r.description,
            'permissions', to_jsonb(r.permissions),
            'grants', (
                SELECT coalesce(jsonb_object_agg(g.dataset, jsonb_build_object(
                    'actions', to_jsonb(g.actions),
                    'class_masks', g.class_masks,
                    'field_masks', g.field_masks,
                    'row_filter', g.row_filter)), '{}')
                FROM hub.grant AS g WHERE g.role_id = r.role_id))), '{}')
        FROM hub.role AS r),
    'consumers', (
        SELECT coalesce(jsonb_object_agg(c.consumer_id, jsonb_build_object(
            'title', c.title,
            'active', c.active,
            'claims', c.claims,
            'roles', (
                SELECT coalesce(jsonb_agg(o.role_id ORDER BY o.role_id COLLATE "C"), '[]')
                FROM hub.consumer_role AS o WHERE o.consumer_id = c.consumer_id))), '{}')
        FROM hub.consumer AS c))
$$;

-- Writes the revision in force into the history. Who, why and by which call are settings of the
-- transaction; a change that does not come from a call has the user of the database instead.
CREATE FUNCTION hub.record_policy() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found jsonb := hub.policy_now();
    hash bytea := sha256(convert_to(found::text, 'UTF8'));
    author text := nullif(current_setting('penstock.consumer', true), '');
BEGIN
    INSERT INTO hub.policy_document (digest, document) VALUES (hash, found)
    ON CONFLICT DO NOTHING;
    INSERT INTO hub.policy_revision
        (revision, consumer_id, database_user, comment, request_id, digest)
    SELECT p.revision, author, CASE WHEN author IS NULL THEN session_user ELSE '' END,
           coalesce(current_setting('penstock.comment', true), ''),
           coalesce(current_setting('penstock.request', true), ''), hash
    FROM hub.policy AS p
    ON CONFLICT DO NOTHING;
END $$;

-- At the commit, when all statements of the change are done.
CREATE FUNCTION hub.policy_revised() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hub.record_policy();
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER policy_revised AFTER UPDATE OF revision ON hub.policy
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION hub.policy_revised();

-- The policy that was there before there was a history.
SELECT hub.record_policy();

-- When credentials were last used: apart from them, since it is no change of the policy.
CREATE TABLE hub.credential_use (
    credential_id text        PRIMARY KEY REFERENCES hub.credential ON DELETE CASCADE,
    last_use_time timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), ACCESS)
