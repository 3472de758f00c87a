"""What a write does to the table and to the log. After each test the whole log is validated."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from access import unrestricted
from faults.validator import FeedValidator, read_table
from penstock.model.v1.customers_pb2 import Customer
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import Conflict, EtagMismatch, RecordExists, RecordNotFound, ValueInvalid
from penstockd.store.database import Database
from penstockd.store.log import Change, read_changes
from penstockd.store.sequencer import Sequencer
from penstockd.store.writer import (
    SMALL_BATCH,
    Counts,
    DuplicateKey,
    Guard,
    Mode,
    Operation,
    Writer,
    WriteTransaction,
)

BIRTHDAYS = [dt.date.min, dt.date(1970, 1, 1), dt.date(2024, 2, 29), dt.date.max]


@dataclass
class Store:
    """A store for one dataset."""

    database: Database
    writer: Writer
    sequencer: Sequencer
    dataset: Dataset
    guard: Guard

    async def upsert(
        self,
        rows: Sequence[dict[str, Any]],
        *,
        mode: Mode = Mode.UPSERT,
        etag: str | None = None,
        guard: Guard | None = None,
        within: WriteTransaction | None = None,
    ) -> Counts:
        """Write rows, given as values by path; all have the paths of the first one."""
        fields = [self.dataset.by_path[path] for path in rows[0]]
        values = [[row[f.path] for f in fields] for row in rows]
        chosen = guard or self.guard
        if within is not None:
            return await within.upsert(
                self.dataset, fields, values, chosen, mode=mode, etags=[etag] if etag else ()
            )
        async with self.writer.transaction() as transaction:
            return await transaction.upsert(
                self.dataset, fields, values, chosen, mode=mode, etags=[etag] if etag else ()
            )

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        async with self.writer.transaction() as transaction:
            await transaction.delete(self.dataset, key, self.guard, etags=[etag] if etag else ())

    async def row(self, key: str) -> dict[str, Any] | None:
        async with self.database.connection() as connection:
            found = await connection.fetchrow(
                "SELECT * FROM data.customers WHERE customer_id = $1", key
            )
        return dict(found) if found is not None else None

    async def log(self) -> list[Change]:
        """All changes, numbered."""
        await self.sequencer.close()
        await self.sequencer.stamp()
        async with self.database.connection() as connection:
            return list(await read_changes(connection, 0, 1_000_000))

    async def operations(self, key: str) -> list[Operation]:
        return [Operation(c.operation) for c in await self.log() if c.key == key]


@pytest.fixture
async def store(catalog: Catalog, store_url: str) -> AsyncIterator[Store]:
    database = Database(store_url, size=8)
    await database.open()
    sequencer = Sequencer(database)
    guard = unrestricted(catalog, "customers").guard
    store = Store(database, Writer(database, sequencer), sequencer, catalog["customers"], guard)
    try:
        yield store
        validator = FeedValidator(catalog)
        for change in await store.log():
            validator.change(change)
        async with database.connection() as connection:
            validator.finish(await read_table(connection, catalog), [], [])
            assert await connection.fetchval("SELECT count(*) FROM hub.pending") == 0
        validator.check()
    finally:
        await sequencer.close()
        await database.close()


def customer(key: str, **values: Any) -> dict[str, Any]:
    return {"customer_id": key, "name": "Ann", **values}


async def test_a_create_fills_in_the_defaults(store: Store) -> None:
    counts = await store.upsert([customer("a", credit_limit=Decimal("12.50"))], mode=Mode.CREATE)
    assert (counts.created, counts.updated, counts.unchanged) == (1, 0, 0)
    row = await store.row("a")
    assert row is not None
    assert (row["name"], row["kind"], row["tags"]) == ("Ann", "KIND_UNSPECIFIED", "[]")
    assert str(row["credit_limit"]) == "12.50"
    assert row["email"] is row["birth_date"] is row["billing_address.city"] is None
    assert row["create_time"] == row["update_time"]
    [change] = await store.log()
    assert (change.number, change.transaction, change.key) == (1, 1, "a")
    assert (change.dataset, change.operation) == ("customers", Operation.CREATED)
    assert change.before is None
    assert change.after is not None
    assert Customer.FromString(change.after).etag == str(row["etag"])


async def test_a_second_create_is_refused_and_leaves_nothing(store: Store) -> None:
    await store.upsert([customer("a")], mode=Mode.CREATE)
    with pytest.raises(RecordExists):
        await store.upsert([customer("b"), customer("a")], mode=Mode.CREATE)
    assert await store.row("b") is None
    assert len(await store.log()) == 1


async def test_a_record_that_is_too_large_may_change_if_it_does_not_grow(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored before there was the limit."""
    await store.upsert([customer("a", notes="x" * 3000), customer("b", notes="")])
    monkeypatch.setattr("penstockd.store.upsert.MAX_RECORD_BYTES", 2000)
    for change in ({"name": "Bob"}, {"name": "Bo"}, {"notes": "x" * 2900}, {"notes": "y" * 2900}):
        counts = await store.upsert([{"customer_id": "a", **change}], mode=Mode.UPDATE)
        assert counts.updated == 1, change
    for key, change in (
        ("a", {"name": "Bobby"}),
        ("a", {"notes": "x" * 2901}),
        ("b", {"notes": "x" * 3000}),
        ("c", {"notes": "x" * 3000}),
    ):
        with pytest.raises(ValueInvalid, match="larger than 3"):
            await store.upsert([{"customer_id": key, **change}])
    row = await store.row("a")
    assert row is not None and (row["name"], row["notes"]) == ("Bo", "y" * 2900)
    await store.upsert([{"customer_id": "a", "notes": "small"}], mode=Mode.UPDATE)
    with pytest.raises(ValueInvalid):
        await store.upsert([{"customer_id": "a", "notes": "x" * 2900}], mode=Mode.UPDATE)


async def test_an_update_sets_its_fields_and_no_others(store: Store) -> None:
    await store.upsert([customer("a", email="a@b.c", notes="n")])
    before = await store.row("a")
    counts = await store.upsert([{"customer_id": "a", "notes": None}], mode=Mode.UPDATE)
    assert counts.updated == 1
    after = await store.row("a")
    assert before is not None
    assert after is not None
    assert after["etag"] != before["etag"]
    assert after["update_time"] > before["update_time"]
    changed = {k for k in before if before[k] != after[k]}
    assert changed == {"notes", "etag", "update_time"}
    assert await store.operations("a") == [Operation.CREATED, Operation.UPDATED]


async def test_an_update_of_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(RecordNotFound):
        await store.upsert([customer("a")], mode=Mode.UPDATE)
    assert await store.log() == []


@pytest.mark.parametrize("size", [3, SMALL_BATCH + 3])
async def test_an_upsert_touches_only_what_differs(store: Store, size: int) -> None:
    rows = [customer(f"k{i:05}", credit_limit=Decimal("1.50")) for i in range(size)]
    assert (await store.upsert(rows)).created == size
    etags = {c.key: (await store.row(c.key) or {})["etag"] for c in (await store.log())[:2]}
    rows[0]["credit_limit"] = Decimal("1.51")
    rows[2]["credit_limit"] = Decimal("1.5")  # the same number, with other trailing zeros
    rows.append(customer("new", credit_limit=None))
    counts = await store.upsert(rows)
    assert (counts.created, counts.updated, counts.unchanged) == (1, 1, size - 1)
    assert counts.total == size + 1
    assert str((await store.row(rows[0]["customer_id"]) or {})["credit_limit"]) == "1.51"
    assert (await store.row(rows[1]["customer_id"]) or {})["etag"] == etags[rows[1]["customer_id"]]
    assert len(await store.log()) == size + 2
    assert (await store.upsert(rows)).unchanged == size + 1
    assert len(await store.log()) == size + 2


@pytest.mark.parametrize("size", [3, SMALL_BATCH + 3])
async def test_a_key_twice_is_refused_and_names_the_row(store: Store, size: int) -> None:
    rows = [customer(f"k{i}") for i in range(size)]
    with pytest.raises(DuplicateKey) as refused:
        await store.upsert([*rows, customer("k1")])
    assert refused.value.row == size
    assert await store.log() == []


async def test_a_key_twice_in_one_transaction_is_refused(store: Store) -> None:
    with pytest.raises(DuplicateKey):
        async with store.writer.transaction() as transaction:
            await store.upsert([customer("a")], within=transaction)
            await store.upsert([customer("a", name="Bob")], within=transaction)
    assert await store.row("a") is None


async def test_a_transaction_is_one_in_the_log(store: Store) -> None:
    async with store.writer.transaction() as transaction:
        await store.upsert([customer("b"), customer("a")], within=transaction)
        await store.upsert(
            [customer(f"k{i:05}") for i in range(SMALL_BATCH + 1)], within=transaction
        )
        await store.upsert([customer("c")], within=transaction)
    log = await store.log()
    assert len({c.transaction for c in log}) == 1
    assert [c.key for c in log[:2]] == ["b", "a"]
    assert log[-1].key == "c"


async def test_etags_guard_updates_and_deletes(store: Store) -> None:
    await store.upsert([customer("a")])
    etag = str((await store.row("a") or {})["etag"])
    for wrong in ("0", "x", etag + "0"):
        with pytest.raises(EtagMismatch):
            await store.upsert([customer("a", name="B")], mode=Mode.UPDATE, etag=wrong)
        with pytest.raises(EtagMismatch):
            await store.delete("a", etag=wrong)
    await store.upsert([customer("a", name="B")], mode=Mode.UPDATE, etag=etag)
    with pytest.raises(EtagMismatch):
        await store.delete("a", etag=etag)
    await store.delete("a", etag=str((await store.row("a") or {})["etag"]))
    assert await store.row("a") is None


async def test_a_delete_is_logged_with_what_was_there(store: Store) -> None:
    await store.upsert([customer("a")])
    await store.delete("a")
    with pytest.raises(RecordNotFound):
        await store.delete("a")
    created, deleted = await store.log()
    assert (deleted.operation, deleted.after) == (Operation.DELETED, None)
    assert deleted.before == created.after
    await store.upsert([customer("a")], mode=Mode.CREATE)
    assert len(await store.log()) == 3


@pytest.mark.parametrize("size", [1, SMALL_BATCH + 1])
async def test_a_nested_message_is_whole_or_absent(store: Store, size: int) -> None:
    keys = [f"k{i:05}" for i in range(size)]
    await store.upsert([customer(k, **{"billing_address.city": "Köln"}) for k in keys])
    nested = [f for f in store.dataset.fields if f.path.startswith("billing_address.")]

    async def leaves() -> dict[str, Any]:
        row = await store.row(keys[-1])
        assert row is not None
        return {f.path.split(".")[1]: row[f.path] for f in nested}

    absent = dict.fromkeys(await leaves(), None)
    optional = {f.path.split(".")[1] for f in nested if f.presence}
    present = {k: None if k in optional else "" for k in absent} | {"city": "Köln"}
    assert optional
    assert await leaves() == present
    # One leaf unset: the message is still present, and the leaf holds its default.
    await store.upsert([{"customer_id": k, "billing_address.city": None} for k in keys])
    assert await leaves() == present | {"city": ""}
    await store.upsert([{"customer_id": k, **{f.path: None for f in nested}} for k in keys])
    assert await leaves() == absent
    images = [c.after for c in await store.log() if c.key == keys[-1] and c.after is not None]
    assert [Customer.FromString(i).HasField("billing_address") for i in images] == [
        True,
        True,
        False,
    ]


async def test_a_rolled_back_transaction_leaves_nothing(store: Store) -> None:
    class Changed(Exception):
        pass

    with pytest.raises(Changed):
        async with store.writer.transaction() as transaction:
            await store.upsert([customer("a")], within=transaction)
            raise Changed
    assert await store.row("a") is None
    assert await store.log() == []


async def first_inserts(store: Store, *, commit: bool, second: asyncio.Task[Counts]) -> None:
    """First insert key "a", let ``second`` run against it, and then commit or roll back."""
    connection = await store.database.connect()
    try:
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ):
            assert not second.done(), second.result()
            await asyncio.sleep(0.01)
    finally:
        await connection.close()
    if not commit:
        raise asyncio.CancelledError


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.CREATE])
@pytest.mark.parametrize("size", [1, SMALL_BATCH + 1])
async def test_two_that_insert_the_same_new_key(
    store: Store, mode: Mode, commit: bool, size: int
) -> None:
    rows = [customer(f"b{i}", name="Second") for i in range(size - 1)]
    second: asyncio.Task[Counts] | None = None
    try:
        async with store.writer.transaction() as transaction:
            await store.upsert([customer("a", name="First")], within=transaction)
            second = asyncio.create_task(
                store.upsert([customer("a", name="Second"), *rows], mode=mode)
            )
            await first_inserts(store, commit=commit, second=second)
    except asyncio.CancelledError:
        assert not commit
    assert second is not None
    if not commit:
        assert (await second).created == size
        assert await store.operations("a") == [Operation.CREATED]
    elif mode is Mode.CREATE:
        with pytest.raises(RecordExists):
            await second
        assert (await store.row("a") or {})["name"] == "First"
        assert len(await store.log()) == 1
    else:
        counts = await second
        assert (counts.created, counts.updated) == (size - 1, 1)
        assert (await store.row("a") or {})["name"] == "Second"
        assert await store.operations("a") == [Operation.CREATED, Operation.UPDATED]


async def test_many_that_upsert_the_same_new_keys(store: Store) -> None:
    rows = [customer(f"k{i}") for i in range(20)]

    async def write(name: str) -> Counts | None:
        try:
            return await store.upsert([{**row, "name": name} for row in rows])
        except Conflict:
            return None

    counts = await asyncio.gather(*(write(f"n{i}") for i in range(8)))
    assert sum(c.created for c in counts if c is not None) == 20
    names = {(await store.row(row["customer_id"]) or {})["name"] for row in rows}
    assert len(names) == 1  # each batch is all or nothing, and the last one won


async def test_rows_outside_the_guard_do_not_exist(store: Store, catalog: Catalog) -> None:
    active = unrestricted(catalog, "customers", 'status = "ACTIVE"').guard
    await store.upsert([customer("a", status="ACTIVE"), customer("l", status="LEAD")])
    with pytest.raises(RecordNotFound):
        await store.upsert([customer("l", status="ACTIVE")], guard=active)
    with pytest.raises(RecordNotFound, match="would leave"):
        await store.upsert([customer("a", status="LEAD")], guard=active)
    with pytest.raises(RecordNotFound, match="would leave"):
        await store.upsert([customer("n", status="LEAD")], guard=active)
    with pytest.raises(RecordExists):
        await store.upsert([customer("l", status="ACTIVE")], guard=active, mode=Mode.CREATE)
    assert len(await store.log()) == 2


@pytest.mark.parametrize("size", [len(BIRTHDAYS), SMALL_BATCH + len(BIRTHDAYS)])
async def test_the_first_and_the_last_day_are_days(store: Store, size: int) -> None:
    """The driver would turn them into -infinity and infinity."""
    days = {f"k{i:05}": BIRTHDAYS[i % len(BIRTHDAYS)] for i in range(size)}
    rows = [customer(key, birth_date=day) for key, day in days.items()]
    await store.upsert(rows)
    assert (await store.upsert(rows)).unchanged == size
    async with store.database.connection() as connection:
        stored = await connection.fetch(
            "SELECT customer_id, birth_date, birth_date::text AS text FROM data.customers"
        )
        assert {r["customer_id"]: r["birth_date"] for r in stored} == days
        assert {r["text"] for r in stored} == {day.isoformat() for day in BIRTHDAYS}
        found = await connection.fetchval(
            "SELECT count(*) FROM data.customers WHERE birth_date = ANY($1)",
            [dt.date.min, dt.date.max],
        )
        assert found == sum(day in (dt.date.min, dt.date.max) for day in days.values())
    images = {c.key: c.after for c in await store.log()}
    assert {k: Customer.FromString(i).birth_date for k, i in images.items() if i is not None} == {
        k: day.isoformat() for k, day in days.items()
    }
