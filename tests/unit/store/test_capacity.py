"""A node reports how many database connections it opens, and whether its role may have them."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import structlog

from penstockd.config import Settings
from penstockd.store.capacity import allowed_connections, needed_connections
from penstockd.up import check_connections


async def test_the_least_of_what_server_database_and_role_allow_counts(empty_url: str) -> None:
    owner = await asyncpg.connect(empty_url)
    most = await allowed_connections(owner)
    reserved = int(await owner.fetchval("SHOW superuser_reserved_connections"))
    assert most == int(await owner.fetchval("SHOW max_connections")) - reserved
    name = await owner.fetchval("SELECT quote_ident(current_database())")
    await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 77")
    assert await allowed_connections(owner) == 77
    await owner.close()


async def test_too_few_connections_are_said_at_start(empty_url: str) -> None:
    owner = await asyncpg.connect(empty_url)
    name = await owner.fetchval("SELECT quote_ident(current_database())")
    for limit, few in ((1000, False), (50, True)):
        await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT {limit}")
        settings = Settings(database_url=empty_url, workers=1)
        with structlog.testing.capture_logs() as logged:
            (line,) = await check_connections(settings, empty_url)
        needed = needed_connections(1, settings.connections)
        assert line.startswith("WARNING: ") == few and f"up to {needed} " in line
        assert ("too_few_database_connections" in [e["event"] for e in logged]) == few
        assert await check_connections(Settings(workers=1), empty_url) == []  # the hub's own
    await owner.close()


def test_each_worker_and_each_connection_counts() -> None:
    assert needed_connections(2, 32) > needed_connections(1, 32) + 32
    assert needed_connections(1, 64) >= needed_connections(1, 32) + 32


def test_the_guide_states_the_formula() -> None:
    guide = (Path(__file__).parents[3] / "README.md").read_text()
    fixed = needed_connections(0, 0)
    worker = needed_connections(1, 0) - fixed
    assert f"`PENSTOCK_CONNECTIONS` + {worker}) + {fixed} of them" in guide
