"""Digests under a new root secret are written once, and never for a credential that is refused."""

from __future__ import annotations

import asyncio

import pytest

from harness import PATIENCE
from penstockd.auth.credentials import Credentials, RenewedDigest
from penstockd.auth.uses import CredentialUses
from penstockd.keyring import FixedKey
from penstockd.store.database import Database

_SECRETS = """
INSERT INTO hub.root_secret (root_secret_id, seal_time)
VALUES ('old', now() - interval '2 days'), ('new', now() - interval '1 day')
"""
_RETIRE = "UPDATE hub.root_secret SET retire_time = now() WHERE root_secret_id = 'old'"


async def renewing(database: Database, under: str) -> CredentialUses:
    """Has a digest under the new secret to write, of a credential under another one."""
    async with database.connection() as connection:
        await connection.execute(_SECRETS)
        await connection.execute("INSERT INTO hub.consumer (consumer_id) VALUES ('crm')")
        await connection.execute(
            "INSERT INTO hub.credential"
            " (credential_id, consumer_id, kind, digest, root_secret_id)"
            " VALUES ('c1', 'crm', 'api_key', 'd', $1)",
            under,
        )
    credentials = Credentials(FixedKey(b"p" * 32))
    credentials.renewed["c1"] = RenewedDigest("new", b"renewed")
    return CredentialUses(database, credentials)


async def digests(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT root_secret_id FROM hub.credential_digest")
    return [row[0] for row in rows]


async def test_a_renewal_is_written_even_if_nothing_else_was_noted(database: Database) -> None:
    uses = await renewing(database, "old")
    await uses.flush()
    assert await digests(database) == ["new"]


@pytest.mark.parametrize("under", ["old", "", "new"])
async def test_a_credential_of_a_retired_secret_is_not_revived(
    database: Database, under: str
) -> None:
    uses = await renewing(database, under)
    async with database.connection() as connection:
        await connection.execute(_RETIRE)
    await uses.flush()
    # '' is the original secret; negative control: that of another one is renewed.
    assert await digests(database) == (["new"] if under == "new" else [])


async def test_a_renewal_waits_for_a_retirement_under_way(database: Database) -> None:
    uses = await renewing(database, "old")
    async with asyncio.timeout(PATIENCE):
        async with database.transaction() as connection:
            await connection.execute("LOCK TABLE hub.credential_digest IN SHARE ROW EXCLUSIVE MODE")
            await connection.execute(_RETIRE)
            flushing = asyncio.ensure_future(uses.flush())
            while not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
                " AND relation = 'hub.credential_digest'::regclass)"
            ):
                assert not flushing.done(), "it did not wait"
                await asyncio.sleep(0.02)
        await flushing
    assert await digests(database) == []
