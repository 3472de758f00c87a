"""R2 through the hub: writers and consumers, while transactions commit out of order.

Sixteen clients write to few records at a time, one call in ten is rolled back at its end, and some
transactions take their places in the order long before they commit. Consumers follow over gRPC,
over REST and by polls. PENSTOCK_RACE_SEEDS sets the number of seeds, PENSTOCK_RACE_CALLS the writes
of each client, PENSTOCK_FUZZ_SEED the first seed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from chance import SEED
from faults.naive import FORGET, GATE, NOTE, feed_of, follow_naively, gate, wait_at_gate
from faults.state import table_of
from faults.streams import Consumer, Judge, LineConsumer, PollingConsumer
from faults.traffic import Traffic
from faults.validator import Broken, FeedValidator, State
from feeds import at
from harness import RunningHub, eventually
from penstockd.catalog import Catalog
from penstockd.store.database import Database

pytestmark = pytest.mark.lane("faults/own_hub")

SEEDS = int(os.environ.get("PENSTOCK_RACE_SEEDS", "3"))
CALLS = int(os.environ.get("PENSTOCK_RACE_CALLS", "10"))
CLIENTS, SLOW = 16, 3
#: A transaction that writes a record with such a key waits, or is rolled back, once it has its
#: place.
AT_ITS_END = f"""
    IF EXISTS (SELECT FROM hub.change AS c
               WHERE c.revision = NEW.revision AND key LIKE '%-slow-%') THEN
        PERFORM pg_advisory_xact_lock_shared({GATE});
    ELSIF EXISTS (SELECT FROM hub.change AS c
                  WHERE c.revision = NEW.revision AND key LIKE '%-taken-back-%') THEN
        RAISE EXCEPTION 'taken back' USING ERRCODE = 'serialization_failure';
    END IF;
"""


@pytest.fixture
async def database(own_hub: RunningHub) -> AsyncIterator[Database]:
    """The hub's database, which records the order in which transactions take their places."""
    database = Database(own_hub.dsn, size=6)
    await database.open()
    try:
        async with database.connection() as connection:
            await connection.execute(NOTE.format(more=AT_ITS_END))
        try:
            yield database
        finally:
            async with database.connection() as connection:
                await connection.execute(FORGET)
    finally:
        await database.close()


@dataclass
class Race:
    """One run at a hub: its consumers, and what the naive reader has read."""

    hub: RunningHub
    database: Database
    catalog: Catalog
    seed: int
    after: int
    state: State
    naive: list[int] = field(default_factory=list)

    def consumers(self, start: str) -> list[Consumer]:
        """One consumer of each kind, at the start of the run."""
        return [
            kind(self.hub.port, self.hub.api_key, Judge(self.validator(), start))
            for kind in (Consumer, LineConsumer, PollingConsumer)
        ]

    def validator(self) -> FeedValidator:
        return FeedValidator(self.catalog, self.after, dict(self.state))

    @asynccontextmanager
    async def read(self, consumers: list[Consumer]) -> AsyncIterator[None]:
        """All consumers read while the block writes, and continue until they have everything."""
        reading, naively = asyncio.Event(), asyncio.Event()
        reading.set()
        naively.set()
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(c.follow(reading)) for c in consumers]
            fool = group.create_task(follow_naively(self.database, self.naive, naively))
            yield
            naively.clear()
            await fool
            head = await asyncio.to_thread(self.hub.head)
            for consumer in consumers:
                await asyncio.to_thread(eventually, partial(consumer.judge.arrived, head))
            reading.clear()
            await asyncio.gather(*following)

    async def write(self, traffic: Traffic) -> None:
        """Write the slow transactions first; they commit after others have overtaken them."""
        prefix = traffic.prefix
        async with asyncio.TaskGroup() as group, gate(self.database, self.naive):
            slow = [
                group.create_task(traffic.upsert([f"{prefix}-slow-{n}-{i}" for i in range(3)]))
                for n in range(SLOW)
            ]
            await wait_at_gate(self.database, slow)
            for name in range(CLIENTS):
                group.create_task(self._client(traffic, name))

    async def _client(self, traffic: Traffic, name: int) -> None:
        chance = random.Random(f"{self.seed}-{name}")
        few = [f"{traffic.prefix}-contended-{i}" for i in range(24)]
        for turn in range(CALLS):
            keys = chance.sample(few, chance.randint(1, 4))
            kind = chance.random()
            if kind < 0.1 or turn == name == 0:
                status = await traffic.upsert([*keys, f"{traffic.prefix}-taken-back-{name}-{turn}"])
                assert status == 409, status
            elif kind < 0.25:
                await traffic.delete(keys[0])
            elif kind < 0.5:
                await traffic.update(keys[0])
            else:
                await traffic.upsert(keys)


async def experiment(hub: RunningHub, database: Database, catalog: Catalog, seed: int) -> None:
    async with database.connection() as connection:
        await connection.execute("TRUNCATE public.naive")
    after = await asyncio.to_thread(hub.head)
    race = Race(hub, database, catalog, seed, after, await table_of(hub, catalog))
    consumers = race.consumers(await asyncio.to_thread(at, hub, after))
    async with race.read(consumers), Traffic(hub.url, hub.api_key, seed) as traffic:
        await race.write(traffic)
    table = await table_of(hub, catalog)
    tried = [*traffic.acked, *traffic.unknown]
    for consumer in consumers:
        consumer.judge.validator.finish(table, traffic.acked, tried)
        consumer.judge.validator.check()
    counts = {consumer.judge.validator.count for consumer in consumers}
    async with database.connection() as connection:
        committed = await connection.fetchval("SELECT count(*) FROM public.naive")
    print(
        f"seed {seed}: {committed} transactions, {counts} changes, {dict(traffic.outcomes)};"
        f" the naive reader lost {committed - len(race.naive)}"
    )
    assert len(counts) == 1
    # Negative control: the same validator checks what the naive reader read.
    assert committed - len(race.naive) >= 1
    fooled = race.validator()
    for change in await feed_of(database, race.naive, after):
        fooled.change(change)
    fooled.finish(table, traffic.acked, tried)
    assert {Broken.GAP, Broken.LOST} <= {fault.broken for fault in fooled.faults}


async def test_consumers_lose_and_invert_nothing(
    catalog: Catalog, own_hub: RunningHub, database: Database
) -> None:
    for seed in range(SEED, SEED + SEEDS):
        await experiment(own_hub, database, catalog, seed)
