"""Transactions whose COMMIT does not end: they never look successful."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from harness import PATIENCE
from penstockd.audit.entry import Entry
from penstockd.audit.journal import Journal
from penstockd.errors import Conflict, DatabaseUnavailable, OutcomeUnknown
from penstockd.shares import Payer, Shares, ShareTerms, payer_var
from penstockd.store import own_session
from penstockd.store.database import Database, Division
from penstockd.store.own_session import MOST_HANGING, OwnSession
from penstockd.store.session import session_of
from penstockd.store.singletons import Leases

IN_COMMIT = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ILIKE 'COMMIT%'"
)


@pytest.fixture
async def owner(store_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session of the owner of the test's database, which has a table to write to."""
    owner = await asyncpg.connect(store_url)
    unique = "UNIQUE DEFERRABLE INITIALLY DEFERRED"
    await owner.execute(f"CREATE TABLE t (k text PRIMARY KEY, u int {unique})")
    yield owner
    await owner.close()


@contextlib.asynccontextmanager
async def opened(url: str, commit: float) -> AsyncIterator[Database]:
    database = Database(url, division=Division(connections=16, commit=commit))
    await database.open()
    yield database
    await database.close()


@contextlib.asynccontextmanager
async def standby_is_gone(owner: Any) -> AsyncIterator[None]:
    """Every COMMIT waits for a standby that is away."""
    name = "synchronous_standby_names"

    async def say(value: str) -> None:
        await owner.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await owner.execute("SELECT pg_reload_conf()")

        async def heard() -> bool:
            return bool(await owner.fetchval(f"SELECT current_setting('{name}') = '{value}'"))

        await until(heard)

    await say("nobody")
    try:
        yield
    finally:
        await say("")


async def until(check: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await check():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


async def write(database: Database, key: str) -> None:
    payer_var.set(Payer(key))
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO t VALUES ($1)", key)


async def hanging(owner: Any) -> int:
    """The server process of the session that hangs in its COMMIT."""
    found: list[int] = []

    async def seen() -> bool:
        found[:] = [row[0] for row in await owner.fetch(IN_COMMIT)]
        return bool(found)

    await until(seen)
    return found[0]


async def test_a_deadline_strikes_in_a_commit(store_url: str, owner: Any) -> None:
    async with opened(store_url, 0.5) as database:
        async with standby_is_gone(owner):
            with pytest.raises(OutcomeUnknown, match="request_id"):
                await write(database, "a")
            # It still hangs in the database, where nobody sees it, and keeps its place.
            assert await owner.fetchval("SELECT count(*) FROM t") == 0
            assert len(database.hanging.kept) == 1
            with pytest.raises(OutcomeUnknown):
                await write(database, "b")
            # Half of three places are taken: no more writes begin, since they would hang as well.
            with pytest.raises(DatabaseUnavailable, match="confirm"):
                await write(database, "c")
            assert len(await owner.fetch(IN_COMMIT)) == 2

        async def let_go() -> bool:
            return not database.hanging.kept

        await until(let_go)
        assert {row[0] for row in await owner.fetch("SELECT k FROM t")} == {"a", "b"}
        await write(database, "c")


async def test_a_session_that_got_the_number_of_one_that_hangs_keeps_no_place(
    store_url: str,
) -> None:
    """After a failover or a crash the server reuses the ids of its processes."""
    async with opened(store_url, 0.5) as database:
        lane = Shares(4, ShareTerms(), what="places")
        async with database.snapshot() as busy:
            here = session_of(busy)
            working = asyncio.create_task(busy.fetch("SELECT pg_sleep(0) FROM pg_sleep(600)"))
            activity = "SELECT state FROM pg_stat_activity WHERE pid = $1"

            async def works() -> bool:
                async with database.connection() as connection:
                    return bool(await connection.fetchval(activity, here.pid) == "active")

            await until(works)
            database.hanging.keep(here, lane)
            database.hanging.keep(here._replace(start=here.start - timedelta(seconds=1)), lane)
            assert lane.free == 2
            await database.hanging.check()
            # The control: a session at work keeps its place.
            assert set(database.hanging.kept) == {here} and lane.free == 3
            async with database.connection() as connection:
                await connection.execute("SELECT pg_cancel_backend($1)", here.pid)
            with pytest.raises(asyncpg.QueryCanceledError):
                await working

        async def let_go() -> bool:
            return not database.hanging.kept

        await until(let_go)
        assert lane.free == 4


async def test_each_lane_gets_back_the_places_that_hanging_commits_kept(
    store_url: str, owner: Any
) -> None:
    async with opened(store_url, 0.5) as database:
        async with standby_is_gone(owner):
            payer_var.set(Payer("importer"))
            with pytest.raises(OutcomeUnknown):
                async with database.transaction(bulk=True) as connection:
                    await connection.execute("INSERT INTO t VALUES ('import')")
            with pytest.raises(OutcomeUnknown):
                await write(database, "a")
            lanes = set(database.hanging.kept.values())
            assert len(lanes) == 2
            assert [lane.free for lane in lanes] == [lane.size - 1 for lane in lanes]

        async def let_go() -> bool:
            return not database.hanging.kept

        await until(let_go)
        assert [lane.free for lane in lanes] == [lane.size for lane in lanes]


async def test_a_commit_that_somebody_cancels_is_not_known_to_last(
    store_url: str, owner: Any
) -> None:
    """The server then reports a commit, and warns that it may be lost."""
    async with opened(store_url, PATIENCE) as database, standby_is_gone(owner):
        writing = asyncio.create_task(write(database, "a"))
        await owner.execute("SELECT pg_cancel_backend($1)", await hanging(owner))
        with pytest.raises(OutcomeUnknown):
            await writing
        # The negative control: a client that ignores the warning takes it for committed.
        plain = await asyncpg.connect(store_url)
        committing = asyncio.create_task(plain.execute("BEGIN; INSERT INTO t VALUES ('b'); COMMIT"))
        waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = $1"
        await until(lambda: owner.fetchval(waits, plain.get_server_pid()))
        await owner.execute("SELECT pg_cancel_backend($1)", plain.get_server_pid())
        await committing
        await plain.close()


async def test_a_session_that_ends_in_its_commit(store_url: str, owner: Any) -> None:
    async with opened(store_url, PATIENCE) as database, standby_is_gone(owner):
        writing = asyncio.create_task(write(database, "a"))
        await owner.execute("SELECT pg_terminate_backend($1)", await hanging(owner))
        with pytest.raises(OutcomeUnknown):
            await writing


async def test_what_the_database_refuses_in_a_commit_is_known(store_url: str, owner: Any) -> None:
    async with opened(store_url, PATIENCE) as database:
        with pytest.raises(Conflict):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO t VALUES ('a', 1), ('b', 1)")
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as connection:
                connection.terminate()  # before the COMMIT: nothing of it can have taken effect
        async with database.transaction(dry=True) as connection:
            await connection.execute("INSERT INTO t VALUES ('c')")
        assert await owner.fetchval("SELECT count(*) FROM t") == 0
        assert not database.hanging.kept


async def in_commit(owner: Any) -> int:
    """The number of sessions that wait for the standby, however their commit began."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    return int(await owner.fetchval(waits))


async def test_the_journal_leaves_few_sessions_behind_whatever_is_tried(
    store_url: str, owner: Any
) -> None:
    async with opened(store_url, 0.5) as database:
        journal = Journal(database, timeout=0.3)
        async with standby_is_gone(owner):
            for i in range(3 * MOST_HANGING):
                with pytest.raises(DatabaseUnavailable):
                    await journal.record(Entry(f"r{i}", "/m", consumer_id="bi"))
            assert 0 < await in_commit(owner) <= MOST_HANGING

        async def recorded() -> bool:
            with contextlib.suppress(DatabaseUnavailable):
                await journal.record(Entry("last", "/m", consumer_id="bi"))
                return True
            return False

        await until(recorded)

        async def none_hangs() -> bool:
            return not await in_commit(owner)

        await until(none_hangs)
        await journal.close()


async def test_leases_and_nodes_leave_few_sessions_behind(
    store_url: str, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(store_url, 0.5) as database:
        session = OwnSession(database)
        leases = Leases(database, "a", "host")
        obtaining = [asyncio.create_task(leases.obtain(name)) for name in ("x", "y")]
        await leases.step()
        await asyncio.gather(*obtaining)
        write = "INSERT INTO t VALUES (gen_random_uuid()::text)"
        monkeypatch.setattr(own_session, "ANSWER", 0.3)
        async with standby_is_gone(owner):
            for _ in range(MOST_HANGING + 2):
                with pytest.raises(DatabaseUnavailable):
                    await session.ask(lambda c: c.execute(write))
                with pytest.raises(DatabaseUnavailable):
                    await leases.step()
            assert await in_commit(owner) <= 2 * MOST_HANGING
        monkeypatch.undo()
        await until(lambda: _works(session, write))
        session.drop()
        await leases.close()


async def _works(session: OwnSession, statement: str) -> bool:
    with contextlib.suppress(DatabaseUnavailable):
        await session.ask(lambda c: c.execute(statement))
        return True
    return False


async def test_without_places_each_retry_leaves_a_session_behind(
    store_url: str, owner: Any
) -> None:
    """The negative control: the earlier behaviour of the journal and of sessions."""
    async with opened(store_url, 0.5) as database, standby_is_gone(owner):
        for i in range(MOST_HANGING + 2):
            connection = await database.connect()
            writing = asyncio.create_task(connection.execute(f"INSERT INTO t VALUES ('{i}')"))

            async def hangs(count: int = i + 1) -> bool:
                return await in_commit(owner) == count

            await until(hangs)
            writing.cancel()
            connection.terminate()
            await asyncio.gather(writing, return_exceptions=True)
        assert await in_commit(owner) == MOST_HANGING + 2
