"""The figures of the database that operators watch: how far the hub's own work is behind, and how
full the server is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from penstockd.observe.gauges import Readings
from penstockd.store.database import Connection

#: Reads some figures; one of which there is nothing yet is left out. Raises the driver's errors.
ReadFigures = Callable[[Connection], Awaitable[Readings]]

#: The most deliveries of one webhook that are counted.
MOST_COUNTED = 10_000

#: Statements whose columns are named like the metrics.
_PLAIN: Sequence[str] = (
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(write_time)), 0)::float8
         AS penstock_sequencer_lag_seconds
FROM hub.pending
""",
    """
SELECT extract(epoch FROM clock_timestamp() - checkpoint_time)::float8
         AS penstock_checkpoint_age_seconds
FROM hub.audit_checkpoint ORDER BY number DESC LIMIT 1
""",
    """
SELECT coalesce(sum(greatest(c.last_sequence - coalesce(p.folded, 0), 0)), 0)::float8
         AS penstock_usage_lag_entries
FROM hub.audit_chain AS c
     LEFT JOIN hub.usage_place AS p ON p.day = c.day AND p.anchor = c.anchor
""",
    # Of webhooks that the hub posts to now: others keep what is due until they are resumed, or
    # until their owner pulls.
    f"""
SELECT coalesce(sum(counted.n), 0)::float8 AS penstock_webhook_deliveries_waiting,
       greatest(extract(epoch FROM clock_timestamp() - min(first.next_time)), 0)::float8
         AS penstock_webhook_delivery_lag_seconds
FROM hub.webhook AS w
     CROSS JOIN LATERAL (
         SELECT count(*) AS n FROM (
             SELECT FROM hub.webhook_delivery AS d
             WHERE d.webhook_id = w.webhook_id AND d.state = 'PENDING' LIMIT {MOST_COUNTED}
         ) AS bounded
     ) AS counted
     LEFT JOIN LATERAL (
         SELECT next_time FROM hub.webhook_delivery AS d
         WHERE d.webhook_id = w.webhook_id AND d.state = 'PENDING' ORDER BY next_time LIMIT 1
     ) AS first ON true
WHERE w.state = 'ACTIVE' AND w.kind = 'HTTP'
""",
    """
SELECT extract(epoch FROM clock_timestamp() - max(sign_time))::float8
         AS penstock_signing_key_age_seconds
FROM hub.signing_key WHERE sign_time <= clock_timestamp()
""",
    """
SELECT count(*)::float8 AS penstock_nodes_alive FROM hub.node
WHERE expire_time > clock_timestamp()
""",
    "SELECT pg_database_size(current_database())::float8 AS penstock_database_size_bytes",
    """
SELECT sum(numbackends)::float8 AS penstock_database_connections,
       (current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int)::float8
         AS penstock_database_connections_usable
FROM pg_stat_database
""",
    """
SELECT count(*)::float8 AS penstock_database_waiting_locks FROM pg_locks WHERE NOT granted
""",
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)::float8
         AS penstock_database_oldest_transaction_seconds
FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
""",
    """
SELECT coalesce(max(n_dead_tup::float8 / (n_live_tup + n_dead_tup)), 0)::float8
         AS penstock_database_dead_rows_ratio
FROM pg_stat_user_tables WHERE n_live_tup + n_dead_tup >= 10000
""",
)
#: Statements with rows of a label's value and a figure.
_LABELLED: Mapping[str, str] = {
    "penstock_webhooks": """
SELECT s.state, count(w.webhook_id)::float8
FROM unnest(ARRAY['ACTIVE', 'PAUSED', 'DISABLED']) AS s (state)
     LEFT JOIN hub.webhook AS w ON w.state = s.state
GROUP BY s.state
""",
    "penstock_singleton_held": """
SELECT name, CASE WHEN expire_time > clock_timestamp() THEN 1 ELSE 0 END::float8
FROM hub.singleton
""",
    "penstock_singleton_failing": """
SELECT name, CASE WHEN fail_time IS NULL THEN 0 ELSE 1 END::float8 FROM hub.singleton
""",
    "penstock_database_replication_lag_bytes": """
SELECT coalesce(nullif(application_name, ''), 'standby') || '/' || pid::text,
       pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8
FROM pg_stat_replication WHERE replay_lsn IS NOT NULL
""",
}
_SEALED = """
SELECT pg_snapshot_xmax(snapshot), ARRAY(SELECT pg_snapshot_xip(snapshot)), foreign_id
FROM hub.audit_head
"""
#: The oldest entry that the sealer's last pass did not see (see ``audit.sealer``).
_UNSEALED = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(entry_time)), 0)::float8
FROM hub.audit_entry AS e
WHERE e.entry_id > $3 AND (e.txid >= $1 OR e.txid = ANY ($2::xid8[]))
"""


async def _read_sealer(connection: Connection) -> Readings:
    row = await connection.fetchrow(_SEALED)
    assert row is not None, "the migration made it"
    end, under_way, foreign = row
    lag = await connection.fetchval(_UNSEALED, end, list(under_way), foreign)
    return {("penstock_sealer_lag_seconds", ()): lag}


def _make_plain(statement: str) -> ReadFigures:
    async def read(connection: Connection) -> Readings:
        row = await connection.fetchrow(statement)
        found = row.items() if row is not None else ()
        return {(name, ()): value for name, value in found if value is not None}

    return read


def _make_labelled(name: str, statement: str) -> ReadFigures:
    async def read(connection: Connection) -> Readings:
        rows = await connection.fetch(statement)
        return {(name, (label,)): value for label, value in rows}

    return read


#: What a keeper reads. It asks for each by itself, so that a slow one delays no other.
FIGURES: Sequence[ReadFigures] = (
    _read_sealer,
    *map(_make_plain, _PLAIN),
    *(_make_labelled(name, statement) for name, statement in _LABELLED.items()),
)


async def check_answer(connection: Connection) -> Readings:
    """Ask for nothing, to see whether the database answers."""
    await connection.fetchval("SELECT 1")
    return {("penstock_database_answers", ()): 1.0}


async def prepare_reading(connection: Connection) -> None:
    """Let the server end a figure that takes too long for ``OwnSession.ask``."""
    await connection.execute("SET statement_timeout = '1400ms'")
