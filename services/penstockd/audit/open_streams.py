"""Streams under way: what they have sent so far, so that the audit states it even if their worker
dies.

The END entry of a stream states what the stream sent. Once a second a worker notes in
``hub.open_stream`` how far its streams have got. Whoever deletes a note writes the END entry of its
stream in the same transaction: the worker, or after the worker's death the keeper (see
``lost_streams``). A worker that finds its note gone, since it seemed to be dead, writes an END
entry of the rest.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
import structlog

from penstockd.audit.bounds import query_text
from penstockd.audit.entry import LOST, Entry, EntryNotKept, insert_entries
from penstockd.audit.journal import Journal
from penstockd.audit.refused_entries import blames_entry
from penstockd.store.database import Connection, Database
from penstockd.store.own_session import OwnSession
from penstockd.store.singletons import show_life

#: How often a worker notes how far its streams have got, in seconds.
INTERVAL = 1.0
#: The most streams in one statement.
GROUP = 500
#: The name, in an entry's query, of the stream that it ends.
STREAM = "stream"

#: A note that the keeper has closed does not come back.
_ADD = """
INSERT INTO hub.open_stream (stream_id, worker, request_id, entry, row_count, byte_count)
SELECT w.stream_id, $6, w.request_id, w.entry, w.row_count, w.byte_count
FROM unnest($1::text[], $2::text[], $3::json[], $4::bigint[], $5::bigint[])
    AS w (stream_id, request_id, entry, row_count, byte_count)
WHERE NOT EXISTS (
    SELECT FROM hub.audit_entry AS e WHERE e.phase = 'END' AND e.request_id = w.request_id
    AND e.query ->> 'stream' = w.stream_id AND e.day >= current_date - 2)
ON CONFLICT (stream_id) DO UPDATE
    SET row_count = excluded.row_count, byte_count = excluded.byte_count
"""
_UPDATE = """
UPDATE hub.open_stream AS s SET row_count = w.row_count, byte_count = w.byte_count
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS w (stream_id, row_count, byte_count)
WHERE s.stream_id = w.stream_id
"""
_DELETE = "DELETE FROM hub.open_stream WHERE stream_id = $1 RETURNING true"
_ENDED = """
SELECT count(*), coalesce(sum(row_count), 0)::bigint, coalesce(sum(byte_count), 0)::bigint
FROM hub.audit_entry WHERE phase = 'END' AND request_id = $1 AND query ->> 'stream' = $2
"""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class OpenStream:
    """A stream under way: its call's entry, and the records and bytes that it has sent so far."""

    entry: Entry
    row_count: int = 0
    byte_count: int = 0
    stream_id: str = field(default_factory=lambda: secrets.token_hex(8))
    #: Whether a note of it may be in the database; and what the note states for certain.
    noted: bool = False
    stated: tuple[int, int] | None = None

    @property
    def sent(self) -> tuple[int, int]:
        """The records and bytes so far."""
        return self.row_count, self.byte_count

    def name_in(self, end: Entry) -> Entry:
        """An END entry of the stream, with the stream's id in its query."""
        return name_stream(end, self.stream_id)

    def document(self) -> str:
        """The END entry for the case that the worker dies, as JSON; its counts are apart."""
        values = asdict(self.name_in(self.entry.end(LOST, 0, 0)))
        del values["spends"]
        shown: bytes | None = values["shown"]
        values["shown"] = shown.hex() if shown is not None else None
        return orjson.dumps(values).decode()


def read_document(document: str, row_count: int, byte_count: int) -> Entry:
    """The END entry that ``OpenStream.document`` describes, with what the stream has sent."""
    values = orjson.loads(document)
    if values["shown"] is not None:
        values["shown"] = bytes.fromhex(values["shown"])
    return Entry(**values | {"row_count": row_count, "byte_count": byte_count})


def reduce_end(end: Entry, refusal: Exception) -> Entry:
    """What is written of an END entry that the store refuses; it still names its stream."""
    reduced = end.reduced(type(refusal).__name__, suppressed=isinstance(refusal, EntryNotKept))
    return name_stream(reduced, orjson.loads(end.query or "{}").get(STREAM))


def name_stream(end: Entry, stream_id: str) -> Entry:
    """The entry with the id of a stream in its query."""
    known = orjson.loads(end.query) if end.query else {}
    return replace(end, query=query_text(known | {STREAM: stream_id}))


class OpenStreams:
    """The streams of one worker."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database, self._journal = database, journal
        self._worker = secrets.token_hex(8)
        self._session = OwnSession(database, self._show_life)
        self._streams: set[OpenStream] = set()
        #: Streams that have ended, and the END entries that could not be written.
        self._unwritten: list[tuple[OpenStream, Entry]] = []
        self._noting = asyncio.Lock()

    def open(self, entry: Entry) -> OpenStream:
        """Begin to note how far the stream of a call's entry has got, until ``end``."""
        stream = OpenStream(entry)
        self._streams.add(stream)
        return stream

    async def end(self, stream: OpenStream | None, end: Entry) -> None:
        """Write the END entry of a stream; None if it was never opened, as it sent nothing.

        Raises DatabaseUnavailable, StorageFull and OutcomeUnknown. The entry of a stream that has a
        note is then written as soon as that is possible. If the store refuses the entry itself,
        raises its error after writing a reduced entry in its place.
        """
        if stream is not None:
            self._streams.discard(stream)
        if stream is None or not stream.noted:
            return await self._journal.record(end)
        try:
            await self._write_end(stream, end)
        except Exception as exc:
            if not blames_entry(exc):
                self._unwritten.append((stream, end))
            raise

    async def follow(self) -> None:
        """Note what was sent every INTERVAL until cancelled. Raises as ``end``."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.note_all()

    async def note_all(self) -> None:
        """Note how far all streams have got, and write END entries that could not be written.

        Raises as ``end``.
        """
        async with self._noting:
            moved = [stream for stream in self._streams if stream.sent != stream.stated]
            for at in range(0, len(moved), GROUP):
                # A stream that ended while an earlier group was noted has its END entry already.
                await self._note([s for s in moved[at : at + GROUP] if s in self._streams])
            if not moved and any(stream.noted for stream in self._streams):
                await self._session.ask(_check_session)  # it shows that this worker lives
        while self._unwritten:
            try:
                await self._write_end(*self._unwritten[0])
            except Exception as exc:
                if not blames_entry(exc):
                    raise  # otherwise nothing more can be written of it, and that is logged
            del self._unwritten[0]

    def close(self) -> None:
        """End the session with the database."""
        self._session.drop()

    async def _note(self, streams: Sequence[OpenStream]) -> None:
        new = [stream for stream in streams if stream.stated is None]
        known = [stream for stream in streams if stream.stated is not None]
        sent = [stream.sent for stream in (*new, *known)]
        for stream in new:
            stream.noted = True

        async def note(connection: Connection) -> None:
            if new:
                await connection.execute(
                    _ADD,
                    [stream.stream_id for stream in new],
                    [stream.entry.request_id for stream in new],
                    [stream.document() for stream in new],
                    [rows for rows, _ in sent[: len(new)]],
                    [size for _, size in sent[: len(new)]],
                    self._worker,
                )
            if known:
                await connection.execute(
                    _UPDATE,
                    [stream.stream_id for stream in known],
                    [rows for rows, _ in sent[len(new) :]],
                    [size for _, size in sent[len(new) :]],
                )

        await self._session.ask(note)
        for stream, stated in zip((*new, *known), sent, strict=True):
            stream.stated = stated

    async def _write_end(self, stream: OpenStream, end: Entry) -> None:
        """Write an END entry; if the store refuses it, write a reduced one and raise its error."""
        named = stream.name_in(end)
        try:
            await self._insert_end(stream, named)
        except Exception as exc:
            if not blames_entry(exc):
                raise
            _log.error("audit_entry_refused", request_id=end.request_id, error=repr(exc))
            await self._insert_end(stream, reduce_end(named, exc))
            raise

    async def _insert_end(self, stream: OpenStream, named: Entry) -> None:
        async with self._noting:  # a note that is being written is there afterwards
            pass
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_DELETE, stream.stream_id):
                row = await connection.fetchrow(_ENDED, named.request_id, stream.stream_id)
                assert row is not None, "aggregates always have a row"
                count, rows, size = row
                sent = (named.row_count or 0, named.byte_count or 0)
                if count and (rows, size) == sent:
                    return  # an earlier attempt has written it after all
                rest = (max(0, sent[0] - rows), max(0, sent[1] - size))
                _log.warning("stream_ended_by_another", stream=stream.stream_id, entries=count)
                named = replace(named, row_count=rest[0], byte_count=rest[1])
            await insert_entries(connection, [named])

    async def _show_life(self, connection: Connection) -> None:
        await show_life(self._worker, connection)


async def _check_session(connection: Connection) -> Any:
    return await connection.fetchval("SELECT 1")
