"""Nodes that share a database compare their settings, without revealing secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
import structlog

from cutting import wired
from harness import PATIENCE
from penstockd.auth.secret import RootSecret
from penstockd.config import Settings
from penstockd.errors import DatabaseUnavailable
from penstockd.keyring import KeyRing
from penstockd.shared_settings import SCOPES, Scope, shared_values
from penstockd.store.database import Database
from penstockd.store.nodes import NODE_STATE, Agreement
from penstockd.store.sharing import read_live_nodes
from penstockd.store.singletons import Leases

SETTINGS = {"public_url": "https://a", "webhook_allow": "10.1.0.0/16", "rate_limit": "1000"}
GRAVE = ("public_url", "webhook_allow")


def test_every_setting_says_whether_nodes_must_share_it() -> None:
    assert set(SCOPES) == set(Settings.model_fields), "name it in config.SCOPES"


def test_what_nodes_compare_holds_no_secret() -> None:
    secret = "a root secret of the test's own, long enough"
    url = "postgresql://user:password@db.example.com/hub"
    settings = Settings(secret=secret, database_url=url, data_dir=Path("/srv/one"))
    told = shared_values(settings)
    assert set(told) == {name for name, scope in SCOPES.items() if scope is not Scope.NODE}
    hidden = {name for name, f in Settings.model_fields.items() if not f.repr}
    assert {n for n in hidden if SCOPES[n] is not Scope.NODE} == set()
    assert not any(s in value for value in told.values() for s in (secret, "password", "/srv"))


def test_a_value_is_told_as_it_is_in_force_in_whatever_order_it_was_given() -> None:
    one = Settings(webhook_allow=("10.2.0.0/16", "10.1.0.0/16"), port=9000)  # type: ignore[arg-type]
    two = Settings(webhook_allow=("10.1.0.0/16", "10.2.0.0/16"), port=9000)  # type: ignore[arg-type]
    assert shared_values(one) == shared_values(two)
    assert shared_values(one)["public_url"] == "http://127.0.0.1:9000"


RING = KeyRing.of(RootSecret("a root secret of the test's own, long enough"))


class Standing(Leases):
    """Records whether it stands by; it holds no lease."""

    stands = False

    async def stand_by(self, stands_by: bool) -> None:
        self.stands = stands_by


class Agreeing(Protocol):
    """Makes a node's part of the agreement, from its leases and its settings."""

    def __call__(self, leases: Standing, settings: Mapping[str, str] = ...) -> Agreement: ...


@pytest.fixture
async def agree(database: Database) -> AsyncIterator[Agreeing]:
    made: list[Agreement] = []

    def make(leases: Standing, settings: Mapping[str, str] = SETTINGS) -> Agreement:
        made.append(Agreement(database, leases, settings, GRAVE, RING))
        return made[-1]

    yield make
    for agreement in made:
        agreement.close()


async def test_a_node_that_differs_says_what_and_stands_by_while_the_older_one_lives(
    database: Database, agree: Agreeing
) -> None:
    old, young = Standing(database, "1", "old.host"), Standing(database, "0", "young.host")
    first = agree(old)
    changed = {**SETTINGS, "webhook_allow": "10.9.0.0/16", "rate_limit": "5", "new_setting": "1"}
    second = agree(young, changed)
    with structlog.testing.capture_logs() as logged:
        assert not await first.step()
        for _ in range(2):
            found = await second.step()
        assert not await first.step()
    assert [(d.variable, d.here, d.there) for d in found] == [
        ("PENSTOCK_RATE_LIMIT", "5", "1000"),
        ("PENSTOCK_WEBHOOK_ALLOW", "10.9.0.0/16", "10.1.0.0/16"),
    ]
    assert [(e["setting"], e["other_node"], e["stands_by"]) for e in logged] == [
        ("PENSTOCK_RATE_LIMIT", "old.host", False),
        ("PENSTOCK_WEBHOOK_ALLOW", "old.host", True),
    ]
    assert (young.stands, old.stands) == (True, False)
    await first.leave()
    assert (await second.step(), young.stands) == ([], False)
    # The other returns with its own settings: now it is the one that differs.
    assert await first.step()
    assert old.stands


async def test_a_node_that_differs_in_what_matters_less_only_warns(
    database: Database, agree: Agreeing
) -> None:
    old, young = Standing(database, "1", "a"), Standing(database, "0", "b")
    await agree(old).step()
    second = agree(young, {**SETTINGS, "rate_limit": "5"})
    assert await second.step() and not young.stands


async def test_a_node_that_died_is_no_measure_and_one_that_comes_back_at_once_keeps_its_age(
    database: Database, agree: Agreeing
) -> None:
    old, young = Standing(database, "1", "a"), Standing(database, "0", "b")
    first = agree(old)
    second = agree(young, {**SETTINGS, "public_url": "https://b"})
    await first.step()
    assert await second.step()
    again = Standing(database, "1", "a")
    assert not await agree(again).step()  # its next keeper
    async with database.connection() as connection:
        (instance,) = [n.instance for n in await read_live_nodes(connection) if n.node_id == "1"]
        assert instance == again.holder.instance, "it takes the place of the one before"
        await connection.execute(
            "UPDATE hub.node SET expire_time = clock_timestamp() WHERE node_id = '1'"
        )
    assert not await second.step()
    assert await first.step()


async def test_two_nodes_with_one_id_say_so_and_compare_their_settings(
    database: Database, agree: Agreeing
) -> None:
    """The folder of one was copied: both live, under one id."""
    old, young = Standing(database, "1", "old.host"), Standing(database, "1", "young.host")
    first, second = agree(old), agree(young, {**SETTINGS, "webhook_allow": "10.9.0.0/16"})
    with structlog.testing.capture_logs() as logged:
        await old.step()  # its session shows that it lives
        await first.step()
        assert await second.step() and young.stands and not old.stands
        for _ in range(2):
            await first.step()
            await second.step()
        async with database.connection() as connection:
            found = {n.host: n.twin for n in await read_live_nodes(connection)}
            state = await connection.fetchrow(NODE_STATE, "1")
        assert found == {"old.host": "young.host", "young.host": "old.host"}
        assert state is not None and state[0] and state[1]
        await first.leave()
        await second.step()
        async with database.connection() as connection:
            assert [n.twin for n in await read_live_nodes(connection)] == [""]
    told = [(e["event"], e.get("other_node")) for e in logged if "node_id" in e["event"]]
    assert sorted(told[:2]) == [("node_id_shared", "old.host"), ("node_id_shared", "young.host")]
    assert told[2:] == [("node_id_shared_no_longer", None)]
    await old.close()


async def test_a_node_that_starts_again_is_not_taken_for_two(
    database: Database, agree: Agreeing
) -> None:
    """The session of its last keeper lingers, as after a power cut; its row is not renewed."""
    before, after = Standing(database, "1", "a"), Standing(database, "1", "a")
    await before.step()
    await agree(before).step()
    second = agree(after)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await second.step()
    assert not [e for e in logged if e["event"] == "node_id_shared"]
    await before.close()


async def test_a_node_that_is_cut_off_notices_and_speaks_again(
    store_url: str, database: Database
) -> None:
    """A pool's connection would wait for its answer: nothing shows that it is dead."""
    with wired(store_url) as (dsn, wire):
        cut = Database(dsn, size=2)
        await cut.open()
        agreement = Agreement(cut, Standing(cut, "1", "a"), SETTINGS, GRAVE, RING)
        await agreement.step()
        wire.hang()
        with pytest.raises(DatabaseUnavailable):
            async with asyncio.timeout(PATIENCE):
                await agreement.step()
        wire.heal()
        async with database.transaction() as connection:
            await connection.execute("DELETE FROM hub.node")
        await agreement.step()
        async with database.connection() as connection:
            assert [n.node_id for n in await read_live_nodes(connection)] == ["1"]
        await agreement.leave()
        cut.abandon()
        await cut.close()
