"""Usage counts under the plan that was in force for the consumer, as the history of plans says."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from penstockd.audit.entry import Entry
from penstockd.metering import plans_then
from penstockd.metering.counting import UsageCounts
from penstockd.metering.plans_then import PlansThen
from penstockd.metering.reconcile import reconcile_usage
from penstockd.metering.report import UsageQuestion, report_usage
from penstockd.store.database import Connection, Database
from usage_books import KEY, seal_and_fold, write_entries

GET = "/penstock.api.v1.Customers/GetCustomer"


@pytest.fixture(autouse=True)
async def partitions(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        for plan in ("gold", "free"):
            await connection.execute("INSERT INTO hub.plan (plan_id) VALUES ($1)", plan)
        for name in ("crm", "bi"):
            await connection.execute("INSERT INTO hub.consumer (consumer_id) VALUES ($1)", name)


async def give_plan(database: Database, consumer: str, plan: str | None) -> int:
    """Give a consumer a plan; returns the revision since when it has it."""
    async with database.connection() as connection:
        sql = "UPDATE hub.consumer SET plan_id = $2 WHERE consumer_id = $1"
        await connection.execute(sql, consumer, plan)
        revision: int = await connection.fetchval("SELECT revision FROM hub.policy")
    return revision


def entries(consumer: str, revision: int, count: int) -> list[Entry]:
    return [
        Entry(
            f"{consumer}-{revision}-{n}", GET, revision, consumer_id=consumer, dataset="customers"
        )
        for n in range(count)
    ]


async def report(connection: Connection, *by: str, **only: str) -> dict[Any, int]:
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    question = UsageQuestion(by, end - dt.timedelta(days=3), end, only=only)
    rows = (await report_usage(connection, question, 100, 0)).rows
    return {tuple(row.values.values()): row.counts.calls for row in rows}


async def find_difference(database: Database) -> tuple[UsageCounts, int]:
    async with database.transaction(isolation="repeatable_read") as connection:
        found = await reconcile_usage(connection, [KEY.public], (), dt.date.min, dt.date.max)
    return found.metered.minus(found.audited), found.found


async def test_entries_count_under_the_plan_of_their_time(database: Database) -> None:
    none = await give_plan(database, "bi", None)
    gold = await give_plan(database, "crm", "gold")
    free = await give_plan(database, "crm", "free")
    assert none < gold < free
    written = [
        *entries("crm", none, 1), *entries("crm", gold, 2), *entries("crm", free, 4),
        *entries("bi", free, 8), *entries("nobody", free, 16), *entries("crm", 0, 32),
    ]  # fmt: skip
    await write_entries(database, written)
    # What is counted later counts under the plan of then, too.
    await give_plan(database, "crm", "gold")
    await seal_and_fold(database)
    async with database.connection() as connection:
        assert await report(connection, "plan") == {("",): 57, ("free",): 4, ("gold",): 2}
        assert await report(connection, "consumer", plan="free") == {("crm",): 4}
        assert await report(connection, "plan", "consumer") == {
            ("", "bi"): 8, ("", "crm"): 33, ("", "nobody"): 16,
            ("free", "crm"): 4, ("gold", "crm"): 2
        }  # fmt: skip
    assert await find_difference(database) == (UsageCounts(0, 0, 0, 0), 0)
    # The proof sees it if calls are moved to another plan.
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.usage_series SET plan = 'other' WHERE plan = 'gold'")
    _, found = await find_difference(database)
    assert found


async def test_entries_from_before_plans_were_counted_stay_without_one(database: Database) -> None:
    gold = await give_plan(database, "crm", "gold")
    await write_entries(database, entries("crm", gold, 3))
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.usage_plans SET after_entry = (SELECT max(entry_id) FROM hub.audit_entry)"
        )
    await write_entries(database, entries("crm", gold, 5))
    await seal_and_fold(database)
    async with database.connection() as connection:
        assert await report(connection, "plan") == {("",): 3, ("gold",): 5}
    assert await find_difference(database) == (UsageCounts(0, 0, 0, 0), 0)


async def test_revisions_are_remembered_within_bounds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans_then, "_MAX_KNOWN", 20)
    plans = PlansThen()
    revisions = [await give_plan(database, "crm", ("gold", "free")[n % 2]) for n in range(30)]
    async with database.connection() as connection:
        await plans.learn(connection, [(r, name) for r in revisions for name in ("crm", "bi")])
        assert [plans.find(r, "crm") for r in revisions] == ["gold", "free"] * 15
        plans.forget()
        assert plans.find(revisions[-1], "bi") == ""
        await plans.learn(connection, [(revisions[0], "crm"), (revisions[0], "other")])
        assert plans.find(revisions[0], "crm") == "gold" and not plans.find(revisions[0], "other")
