"""How many database connections a node opens, and how many the server grants to its role."""

from __future__ import annotations

from penstockd.store.database import Connection
from penstockd.store.own_session import MOST_HANGING
from penstockd.store.singleton_rows import SINGLETONS
from penstockd.store.snapshots import MAX_IDLE, MAX_KEPT

#: Connections that the singletons of a keeper share, and those for webhooks.
KEEPER_CONNECTIONS = 8
WEBHOOK_CONNECTIONS = 8
#: Sessions outside the lanes: of a worker for the pulse, rules, log, announcements, journal, open
#: streams, for checking the server, and for kept states of the data; of a keeper for similar
#: purposes, and for taking leases. Those of the journal and of open streams may hang.
WORKER_SESSIONS = 7 + 2 * MOST_HANGING + MAX_KEPT + MAX_IDLE
KEEPER_SESSIONS = 5 + len(SINGLETONS)

#: The least of what the server, the database and the role allow; -1 is no limit.
_ALLOWED = """
SELECT least(
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int,
    nullif(d.datconnlimit, -1), nullif(r.rolconnlimit, -1))
FROM pg_database AS d, pg_roles AS r
WHERE d.datname = current_database() AND r.rolname = current_user
"""


def needed_connections(workers: int, connections: int) -> int:
    """The most connections that a node opens at one time; ``connections`` is the size of a worker's
    lanes together."""
    # Each export and import under way holds a state of the data besides its place in the lane.
    worker = connections + connections // 4 + WORKER_SESSIONS
    return workers * worker + KEEPER_CONNECTIONS + WEBHOOK_CONNECTIONS + KEEPER_SESSIONS


async def allowed_connections(connection: Connection) -> int:
    """The most connections that the role of a connection may have. Raises the driver's errors."""
    allowed: int = await connection.fetchval(_ALLOWED)
    return allowed
