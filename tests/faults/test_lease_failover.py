"""Leases across a failover of the database, to a complete standby and to one that lags."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from clusters import Cluster
from harness import PATIENCE, eventually, folder, free_port
from penstockd.catalog import Catalog
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Database
from penstockd.store.fences import FencedDatabase, LeaseOver, SingletonLease
from penstockd.store.migrate import apply_migration
from penstockd.store.singletons import Leases

NAME = "digging"


@pytest.fixture
def primary() -> Iterator[Cluster]:
    with folder() as data:
        cluster = Cluster.create(data / "primary")
        cluster.start(free_port())
        cluster.create_database()
        try:
            yield cluster
        finally:
            cluster.stop()


async def hold(leases: Leases) -> SingletonLease:
    """The lease, as soon as it is free; retries while the database is being replaced."""
    obtaining = asyncio.create_task(leases.obtain(NAME))
    async with asyncio.timeout(PATIENCE):
        while not obtaining.done():
            with contextlib.suppress(DatabaseUnavailable):
                await leases.step()
            await asyncio.sleep(0.1)
    return obtaining.result()


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", [True, False])
async def test_a_frozen_holder_of_before_a_failover_writes_nothing_after_it(
    primary: Cluster, catalog: Catalog, *, synchronous: bool
) -> None:
    port = primary.port
    url = Cluster.url_at(port)
    await apply_migration(url, catalog)
    nodes = [Database(url, size=2) for _ in range(3)]
    for node in nodes:
        await node.open()
    first, second, third = (Leases(node, f"id-{i}", f"{i}") for i, node in enumerate(nodes))
    standby = await asyncio.to_thread(primary.standby, primary.data.with_name("standby"))
    await asyncio.to_thread(standby.start, free_port())
    try:
        await first.release(await hold(first))
        if synchronous:
            await asyncio.to_thread(primary.sql, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            await asyncio.to_thread(primary.sql, "SELECT pg_reload_conf()")
            state = "SELECT sync_state FROM pg_stat_replication"
            await asyncio.to_thread(eventually, lambda: primary.sql(state) == [("sync",)])
        else:
            await asyncio.to_thread(standby.stop)  # it receives nothing that follows
        lost = await hold(second)  # and is frozen from here on
        await asyncio.to_thread(primary.kill)
        if synchronous:
            await asyncio.to_thread(standby.stop)
        await asyncio.to_thread(standby.start, port)
        await asyncio.to_thread(standby.promote)
        await asyncio.to_thread(standby.sql, "ALTER SYSTEM RESET synchronous_standby_names")
        await asyncio.to_thread(standby.sql, "SELECT pg_reload_conf()")
        following = await hold(third)
        # The standby that lags gives out the lost term again.
        assert following.term == lost.term + synchronous
        writing = FencedDatabase(nodes[1], _as_if_it_ran(lost))
        with pytest.raises(LeaseOver):
            async with writing.transaction() as connection:
                await connection.execute("DELETE FROM hub.pending")
        await writes(nodes[2], third)
    finally:
        for node in nodes:
            node.abandon()
            await node.close()
        await asyncio.to_thread(standby.stop)


async def writes(database: Database, leases: Leases) -> None:
    """Return when the holder of the lease has written; if the machine stood still, it may have lost
    it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(LeaseOver):
                async with FencedDatabase(database, await hold(leases)).transaction():
                    return


def _as_if_it_ran(lease: SingletonLease) -> SingletonLease:
    """The lease as a holder sees it whose own clock stood still with it."""
    return SingletonLease(lease.name, lease.term, lease.acquired, 0.0, lambda: 0.0, lease.holder)
