"""The database below a hub: its content, and how references reach it."""

from __future__ import annotations

import asyncio

import asyncpg

from harness import RunningHub
from penstock.client import Client
from penstockd.demo import generate_records
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder


def database_url(hub: RunningHub) -> str:
    """The URL for psql and asyncpg."""
    return EmbeddedPostgres(hub.data, sockets_folder(hub.data)).dsn


def load_customers(hub: RunningHub, rows: int) -> None:
    """Import the demo's customers unless the hub has so many already.

    A part that reads then measures the same rows alone as after the part ``import``.
    """
    if hub.sql("SELECT count(*) FROM data.customers")[0][0] >= rows:
        return
    print(f"Loading {rows:,} customers first …", flush=True)
    with Client(hub.url, api_key=hub.api_key) as client:
        client.dataset("customers").import_(
            generate_records("customers", rows), "CSV", timeout=3600
        )


def wait_until_quiet(hub: RunningHub) -> None:
    """Let the database finish the work that a load leaves: statistics, visibility, checkpoint."""

    async def settle() -> None:
        connection = await asyncpg.connect(database_url(hub))
        try:
            await connection.execute("VACUUM (ANALYZE) data.customers")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    asyncio.run(settle())
