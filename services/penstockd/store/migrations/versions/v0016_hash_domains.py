"""Grants name the domain that keys their hashes."""

from alembic import op

from penstockd.store.script import run_script

revision = "0016"
down_revision = "0015"

HASH_DOMAINS = """
-- Keys the hashes that a grant shows; empty for the role's own.
ALTER TABLE hub.grant ADD COLUMN hash_domain text NOT NULL DEFAULT '';

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
            'roles', (
                SELECT coalesce(jsonb_agg(o.role_id ORDER BY o.role_id COLLATE "C"), '[]')
                FROM hub.consumer_role AS o WHERE o.consumer_id = c.consumer_id))), '{}')
        FROM hub.consumer AS c))
$$;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), HASH_DOMAINS)
