"""Imports with the kernel leave the same tables and logs as imports without it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csv_drawn import REVISION, TIME, files
from harness import PATIENCE
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import ImportRowInvalid, RecordNotFound, Refused, StorageFull
from penstockd.formats import FormatError, open_reader
from penstockd.formats.csv_reader import CsvReader
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.view import View
from penstockd.store import loading
from penstockd.store.database import Database
from penstockd.store.migrate import apply_migration
from penstockd.store.sequencer import Sequencer
from penstockd.store.tables import Tables
from penstockd.store.writer import Writer, WriteTransaction
from penstockd.writes import imports as import_records
from penstockd.writes.imports import Import

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "20"))


class Shop:
    """A database with the one dataset, and imports into it."""

    def __init__(self, catalog: Catalog, url: str) -> None:
        self.dataset = catalog["things"]
        self.catalog = catalog
        self.database = Database(url, size=2)
        self.sequencer = Sequencer(self.database)
        self.writer = Writer(self.database, self.sequencer)
        self.fresh = 0  # rows that the kernel took, of all imports

    def view(self, row_filter: str = "") -> View:
        """The View of a consumer that may do anything with the rows of a filter."""
        clear = dict.fromkeys({f.field_class for f in self.dataset.fields}, Mask.CLEAR)
        grant = Grant("all", "things", frozenset(Action), clear, {}, row_filter)
        tables = Tables(self.catalog)
        return View(self.dataset, self.catalog, tables, [grant], revision=1, mask_key=b"x")

    async def load(
        self, data: bytes, *, native: bool, revision: int = REVISION, row_filter: str = ""
    ) -> Any:
        """Import a file; returns its counts, or the error."""
        source = open_reader("CSV", self.dataset, self.dataset.fields)
        assert isinstance(source, CsvReader)
        work = Import(self.dataset, self.view(row_filter), source, native=native)

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        try:
            async with self.writer.transaction() as transaction:
                transaction.time, transaction.etag = TIME, revision
                counts = (await work.run(transaction, pieces())).counts
        except Refused as error:
            return type(error), str(error), error.violations
        except FormatError as error:  # the command rewords it for the caller
            return type(error), str(error), []
        finally:
            self.fresh += source.fresh_rows
        return counts.created, counts.updated, counts.unchanged

    async def state(self) -> tuple[list[str], list[Any]]:
        """The rows of the table, and the log without its order, which may differ within a batch."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT t::text FROM data.things AS t ORDER BY thing_id")
            log = await connection.fetch(
                "SELECT revision, ordinal, dataset, key, operation, before, after FROM hub.change"
                " ORDER BY min(xmin::text::bigint) OVER (PARTITION BY revision), ordinal"
            )
        transactions: dict[Any, list[Any]] = {}
        for row in log:
            transactions.setdefault(row["revision"], []).append(tuple(row)[1:])
        entries = []
        for found in transactions.values():
            assert [e[0] for e in found] == list(range(len(found)))
            entries.append(sorted(e[1:] for e in found))
        return [r[0] for r in rows], entries

    async def clear(self) -> None:
        """Empty the tables."""
        async with self.database.connection() as connection:
            await connection.execute("DELETE FROM data.things; DELETE FROM hub.change")

    async def put(self, key: str, title: str) -> None:
        """Commit a row as another writer."""
        async with self.writer.transaction() as transaction:
            await self.upsert(transaction, key, title)

    async def upsert(self, transaction: WriteTransaction, key: str, title: str) -> None:
        """Write a row in an open transaction."""
        fields = [self.dataset.key, self.dataset.by_path["title"]]
        await transaction.upsert(self.dataset, fields, [[key, title]], self.view().guard)


Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """One event loop for all tests, so that connections last."""
    with asyncio.Runner() as runner:

        async def within(work: Awaitable[Any]) -> Any:
            return await work

        yield lambda work: runner.run(within(work))


@pytest.fixture(scope="module")
def shop(run: Run, module_url: str, things: Dataset) -> Iterator[Shop]:
    """A database that holds ``things``."""
    catalog = Catalog({"things": things}, things.message_type.file.pool)
    made = Shop(catalog, module_url)

    async def opened() -> None:
        await apply_migration(module_url, catalog)
        await made.database.open()

    async def closed() -> None:
        await made.sequencer.close()
        await made.database.close()

    run(opened())
    yield made
    run(closed())


@pytest.fixture(autouse=True)
def empty(run: Run, shop: Shop) -> None:
    run(shop.clear())


def both(run: Run, shop: Shop, uploads: Sequence[bytes], row_filter: str = "") -> list[Any]:
    """Import files one after the other in both ways; returns the results."""

    async def one(native: bool) -> tuple[list[Any], Any]:
        await shop.clear()
        said = [
            await shop.load(data, native=native, revision=REVISION + i, row_filter=row_filter)
            for i, data in enumerate(uploads)
        ]
        return said, await shop.state()

    slow, fast = run(one(False)), run(one(True))
    assert fast == slow
    return list(fast[0])


def fuzz(*, wrong: bool, rows: int) -> Callable[[Run, Shop], None]:
    @settings(max_examples=EXAMPLES)
    @given(st.data())
    def check(run: Run, shop: Shop, data: st.DataObject) -> None:
        # Few keys, so that the second file meets rows of the first.
        drawn = files(shop.dataset, wrong=wrong, keys=8, rows=rows)
        both(run, shop, [data.draw(drawn), data.draw(drawn)])

    def checked(run: Run, shop: Shop) -> None:
        before = shop.fresh
        check(run, shop)
        assert shop.fresh > before + EXAMPLES  # otherwise the test would show nothing

    return checked


@pytest.mark.parametrize("batch", [10_000, 2])
def test_good_files(run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(import_records, "BATCH_ROWS", batch)
    monkeypatch.setattr("penstockd.formats.reading.PIECE_BYTES", 1 << 17 if batch > 2 else 64)
    fuzz(wrong=False, rows=8)(run, shop)


def test_files_with_errors(run: Run, shop: Shop) -> None:
    fuzz(wrong=True, rows=5)(run, shop)


def lines(*rows: str) -> bytes:
    return "\n".join(["thing_id,title,price,labels", *rows, ""]).encode()


def test_what_is_there_is_compared_by_value(run: Run, shop: Shop) -> None:
    first = lines('b,x,1.50,"[""é""]"', 'a,y,,"[]"', "c,z,2,")
    again = lines("a,y,,", 'b,x,1.5,"[""é""]"', "c,z,2.000,", "d,new,,")
    assert both(run, shop, [first, first, again]) == [(3, 0, 0), (0, 0, 3), (1, 0, 3)]
    other = lines("c,z,2.001,")
    assert both(run, shop, [first, other])[-1] == (0, 1, 0)


def test_there_is_one_zero_and_one_nan(run: Run, shop: Shop) -> None:
    uploads = [b"thing_id,weight,ratio\na,%s,%s\n" % (z, z) for z in (b"0", b"-0", b"-0", b"NaN")]
    uploads.append(uploads[-1])
    assert both(run, shop, uploads) == [(1, 0, 0), (0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 0, 1)]


def test_columns_that_are_absent_keep_their_values(run: Run, shop: Shop) -> None:
    first = b"thing_id,title,home_place.line2,small\na,x,y,7\nb,x,,8\n"
    second = b"thing_id,home_place.line1\na,\nb,\nc,\n"
    assert both(run, shop, [first, second]) == [(2, 0, 0), (1, 0, 2)]
    third = b'thing_id,home_place.line1\na,""\nb,""\n'
    assert both(run, shop, [first, second, third])[-1] == (0, 1, 1)


@pytest.mark.parametrize("batch", [10_000, 1])
@pytest.mark.parametrize(
    "rows", [("a,1,,", "b,2,,", "a,3,,"), ("a,1,-0,", "b,2,,", "a,3,,"), ("a,1,,", "a,3,-0,")]
)
def test_the_later_row_of_a_key_is_named(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch, batch: int, rows: tuple[str, ...]
) -> None:
    monkeypatch.setattr(import_records, "BATCH_ROWS", batch)
    monkeypatch.setattr("penstockd.formats.reading.PIECE_BYTES", 8)
    ((kind, _, violations),) = both(run, shop, [lines(*rows)])
    assert kind is ImportRowInvalid
    assert [(v.field, v.description) for v in violations] == [
        (f"rows[{len(rows)}].thing_id", "occurs twice in the file")
    ]
    assert run(shop.state()) == ([], [])


def test_rows_outside_the_view_are_neither_made_nor_changed(run: Run, shop: Shop) -> None:
    mine = 'title = "mine"'
    assert both(run, shop, [lines("a,mine,,", "b,mine,,")], mine) == [(2, 0, 0)]
    for row in ("c,theirs,,", "a,theirs,,"):
        _, (kind, *_) = both(run, shop, [lines("a,mine,,"), lines(row)], mine)
        assert kind is RecordNotFound

    async def hidden(native: bool) -> Any:
        await shop.clear()
        await shop.put("h", "theirs")
        return await shop.load(lines("h,theirs,,"), native=native, row_filter=mine)

    assert run(hidden(True)) == run(hidden(False))
    assert run(hidden(True))[0] is RecordNotFound


def race(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[Any]]
) -> Any:
    """An import while others write between its look-up of the keys and its inserts."""
    insert = loading.Load.insert_rows
    lost = []

    async def late(self: Any, *args: Any, **kwargs: Any) -> bool:
        await meanwhile()
        lost.append(not await insert(self, *args, **kwargs))
        return not lost[-1]

    monkeypatch.setattr(loading.Load, "insert_rows", late)
    data = lines("a,1,,", "b,2,,", "c,3,,", "d,-,-0,")
    said = run(shop.load(data, native=True))
    assert lost == [True]
    return said


def test_a_row_that_another_writer_inserts_first_is_updated(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = race(run, shop, monkeypatch, lambda: shop.put("b", "theirs"))
    assert said == (3, 1, 0)
    rows, log = run(shop.state())
    assert len(rows) == 4 and not any("theirs" in row for row in rows)
    assert [[entry[1:3] for entry in entries] for entries in log] == [
        [("b", 1)],
        [("a", 1), ("b", 2), ("c", 1), ("d", 1)],
    ]


def test_a_load_waits_for_a_writer_that_is_not_done(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing: list[asyncio.Task[None]] = []

    async def meanwhile() -> None:
        inserted = asyncio.Event()

        async def other() -> None:
            async with shop.writer.transaction() as transaction:
                await shop.upsert(transaction, "b", "theirs")
                inserted.set()
                await waiting(transaction.connection)

        writing.append(asyncio.create_task(other()))
        await inserted.wait()

    assert race(run, shop, monkeypatch, meanwhile) == (3, 1, 0)
    assert writing[0].done()


async def waiting(connection: Any) -> None:
    """Return once another session waits for a lock of this one."""
    async with asyncio.timeout(PATIENCE):
        while not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        ):
            await connection.execute("SELECT pg_sleep(0.01)")


def test_a_load_that_fails_leaves_nothing(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any, *args: Any) -> None:
        raise asyncpg.DiskFullError("no room")

    monkeypatch.setattr(loading.Load, "log_rows", broken)
    assert run(shop.load(lines("a,1,,"), native=True))[0] is StorageFull
    assert run(shop.state()) == ([], [])
