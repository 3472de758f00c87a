"""Usage: what consumers used, folded from the audit; and how far streams have got."""

from alembic import op

from penstockd.store.script import run_script

revision = "0032"
down_revision = "0031"

# hub.usage_series: each combination of what usage is reported by, once. Empty text means none; plan
# is empty as long as there are no plans. classes: the classes of the fields that were shown.
# hub.usage_place: how far the chain of each day that hangs from checkpoint ``anchor`` is folded,
# and how many entries of the day were counted in all: an archived day can get another chain.
# missing: entries that were sealed and are gone.
# hub.usage_level: the first day of which a level is whole; NULL: of all days.
# hub.open_stream: how far the streams of each worker have got, and their END entries (see
# audit.open_streams).
# hub.usage_digest: the digests of a day's rollups, and the checkpoint that signs them.
USAGE = """
CREATE TABLE hub.usage_series (
    series_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id   text COLLATE "C" NOT NULL,
    credential_id text COLLATE "C" NOT NULL,
    plan          text COLLATE "C" NOT NULL,
    method        text COLLATE "C" NOT NULL,
    surface       text COLLATE "C" NOT NULL,
    dataset       text COLLATE "C" NOT NULL,
    status        text COLLATE "C" NOT NULL,
    classes       text COLLATE "C" NOT NULL,
    UNIQUE (consumer_id, credential_id, plan, method, surface, dataset, status, classes)
);

CREATE TABLE hub.usage_minute (
    bucket_time timestamptz NOT NULL,
    series_id   bigint      NOT NULL,
    calls       bigint      NOT NULL,
    errors      bigint      NOT NULL,
    records     bigint      NOT NULL,
    bytes       bigint      NOT NULL,
    PRIMARY KEY (bucket_time, series_id)
);
CREATE TABLE hub.usage_hour (LIKE hub.usage_minute INCLUDING ALL);
CREATE TABLE hub.usage_day (LIKE hub.usage_minute INCLUDING ALL);

CREATE TABLE hub.usage_place (
    day     date   PRIMARY KEY,
    anchor  bigint NOT NULL,
    folded  bigint NOT NULL,
    entries bigint NOT NULL,
    missing bigint NOT NULL
);

CREATE TABLE hub.usage_level (
    level      text PRIMARY KEY,
    oldest_day date
);
INSERT INTO hub.usage_level (level) VALUES ('minute'), ('hour'), ('day');

CREATE TABLE hub.usage_digest (
    day        date    NOT NULL,
    revision   integer NOT NULL,
    entries    bigint  NOT NULL,
    minutes    bytea   NOT NULL,
    hours      bytea   NOT NULL,
    days       bytea   NOT NULL,
    digest     bytea   NOT NULL,
    checkpoint bigint,
    PRIMARY KEY (day, revision)
);
CREATE TABLE hub.open_stream (
    stream_id  text   PRIMARY KEY,
    worker     text   NOT NULL,
    request_id text   NOT NULL,
    entry      json   NOT NULL,
    row_count  bigint NOT NULL,
    byte_count bigint NOT NULL
);
CREATE INDEX open_stream_worker ON hub.open_stream (worker);
CREATE INDEX usage_digest_unsigned ON hub.usage_digest (day) WHERE checkpoint IS NULL;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), USAGE)
