"""The database below a hub, for references that read it directly."""

from __future__ import annotations

import asyncio

import asyncpg

from harness import RunningHub
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder


def database_url(hub: RunningHub) -> str:
    """The URL that psql and asyncpg take."""
    return EmbeddedPostgres(hub.data, sockets_folder(hub.data)).dsn


def wait_until_quiet(hub: RunningHub) -> None:
    """Let the database finish what a load leaves behind: statistics, visibility, checkpoint."""

    async def settle() -> None:
        connection = await asyncpg.connect(database_url(hub))
        try:
            await connection.execute("VACUUM (ANALYZE) data.customers")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    asyncio.run(settle())
