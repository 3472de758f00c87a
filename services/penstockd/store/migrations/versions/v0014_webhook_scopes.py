"""Webhooks keep the claims they were made with; issuers that map nobody let nobody in."""

from alembic import op

from penstockd.store.script import run_script

revision = "0014"
down_revision = "0013"

# claims: those that the token brought that the webhook was made with. scopes is older: webhooks
# without any stay without.
WEBHOOK_CLAIMS = """
ALTER TABLE hub.webhook ADD COLUMN claims jsonb NOT NULL DEFAULT '{}';
"""

# consumers_by_claim: whether the consumer claim may name consumers that are not in the map. Before
# this revision it did wherever the map was empty, so it is set there: nobody who calls today is
# locked out. What is new: it never names a consumer that may change access.
ISSUERS = """
ALTER TABLE hub.issuer ADD COLUMN consumers_by_claim boolean NOT NULL DEFAULT false;
UPDATE hub.issuer SET consumers_by_claim = true WHERE consumer_claim <> '' AND consumers = '{}';
"""


def upgrade() -> None:
    """Apply the scripts."""
    for script in (WEBHOOK_CLAIMS, ISSUERS):
        run_script(op.get_bind(), script)
