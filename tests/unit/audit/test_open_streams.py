"""The audit states what every stream sent, once, whether its worker lives, dies or seems dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from harness import PATIENCE
from penstockd.audit import open_streams
from penstockd.audit.entry import LOST, Entry
from penstockd.audit.journal import Journal
from penstockd.audit.lost_streams import LostStreams
from penstockd.audit.open_streams import OpenStream, OpenStreams
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Database
from penstockd.store.own_session import OwnSession

METHOD = "/penstock.api.v1.Customers/WatchCustomers"


class Workers:
    """Workers on one database."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self._database, self._stack = database, stack

    def start(self) -> OpenStreams:
        journal = Journal(self._database, timeout=60.0)
        worker = OpenStreams(self._database, journal)
        self._stack.push_async_callback(journal.close)
        self._stack.callback(worker.close)
        return worker


@pytest.fixture
async def workers(database: Database) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        yield Workers(database, stack)


def called(request_id: str = "r1") -> Entry:
    return Entry(
        request_id, METHOD, 7, consumer_id="crm", credential_id="k1", dataset="customers",
        surface="GRPC", shown=b"s" * 16, query='{"filter":"x"}', keys=b"first", low_key="a",
    )  # fmt: skip


def send(worker: OpenStreams, rows: int, size: int, request_id: str = "r1") -> OpenStream:
    """A stream that has sent something."""
    stream = worker.open(called(request_id))
    stream.row_count, stream.byte_count = rows, size
    return stream


async def ends(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of the entries of ends."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {', '.join(columns or ('outcome', 'row_count', 'byte_count'))}"
            " FROM hub.audit_entry WHERE phase = 'END' ORDER BY entry_id"
        )
    return [tuple(row) for row in rows]


async def end_lost(keeper: LostStreams, count: int) -> None:
    """Let the keeper end so many streams, as soon as their worker's session is gone."""
    async with asyncio.timeout(PATIENCE):
        while count > 0:
            count -= await keeper.end_lost()
            await asyncio.sleep(0.02)
    assert count == 0


async def notes(database: Database) -> list[tuple[int, int]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT row_count, byte_count FROM hub.open_stream")
    return sorted((row[0], row[1]) for row in rows)


async def test_the_stream_of_a_dead_worker_ends_with_what_was_noted(
    database: Database, workers: Workers
) -> None:
    worker, keeper = workers.start(), LostStreams(database, grace=0)
    stream = send(worker, 3, 300)
    send(worker, 0, 9, "r2")
    await worker.note_all()
    stream.row_count, stream.byte_count = 5, 500
    await worker.note_all()
    stream.row_count = 6  # it dies before it notes this
    assert await notes(database) == [(0, 9), (5, 500)]
    assert await keeper.end_lost() == 0, "it lives"
    worker.close()
    await end_lost(keeper, 2)
    assert await notes(database) == []
    assert sorted(await ends(database)) == [(LOST, 0, 9), (LOST, 5, 500)]
    # The entry is that of the call, without the keys of its first records.
    columns = ("consumer_id", "credential_id", "method", "dataset", "surface", "shown", "keys")
    told = ("crm", "k1", METHOD, "customers", "GRPC", b"s" * 16, None)
    assert await ends(database, *columns) == [told, told]
    assert await keeper.end_lost() == 0


async def test_a_worker_gets_time_to_come_back(database: Database, workers: Workers) -> None:
    worker, keeper = workers.start(), LostStreams(database, grace=3600)
    send(worker, 1, 1)
    await worker.note_all()
    worker.close()
    assert await keeper.end_lost() == 0
    await worker.note_all()  # nothing has changed, and it shows that it lives
    assert await LostStreams(database, grace=0).end_lost() == 0


async def test_a_worker_that_seemed_dead_ends_its_stream_with_the_rest(
    database: Database, workers: Workers
) -> None:
    worker = workers.start()
    stream = send(worker, 3, 300)
    await worker.note_all()
    worker.close()
    await end_lost(LostStreams(database, grace=0), 1)
    stream.row_count, stream.byte_count = 5, 500
    await worker.note_all()
    assert await notes(database) == [], "a note that was closed does not come back"
    await worker.end(stream, stream.entry.end("OK", 5, 500))
    assert await ends(database) == [(LOST, 3, 300), ("OK", 2, 200)]


async def test_a_stream_ends_once(database: Database, workers: Workers) -> None:
    """Whether it has a note or none, and if the database fails at its end."""
    worker = workers.start()
    brief, long = send(worker, 1, 10, "brief"), send(worker, 2, 20, "long")
    await worker.end(brief, brief.entry.end("OK", 1, 10))
    await worker.note_all()
    assert await notes(database) == [(2, 20)]
    await worker.end(long, long.entry.end("OK", 4, 40))
    assert await notes(database) == [] and len(await ends(database)) == 2
    await worker.end(None, called().end("OK", 0, 0))  # it sent nothing
    assert await ends(database) == [("OK", 1, 10), ("OK", 4, 40), ("OK", 0, 0)]
    # Neither the worker nor a keeper writes the entry again if an earlier attempt did after all.
    await worker.end(long, long.entry.end("OK", 4, 40))
    assert len(await ends(database)) == 3
    late = send(worker, 9, 90, "late")
    await worker.note_all()
    note = "SELECT * FROM hub.open_stream"
    async with database.connection() as connection:
        await connection.execute(f"CREATE TABLE kept AS {note}")
        await worker.end(late, late.entry.end("OK", 9, 90))
        await connection.execute("INSERT INTO hub.open_stream SELECT * FROM kept")
    worker.close()
    await end_lost(LostStreams(database, grace=0), 1)
    assert (await ends(database))[3:] == [("OK", 9, 90)] and await notes(database) == []


async def test_a_stream_that_ends_while_others_are_noted_gets_no_note(
    database: Database, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note of it would outlive its END entry, and the keeper would write a second one."""
    monkeypatch.setattr(open_streams, "GROUP", 1)
    worker = workers.start()
    streams = [send(worker, n, n * 10, f"r{n}") for n in (1, 2)]
    ask = OwnSession.ask

    async def end_the_other(session: Any, question: Any) -> Any:
        answer = await ask(session, question)
        for stream in [s for s in streams if not s.noted]:
            streams.remove(stream)
            rows, size = stream.row_count, stream.byte_count
            await worker.end(stream, stream.entry.end("OK", rows, size))
        return answer

    monkeypatch.setattr(OwnSession, "ask", end_the_other)
    await worker.note_all()
    (left,) = streams
    assert await notes(database) == [(left.row_count, left.byte_count)]
    assert len(await ends(database)) == 1


async def test_an_end_that_could_not_be_written_is_written_later(
    database: Database, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.start()
    stream = send(worker, 2, 20)
    await worker.note_all()

    async def fail(*_: Any) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(open_streams, "insert_entries", fail)
        with pytest.raises(DatabaseUnavailable):
            await worker.end(stream, called().end("OK", 2, 20))
        with pytest.raises(DatabaseUnavailable):
            await worker.note_all()
    assert await ends(database) == [] and await notes(database) == [(2, 20)]
    await worker.note_all()
    await worker.note_all()
    assert await ends(database) == [("OK", 2, 20)] and await notes(database) == []


#: An operator's trigger. It refuses what the consumer "poison" does: its entries, or also what is
#: left of them.
REFUSES = """
CREATE FUNCTION hub.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.consumer_id = 'poison' AND (NEW.outcome <> 'INTERNAL' OR NEW.request_id = 'worst') THEN
        RAISE EXCEPTION 'no';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER zz BEFORE INSERT ON hub.audit_entry FOR EACH ROW EXECUTE FUNCTION hub.refuse()
"""


def poison(worker: OpenStreams, request_id: str) -> OpenStream:
    """A stream whose END entry the store refuses."""
    stream = worker.open(replace(called(request_id), consumer_id="poison"))
    stream.row_count = 4
    return stream


async def test_an_end_that_the_store_refuses_disturbs_no_other(
    database: Database, workers: Workers
) -> None:
    """The keeper reduces it, like any other entry; one that is refused for good stays noted."""
    async with database.connection() as connection:
        await connection.execute(REFUSES)
    worker, keeper = workers.start(), LostStreams(database, grace=0)
    send(worker, 3, 30, "first")
    poison(worker, "bad")
    poison(worker, "worst")
    send(worker, 5, 50, "last")
    await worker.note_all()
    worker.close()
    await end_lost(keeper, 3)
    columns = ("request_id", "consumer_id", "outcome", "row_count")
    assert sorted(await ends(database, *columns)) == [
        ("bad", "poison", "INTERNAL", None),
        ("first", "crm", LOST, 3),
        ("last", "crm", LOST, 5),
    ]
    assert await notes(database) == [(4, 0)]
    assert await keeper.end_lost() == 0
    async with database.connection() as connection:
        await connection.execute("DROP TRIGGER zz ON hub.audit_entry")
    assert await keeper.end_lost() == 1
    assert await notes(database) == []


async def test_a_worker_reduces_an_end_that_the_store_refuses(
    database: Database, workers: Workers
) -> None:
    async with database.connection() as connection:
        await connection.execute(REFUSES)
    worker = workers.start()
    bad, worst = poison(worker, "bad"), poison(worker, "worst")
    await worker.note_all()
    for stream in (bad, worst):
        with pytest.raises(asyncpg.RaiseError):
            await worker.end(stream, stream.entry.end("OK", 4, 0))
    columns = ("request_id", "outcome", "query ->> 'stream'")
    assert await ends(database, *columns) == [("bad", "INTERNAL", bad.stream_id)]
    await worker.note_all()  # it does not try again for ever
    worker.close()
    assert await LostStreams(database, grace=0).end_lost() == 0
