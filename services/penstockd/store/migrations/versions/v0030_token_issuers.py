"""The names under which the hub has issued tokens."""

from alembic import op

from penstockd.store.script import run_script

revision = "0030"
down_revision = "0029"

# A node adds its name at its start. Tokens under an earlier name stay valid until they expire: a
# name alone gives nothing, since only the hub's own keys sign tokens. Nodes still under way, and
# the former default, are known from the start.
TOKEN_ISSUERS = """
CREATE TABLE hub.token_issuer (
    issuer      text        PRIMARY KEY,
    create_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO hub.token_issuer (issuer)
SELECT 'penstock' UNION SELECT settings->>'issuer' FROM hub.node WHERE settings ? 'issuer';
CREATE TRIGGER trust_changed AFTER INSERT OR UPDATE OR DELETE ON hub.token_issuer
    FOR EACH STATEMENT EXECUTE FUNCTION hub.trust_changed();
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), TOKEN_ISSUERS)
