"""Detects that the database has gone back in time, whether or not an operator declares it.

A lagging standby takes over, a backup is restored, a volume is put back. The database then assigns
numbers again that it assigned before. So every new connection first checks whether that has
happened since the newest epoch began (see the migrations), and if so begins another. A new epoch
moves revisions past all that were undone, tells subscriptions and webhooks to repair their data,
and shows in health until an operator declares it.

A server itself reveals a change of cluster or timeline. A volume that is put back keeps both; there
the check relies on what this process remembers of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable
from penstockd.store.servers import NewestServer

#: NULL if the server is in recovery.
_NOTICE = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN hub.notice_epoch($1, $2, $3) END
"""
#: The current epoch, and the newest that nobody has declared.
_LOOK = """
SELECT h.epoch, e.epoch AS undeclared, e.because, e.begin_time
FROM hub.epoch_head AS h
LEFT JOIN LATERAL (
    SELECT * FROM hub.epoch WHERE NOT declared ORDER BY epoch DESC LIMIT 1) AS e ON true
"""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Memory:
    """What a process remembers of the database: the newest place of the log that it knows of, when
    the database last confirmed one (by the database's clock), the epoch, and the server."""

    number: int | None = None
    mark: bytes = b""
    time: datetime | None = None
    epoch: int | None = None
    servers: NewestServer = field(default_factory=NewestServer)
    _forget: list[Callable[[], None]] = field(default_factory=list)

    def note(self, number: int, mark: bytes, time: datetime | None = None) -> None:
        """The log extends to a place; ``time`` is when the database confirmed it, if it did."""
        self.number, self.mark = number, mark
        self.time = time or self.time

    def when_undone(self, forget: Callable[[], None]) -> None:
        """Call ``forget`` when an epoch begins: what is known to be stored may be gone."""
        self._forget.append(forget)

    def note_epoch(self, epoch: int) -> None:
        """Note the database's epoch; if it has changed, call the ``forget`` functions."""
        if self.epoch is not None and epoch != self.epoch:
            _log.error("database_gone_back", epoch=epoch, advice="penstock epoch new")
            for forget in self._forget:
                forget()
        self.epoch = epoch


async def notice_epoch(connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> None:
    """Begin a new epoch if the database has gone back in time.

    Raises DatabaseUnavailable if the server is a standby, so that when it takes over later no
    unchecked connection exists.
    """
    known = memory.time and memory.number
    try:
        epoch = await connection.fetchval(_NOTICE, known, memory.mark, memory.time)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        return  # an older schema, or none: nothing of the hub runs on it
    if epoch is None:
        raise DatabaseUnavailable("the database takes no writes: it is a standby")
    memory.note_epoch(epoch)


class Undeclared:
    """Epochs that the hub began by itself and nobody has declared, as one process sees them. Logs
    each change once."""

    def __init__(self) -> None:
        self._told: int | None = None

    async def look(self, connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> bool:
        """Read whether all epochs are declared."""
        row = await connection.fetchrow(_LOOK)
        assert row is not None, "the migrations have put one row there"
        memory.note_epoch(row["epoch"])
        if row["undeclared"] != self._told:
            self._told = row["undeclared"]
            if self._told is None:
                _log.info("epochs_declared")
            else:
                _log.error(
                    "epoch_undeclared",
                    epoch=self._told,
                    because=row["because"],
                    since=row["begin_time"].isoformat(),
                    advice="penstock epoch new --because restore (or failover)",
                )
        return self._told is None
