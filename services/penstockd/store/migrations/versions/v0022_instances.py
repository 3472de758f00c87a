"""Each process of a node has a row of its own, and tasks record since when they fail."""

from alembic import op

from penstockd.store.script import run_script

revision = "0022"
down_revision = "0021"

# Two nodes may have one id, as after a copy of the data folder. Each run of a keeper therefore has
# a random instance id: rows and leases belong to a node and an instance.
INSTANCES = """
ALTER TABLE hub.node ADD COLUMN instance text NOT NULL DEFAULT '',
    ADD COLUMN twin text NOT NULL DEFAULT '';
ALTER TABLE hub.node DROP CONSTRAINT node_pkey, ADD PRIMARY KEY (node_id, instance);
ALTER TABLE hub.singleton ADD COLUMN instance text NOT NULL DEFAULT '',
    ADD COLUMN fail_time timestamptz, ADD COLUMN failure text NOT NULL DEFAULT '';
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), INSTANCES)
