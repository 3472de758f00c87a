"""A publisher without a sequencer: it delivers transactions by a number that each took before its
commit. It loses those that commit late: the negative control of the tests that find such losses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from penstockd.store.database import Database
from penstockd.store.log import Change, read_changes

#: The lock on which a lingering transaction waits after it has taken its number.
GATE = 4711
#: The gate opens after this many later transactions have been read.
AHEAD = 10
#: Insertion order by a sequence. The trigger runs at the moment at which hub.pending takes its
#: number, and can make a transaction linger there; {more} is additional code.
NOTE = """
CREATE TABLE public.naive (seq bigint PRIMARY KEY, revision bigint NOT NULL);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.naive VALUES (NEW.seq, NEW.revision);
    {more}
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON hub.pending FOR EACH ROW EXECUTE FUNCTION public.note();
"""
FORGET = """
DROP TRIGGER note ON hub.pending;
DROP FUNCTION public.note;
DROP TABLE public.naive;
"""


async def follow_naively(database: Database, seen: list[int], writing: asyncio.Event) -> None:
    """Read ``seq > cursor`` until nobody writes: the mistake that the sequencer prevents."""
    cursor = 0
    while True:
        over = not writing.is_set()
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT seq, revision FROM public.naive WHERE seq > $1 ORDER BY seq", cursor
            )
        seen += [row["revision"] for row in rows]
        cursor = rows[-1]["seq"] if rows else cursor
        if over and not rows:
            return
        await asyncio.sleep(0)


@asynccontextmanager
async def gate(database: Database, seen: list[int]) -> AsyncIterator[None]:
    """Stay closed until the naive reader has read ten transactions that came after the slow
    ones."""
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", GATE)
        try:
            yield
            while len(seen) < AHEAD:  # noqa: ASYNC110  # a list tells nobody that it grew
                await asyncio.sleep(0)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", GATE)


async def wait_at_gate(database: Database, slow: Sequence[asyncio.Task[object]]) -> None:
    """Return when all slow transactions have their places in the order and wait."""
    async with database.connection() as connection:
        while True:
            waiting = await connection.fetchval(
                "SELECT count(*) FROM pg_locks"
                " WHERE locktype = 'advisory' AND objid = $1::oid AND NOT granted",
                GATE,
            )
            if waiting == len(slow):
                return
            assert not any(task.done() for task in slow), "one has not waited"
            await asyncio.sleep(0)


async def feed_of(database: Database, transactions: Sequence[int], after: int) -> list[Change]:
    """The changes of transactions in the given order. Their numbers follow ``after``."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT revision, last_number FROM hub.log_transaction")
        last = {row["revision"]: row["last_number"] for row in rows}
        changes = await read_changes(connection, after, 2**31)
    by_last: dict[int, list[Change]] = {}
    for change in changes:
        by_last.setdefault(change.transaction, []).append(change)
    return [c for t in transactions for c in by_last[last[t]]]
