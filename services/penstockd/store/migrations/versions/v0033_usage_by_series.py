"""Rollups of one series side by side: a report of one consumer costs its own rollups."""

from alembic import op

from penstockd.store.script import run_script

revision = "0033"
down_revision = "0032"

INDEXES = """
CREATE INDEX usage_minute_series ON hub.usage_minute (series_id, bucket_time);
CREATE INDEX usage_hour_series ON hub.usage_hour (series_id, bucket_time);
CREATE INDEX usage_day_series ON hub.usage_day (series_id, bucket_time);
CREATE INDEX usage_series_consumer ON hub.usage_series (consumer_id);
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), INDEXES)
