"""What access reviews and the scorecard read: uses of access, comparisons, the sidecar's view."""

from alembic import op

from penstockd.store.script import run_script

revision = "0036"
down_revision = "0035"

# hub.access_use: who used a method, with which credential, through which surface, on which dataset,
# and the classes of fields that were shown; ``received_time``: when records with them last left.
# hub.check_day: comparisons of receivers' copies by digests, on each day of UTC.
# hub.door_hour: what the sidecar of a node answered in each hour; ``counts`` are the requests that
# took at most each of ``bounds`` milliseconds.
REVIEWS = """
CREATE TABLE hub.access_use (
    consumer_id   text COLLATE "C" NOT NULL,
    credential_id text COLLATE "C" NOT NULL,
    method        text COLLATE "C" NOT NULL,
    surface       text COLLATE "C" NOT NULL,
    dataset       text COLLATE "C" NOT NULL,
    classes       text COLLATE "C" NOT NULL,
    first_time    timestamptz NOT NULL,
    last_time     timestamptz NOT NULL,
    received_time timestamptz,
    PRIMARY KEY (consumer_id, credential_id, method, surface, dataset, classes)
);

CREATE TABLE hub.check_day (
    day         date NOT NULL,
    consumer_id text COLLATE "C" NOT NULL,
    dataset     text COLLATE "C" NOT NULL,
    checks      bigint NOT NULL,
    passed      bigint NOT NULL,
    compared    bigint NOT NULL,
    differing   bigint NOT NULL,
    PRIMARY KEY (day, consumer_id, dataset)
);

CREATE TABLE hub.door_hour (
    bucket_time timestamptz NOT NULL,
    node_id     text        NOT NULL,
    bounds      float8[]    NOT NULL,
    requests    bigint      NOT NULL,
    failures    bigint      NOT NULL,
    rejected    bigint      NOT NULL,
    counts      bigint[]    NOT NULL,
    fresh_time  timestamptz NOT NULL,
    PRIMARY KEY (bucket_time, node_id, bounds)
);

CREATE INDEX receipt_finish ON hub.receipt (finish_time);

-- What usage knows of earlier calls, to the minute or the day.
INSERT INTO hub.access_use
SELECT s.consumer_id, s.credential_id, s.method, s.surface, s.dataset, s.classes,
    min(u.bucket_time), max(u.bucket_time),
    max(u.bucket_time) FILTER (WHERE s.classes <> '' AND u.records > 0)
FROM hub.usage_series AS s JOIN (
    SELECT series_id, bucket_time, records FROM hub.usage_day
    WHERE NOT EXISTS (
        SELECT FROM hub.usage_level
        WHERE level = 'minute' AND usage_day.bucket_time >= coalesce(oldest_day, '-infinity'))
    UNION ALL SELECT series_id, bucket_time, records FROM hub.usage_minute) AS u USING (series_id)
WHERE s.consumer_id <> '' AND s.status IN ('OK', 'CANCELLED')
GROUP BY 1, 2, 3, 4, 5, 6;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), REVIEWS)
