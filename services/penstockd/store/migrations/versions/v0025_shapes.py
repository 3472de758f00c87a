"""Shapes: saved projections of datasets, in versions."""

from alembic import op

from penstockd.store.script import run_script

revision = "0025"
down_revision = "0024"

SHAPES = """
CREATE TABLE hub.shape (
    consumer_id text        COLLATE "C" NOT NULL REFERENCES hub.consumer ON DELETE CASCADE,
    shape_id    text        COLLATE "C" NOT NULL,
    version     integer     NOT NULL CHECK (version > 0),
    definition  text        NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_id, shape_id, version)
);
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), SHAPES)
