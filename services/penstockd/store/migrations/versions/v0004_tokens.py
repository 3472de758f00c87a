"""Signing keys that rotate, and issuers outside the hub."""

from alembic import op

from penstockd.store.script import run_script

revision = "0004"
down_revision = "0003"

# A key is published as soon as it is there, signs from sign_time on, and verifies until
# retire_time. It is announced with the policy, and counted by itself: a new key is no new policy,
# so Views and page tokens live on.
TOKENS = """
CREATE TABLE hub.trust (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO hub.trust (revision) VALUES (1);

ALTER TABLE hub.signing_key
    ADD COLUMN sign_time   timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN retire_time timestamptz;
UPDATE hub.signing_key SET sign_time = create_time;

-- Who else may say who calls. consumers: value of the consumer claim -> consumer; empty: the value
-- is the consumer. claims: [{"token_claim", "claim", "override"}].
CREATE TABLE hub.issuer (
    issuer_id       text        PRIMARY KEY,
    issuer          text        NOT NULL UNIQUE,
    title           text        NOT NULL DEFAULT '',
    jwks_uri        text        NOT NULL,
    audiences       text[]      NOT NULL,
    algorithms      text[]      NOT NULL,
    token_types     text[]      NOT NULL,
    consumer_id     text        NOT NULL DEFAULT '',
    consumer_claim  text        NOT NULL DEFAULT '',
    consumers       jsonb       NOT NULL DEFAULT '{}',
    claims          jsonb       NOT NULL DEFAULT '[]',
    scope_claim     text        NOT NULL DEFAULT '',
    max_age_seconds integer     NOT NULL,
    active          boolean     NOT NULL DEFAULT true,
    create_time     timestamptz NOT NULL DEFAULT now(),
    update_time     timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION hub.trust_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE hub.trust SET revision = revision + 1;
    PERFORM pg_notify('penstock_policy', '');
    RETURN NULL;
END $$;
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.signing_key
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.issuer
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
-- Streams that began with a token of an issuer ask the policy whether it is still good.
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON hub.issuer
    FOR EACH STATEMENT EXECUTE FUNCTION hub.policy_changed();
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), TOKENS)
