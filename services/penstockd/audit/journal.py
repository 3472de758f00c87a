"""Group commit: entries of concurrent calls share one transaction, and so one flush to disk."""

from __future__ import annotations

import asyncio

from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.shown import Shown, insert_shown
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Connection, Database, Kind, translated

#: The most entries in one transaction.
MAX_GROUP = 1000
#: How long an entry may take to become durable before the call is refused, in seconds.
TIMEOUT = 2.0


class Journal:
    """Makes entries durable. One flush runs at a time; what arrives meanwhile forms the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._known: set[bytes] = set()
        self._unknown: dict[bytes, Shown] = {}

    async def record(self, entry: Entry) -> None:
        """Return when the entry is on disk.

        Raises DatabaseUnavailable if that takes longer than TIMEOUT: what cannot be audited is
        not answered.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush_all())
        # A caller that goes away does not take the entry of its call along: it is in the group.
        await future

    def introduce(self, shown: Shown) -> bytes:
        """The digest of what is shown, for an entry; its content is stored before the entry."""
        if shown.digest not in self._known:
            self._unknown[shown.digest] = shown
        return shown.digest

    async def store(self, shown: Shown) -> bytes:
        """As ``introduce``, but stored on return: for entries of transactions not our own.

        Raises DatabaseUnavailable.
        """
        if shown.digest not in self._known:
            async with self._database.connection(Kind.OWN) as connection:
                await insert_shown(connection, [shown])
            self._known.add(shown.digest)
        return shown.digest

    async def close(self) -> None:
        """Flush what is waiting and let the connection go."""
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()

    async def _flush_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            try:
                await self._write([entry for entry, _ in group])
            except Exception as exc:  # every caller of the group gets it
                if isinstance(exc, DatabaseUnavailable):
                    # Those behind it have waited as long, and the database is no better for them.
                    group, self._waiting = group + self._waiting, []
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                for _, future in group:
                    if not future.done():
                        future.set_exception(exc)
                        future.exception()  # a caller that timed out no longer asks
            else:
                for _, future in group:
                    if not future.done():
                        future.set_result(None)

    async def _write(self, entries: list[Entry]) -> None:
        """One transaction on a connection of the journal's own, so that reads never starve it."""
        with translated():
            async with asyncio.timeout(TIMEOUT):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._database.connect()
                if self._unknown:
                    new = dict(self._unknown)
                    await insert_shown(self._connection, list(new.values()))
                    self._known |= new.keys()
                    for digest in new:
                        self._unknown.pop(digest, None)
                await insert_entries(self._connection, entries)
