"""No entry's outcome depends on another entry, and none waits longer than its limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from penstockd.audit import journal as journals
from penstockd.audit.bounds import MARK_BYTES, QUERY_BYTES, TEXT_BYTES, bounded_text, query_text
from penstockd.audit.entry import Entry, EntryNotKept, insert_entries
from penstockd.audit.journal import Journal
from penstockd.audit.proof import verify_database
from penstockd.audit.shown import KnownDigests
from penstockd.audit.verify import Fault
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Database

METHOD = "/penstock.api.v1.Customers/GetCustomer"


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = Database(store_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    journal = Journal(database, timeout=60.0)
    yield journal
    await journal.close()


def entry(name: str, **values: Any) -> Entry:
    return Entry(name, METHOD, consumer_id="bi", **values)


def poisoned(name: str) -> Entry:
    """An entry that the store refuses; the server lets none of this kind in."""
    return entry(name, query="{no JSON")


async def kept(database: Database) -> dict[str, tuple[str, Any]]:
    """The outcomes and queries of the stored entries, by request id."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT request_id, outcome, query FROM hub.audit_entry")
    return {row[0]: (row[1], row[2]) for row in rows}


async def record_all(journal: Journal, entries: list[Entry]) -> list[BaseException | None]:
    """Record entries so that they form one group; returns each entry's outcome."""
    return await asyncio.gather(*map(journal.record, entries), return_exceptions=True)


@pytest.mark.parametrize("count", [1, 3, 40])
async def test_a_poisoned_entry_hurts_no_neighbour(
    database: Database, journal: Journal, count: int
) -> None:
    bad = {0, count // 2, count - 1}
    group = [poisoned(f"r{i}") if i in bad else entry(f"r{i}") for i in range(count)]
    outcomes = await record_all(journal, group)
    found = await kept(database)
    assert sorted(found) == sorted(e.request_id for e in group), "no call is lost"
    for i, outcome in enumerate(outcomes):
        assert isinstance(outcome, asyncpg.PostgresError) == (i in bad), i
        said, query = found[f"r{i}"]
        if i in bad:
            assert said == "INTERNAL"
            assert orjson.loads(query)["reduced"] == "InvalidTextRepresentationError"
        else:
            assert said == "OK"


async def test_one_insert_for_all_loses_the_neighbours(database: Database) -> None:
    """The negative control: the journal's earlier way, with the same entries."""
    group = [entry("a"), poisoned("b"), entry("c")]
    async with database.connection() as connection:
        with pytest.raises(asyncpg.PostgresError):
            await insert_entries(connection, group)
    assert await kept(database) == {}


async def test_a_suppressed_entry_is_noticed(database: Database, journal: Journal) -> None:
    """A trigger of the database's owner drops one consumer's entries."""
    async with database.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF new.consumer_id = 'spy' THEN RETURN null; END IF;"
            " RETURN new; END $$;"
            "CREATE TRIGGER zz BEFORE INSERT ON hub.audit_entry"
            " FOR EACH ROW EXECUTE FUNCTION drop_it()"
        )
    spy = Entry("spied", METHOD, consumer_id="spy")
    outcomes = await record_all(journal, [entry("a"), spy, entry("c")])
    assert [type(o) for o in outcomes] == [type(None), EntryNotKept, type(None)]
    found = await kept(database)
    assert {name: said for name, (said, _) in found.items()} == {
        "a": "OK", "spied": "SUPPRESSED", "c": "OK",
    }  # fmt: skip
    async with database.connection() as connection:
        report = await verify_database(connection, [], patience=None)
    (finding,) = [f for f in report.findings if f.fault is Fault.SUPPRESSED]
    assert "spied" in finding.description and not report.intact


async def test_whoever_waits_behind_a_slow_group_waits_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second entry's time runs while the first is being written; times do not add up."""
    journal = Journal(database, timeout=0.5)
    writing, free = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> None:
        writing.set()
        await free.wait()

    monkeypatch.setattr(journals, "insert_entries", slow)
    first = asyncio.create_task(journal.record(entry("a")))
    await writing.wait()
    second = asyncio.create_task(journal.record(entry("b")))
    for task in (first, second):
        with pytest.raises(DatabaseUnavailable):
            await task
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(DatabaseUnavailable):
        await journal.record(entry("c"))
    assert loop.time() - begun >= 0.5, "it is tried anew"
    await journal.close()


async def test_a_refused_group_is_written_apart_within_one_timeout(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow database does not get a timeout for each half of the group."""
    tries = 0

    async def refuse(*_: object) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.2)
        raise ValueError("refused")

    monkeypatch.setattr(journals, "insert_entries", refuse)
    journal = Journal(database, timeout=0.5)
    outcomes = await record_all(journal, [entry(f"r{i}") for i in range(16)])
    assert {type(o) for o in outcomes} == {DatabaseUnavailable}
    # Two before the timeout of the whole group, and two after; else twice as many as entries.
    assert tries <= 6
    await journal.close()


@pytest.mark.parametrize(("bound", "groups"), [(journals.MAX_GROUP_BYTES, 7), (1 << 40, 2)])
async def test_a_group_is_bounded_in_bytes(
    database: Database, monkeypatch: pytest.MonkeyPatch, bound: int, groups: int
) -> None:
    """A large entry shares its transaction with few others; the second bound is the negative
    control."""
    monkeypatch.setattr(journals, "MAX_GROUP_BYTES", bound)
    written: list[int] = []
    writing = asyncio.Event()

    async def insert(_: object, entries: list[Entry]) -> None:
        written.append(sum(e.size for e in entries))
        writing.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(journals, "insert_entries", insert)
    journal = Journal(database, timeout=60.0)
    first = asyncio.create_task(journal.record(entry("first")))
    await writing.wait()  # the others wait together behind it
    large = [entry(f"r{i}", keys=bytes(1 << 20)) for i in range(13)] + [entry("vast")]
    large[-1].keys = bytes(2 * journals.MAX_GROUP_BYTES if bound < 1 << 40 else 1)
    await record_all(journal, large)
    await first
    assert len(written) == groups
    assert max(written[:-1]) <= bound
    await journal.close()


def test_known_rules_are_bounded() -> None:
    known = KnownDigests(3)
    for i in range(5):
        known.add(bytes([i]))
        assert bytes([0]) in known or i > 2
    assert len(known) == 3
    assert bytes([4]) in known and bytes([1]) not in known


async def test_every_text_of_an_entry_is_bounded(database: Database, journal: Journal) -> None:
    assert min(TEXT_BYTES.values()) >= MARK_BYTES
    letters = ("k", "é", "\U0001f600", "\0")
    long: dict[str, list[Entry]] = {name: [] for name in TEXT_BYTES}
    for name, group in long.items():
        for letter in letters:
            group.append(entry("r1"))
            setattr(group[-1], name, letter * 50_000)
    await asyncio.gather(*(journal.record(e) for group in long.values() for e in group))
    async with database.connection() as connection:
        for name, most in TEXT_BYTES.items():
            rows = await connection.fetch(
                f"SELECT DISTINCT {name} FROM hub.audit_entry WHERE {name} LIKE '%[cut: %'"
            )
            texts = [row[0] for row in rows]
            assert len(texts) == len(letters), name
            assert max(len(text.encode()) for text in texts) <= most, name
            if most > 2 * MARK_BYTES:
                assert {text[0] for text in texts} == {"k", "é", "\U0001f600", "\ufffd"}


async def test_keys_that_are_none_take_no_place_in_the_order(
    database: Database, journal: Journal
) -> None:
    await journal.record(entry("r1", low_key="a", high_key="k" * 5000))
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT low_key, high_key FROM hub.audit_entry")
    assert row is not None and tuple(row) == (None, None)


@pytest.mark.parametrize(
    "query",
    [
        {"filter": "x" * 1_000_000},
        {"datasets": ["d" * 5000] * 5000},
        {"claims": {f"c{i}" * 100: ["v" * 100] * 100 for i in range(1000)}},
        {f"n{i}": "v" for i in range(100_000)},
        {"a": {"b": {"c": {"d": ["x" * 50_000] * 3}}}},
    ],
)
def test_what_was_asked_is_bounded_and_stays_json(query: dict[str, Any]) -> None:
    text = query_text(query)
    assert len(text.encode()) <= QUERY_BYTES
    assert orjson.loads(text) and "cut" in text


def test_what_is_short_stays_as_it_is() -> None:
    assert bounded_text("é" * 10, 20) == "é" * 10
    assert query_text({"filter": "a = 1", "n": [1]}) == '{"filter":"a = 1","n":[1]}'
