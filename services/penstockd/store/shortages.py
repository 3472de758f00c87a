"""The alarm for shortages before they fail calls: disk, connections, locks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from penstockd.store.database import Connection

#: The used share of the database's connections from which too few are left.
CONNECTIONS_USED = 0.9
#: Seconds that somebody may wait for a lock before it is an alarm; calls give up after
#: PENSTOCK_LOCK_SECONDS, by default twice as long.
LOCK_SECONDS = 5.0

# Every role may read these views; pg_stat_activity hides other roles' sessions.
_CONNECTIONS = """
SELECT (SELECT sum(numbackends)::int FROM pg_stat_database) AS used,
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int AS usable
"""
_LOCKS = """
SELECT count(*)::int AS waiting,
       coalesce(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float8 AS seconds,
       coalesce(array_agg(DISTINCT holder) FILTER (WHERE holder IS NOT NULL), '{}') AS holders
FROM pg_locks LEFT JOIN LATERAL unnest(pg_blocking_pids(pid)) AS holder ON true
WHERE NOT granted AND waitstart < clock_timestamp() - make_interval(secs => $1)
"""

_log = structlog.get_logger(__name__)


class Shortages:
    """Shortages as one process sees them. Logs when a shortage begins and when it ends.

    ``reserve`` is the number of bytes that should be free on the disk of ``folder``.
    """

    def __init__(self, folder: Path, reserve: int) -> None:
        self._folder, self._reserve = folder, reserve
        self._told: set[str] = set()

    async def look(self, connection: Connection) -> Mapping[str, bool]:
        """Look at all three; returns for each of them whether there is enough."""
        free = shutil.disk_usage(self._folder).free
        self._judge("disk", free >= self._reserve, free_bytes=free, folder=str(self._folder))
        count = await connection.fetchrow(_CONNECTIONS)
        locks = await connection.fetchrow(_LOCKS, LOCK_SECONDS)
        assert count is not None and locks is not None, "aggregates have a row"
        used, usable = count
        enough = used < CONNECTIONS_USED * usable
        self._judge("connections", enough, used=used, usable=usable)
        waiting, seconds, holders = locks
        self._judge("locks", not waiting, waiting=waiting, seconds=seconds, held_by_pids=holders)
        return {name: name not in self._told for name in ("disk", "connections", "locks")}

    def _judge(self, name: str, enough: bool, **facts: Any) -> None:
        if not enough and name not in self._told:
            self._told.add(name)
            _log.warning(f"{name}_short", **facts)
        elif enough and name in self._told:
            self._told.discard(name)
            _log.info(f"{name}_enough_again", **facts)
