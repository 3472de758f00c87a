"""Announcements: all subscribers get them after their commit, and learn of possible losses."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import penstockd
from harness import PATIENCE
from penstockd.organs import Organ, Organs, end_tasks
from penstockd.store.announcements import (
    MAX_WAITING,
    Announcement,
    Mailbox,
    PostgresAnnouncements,
)
from penstockd.store.database import Database

SOURCE = Path(penstockd.__file__).parent


@pytest.fixture
async def database(empty_url: str) -> AsyncIterator[Database]:
    database = Database(empty_url, size=4)
    await database.open()
    yield database
    await database.close()


@contextlib.asynccontextmanager
async def following(announcements: PostgresAnnouncements) -> AsyncIterator[None]:
    """Run as in a process: restarted when its connection is lost."""
    running = asyncio.create_task(
        Organs([Organ("announcements", announcements.follow)], steady=PATIENCE).run()
    )
    try:
        yield
    finally:
        await end_tasks([running])


async def listening(mailbox: Mailbox) -> None:
    """Return when a new mailbox receives: its first news are about the subscription itself, the
    next come when the process listens to its channels."""
    assert await mailbox.take(PATIENCE)
    news = await mailbox.take(PATIENCE)
    assert news.missed


async def payloads(mailbox: Mailbox, count: int) -> list[str]:
    """That many payloads, in order, none of which was missed."""
    heard: list[str] = []
    while len(heard) < count:
        news = await mailbox.take(PATIENCE)
        assert news and not news.missed, heard
        heard += [a.payload for a in news.announcements]
    return heard


async def listener(database: Database, besides: int | None = None) -> int:
    """The session that listens, once there is one, other than the known one."""
    while True:
        async with database.connection() as connection:
            pid: int | None = await connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND (query LIKE 'LISTEN%' OR query = 'SELECT 1') AND pid <> pg_backend_pid()"
                " AND pid IS DISTINCT FROM $1 ORDER BY query LIKE 'LISTEN%' DESC LIMIT 1",
                besides,
            )
        if pid is not None:
            return pid
        await asyncio.sleep(0.01)


async def test_all_who_subscribe_hear_what_is_committed(database: Database) -> None:
    announcements = PostgresAnnouncements(database)
    first, other = announcements.subscribe("a", "b"), announcements.subscribe("b")
    async with following(announcements):
        await asyncio.gather(listening(first), listening(other))
        with contextlib.suppress(ZeroDivisionError):
            async with database.transaction() as connection:
                await announcements.announce(connection, "b", "rolled back")
                raise ZeroDivisionError
        async with database.transaction() as connection:
            await announcements.announce(connection, "a", "1")
            await announcements.announce(connection, "b", "2")
            assert not await first.take(0)  # it is not committed yet
        assert await payloads(first, 2) == ["1", "2"]
        assert await payloads(other, 1) == ["2"]
        # A later mailbox is also woken as soon as it receives; a closed one receives nothing.
        late = announcements.subscribe("c")
        other.close()
        await listening(late)
        async with database.transaction() as connection:
            await announcements.announce(connection, "b", "3")
            await announcements.announce(connection, "c", "4")
        assert await payloads(late, 1) == ["4"]
        assert await payloads(first, 1) == ["3"]
        assert not await other.take(0)


async def test_after_a_lost_connection_each_subscriber_is_woken_once(database: Database) -> None:
    announcements = PostgresAnnouncements(database)
    boxes = [announcements.subscribe(channel) for channel in ("a", "a", "b")]
    async with following(announcements):
        await asyncio.gather(*map(listening, boxes))
        lost = await listener(database)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", lost)
            # Nobody hears this: the query that follows has to find its cause.
            await announcements.announce(connection, "a", "to nobody")
        for box in boxes:
            news = await box.take(PATIENCE)
            assert news.missed and not news.announcements
            assert not await box.take(0)
        assert await listener(database, lost)
        async with database.transaction() as connection:
            await announcements.announce(connection, "a", "5")
        assert await payloads(boxes[0], 1) == await payloads(boxes[1], 1) == ["5"]


async def test_a_subscriber_that_takes_nothing_holds_up_no_other(database: Database) -> None:
    announcements = PostgresAnnouncements(database)
    slow, quick = announcements.subscribe("a"), announcements.subscribe("a")
    count = 3 * MAX_WAITING
    async with following(announcements):
        await asyncio.gather(listening(slow), listening(quick))
        heard: list[str] = []
        for begin in range(0, count, MAX_WAITING // 2):
            async with database.transaction() as connection:
                await connection.execute(
                    "SELECT pg_notify('a', n::text) FROM generate_series($1::int, $2::int) AS n",
                    begin,
                    begin + MAX_WAITING // 2 - 1,
                )
            heard += await payloads(quick, MAX_WAITING // 2)
        assert heard == [str(n) for n in range(count)]
        # The queue of the slow one is bounded, and it is told that there was more.
        news = await slow.take(0)
        assert news.missed and len(news.announcements) <= MAX_WAITING
        async with database.transaction() as connection:
            await announcements.announce(connection, "a", "again")
        assert await payloads(slow, 1) == ["again"]


async def test_without_a_listener_a_subscriber_looks_when_its_time_is_over() -> None:
    announcements = PostgresAnnouncements(Database("postgresql://nowhere/none"))
    with announcements.subscribe("a") as mailbox:
        assert (await mailbox.take(PATIENCE)).missed
        assert not await mailbox.take(0.01)
        mailbox.put(Announcement("b"))
        assert not await mailbox.take(0.01)


# --- one listener a process ---------------------------------------------------------------------


def listens(source: str) -> bool:
    """Whether a module runs LISTEN or NOTIFY itself, by the driver or in its own SQL."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("add_listener", "remove_listener"):
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = r"\s*((UN)?LISTEN|NOTIFY)\s+([\w\"]|$)|.*\bpg_notify\b"
            if re.match(words, node.value, re.DOTALL):
                return True
    return False


def test_one_module_listens_and_announces() -> None:
    modules = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "migrations" not in path.parts and listens(path.read_text())
    }
    assert modules == {"store/announcements.py"}


@pytest.mark.parametrize(
    "source",
    [
        "await connection.add_listener('a', hear)",
        'await connection.execute("LISTEN penstock_log")',
        "await connection.execute(f'LISTEN {channel}')",
        'await connection.execute("SELECT pg_notify($1, $2)", channel, payload)',
    ],
)
def test_the_check_finds_what_it_looks_for(source: str) -> None:
    assert listens(f"async def f():\n    {source}")
