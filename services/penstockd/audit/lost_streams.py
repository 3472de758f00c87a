"""Writes the END entries of streams whose worker has died; runs in the keeper.

An entry states what the worker noted last (see ``open_streams``): what left the hub in the last
second before the death is not in it, and so a disclosure is never excluded by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from penstockd.audit.entry import insert_entries
from penstockd.audit.open_streams import read_document, reduce_end
from penstockd.audit.refused_entries import blames_entry
from penstockd.store.fences import Transactions
from penstockd.store.singletons import is_alive

#: How often workers that have died are looked for, in seconds.
INTERVAL = 2.0
#: Seconds for which a worker has no session with the database before it counts as dead.
GRACE = 5.0
#: The most streams that one transaction ends.
GROUP = 500

_NOTED = """
SELECT stream_id FROM hub.open_stream WHERE worker = $1 AND stream_id <> ALL ($2)
ORDER BY stream_id LIMIT $3
"""
_WORKERS = "SELECT DISTINCT worker FROM hub.open_stream"
_TAKE = """
DELETE FROM hub.open_stream WHERE stream_id = ANY (ARRAY(
    SELECT stream_id FROM hub.open_stream WHERE stream_id = ANY ($1) FOR UPDATE))
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
                ended += await self._end_all(worker)
        return ended

    async def _end_all(self, worker: str) -> int:
        """End the streams of a worker; those that cannot be ended are left for the next pass."""
        left: list[str] = []
        ended = 0
        while streams := await self._find_some(worker, left):
            try:
                ended += await self._end_some(streams)
            except Exception as exc:
                if not blames_entry(exc):
                    raise
                done = [s for s in streams if await self._end_apart(s)]
                left += set(streams).difference(done)
                ended += len(done)
        if ended:
            _log.warning("lost_streams_ended", worker=worker, streams=ended)
        return ended

    async def _find_some(self, worker: str, left: Sequence[str]) -> list[str]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_NOTED, worker, left, GROUP)
        return [row[0] for row in rows]

    async def _end_apart(self, stream: str) -> bool:
        """End a stream of a refused group, by a reduced entry if its own is refused; returns
        whether that could be done."""
        try:
            await self._end_some([stream])
            return True
        except Exception as exc:
            if not blames_entry(exc):
                raise
            _log.error("audit_entry_refused", stream=stream, error=repr(exc))
            refusal = exc
        try:
            await self._end_some([stream], refusal)
        except Exception as exc:
            if not blames_entry(exc):
                raise
            _log.error("lost_stream_not_ended", stream=stream, error=repr(exc))
            return False
        return True

    async def _end_some(self, streams: Sequence[str], refusal: Exception | None = None) -> int:
        """End streams in one transaction, by reduced entries after a refusal."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_TAKE, streams)
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
            if refusal is not None:
                entries = [reduce_end(entry, refusal) for entry in entries]
            if entries:
                await insert_entries(connection, entries)
        return len(rows)
