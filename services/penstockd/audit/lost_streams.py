"""Writes the END entries of streams whose worker has died; runs in the keeper.

An entry states what the worker noted last (see ``open_streams``): what left the hub in the last
second before the death is not in it, and so a disclosure is never excluded by it.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from penstockd.audit.entry import insert_entries
from penstockd.audit.open_streams import read_document
from penstockd.store.fences import Transactions
from penstockd.store.singletons import is_alive

#: How often workers that have died are looked for, in seconds.
INTERVAL = 2.0
#: Seconds for which a worker has no session with the database before it counts as dead.
GRACE = 5.0
#: The most streams that one transaction ends.
GROUP = 500

_WORKERS = "SELECT DISTINCT worker FROM hub.open_stream"
_TAKE = """
DELETE FROM hub.open_stream WHERE stream_id = ANY (ARRAY(
    SELECT stream_id FROM hub.open_stream WHERE worker = $1 ORDER BY stream_id LIMIT $2
    FOR UPDATE))
RETURNING stream_id, request_id, entry::text, row_count, byte_count
"""
_ENDED = """
SELECT query ->> 'stream' FROM hub.audit_entry
WHERE phase = 'END' AND request_id = ANY ($1) AND query ->> 'stream' = ANY ($2)
"""

_log = structlog.get_logger(__name__)


class LostStreams:
    """Ends the streams of dead workers, of any node."""

    def __init__(self, database: Transactions, *, grace: float = GRACE) -> None:
        self._database, self._grace = database, grace
        #: Since when workers have had no session.
        self._silent: dict[str, float] = {}

    async def run(self) -> None:
        """Look every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.end_lost()
            await asyncio.sleep(INTERVAL)

    async def end_lost(self) -> int:
        """End the streams of workers that have been silent for long enough; returns how many."""
        now = time.monotonic()
        async with self._database.transaction() as connection:
            workers = [row[0] for row in await connection.fetch(_WORKERS)]
            silent = [w for w in workers if not await is_alive(w, connection)]
        self._silent = {worker: self._silent.get(worker, now) for worker in silent}
        ended = 0
        for worker, since in self._silent.items():
            if now - since >= self._grace:
                while count := await self._end_some(worker):
                    ended += count
        return ended

    async def _end_some(self, worker: str) -> int:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_TAKE, worker, GROUP)
            # The worker may have written an entry, and died before it knew that its note was there.
            found = await connection.fetch(
                _ENDED, [row["request_id"] for row in rows], [row["stream_id"] for row in rows]
            )
            ended = {row[0] for row in found}
            entries = [
                read_document(row["entry"], row["row_count"], row["byte_count"])
                for row in rows
                if row["stream_id"] not in ended
            ]
            if entries:
                await insert_entries(connection, entries)
        if rows:
            _log.warning("lost_streams_ended", worker=worker, streams=len(entries))
        return len(rows)
