"""Rotations that are interrupted, run twice, or run where something is missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness import PATIENCE
from penstockd.auth.keys import ensure_signing_key
from penstockd.auth.secret import SECOND_SECRET, SECRET, RootSecret
from penstockd.config import Settings
from penstockd.keyring import SIGNING, KeyRing, Seal
from penstockd.rotation import switch
from penstockd.rotation.retire import retire_secret
from penstockd.rotation.switch import start_rotation
from penstockd.store.database import Connection, Database
from penstockd.store.sharing import LiveNode
from penstockd.up import StartRefused


@pytest.fixture
def settings(store_url: str, tmp_path: Path) -> Settings:
    """A node whose database was only migrated."""
    return Settings(data_dir=tmp_path, database_url=store_url)


async def registered(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT root_secret_id FROM hub.root_secret ORDER BY seal_time"
        )
    return [row[0] for row in rows]


async def rotated(settings: Settings, database: Database) -> tuple[str, str]:
    """Rotate, and let the minute pass; returns the ids of the old and the new secret."""
    done = await start_rotation(settings)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.root_secret SET seal_time = now() WHERE seal_time > now()"
        )
    old, new = await registered(database)
    assert new == done.secret_id
    return old, new


def read_id(settings: Settings, name: str) -> str:
    """The id of the secret in a file."""
    return RootSecret((settings.data_dir / name).read_text()).secret_id


async def test_no_secret_follows_itself_on_a_database_that_was_only_migrated(
    settings: Settings, database: Database
) -> None:
    old, new = await rotated(settings, database)
    assert [old, new] == [read_id(settings, name) for name in (SECRET, SECOND_SECRET)]


async def test_two_rotations_at_once_are_one(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = asyncio.Barrier(2)

    async def read_none(connection: Connection) -> list[LiveNode]:
        await both.wait()
        return []

    monkeypatch.setattr(switch, "read_live_nodes", read_none)
    async with asyncio.timeout(PATIENCE):
        one, two = await asyncio.gather(start_rotation(settings), start_rotation(settings))
    assert one == two and (await registered(database))[1:] == [one.secret_id]


async def test_the_secret_that_seals_is_never_to_be_removed(
    settings: Settings, database: Database
) -> None:
    old, new = await rotated(settings, database)
    async with database.connection() as connection:  # on another node
        await connection.execute(
            "UPDATE hub.root_secret SET retire_time = now() WHERE root_secret_id = $1", old
        )
    with pytest.raises(StartRefused, match=f"never remove it; .* retire {old} here"):
        await start_rotation(settings)
    assert (await retire_secret(settings, old, now=False)).promoted
    assert read_id(settings, SECRET) == new
    # A copy of it may go, and a new one is made.
    (settings.data_dir / SECOND_SECRET).write_text((settings.data_dir / SECRET).read_text())
    with pytest.raises(StartRefused, match="the same secret"):
        await start_rotation(settings)
    (settings.data_dir / SECOND_SECRET).unlink()
    assert (await start_rotation(settings)).secret_id == read_id(settings, SECOND_SECRET)


async def test_no_secret_is_retired_where_only_it_may_open_something(
    settings: Settings, database: Database
) -> None:
    old, new = await rotated(settings, database)
    first, second = settings.data_dir / SECRET, settings.data_dir / SECOND_SECRET
    texts = first.read_text(), second.read_text()
    async with database.transaction() as connection:
        await ensure_signing_key(connection, Seal(KeyRing.of(RootSecret(texts[0])).keys(SIGNING)))
    first.write_text(texts[1])
    with pytest.raises(StartRefused, match=f"opens 1 of .* retire {old} where"):
        await retire_secret(settings, old, now=True)
    # Negative control: where it is known, all is sealed again.
    first.write_text(texts[0])
    assert (await retire_secret(settings, old, now=True)).promoted
    seal = Seal(KeyRing.of(RootSecret(texts[1])).keys(SIGNING))
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT key_id, private_key FROM hub.signing_key")
    assert row is not None and seal.open_by(row[1], row[0])[0] == new


async def test_retiring_keeps_renewed_digests(settings: Settings, database: Database) -> None:
    old, new = await rotated(settings, database)
    statements: list[tuple[Any, ...]] = [
        ("INSERT INTO hub.consumer (consumer_id) VALUES ('crm')",),
        (
            "INSERT INTO hub.credential (credential_id, consumer_id, kind, digest)"
            " VALUES ('c1', 'crm', 'api_key', 'of old')",
        ),
        ("INSERT INTO hub.credential_digest VALUES ('c1', $1, 'of new')", new),
    ]
    async with database.connection() as connection:
        for statement, *values in statements:
            await connection.execute(statement, *values)
        await retire_secret(settings, old, now=True)
        row = await connection.fetchrow("SELECT root_secret_id, digest FROM hub.credential")
        assert tuple(row or ()) == (new, b"of new")
        assert not await connection.fetchval("SELECT count(*) FROM hub.credential_digest")


async def test_a_node_without_the_secret_that_seals_holds_up_a_rotation(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await rotated(settings, database)
    await retire_secret(settings, old, now=True)

    async def read_one(connection: Connection) -> list[LiveNode]:
        known = [old, read_id(settings, SECOND_SECRET)]
        return [LiveNode("far", "1", "far.host", 60.0, (), secrets=known)]

    monkeypatch.setattr(switch, "read_live_nodes", read_one)
    monkeypatch.setattr(switch, "NODES_SECONDS", 0.0)
    with pytest.raises(StartRefused, match=f"secret {new} is not known on far.host"):
        await start_rotation(settings)
    assert await registered(database) == [old, new]
