"""The figures of the database that operators watch: how far the hub's own work is behind, and how
full the server is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstockd.store.database import Connection

#: The figures of a statement without a label: a column of its one row for each metric.
_PLAIN: Sequence[str] = (
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(write_time)), 0)::float8
         AS penstock_sequencer_lag_seconds
FROM hub.pending
""",
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(e.entry_time)), 0)::float8
         AS penstock_sealer_lag_seconds
FROM hub.audit_head AS h JOIN hub.audit_entry AS e ON e.day >= (current_date - 1)
     AND e.txid >= pg_snapshot_xmin(h.snapshot) AND NOT pg_visible_in_snapshot(e.txid, h.snapshot)
""",
    """
SELECT extract(epoch FROM clock_timestamp() - max(checkpoint_time))::float8
         AS penstock_checkpoint_age_seconds
FROM hub.audit_checkpoint
""",
    """
SELECT coalesce(sum(greatest(c.last_sequence - coalesce(p.folded, 0), 0)), 0)::float8
         AS penstock_usage_lag_entries
FROM hub.audit_chain AS c
     LEFT JOIN hub.usage_place AS p ON p.day = c.day AND p.anchor = c.anchor
""",
    """
SELECT count(*)::float8 AS penstock_webhook_deliveries_waiting,
       coalesce(extract(epoch FROM clock_timestamp() - min(next_time)), 0)::float8
         AS penstock_webhook_delivery_lag_seconds
FROM hub.webhook_delivery WHERE state = 'PENDING'
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
    """
SELECT pg_database_size(current_database())::float8 AS penstock_database_size_bytes,
       (SELECT sum(numbackends) FROM pg_stat_database)::float8 AS penstock_database_connections,
       (current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int)::float8
         AS penstock_database_connections_usable,
       (SELECT count(*) FROM pg_locks WHERE NOT granted)::float8
         AS penstock_database_waiting_locks,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)
        FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
       )::float8 AS penstock_database_oldest_transaction_seconds,
       (SELECT coalesce(max(n_dead_tup::float8 / (n_live_tup + n_dead_tup)), 0)
        FROM pg_stat_user_tables WHERE n_live_tup + n_dead_tup >= 10000
       )::float8 AS penstock_database_dead_rows_ratio
""",
)
#: Those with a label: rows of the label's value and the figure.
_LABELLED: Mapping[str, str] = {
    "penstock_webhooks": "SELECT state, count(*)::float8 FROM hub.webhook GROUP BY state",
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
#: States that are told even if no webhook is in them.
_STATES = ("ACTIVE", "PAUSED", "DISABLED")


async def read_vitals(connection: Connection) -> dict[tuple[str, Sequence[str]], float]:
    """All figures, by the name of their metric and the value of its label.

    A figure of which there is nothing yet is left out. Raises DatabaseUnavailable.
    """
    found: dict[tuple[str, Sequence[str]], float] = {
        ("penstock_webhooks", (state,)): 0.0 for state in _STATES
    }
    for statement in _PLAIN:
        row = await connection.fetchrow(statement)
        assert row is not None, "an aggregate has a row"
        found |= {(name, ()): value for name, value in row.items() if value is not None}
    for name, statement in _LABELLED.items():
        rows = await connection.fetch(statement)
        found |= {(name, (label,)): value for label, value in rows}
    return found
