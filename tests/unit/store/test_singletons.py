"""Leases: one holder at a time, the database's clock decides, and a late holder writes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest
import structlog

from cutting import wired
from harness import PATIENCE
from penstockd.errors import DatabaseUnavailable
from penstockd.organs import end_tasks
from penstockd.store import singleton_rows
from penstockd.store import singletons as module
from penstockd.store.database import Database
from penstockd.store.fences import MARGIN, FencedDatabase, LeaseOver, SingletonLease
from penstockd.store.sharing import SETTLED, LiveNode, share_out
from penstockd.store.singleton_rows import LENGTH, Singleton, read_singletons
from penstockd.store.singletons import DECLINED, Leases, is_alive
from penstockd.store.vacancies import ALARM, Vacancies

NAME = "digging"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Node:
    """A node's leases, on connections and with a clock of its own."""

    database: Database
    leases: Leases
    clock: Clock

    async def hold(self) -> SingletonLease:
        """Take the lease, which is free."""
        obtaining = asyncio.create_task(self.leases.obtain(NAME))
        async with asyncio.timeout(PATIENCE):
            while not obtaining.done():
                await self.leases.step()
                await asyncio.sleep(0.02)
        return obtaining.result()

    async def note(self, fenced: FencedDatabase, text: str) -> None:
        """Write something in the lease's term."""
        async with fenced.transaction() as connection:
            await connection.execute("INSERT INTO public.noted VALUES ($1)", text)

    async def sql(self, statement: str, *arguments: object) -> list[object]:
        async with self.database.connection() as connection:
            return [row[0] for row in await connection.fetch(statement, *arguments)]

    async def noted(self) -> list[object]:
        return await self.sql("SELECT text FROM public.noted ORDER BY text")

    async def run_out(self) -> None:
        """Let the lease end by the database's clock."""
        await self.sql("UPDATE hub.singleton SET expire_time = clock_timestamp()")


class Nodes(Protocol):
    """Makes a node, by its name."""

    async def __call__(self, name: str, dsn: str = ...) -> Node: ...


@pytest.fixture
async def nodes(store_url: str) -> AsyncIterator[Nodes]:
    """Makes nodes on one database."""
    made: list[Node] = []

    async def make(name: str, dsn: str = store_url) -> Node:
        database, clock = Database(dsn, size=3), Clock()
        await database.open()
        leases = Leases(database, f"id-{name}", name, clock=clock)
        made.append(Node(database, leases, clock))
        return made[-1]

    first = await make("owner")
    await first.sql("CREATE TABLE public.noted (text text)")
    yield make
    for node in made:
        await node.leases.close()
        await node.database.close()


async def until_gone(node: Node) -> None:
    """Return when the server has noticed that a node's session has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with node.database.connection() as connection:
                if not await is_alive(node.leases.holder.instance, connection):
                    return
            await asyncio.sleep(0.01)


async def test_one_holds_at_a_time_and_each_new_holder_raises_the_term(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    first = await one.hold()
    waiting = asyncio.create_task(two.leases.obtain(NAME))
    await asyncio.sleep(0)
    await two.leases.step()
    await one.leases.step()
    await two.leases.step()
    assert first.runs and not waiting.done()
    await one.run_out()
    second = await two.hold()
    assert await waiting is second
    assert second.term == first.term + 1
    await one.leases.step()
    assert not first.runs


async def test_what_is_released_is_taken_at_once(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    await one.leases.release(await one.hold())
    assert (await two.hold()).runs


async def test_a_holder_that_was_frozen_writes_nothing_afterwards(nodes: Nodes) -> None:
    """Its own clock, stopped with it, shows that all is well; the database decides otherwise."""
    one, two = await nodes("one"), await nodes("two")
    lease = await one.hold()
    fenced = FencedDatabase(one.database, lease)
    await one.note(fenced, "before")
    await one.run_out()
    following = await two.hold()
    assert lease.runs  # as far as it knows
    with pytest.raises(LeaseOver):
        await one.note(fenced, "late")
    assert lease.over.is_set()
    await two.note(FencedDatabase(two.database, following), "next")
    assert await one.noted() == ["before", "next"]


async def test_without_the_fence_it_would_write(nodes: Nodes) -> None:
    """The negative control."""
    one, two = await nodes("one"), await nodes("two")
    await one.hold()
    await one.run_out()
    await two.hold()
    async with one.database.transaction() as connection:
        await connection.execute("INSERT INTO public.noted VALUES ('late')")
    assert await one.noted() == ["late"]


async def test_a_lease_that_ran_out_is_over_even_if_nobody_took_it(nodes: Nodes) -> None:
    one = await nodes("one")
    lease = await one.hold()
    await one.run_out()
    with pytest.raises(LeaseOver):
        await one.note(FencedDatabase(one.database, lease), "late")
    assert await one.noted() == []


async def test_a_transaction_of_a_frozen_holder_is_ended_and_leaves_nothing(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    fenced = FencedDatabase(one.database, await one.hold())
    with pytest.raises(DatabaseUnavailable):
        async with fenced.transaction() as connection:
            await connection.execute("INSERT INTO public.noted VALUES ('half')")
            await one.run_out()
            # It is frozen here, with its transaction open; the other does not wait for it.
            assert (await two.hold()).runs
            await connection.execute("INSERT INTO public.noted VALUES ('late')")
    assert await two.noted() == []


async def test_what_is_cut_already_may_be_cut_again(nodes: Nodes) -> None:
    """The work ends its own connections, and then the lease's end also ends those that hold its
    fence: an error there would leave the work running."""
    one = await nodes("one")
    fenced = FencedDatabase(one.database, await one.hold())
    cut = False
    with pytest.raises(DatabaseUnavailable):
        async with fenced.transaction() as connection:
            for _ in range(2):
                fenced.abandon()
                one.database.abandon()
            cut = True
            await connection.execute("SELECT 1")
    assert cut


async def test_renewals_do_not_wait_for_a_long_transaction_of_the_holder(nodes: Nodes) -> None:
    one = await nodes("one")
    lease = await one.hold()
    async with FencedDatabase(one.database, lease).transaction():
        one.clock.time += LENGTH - MARGIN - 0.5
        await one.leases.step()
        one.clock.time += LENGTH - MARGIN - 0.5
        assert lease.runs


async def test_a_holder_stops_by_its_own_clock_before_another_may_begin(nodes: Nodes) -> None:
    one = await nodes("one")
    lease = await one.hold()
    one.clock.time += LENGTH - MARGIN
    with pytest.raises(LeaseOver):
        await one.note(FencedDatabase(one.database, lease), "late")
    [left] = await one.sql("SELECT expire_time > clock_timestamp() FROM hub.singleton")
    assert left and not lease.runs


async def test_the_databases_clock_decides_whatever_a_nodes_says(nodes: Nodes) -> None:
    """Nodes whose clocks are hours apart hold and take leases like others, and report the
    database's time."""
    one, two = await nodes("one"), await nodes("two")
    one.clock.time += 7200.0
    two.clock.time -= 900.0
    lease = await one.hold()
    await two.leases.step()
    assert lease.runs
    for node in (one, two):
        await node.leases.step()
        assert abs(node.leases.now() - datetime.now(UTC)) < timedelta(seconds=PATIENCE)
    await one.run_out()
    assert (await two.hold()).term == lease.term + 1


async def test_a_database_whose_clock_went_back_is_not_waited_for(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    lease = await one.hold()
    await one.sql("UPDATE hub.singleton SET expire_time = clock_timestamp() + interval '1 hour'")
    assert (await two.hold()).term == lease.term + 1


async def test_a_term_that_a_failover_gave_out_again_is_not_the_lost_one(nodes: Nodes) -> None:
    """The standby had not received the last change of holders when it became the primary."""
    one, two = await nodes("one"), await nodes("two")
    lost = await one.hold()
    await one.sql("UPDATE hub.singleton SET term = term - 1, node_id = '', expire_time = now()")
    assert (await two.hold()).term == lost.term
    with pytest.raises(LeaseOver):
        await one.note(FencedDatabase(one.database, lost), "late")
    await one.leases.step()
    assert not lost.runs and await one.noted() == []


async def test_a_node_takes_at_once_what_its_last_keeper_held(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (module, singleton_rows):
        monkeypatch.setattr(place, "LENGTH", 3600.0)  # it is taken before it has run out
    one = await nodes("one")
    before = await one.hold()
    running = asyncio.create_task(one.leases.run())
    await asyncio.sleep(0)
    await end_tasks([running])  # it is killed: its session ends, and its leases stay
    await until_gone(one)
    again = await nodes("one")
    lease = await again.hold()
    assert lease.term == before.term + 1
    with pytest.raises(LeaseOver):
        await one.note(FencedDatabase(one.database, before), "late")


async def test_two_nodes_with_one_id_never_take_each_others_leases(nodes: Nodes) -> None:
    """As from a copy of the data folder; both live, and one of them holds the lease."""
    one, twin = await nodes("one"), await nodes("one")
    lease = await one.hold()
    obtaining = asyncio.create_task(twin.leases.obtain(NAME))
    await asyncio.sleep(0)
    for _ in range(3):
        await twin.leases.step()
        await one.leases.step()
    assert lease.runs and not obtaining.done()
    await one.note(FencedDatabase(one.database, lease), "mine")
    # Not even while the other's session is away for a moment.
    running = asyncio.create_task(one.leases.run())
    await asyncio.sleep(0)
    await end_tasks([running])
    await until_gone(one)
    for _ in range(3):
        await twin.leases.step()
    await one.leases.step()
    assert lease.runs and not obtaining.done()
    await one.run_out()
    assert (await twin.hold()).term == lease.term + 1
    with pytest.raises(LeaseOver):
        await one.note(FencedDatabase(one.database, lease), "late")
    obtaining.cancel()


async def test_a_term_holds_for_one_instance_alone(nodes: Nodes) -> None:
    """Name, term and time agree, but another process is recorded as the holder."""
    one = await nodes("one")
    for column in ("node_id", "instance"):
        lease = await one.hold()
        await one.note(FencedDatabase(one.database, lease), column)
        await one.sql(f"UPDATE hub.singleton SET {column} = 'another'")
        with pytest.raises(LeaseOver):
            await one.note(FencedDatabase(one.database, lease), "late")
        assert not lease.runs
        await one.run_out()
    assert await one.noted() == ["instance", "node_id"]


async def test_a_node_that_stands_by_lets_go_and_takes_nothing(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    lease = await one.hold()
    await one.leases.stand_by(True)
    assert not lease.runs
    obtaining = asyncio.create_task(one.leases.obtain(NAME))
    await asyncio.sleep(0)
    await one.leases.step()
    assert not obtaining.done()
    await two.leases.release(await two.hold())
    await one.leases.stand_by(False)
    assert await one.hold() is await obtaining


async def test_a_standby_whose_session_ends_waits_again(nodes: Nodes) -> None:
    one, two = await nodes("one"), await nodes("two")
    await one.hold()
    waiting = asyncio.create_task(two.leases.obtain(NAME))
    await asyncio.sleep(0)
    await two.leases.step()
    await one.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    # The driver may have noticed the end already: then this step reconnects by itself.
    with contextlib.suppress(DatabaseUnavailable):
        await two.leases.step()
    await one.run_out()
    assert await two.hold() is await waiting


async def test_a_holder_that_is_cut_off_says_so_and_loses_its_lease(
    store_url: str, nodes: Nodes
) -> None:
    two = await nodes("two")
    with wired(store_url) as (dsn, wire):
        one = await nodes("one", dsn)
        lease = await one.hold()
        wire.hang()
        with pytest.raises(DatabaseUnavailable):
            await one.leases.step()
        one.clock.time += LENGTH
        assert not lease.runs
        wire.heal()
        await two.run_out()
        assert (await two.hold()).term == lease.term + 1


async def test_what_nobody_holds_is_told_once_and_when_that_is_over(nodes: Nodes) -> None:
    one = await nodes("one")
    lease, clock = await one.hold(), Clock()
    vacancies = Vacancies([NAME, "never"], clock)

    async def look() -> dict[str, bool]:
        async with one.database.connection() as connection:
            return dict(vacancies.look(await read_singletons(connection)))

    with structlog.testing.capture_logs() as logged:
        assert await look() == {NAME: True, "never": True}
        clock.time += ALARM + 1
        assert await look() == {NAME: True, "never": False}
        await one.run_out()
        assert (await look())[NAME]  # for a moment that is not an alarm
        clock.time += ALARM + 1
        assert not (await look())[NAME]
        assert not (await look())[NAME]
        lease.end("taken")
        await one.hold()
        assert (await look())[NAME]
    told = [(e["event"], e["singleton"]) for e in logged if e["event"].startswith("singleton")]
    unheld, held = "singleton_unheld", "singleton_held_again"
    assert told == [(unheld, "never"), (unheld, NAME), (held, NAME)]


async def test_what_fails_under_every_holder_is_told_since_when_and_when_that_is_over(
    nodes: Nodes,
) -> None:
    one, two = await nodes("one"), await nodes("two")
    lease = await one.hold()
    vacancies = Vacancies([NAME])

    async def look() -> tuple[bool, Singleton]:
        async with one.database.connection() as connection:
            (row,) = await read_singletons(connection)
            return vacancies.look([row])[NAME], row

    with structlog.testing.capture_logs() as logged:
        assert (await look())[0]
        await one.leases.report_failure(NAME, "OSError: the disk", 60.0)
        well, first = await look()
        assert not well and not first.free and first.failure == "OSError: the disk"
        # The next holder fails as well: the time is that of the first failure.
        await one.leases.decline(lease)
        await two.hold()
        await two.leases.report_failure(NAME, "ValueError: a row", 1.0)
        well, second = await look()
        assert not well and second.fail_time == first.fail_time
        assert second.failure == "ValueError: a row"
        await two.leases.report_recovery(NAME)
        assert (await look())[0]
    told = [e for e in logged if e["event"].startswith("singleton")]
    assert [e["event"] for e in told] == ["singleton_fails", "singleton_works_again"]
    assert first.fail_time is not None
    assert told[0]["since"] == first.fail_time.isoformat(timespec="seconds")


async def announce(one: Node, two: Node) -> tuple[Node, Node]:
    """Let both nodes have announced for an hour that they take the work; returns the one in whose
    share it is, and the other."""
    for node in (one, two):
        await node.sql(
            "INSERT INTO hub.node"
            " (node_id, instance, host, settings, takes, start_time, expire_time)"
            " VALUES ($1, $2, $3, '{}', ARRAY[$4], clock_timestamp() - interval '1 hour',"
            " clock_timestamp() + interval '1 hour')",
            *node.leases.holder,
            node.leases.host,
            NAME,
        )
    holders = [node.leases.holder for node in (one, two)]
    chosen = share_out([LiveNode(*h, "", 0.0, [NAME]) for h in holders])[NAME]
    return (one, two) if chosen == holders[0] else (two, one)


async def test_what_is_free_is_left_to_the_node_in_whose_share_it_is_for_a_moment(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, other = await announce(await nodes("one"), await nodes("two"))
    monkeypatch.setattr(module, "HEAD_START", 3600.0)
    waiting = asyncio.create_task(other.leases.obtain(NAME))
    await asyncio.sleep(0)
    for _ in range(3):
        await other.leases.step()
    lease = await chosen.hold()
    assert lease.term == 1 and not waiting.done()
    await chosen.run_out()
    monkeypatch.setattr(module, "HEAD_START", 0.0)
    assert (await other.hold()).term == 2


async def test_a_holder_hands_over_what_is_in_the_share_of_another_and_not_twice_in_a_row(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_START", 0.0)
    one, two = await nodes("one"), await nodes("two")
    chosen, other = await announce(one, two)
    lease = await other.hold()
    await other.leases.step()
    assert lease.wanted.is_set() and lease.runs  # until its holder has ended its work
    await other.leases.release(lease)
    again = await other.hold()  # the other did not take it
    await other.leases.step()
    assert not again.wanted.is_set()
    other.clock.time += SETTLED
    again.renewed(other.clock.time)
    await other.leases.step()
    assert again.wanted.is_set()
    await other.leases.release(again)
    kept = await chosen.hold()
    await chosen.leases.step()
    assert not kept.wanted.is_set()


async def test_a_node_that_fails_at_something_leaves_it_to_the_other(nodes: Nodes) -> None:
    chosen, other = await announce(await nodes("one"), await nodes("two"))
    await chosen.leases.decline(await chosen.hold())
    assert NAME not in chosen.leases.takes
    # ``Agreement`` announces it, to tell the others what a node takes.
    await chosen.sql("UPDATE hub.node SET takes = '{}' WHERE node_id = $1", chosen.leases.node_id)
    lease = await other.hold()
    await other.leases.step()
    assert not lease.wanted.is_set()
    asyncio.create_task(chosen.leases.obtain(NAME))  # noqa: RUF006  # it waits in vain
    await asyncio.sleep(0)
    assert NAME not in chosen.leases.takes
    chosen.clock.time += DECLINED
    assert NAME in chosen.leases.takes
