"""Faults of the hub itself: no delivery hangs or is lost, and other endpoints are not affected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstockd.audit.entry import Entry
from penstockd.errors import PolicyStale, RateLimited
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.shapes.model import ShapeColumn, ShapeDefinition
from penstockd.store.shapes import insert_shape
from penstockd.webhooks.model import Selection
from penstockd.webhooks.replies import Reply
from webhook_rig import Receiver, Rig, customer, make

from .test_views import GRANT, narrow


class FailingSender:
    """Fails for one URL with an error that no receiver causes."""

    def __init__(self, url: str, inner: object) -> None:
        self.url, self.inner = url, inner

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if url == self.url:
            raise RuntimeError("a defect of the hub")
        return await self.inner.post(url, headers, body)  # type: ignore[attr-defined,no-any-return]


@asynccontextmanager
async def altered(rig: Rig, **wrappings: Any) -> AsyncIterator[Rig]:
    """The parts of the rig on the same database, with a dispatcher that has other organs."""
    made = make(rig.database, rig.catalog, rig.policy, clock=rig.clock, **wrappings)
    try:
        yield made
    finally:
        await made.sender.close()


async def test_an_error_of_the_hub_is_a_failed_attempt_and_frees_its_place(
    rig: Rig, receiver: Receiver
) -> None:
    broken, well = receiver.url + "/broken", receiver.url + "/well"
    name = await rig.endpoint(broken, concurrency=1)
    other = await rig.endpoint(well, concurrency=1)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    async with altered(rig, wrap_sender=lambda sender: FailingSender(broken, sender)) as failing:
        await failing.deliver()
    assert await rig.states(name) == [("PENDING", "NOT_SENT")] * 3
    assert await rig.states(other) == [("DELIVERED", "")] * 3
    rig.clock.move(days=1)
    await rig.deliver()
    assert await rig.states(name) == [("DELIVERED", "")] * 3
    counts = await rig.rows("SELECT DISTINCT attempt_count, webhook_id FROM hub.webhook_delivery")
    assert sorted(counts) == sorted([(2, name), (1, other)])


class StaleOnce:
    """A policy that is stale when the first message is to leave, after it was composed."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._asked = policy, 0

    @property
    def current(self) -> PolicySnapshot:
        self._asked += 1
        if self._asked == 2:
            raise PolicyStale("no news")
        return self._policy.current


async def test_a_policy_that_goes_stale_gives_the_delivery_back(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    async with altered(rig, wrap_policy=StaleOnce) as stale:
        await stale.deliver()
    assert await rig.states(name) == [("PENDING", "")]
    rig.clock.move(minutes=1)
    await rig.deliver()
    assert await rig.states(name) == [("DELIVERED", "")]
    assert await rig.rows("SELECT attempt_count FROM hub.webhook_delivery") == [(1,)]


async def test_an_event_that_is_gone_buries_its_delivery_alone(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/in", batch_size=10)
    other = await rig.endpoint(receiver.url + "/other")
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.take_in()
    for key, webhook in (("c0", name), ("c1", other)):
        await rig.rows(
            "DELETE FROM hub.webhook_event WHERE key = $1 AND event_id IN (SELECT unnest(event_ids)"
            " FROM hub.webhook_delivery WHERE webhook_id = $2) RETURNING event_id",
            key,
            webhook,
        )
    await rig.deliver()
    bodies = b"".join(r.body for r in receiver.of("/in"))
    assert b'"c0"' not in bodies and b'"c2"' in bodies
    assert await rig.states(name) == [("DELIVERED", "")]
    states = await rig.states(other)
    assert ("DELIVERED", "") in states
    assert all(s in [("DELIVERED", ""), ("DEAD", "EVENT_EXPIRED")] for s in states)
    assert ("DEAD", "EVENT_EXPIRED") in states


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE hub.webhook_event SET after = '\\xff' WHERE key = 'c0' RETURNING 1",
        # One that is read again, since another View made it.
        "WITH e AS (UPDATE hub.webhook_event SET view_id = 'other' WHERE key = 'c0')"
        " UPDATE hub.change SET after = '\\xff' WHERE key = 'c0' RETURNING 1",
    ],
)
async def test_an_image_that_cannot_be_read_buries_its_delivery_alone(
    rig: Rig, receiver: Receiver, spoil: str
) -> None:
    columns = [ShapeColumn("Name", field="name")]
    document = ShapeDefinition("customers", columns).document().decode()
    async with rig.database.transaction() as connection:
        await insert_shape(connection, "crm", "names", document)
    shaped = [Selection("customers", shape="names")]
    names = [
        await rig.endpoint(receiver.url + "/plain"),
        await rig.endpoint(receiver.url + "/shaped", selections=shaped),
    ]
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.take_in()
    assert len(await rig.rows(spoil)) >= 1
    await rig.deliver()
    for name, path in zip(names, ("/plain", "/shaped"), strict=True):
        states = await rig.states(name)
        assert sorted(states) == [("DEAD", "RECORD_UNREADABLE"), *[("DELIVERED", "")] * 2]
        assert len(receiver.of(path)) == 2
        assert not any(b'"c0"' in request.body for request in receiver.of(path))


async def test_access_that_is_lost_within_a_claim_stops_no_endpoint(
    rig: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are recorded under the policy with which they were composed."""
    name = await rig.endpoint(receiver.url + "/in")
    other = await rig.endpoint(receiver.url + "/other", consumer="admin")
    await rig.log(("c1", None, customer("c1")))
    await rig.take_in()
    composer = rig.dispatcher._composer
    compose = composer.compose

    async def narrowed(*arguments: object) -> object:
        made = await compose(*arguments)  # type: ignore[arg-type]
        await narrow(rig, GRANT.format("actions = '{}'"))
        return made

    monkeypatch.setattr(composer, "compose", narrowed)
    await rig.dispatcher.claim()
    monkeypatch.setattr(composer, "compose", compose)
    await rig.dispatcher.drain()
    assert await rig.states(name) == [("DEAD", "ACCESS_LOST")]
    assert await rig.states(other) == [("DELIVERED", "")]


class Withheld:
    """Allows one consumer nothing; ``given`` counts the records that others received."""

    def __init__(self, consumer: str) -> None:
        self.consumer, self.given = consumer, 0

    def take(self, entry: Entry, count: int) -> None:
        if entry.consumer_id == self.consumer:
            raise RateLimited("no more records for now")
        self.given += count


async def test_deliveries_wait_while_their_owner_may_be_given_no_more(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    other = await rig.endpoint(receiver.url + "/other", consumer="admin")
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.take_in()
    allowance = Withheld("crm")
    made = make(rig.database, rig.catalog, rig.policy, clock=rig.clock, allowance=allowance)
    try:
        await made.dispatcher.drain()
    finally:
        await made.sender.close()
    assert await rig.states(name) == [("PENDING", "")] * 3
    assert await rig.states(other) == [("DELIVERED", "")] * 3
    assert not receiver.of("/in") and allowance.given == 3
    told = "SELECT count(*) FROM hub.audit_entry WHERE surface = 'WEBHOOK' AND consumer_id = $1"
    assert await rig.rows(told, "crm") == [(0,)], "nothing says that they left"
    rig.clock.move(days=1)
    await rig.deliver()
    assert await rig.states(name) == [("DELIVERED", "")] * 3
    assert await rig.rows("SELECT DISTINCT attempt_count FROM hub.webhook_delivery") == [(1,)]
