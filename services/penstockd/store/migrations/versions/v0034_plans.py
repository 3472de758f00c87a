"""Plans: a part of the policy, and of each of its revisions."""

from alembic import op

from penstockd.store.script import run_script

revision = "0034"
down_revision = "0033"

# hub.plan.limits, hub.consumer.limits: see penstockd.policy.plans. hub.policy_revision.plans: a
# digest of the plans, and of which consumer has which; revisions from before there were plans have
# none.
PLANS = """
CREATE TABLE hub.plan (
    plan_id     text COLLATE "C" PRIMARY KEY,
    description text    NOT NULL DEFAULT '',
    time_zone   text    NOT NULL DEFAULT '',
    shadow      boolean NOT NULL DEFAULT false,
    limits      jsonb   NOT NULL DEFAULT '{}'
);
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.plan
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();

ALTER TABLE hub.consumer ADD COLUMN plan_id text COLLATE "C" REFERENCES hub.plan;
ALTER TABLE hub.consumer ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
ALTER TABLE hub.policy_revision ADD COLUMN plans bytea;

CREATE OR REPLACE FUNCTION hub.policy_now() RETURNS jsonb LANGUAGE sql STABLE AS $$
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
                    'row_filter', g.row_filter,
                    'hash_domain', g.hash_domain)), '{}')
                FROM hub.grant AS g WHERE g.role_id = r.role_id))), '{}')
        FROM hub.role AS r),
    'consumers', (
        SELECT coalesce(jsonb_object_agg(c.consumer_id, jsonb_build_object(
            'title', c.title,
            'active', c.active,
            'claims', c.claims,
            'plan', coalesce(c.plan_id, ''),
            'limits', c.limits,
            'roles', (
                SELECT coalesce(jsonb_agg(o.role_id ORDER BY o.role_id COLLATE "C"), '[]')
                FROM hub.consumer_role AS o WHERE o.consumer_id = c.consumer_id))), '{}')
        FROM hub.consumer AS c),
    'plans', (
        SELECT coalesce(jsonb_object_agg(p.plan_id, jsonb_build_object(
            'description', p.description,
            'time_zone', p.time_zone,
            'shadow', p.shadow,
            'limits', p.limits)), '{}')
        FROM hub.plan AS p))
$$;

CREATE OR REPLACE FUNCTION hub.record_policy() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found jsonb := hub.policy_now();
    hash bytea := sha256(convert_to(found::text, 'UTF8'));
    author text := nullif(current_setting('penstock.consumer', true), '');
    plans jsonb := jsonb_build_object('plans', found -> 'plans', 'consumers', (
        SELECT coalesce(jsonb_object_agg(
            key, jsonb_build_array(value -> 'plan', value -> 'limits')), '{}')
        FROM jsonb_each(found -> 'consumers')
        WHERE value ->> 'plan' <> '' OR value -> 'limits' <> '{}'));
BEGIN
    INSERT INTO hub.policy_document (digest, document) VALUES (hash, found)
    ON CONFLICT DO NOTHING;
    INSERT INTO hub.policy_revision
        (revision, consumer_id, database_user, comment, request_id, digest, plans)
    SELECT p.revision, author, CASE WHEN author IS NULL THEN session_user ELSE '' END,
           coalesce(current_setting('penstock.comment', true), ''),
           coalesce(current_setting('penstock.request', true), ''), hash,
           sha256(convert_to(plans::text, 'UTF8'))
    FROM hub.policy AS p
    ON CONFLICT DO NOTHING;
END $$;

-- What there was before there were plans: none.
UPDATE hub.policy_revision SET plans = sha256(convert_to(
    '{"plans": {}, "consumers": {}}', 'UTF8'));
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), PLANS)
