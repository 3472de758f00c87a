"""The store keeps the model that its tables were made with, and all earlier models."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the table."""
    op.execute(
        "CREATE TABLE hub.model ("
        " id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
        " manifest json NOT NULL)"
    )
