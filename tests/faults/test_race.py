"""R2, the race that loses events: numbers taken before the commit become visible out of order.

Sixteen writers contend for few keys, one write in ten rolls back, and one transaction takes its
place in the order long before it commits. Readers follow meanwhile. PENSTOCK_RACE_SEEDS sets the
number of seeds, PENSTOCK_RACE_WRITES the writes of each writer, PENSTOCK_FUZZ_SEED the first seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from access import unrestricted
from chance import SEED
from faults.naive import NOTE, feed_of, follow_naively, gate, wait_at_gate
from faults.streams import Judge
from faults.validator import Broken, FeedValidator, State, Write, read_table
from penstock.hub.v1.changes_pb2 import WatchChangesResponse
from penstockd.catalog import Catalog, Dataset, Field
from penstockd.errors import Conflict, RecordNotFound
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.source import FeedSource
from penstockd.policy.lens import Lens
from penstockd.store.announcements import PostgresAnnouncements
from penstockd.store.cursor import cursor_at
from penstockd.store.database import Connection, Database, Isolation
from penstockd.store.log import last_number, read_changes
from penstockd.store.sequencer import Sequencer, sweep_log
from penstockd.store.writer import Guard, Writer, WriteTransaction
from places import PLACES

SEEDS = int(os.environ.get("PENSTOCK_RACE_SEEDS", "3"))
WRITES = int(os.environ.get("PENSTOCK_RACE_WRITES", "15"))
WRITERS = 16
KEYS = [f"k{i}" for i in range(24)]

LINGER = """
    IF current_setting('test.linger', true) = 'on' THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
    END IF;
"""


class Repeatable(Database):
    """A database in which all transactions are REPEATABLE READ."""

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, dry: bool = False, bulk: bool = False
    ) -> AsyncIterator[Connection]:
        async with (
            self.connection() as connection,
            connection.transaction(isolation=isolation or "repeatable_read"),
        ):
            yield connection


class RolledBack(Exception):
    """A writer changed its mind."""


@dataclass
class Race:
    """One run: its writes and its readers."""

    catalog: Catalog
    database: Database
    seed: int
    acked: list[Write] = field(default_factory=list)
    tried: list[Write] = field(default_factory=list)
    rolled_back: int = 0
    conflicts: int = 0

    def __post_init__(self) -> None:
        self.dataset: Dataset = self.catalog["customers"]
        self.fields: Sequence[Field] = [
            self.dataset.by_path[p] for p in ("customer_id", "name", "source_id")
        ]
        self.guard: Guard = unrestricted(self.catalog, "customers").guard

    async def write(self, name: int, writer: Writer) -> None:
        """Be one of the writers, until it has tried WRITES times."""
        chance = random.Random(f"{self.seed}-{name}")
        for turn in range(WRITES):
            keys = chance.sample(KEYS, chance.randint(1, 4))
            marks = [Write("customers", k, f"{self.seed}-{name}-{turn}-{k}") for k in keys]
            deleted = chance.choice(KEYS) if chance.random() < 0.2 else None
            if deleted is not None:
                marks.append(Write("customers", deleted, ""))
            self.tried += marks
            try:
                async with writer.transaction() as transaction:
                    await self._change(transaction, marks)
                    if chance.random() < 0.1:
                        raise RolledBack
            except RolledBack:
                self.rolled_back += 1
            except (Conflict, RecordNotFound):
                self.conflicts += 1
            else:
                self.acked += marks

    async def linger(self, writer: Writer) -> None:
        """Be the slow writer: it takes its place in the order and commits when the gate opens."""
        mark = Write("customers", "slow", f"{self.seed}-slow-{uuid.uuid4()}")
        self.tried.append(mark)
        async with writer.transaction() as transaction:
            await self._change(transaction, [mark])
            await transaction.connection.execute("SET LOCAL test.linger = 'on'")
        self.acked.append(mark)

    async def _change(self, transaction: WriteTransaction, marks: Sequence[Write]) -> None:
        rows = [[w.key, "x", w.mark] for w in marks if w.mark]
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            if part:
                await transaction.upsert(self.dataset, self.fields, part, self.guard)
                await asyncio.sleep(0)
        if not marks[-1].mark:
            await transaction.delete(self.dataset, marks[-1].key, self.guard)


async def follow(
    database: Database, validator: FeedValidator, writing: asyncio.Event, chance: random.Random
) -> None:
    """Read ``number > cursor`` until nobody writes and everything is read."""
    cursor = validator.after
    while True:
        over = not writing.is_set()
        async with database.connection() as connection:
            changes = await read_changes(connection, cursor, chance.randint(1, 40))
            head = await last_number(connection)
        for change in changes:
            validator.change(change)
            if change.number == change.transaction:
                validator.checkpoint(change.number)
            cursor = change.number
        if over and cursor == head:
            return
        await asyncio.sleep(0)


async def subscribe(race: Race, judge: Judge, writing: asyncio.Event) -> None:
    """Follow as a stream does: catch up, then join the shared reads, until everything has been
    read."""
    names = sorted(d.name for d in race.catalog)
    lenses = {n: Lens(unrestricted(race.catalog, n), race.catalog) for n in names}
    source = FeedSource(lenses, PLACES.sequences, mixed=True, include_before=True, batch_size=3)
    announcements = PostgresAnnouncements(race.database)
    feed = Broadcast(race.database, announcements, race.catalog)
    listening = asyncio.gather(announcements.follow(), feed.tail.follow())
    subscription = feed.subscribe(source, PLACES.open(judge.cursor))
    try:
        while True:
            over = not writing.is_set()
            head = (await feed.head()).number
            block = await subscription.take(0.05)
            for frame in () if block is None else block.frames:
                judge.message(WatchChangesResponse.FromString(frame.data))
            if block is not None and block.checkpoint:
                judge.checkpoint(PLACES.seal(block.cursor))
            if over and subscription.cursor.number == head:
                return
    finally:
        subscription.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def run(race: Race, validator: FeedValidator, judge: Judge, naive: list[int]) -> None:
    """Write and read at the same time; returns when all writes are numbered and read."""
    writing, naively = asyncio.Event(), asyncio.Event()
    writing.set()
    naively.set()
    sequencers = [Sequencer(race.database) for _ in range(4)]
    sweep = asyncio.create_task(sweep_log(race.database))
    reader = asyncio.create_task(
        follow(race.database, validator, writing, random.Random(race.seed))
    )
    subscriber = asyncio.create_task(subscribe(race, judge, writing))
    fool = asyncio.create_task(follow_naively(race.database, naive, naively))
    writers = [Writer(race.database, s) for s in sequencers]
    try:
        async with gate(race.database, naive):
            slow = asyncio.create_task(race.linger(writers[0]))
            await wait_at_gate(race.database, [slow])
            others = [asyncio.create_task(race.write(i, writers[i % 4])) for i in range(WRITERS)]
        await asyncio.gather(slow, *others)
        naively.clear()
        await fool
        for sequencer in sequencers:
            await sequencer.close()
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
        await Sequencer(race.database).stamp()
        writing.clear()
        await asyncio.gather(reader, subscriber)
    finally:
        readers = (sweep, reader, subscriber, fool)
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def experiment(url: str, catalog: Catalog, seed: int, isolation: type[Database]) -> None:
    database = isolation(url, size=WRITERS + 8)
    await database.open()
    try:
        race = Race(catalog, database, seed)
        async with database.connection() as connection:
            await connection.execute("TRUNCATE public.naive")
            after = await last_number(connection)
            state: State = await read_table(connection, catalog)
        validator = FeedValidator(catalog, after, dict(state))
        async with database.connection() as connection:
            start = await cursor_at(connection, after)
        judge = Judge(FeedValidator(catalog, after, dict(state)), PLACES.seal(start))
        naive: list[int] = []
        await run(race, validator, judge, naive)
        async with database.connection() as connection:
            table = await read_table(connection, catalog)
            committed = await connection.fetchval("SELECT count(*) FROM public.naive")
        validator.finish(table, race.acked, race.tried)
        print(
            f"seed {seed} {isolation.__name__}: {committed} transactions,"
            f" {validator.count} changes, {race.rolled_back} rolled back,"
            f" {race.conflicts} conflicts; the naive reader lost {committed - len(naive)}"
        )
        validator.check()
        judge.validator.finish(table, race.acked, race.tried)
        judge.validator.check()
        assert judge.validator.count == validator.count
        assert race.acked and race.rolled_back
        # The same validator checks what the naive reader read.
        assert committed - len(naive) >= 1
        fooled = FeedValidator(catalog, after, dict(state))
        for change in await feed_of(database, naive, after):
            fooled.change(change)
        fooled.finish(table, race.acked, race.tried)
        assert {Broken.GAP, Broken.LOST} <= {fault.broken for fault in fooled.faults}
    finally:
        await database.close()


async def test_the_sequencer_loses_and_inverts_nothing(catalog: Catalog, store_url: str) -> None:
    owner = Database(store_url, size=1)
    await owner.open()
    async with owner.connection() as connection:
        await connection.execute(NOTE.format(more=LINGER))
        # Writers that block each other are told at once, not after a second.
        await connection.execute("ALTER DATABASE penstock SET deadlock_timeout = '20ms'")
    await owner.close()
    for seed in range(SEED, SEED + SEEDS):
        for isolation in (Database, Repeatable):
            await experiment(store_url, catalog, seed, isolation)
