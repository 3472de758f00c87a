"""The queue in the store: what a crash leaves behind, what is resent, what is deleted."""

from __future__ import annotations

import json
from datetime import timedelta

from aiohttp import web

from penstockd.webhooks.dispatcher import Dispatcher
from penstockd.webhooks.intake import BATCH_BYTES
from penstockd.webhooks.model import Ordering
from penstockd.webhooks.organ import Retention
from penstockd.webhooks.queue import claim_listed, list_due, requeue_dead, requeue_delivery
from webhook_rig import START, Receiver, Rig, customer, make, status


async def test_what_a_dead_keeper_had_claimed_is_sent_by_the_next(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.take_in()
    async with rig.database.transaction() as connection:
        due = await list_due(connection, {name: 10}, rig.clock())
        # And then the process dies.
        taken = await claim_listed(connection, [d.delivery_id for d in due])
    assert await rig.dispatcher.drain() == 0
    following = make(rig.database, rig.catalog, rig.policy, clock=rig.clock)
    try:
        await following.dispatcher.start()
        assert await following.dispatcher.drain() == 3
    finally:
        await following.sender.close()
    assert {r.id for r in receiver.requests} == {d.delivery_id for d in taken}


async def test_two_dispatchers_share_and_repeat_nothing(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/in", concurrency=4)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(60)])
    await rig.take_in()
    other = make(rig.database, rig.catalog, rig.policy, clock=rig.clock)
    dispatchers: list[Dispatcher] = [rig.dispatcher, other.dispatcher]
    try:
        claimed = [await d.claim() for d in dispatchers]
        assert all(claimed)  # each skips the deliveries that the other holds
        for each in dispatchers:
            await each.drain()
    finally:
        await other.sender.close()
    assert len(receiver.requests) == len({r.id for r in receiver.requests}) == 60


async def test_recovered_deliveries_of_a_record_keep_their_order(
    rig: Rig, receiver: Receiver
) -> None:
    refused = True

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=500 if refused else 200)

    receiver.answers["/in"] = answer
    name = await rig.endpoint(receiver.url + "/in", ordering=Ordering.KEY, schedule=(1,))
    images: list[bytes | None] = [None, *(customer("c1", name=f"N{i}") for i in range(6))]
    for i in range(6):
        await rig.log(("c1", images[i], images[i + 1]))
    for _ in range(20):
        await rig.deliver()
        rig.clock.move(seconds=2)
    assert {s for s, _ in await rig.states(name)} == {"DEAD"}
    refused = False
    receiver.requests.clear()
    async with rig.database.transaction() as connection:
        assert await requeue_dead(connection, name, rig.clock(), START) == 6
    await rig.dispatcher.drain()
    revisions = [int(json.loads(r.body)["data"]["revision"]) for r in receiver.requests]
    assert len(revisions) == 6 and revisions == sorted(revisions)


async def test_one_is_sent_again_though_it_was_taken(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    async with rig.database.transaction() as connection:
        await requeue_delivery(connection, name, receiver.requests[0].id, rig.clock())
    assert await rig.dispatcher.drain() == 1
    assert receiver.requests[0].id == receiver.requests[1].id
    assert await rig.rows("SELECT attempt FROM hub.webhook_attempt ORDER BY 1") == [(1,), (2,)]


async def test_the_old_is_forgotten_and_what_waits_is_not(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/fails"] = status(500)
    await rig.endpoint(receiver.url + "/in")
    waiting = await rig.endpoint(receiver.url + "/fails")
    # Ids contain their creation time; from now on the clock moves.
    ((now,),) = await rig.rows("SELECT clock_timestamp()")
    rig.clock.time = now
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    retention = Retention(rig.database, timedelta(days=14), rig.clock)
    assert await retention.prune() == 0
    rig.clock.move(days=15)
    assert await retention.prune() == 1
    assert await rig.states(waiting) == [("PENDING", "STATUS")]
    assert await rig.rows("SELECT count(*) FROM hub.webhook_attempt") == [(1,)]
    # Something still refers to it.
    assert await rig.rows("SELECT count(*) FROM hub.webhook_event") == [(1,)]
    await rig.dispatcher.drain()
    receiver.answers.clear()
    rig.clock.move(days=1)
    await rig.dispatcher.drain()
    rig.clock.move(days=15)
    assert await retention.prune() == 1
    assert await rig.rows("SELECT count(*) FROM hub.webhook_event") == [(0,)]


async def test_batches_are_bounded_in_bytes_too(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/in", batch_size=100)
    large = "x" * (BATCH_BYTES // 3)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}", notes=large)) for i in range(5)])
    await rig.deliver()
    sizes = sorted(len(json.loads(r.body)["data"]) for r in receiver.requests)
    assert sizes == [1, 2, 2]


async def test_a_deleted_endpoint_takes_its_deliveries_along(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    other = await rig.endpoint(receiver.url + "/other")
    await rig.log(("c1", None, customer("c1")))
    await rig.take_in()
    assert await rig.dispatcher.claim() == 2
    async with rig.database.transaction() as connection:
        await connection.execute("DELETE FROM hub.webhook WHERE webhook_id = $1", name)
    await rig.dispatcher.drain()
    assert await rig.states(name) == []
    assert await rig.states(other) == [("DELIVERED", "")]
