"""Root secrets succeed one another."""

from alembic import op

from penstockd.store.script import run_script

revision = "0024"
down_revision = "0023"

# No secret is in the database: root_secret_id is a fingerprint. A secret seals from seal_time on,
# until the next one does, and opens until it is retired. lasting_key holds keys that must never
# change, sealed under the secret that seals; as long as one is missing, it is derived from the
# first secret. root_secret_id '' is the first secret, too.
#
# credential_digest: digests under a later secret than that of hub.credential, written when the
# credential is used. root_secret_ids of a node: the secrets that it knows.
ROOT_SECRETS = """
CREATE TABLE hub.root_secret (
    root_secret_id text        PRIMARY KEY,
    seal_time      timestamptz NOT NULL,
    retire_time    timestamptz
);
CREATE TABLE hub.lasting_key (
    purpose text  PRIMARY KEY,
    sealed  bytea NOT NULL
);
CREATE TABLE hub.credential_digest (
    credential_id  text  PRIMARY KEY REFERENCES hub.credential ON DELETE CASCADE,
    root_secret_id text  NOT NULL,
    digest         bytea NOT NULL
);
ALTER TABLE hub.credential ADD COLUMN root_secret_id text NOT NULL DEFAULT '';
ALTER TABLE hub.cursor_key ADD COLUMN root_secret_id text NOT NULL DEFAULT '';
ALTER TABLE hub.node ADD COLUMN root_secret_ids text[] NOT NULL DEFAULT '{}';
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.root_secret
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.lasting_key
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), ROOT_SECRETS)
