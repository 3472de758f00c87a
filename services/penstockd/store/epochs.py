"""Notices that the database has gone back in time, whether anybody declares it or not.

A standby that had not received all takes over, a backup is restored, a volume is put back. Then the
database gives out numbers again that it gave out before: so every connection, before anything is
done on it, asks whether that has happened since the newest epoch began (see the migrations), and if
so begins another. With an epoch, revisions go on from where none that was undone is, subscriptions
and webhooks are told to repair what they have, and health says so until an operator declares it.

What a server tells by itself is that it is another cluster or on another timeline. A volume that is
put back has the same of both: there, what counts is what this process remembers of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable

#: NULL if the server is in recovery.
_NOTICE = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN hub.notice_epoch($1, $2, $3) END
"""
#: The epoch of now, and of those that nobody has declared the newest.
_LOOK = """
SELECT h.epoch, e.epoch AS undeclared, e.because, e.begin_time
FROM hub.epoch_head AS h
LEFT JOIN LATERAL (
    SELECT * FROM hub.epoch WHERE NOT declared ORDER BY epoch DESC LIMIT 1) AS e ON true
"""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Memory:
    """What a process remembers of the database: the newest place of the log that it has heard of,
    when the database last confirmed one (by the database's clock), and the epoch."""

    number: int | None = None
    mark: bytes = b""
    time: datetime | None = None
    epoch: int | None = None
    _forget: list[Callable[[], None]] = field(default_factory=list)

    def note(self, number: int, mark: bytes, time: datetime | None = None) -> None:
        """The log goes to a place; with ``time``, it was asked and said so then."""
        self.number, self.mark = number, mark
        self.time = time or self.time

    def when_undone(self, forget: Callable[[], None]) -> None:
        """Call this when an epoch begins: what is known to be stored may not be any more."""
        self._forget.append(forget)

    def note_epoch(self, epoch: int) -> None:
        """The database is in an epoch."""
        if self.epoch is not None and epoch != self.epoch:
            _log.error("database_gone_back", epoch=epoch, advice="penstock epoch new")
            for forget in self._forget:
                forget()
        self.epoch = epoch


async def notice_epoch(connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> None:
    """Begin a new epoch if the database has gone back in time.

    Raises DatabaseUnavailable if the server is a standby: one that takes over later has had no
    connection that was not asked.
    """
    known = memory.time and memory.number
    try:
        epoch = await connection.fetchval(_NOTICE, known, memory.mark, memory.time)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        return  # of a version before this one, or not set up: nothing of the hub runs on it
    if epoch is None:
        raise DatabaseUnavailable("the database takes no writes: it is a standby")
    memory.note_epoch(epoch)


class Undeclared:
    """Epochs that the hub has begun by itself and nobody has declared since, as one process sees
    them: told once, and when it is over."""

    def __init__(self) -> None:
        self._told: int | None = None

    async def look(self, connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> bool:
        """Whether all are declared."""
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
