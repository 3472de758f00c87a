"""Uses of access and comparisons are folded with usage, from the same entries and once."""

from __future__ import annotations

import datetime as dt
from typing import Any

import asyncpg
import pytest

from penstockd.audit.entry import Entry, Phase
from penstockd.audit.shown import digest_of
from penstockd.metering.access_uses import AccessUse, list_users, read_uses
from penstockd.metering.checks import CheckCounts, sum_checks
from penstockd.metering.fold import UsageFold
from penstockd.metering.series import Series, identify_series
from penstockd.store.database import Connection, Database
from penstockd.store.migrations.versions import v0036_reviews as revision
from usage_books import RULES, seal_and_fold, store_rules, write_entries

PARTIAL = "internal,pii:partial"
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
async def rules(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        await store_rules(connection)


def entry(method: str, shown: str = "", **values: Any) -> Entry:
    known = {"consumer_id": "crm", "credential_id": "k1", "surface": "REST", **values}
    made = Entry("r1", f"/penstock.api.v1.Customers/{method}", 1, **known)
    made.shown = digest_of(RULES[shown]) if shown else None
    return made


async def read(database: Database) -> dict[tuple[str, str, str], AccessUse]:
    """The uses of crm, by method, dataset and classes."""
    async with database.connection() as connection:
        uses = (await read_uses(connection, ["crm"]))["crm"]
    return {(use.method.rpartition("/")[2], use.dataset, use.classes): use for use in uses}


async def test_what_was_used_and_received_is_known(database: Database) -> None:
    await write_entries(database, [
        entry("ListCustomers", shown=PARTIAL, dataset="customers", row_count=3),
        entry("ListCustomers", shown=PARTIAL, dataset="customers", row_count=0),
        entry("GetCustomer", dataset="customers", outcome="RECORD_NOT_FOUND"),
        entry("ListOrders", dataset="orders", outcome="PERMISSION_DENIED"),
        # A list that was empty shows nothing; a stream shows what its parts name.
        entry("SearchCustomers", shown=PARTIAL, dataset="customers", row_count=0),
        entry("WatchChanges", phase=Phase.CALL),
        entry("WatchChanges", phase=Phase.PART, dataset="customers", shown=PARTIAL),
        # A stream that failed had shown records before.
        entry("Export", phase=Phase.END, outcome="INTERNAL", shown=PARTIAL, dataset="customers",
              row_count=2),
        entry("ListCustomers", shown=PARTIAL, dataset="customers", row_count=3, consumer_id=None),
    ])  # fmt: skip
    await seal_and_fold(database)
    found = await read(database)
    assert {key: use.received is not None for key, use in found.items()} == {
        ("ListCustomers", "customers", PARTIAL): True,
        ("SearchCustomers", "customers", PARTIAL): False,
        ("WatchChanges", "", ""): False,
        ("WatchChanges", "customers", PARTIAL): True,
        ("Export", "customers", PARTIAL): True,
    }
    one = found["ListCustomers", "customers", PARTIAL]
    assert (one.credential_id, one.surface) == ("k1", "REST")
    assert one.received == one.first <= one.last
    # Later uses move the end alone.
    await write_entries(database, [entry("WatchChanges", phase=Phase.CALL)])
    await seal_and_fold(database)
    later = (await read(database))["WatchChanges", "", ""]
    assert later.first == found["WatchChanges", "", ""].first < later.last
    async with database.connection() as connection:
        assert await list_users(connection, "", LONG_AGO, 5) == ["crm"]
        assert await list_users(connection, "crm", LONG_AGO, 5) == []
        assert await list_users(connection, "", later.last + dt.timedelta(seconds=1), 5) == []


async def test_comparisons_are_counted_by_day(database: Database) -> None:
    def repair(consumer: str, compared: int, unequal: int, ranges: int, **values: Any) -> Entry:
        query = (
            f'{{"compared":"{compared}","differing":"{unequal + ranges}",'
            f'"unequal_records":"{unequal}"}}'
        )
        return entry("RepairCustomers", query=query, consumer_id=consumer, **values)

    await write_entries(database, [
        repair("crm", 100, 0, 0),
        repair("crm", 100, 0, 2),  # ranges that differ: a later call finds the records
        repair("bi", 10, 3, 0),
        repair("bi", 50, 9, 0, outcome="CANCELLED"),
        entry("RepairCustomers", query='{"filter":"compared"}'),  # of an earlier version
        entry("ListCustomers", query='{"compared":"7","differing":"0","unequal_records":"0"}'),
    ])  # fmt: skip
    await seal_and_fold(database)
    async with database.connection() as connection:
        today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        days = today, today + dt.timedelta(days=1)
        assert await sum_checks(connection, *days) == CheckCounts(3, 1, 210, 3)
        assert await sum_checks(connection, days[1], days[1]) == CheckCounts(0, 0, 0, 0)
    await write_entries(database, [repair("crm", 1, 0, 0)])
    await seal_and_fold(database)
    async with database.connection() as connection:
        assert await sum_checks(connection, *days) == CheckCounts(4, 2, 211, 3)


async def test_uses_are_forgotten_with_the_usage_of_their_day(database: Database) -> None:
    await write_entries(database, [entry("ListCustomers", row_count=1)])
    await seal_and_fold(database)
    await UsageFold(database).prune_series()
    assert await read(database)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.usage_level SET oldest_day = current_date + 2 WHERE level = 'day'"
        )
    await UsageFold(database).prune_series()
    assert not await read(database)


async def add_rollup(
    connection: Connection, level: str, time: dt.datetime, series: Series, records: int
) -> None:
    ids = await identify_series(connection, [series])
    await connection.execute(
        f"INSERT INTO hub.usage_{level} VALUES ($1, $2, 1, 0, $3, 0)", time, ids[series], records
    )


async def test_earlier_usage_is_taken_over(store_url: str, database: Database) -> None:
    """By the minute as far as minutes are kept, else by the day."""
    made = Series("crm", "k1", "", "/penstock.api.v1.Customers/ListCustomers", "REST",
                  "customers", "OK", PARTIAL)  # fmt: skip
    denied, empty = made._replace(status="PERMISSION_DENIED"), made._replace(surface="GRPC")
    day = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    kept, minute = day + dt.timedelta(days=9), dt.timedelta(hours=7, minutes=5)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.usage_level SET oldest_day = '2026-03-05' WHERE level = 'minute'"
        )
        for time in (day, kept):
            await add_rollup(connection, "day", time, made, 3)
        await add_rollup(connection, "minute", kept + minute, made, 3)
        await add_rollup(connection, "minute", kept, denied, 0)
        await add_rollup(connection, "minute", kept, empty, 0)
    plain = await asyncpg.connect(store_url)
    try:
        await plain.execute(
            "DROP TABLE hub.access_use, hub.check_day, hub.door_hour; DROP INDEX hub.receipt_finish"
        )
        await plain.execute(revision.REVIEWS)
    finally:
        await plain.close()
    async with database.connection() as connection:
        found = (await read_uses(connection, ["crm"]))["crm"]
    whole = {use.surface: (use.first, use.last, use.received) for use in found}
    assert whole == {
        "REST": (day, kept + minute, kept + minute),
        "GRPC": (kept, kept, None),
    }
