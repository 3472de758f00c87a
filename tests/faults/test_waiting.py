"""Waiting calls, in this process on a store of its own: only the first in each line looks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from harness import PATIENCE
from own_worker import opened_hub
from penstockd.audit.entry import Entry
from penstockd.calls import Call
from penstockd.catalog import Catalog, FieldClass
from penstockd.commands import list_changes as polling
from penstockd.commands.list_changes import list_changes
from penstockd.commands.subscriptions import pull_changes as pull_module
from penstockd.commands.subscriptions.acknowledge_changes import acknowledge_changes
from penstockd.commands.subscriptions.create_subscription import create_subscription
from penstockd.commands.subscriptions.pull_changes import pull_changes
from penstockd.commands.webhooks import pull_deliveries as pulling
from penstockd.errors import TooManyStreams
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.feed.limits import Streams
from penstockd.feed.watching import Wanted
from penstockd.hub import Hub
from penstockd.policy.model import Action, Grant, Mask, Permission, Principal
from penstockd.store.announcements import BELL_CHANNEL, LOG_CHANNEL
from penstockd.store.subscriptions import SubscriptionTerms
from penstockd.subscriptions import take as taking
from penstockd.subscriptions.take import Pull, TakenLease, Taking
from penstockd.webhooks import pulling as webhook_pulling
from penstockd.webhooks.pulling import Pulled

CALLS = 40


@pytest.fixture
async def hub(store_url: str, catalog: Catalog) -> AsyncIterator[Hub]:
    """The organs of a worker that follows the log."""
    async with opened_hub(store_url) as hub:
        masks = dict.fromkeys(FieldClass, Mask.CLEAR)
        grant = Grant("all", "customers", frozenset({Action.READ}), masks, {}, "")
        async with hub.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO hub.consumer (consumer_id, claims) VALUES ('c', '{}')"
            )
        snapshot = replace(
            hub.policy.newest,
            grants={"all": (grant,)},
            permissions={"all": frozenset({Permission.WEBHOOKS_WRITE})},
        )
        hub.policy.adopt(snapshot)
        with hub.announcements.subscribe(BELL_CHANNEL, LOG_CHANNEL) as mailbox:
            await mailbox.take(PATIENCE)  # every mailbox begins with a miss
            following = asyncio.gather(hub.announcements.follow(), hub.feed.tail.follow())
            assert (await mailbox.take(PATIENCE)).missed  # announcements are first heard
        await until(lambda: hub.feed.tail.newest is not None)
        # All lines ring when announcements are first heard. No test here may count that ring, so
        # each begins after a later bell, which rings one line alone.
        all_lines, one = (hub.feed.tail.bells.line(name) for name in ("all", "one"))
        async with hub.database.transaction() as connection:
            await ring_everywhere(hub.announcements, connection, "one")
        await until(lambda: one.rung > all_lines.rung)
        yield hub
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def call(hub: Hub) -> Call:
    entry = Entry("r", "/test", consumer_id="c")
    return Call(entry, hub.policy.newest, hub, Principal("c", "k", frozenset({"all"})))


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


async def write(hub: Hub, key: str) -> None:
    """Log one change."""
    dataset = hub.catalog["customers"]
    guard = hub.policy.newest.view(
        Principal("c", "k", frozenset({"all"})), "customers", Action.READ
    ).guard
    fields = [dataset.by_path["customer_id"], dataset.by_path["name"]]
    async with hub.writer.transaction() as transaction:
        await transaction.upsert(dataset, fields, [[key, "Test"]], guard)


@contextlib.asynccontextmanager
async def waiting(make: Callable[[], Awaitable[Any]]) -> AsyncIterator[set[asyncio.Task[Any]]]:
    tasks = {asyncio.ensure_future(make()) for _ in range(CALLS)}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_of_those_who_wait_for_a_subscription_one_looks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[str]()
    look = Taking.look_once

    async def counted(self: Taking) -> Any:
        looks["all"] += 1
        return await look(self)

    monkeypatch.setattr(Taking, "look_once", counted)
    # Only announcements make them look.
    monkeypatch.setattr(taking, "LOOK", PATIENCE)
    monkeypatch.setattr(pull_module, "MAX_WAIT", PATIENCE)
    await create_subscription(hub, call(hub), "line", SubscriptionTerms(["customers"]), "now")
    async with waiting(lambda: pull_changes(hub, call(hub), "line", Pull(wait=PATIENCE))) as pulls:
        await until(lambda: hub.streams.held["c"] == CALLS and looks["all"])
        for key in ("a", "b", "c"):
            await write(hub, key)
            await until(lambda: any(task.done() for task in pulls))
            (done,) = [task for task in pulls if task.done()]
            pulls.discard(done)
            taken: TakenLease = done.result()[0]
            assert taken.keys == {"customers": [key]}
            # Whoever waits next hears of it, in whichever process it is announced.
            lease = hub.places.seal_lease(taken.lease.lease_id)
            await acknowledge_changes(hub, call(hub), "line", lease, "")
        print(f"{looks['all']} looks, {CALLS} calls that waited")
        # For each lease: before it, at it, after it, and on its acknowledgement.
        assert looks["all"] <= 4 * 3 + 2 < CALLS


async def test_of_those_who_pull_from_a_webhook_one_looks(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[str]()

    async def nothing(*_: object) -> list[Pulled]:
        looks["all"] += 1
        return [given.pop()] if given else []

    given: list[Pulled] = []
    monkeypatch.setattr(pulling, "pull_due", nothing)
    monkeypatch.setattr(webhook_pulling, "LOOK", PATIENCE)
    wait = timedelta(seconds=PATIENCE)
    monkeypatch.setattr(pulling, "MAX_WAIT", wait)

    def pull() -> Awaitable[list[Pulled]]:
        return pulling.pull_deliveries(hub, call(hub), "hook", 1, wait)

    async with waiting(pull) as pulls:
        # Each has asked once whether something is there at once, and the first of the line again.
        await until(lambda: hub.streams.held["c"] == CALLS and looks["all"] == CALLS + 1)
        given.append(Pulled("d", "t", {}, b""))
        async with hub.database.transaction() as connection:
            await ring_everywhere(hub.announcements, connection, webhook_line("hook"))
        await until(lambda: any(task.done() for task in pulls))
        assert [len(task.result()) for task in pulls if task.done()] == [1]
        await until(lambda: looks["all"] == CALLS + 3)


async def test_a_consumer_waits_with_so_many_calls_and_no_more(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MAX_WAIT", PATIENCE)
    few = replace(hub, streams=Streams(most=3))
    wanted = Wanted([hub.catalog["customers"]])
    cursor = hub.places.seal(await hub.feed.head())
    await create_subscription(hub, call(hub), "line", SubscriptionTerms(["customers"]), "now")

    def poll(wait: float) -> Awaitable[Any]:
        return list_changes(few, call(few), wanted, cursor, wait)

    tasks = [asyncio.ensure_future(poll(PATIENCE)) for _ in range(3)]
    await until(lambda: few.streams.held["c"] == 3)
    with pytest.raises(TooManyStreams):
        await poll(PATIENCE)
    with pytest.raises(TooManyStreams):
        await pull_changes(few, call(few), "line", Pull(wait=30))
    # Calls that do not wait are not in the line.
    assert (await poll(0)).changes == b""
    await write(hub, "a")
    pages = await asyncio.gather(*tasks)
    assert all(page.changes for page in pages)
    assert not few.streams.held
