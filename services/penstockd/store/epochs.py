"""Detects that the database has gone back in time, whether or not an operator declares it.

A lagging standby takes over, a backup is restored, a volume is put back. The database then assigns
numbers again that it assigned before. So every new connection first checks whether that has
happened since the newest epoch began (see the migrations), and if so begins another. A new epoch
moves revisions past all that were undone, tells subscriptions and webhooks to repair their data,
and shows in health until an operator declares it.

A server itself reveals a change of cluster or timeline. A volume that is put back keeps both; there
the check relies on what this process remembers of the log and of the epochs. Epochs are told apart
by random ids: a volume that is put back twice gives out the number of the next epoch twice, and
clocks of servers differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable
from penstockd.store.servers import NewestServer

#: NULL if the server is in recovery.
_NOTICE = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN hub.notice_return($1, $2, $3) END
"""
#: The newest epoch that nobody has declared.
_UNDECLARED = """
SELECT epoch, id, because, begin_time FROM hub.epoch WHERE NOT declared ORDER BY epoch DESC LIMIT 1
"""
_DECLARED_ELSEWHERE = """
SELECT EXISTS (SELECT FROM hub.epoch WHERE declared AND id <> ALL ($1::uuid[]))
"""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Memory:
    """What a process remembers of the database: the ids of its epochs, the newest last; the newest
    place of the log that the database had in the newest epoch, None if it knows none; and the
    newest server. ``seen`` are the ids of all epochs in which it has seen the database."""

    epochs: tuple[UUID, ...] = ()
    number: int | None = None
    mark: bytes = b""
    seen: set[UUID] = field(default_factory=set)
    servers: NewestServer = field(default_factory=NewestServer)
    _forget: list[Callable[[], None]] = field(default_factory=list)

    def confirm(self, number: int, mark: bytes, epochs: Sequence[UUID]) -> None:
        """The database had this place and these epochs in one state."""
        self.note_epochs(epochs)
        self.number, self.mark = number, mark

    def hear(self, number: int, mark: bytes) -> None:
        """The log extends to a place. It counts only after a place of the same epoch was confirmed:
        announcements may be from the epoch before."""
        if self.number is not None:
            self.number, self.mark = number, mark

    def when_undone(self, forget: Callable[[], None]) -> None:
        """Call ``forget`` when an epoch begins: data that was known to be stored may be gone."""
        self._forget.append(forget)

    def note_epochs(self, epochs: Sequence[UUID]) -> None:
        """Note the database's epochs; if the newest one has changed, call the ``forget``
        functions."""
        if self.epochs and epochs[-1] != self.epochs[-1]:
            _log.error("database_gone_back", epoch=str(epochs[-1]), advice="penstock epoch new")
            self.number, self.mark = None, b""
            for forget in self._forget:
                forget()
        self.epochs = tuple(epochs)
        self.seen.update(epochs)

    def misses_epoch(self, epochs: Sequence[UUID]) -> bool:
        """Whether a database whose epochs are these has gone back to before its newest began."""
        return epochs[-1] in self.epochs[:-1]


async def notice_epoch(connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> None:
    """Begin a new epoch if the database has gone back in time.

    Raises DatabaseUnavailable if the server is a standby, so that when it takes over later no
    unchecked connection exists.
    """
    try:
        epochs = await connection.fetchval(_NOTICE, list(memory.epochs), memory.number, memory.mark)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        return  # an older schema, or none: nothing of the hub runs on it
    if epochs is None:
        raise DatabaseUnavailable("the database takes no writes: it is a standby")
    memory.note_epochs(epochs)


async def declares_return(connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> bool:
    """Whether the database has an epoch that an operator declared and that this process has never
    seen."""
    if not memory.seen:
        return False
    try:
        return bool(await connection.fetchval(_DECLARED_ELSEWHERE, list(memory.seen)))
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return False  # an older schema, or none


class Undeclared:
    """Epochs that the hub began by itself and nobody has declared, as one process sees them. Logs
    each change once."""

    def __init__(self) -> None:
        self._told: UUID | None = None

    async def look(self, connection: asyncpg.Connection[asyncpg.Record], memory: Memory) -> bool:
        """Read whether all epochs are declared, after a check whether another has to begin.

        Raises DatabaseUnavailable if the server is a standby.
        """
        await notice_epoch(connection, memory)
        row = await connection.fetchrow(_UNDECLARED)
        found = row["id"] if row is not None else None
        if found != self._told:
            self._told = found
            if row is None:
                _log.info("epochs_declared")
            else:
                _log.error(
                    "epoch_undeclared",
                    epoch=row["epoch"],
                    because=row["because"],
                    since=row["begin_time"].isoformat(),
                    advice="penstock epoch new --because restore (or failover)",
                )
        return row is None
