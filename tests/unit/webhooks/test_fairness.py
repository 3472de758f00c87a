"""W3: a dead endpoint delays nobody, and uses little of the hub."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from aiohttp import web

from harness import free_port
from penstockd.catalog import Catalog
from webhook_rig import Receiver, Rig, customer, rigged, status

ENDPOINTS = int(os.environ.get("PENSTOCK_W3_ENDPOINTS", "100"))


@contextlib.asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    """Run the dispatcher as the keeper does."""
    task = asyncio.create_task(rig.dispatcher.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settled(rig: Rig, sql: str, *arguments: object) -> None:
    """Wait until a query says true."""

    async def told() -> bool:
        await asyncio.sleep(0.02)
        return bool((await rig.rows(sql, *arguments))[0][0])

    async with asyncio.timeout(120):
        while not await told():
            pass


async def test_one_dead_endpoint_among_a_hundred(
    store_url: str, catalog: Catalog, receiver: Receiver
) -> None:
    # Nothing at the dead endpoint ends by itself: anybody who waited for it would wait for ever.
    async with rigged(store_url, catalog, connect_seconds=300, total_seconds=300) as rig:
        never = asyncio.Event()

        async def hang(_: web.Request) -> web.Response:
            await never.wait()
            return web.Response(status=500)

        receiver.answers["/dead"] = hang
        dead = await rig.endpoint(receiver.url + "/dead", concurrency=4)
        for i in range(ENDPOINTS - 1):
            await rig.endpoint(f"{receiver.url}/{i}")
        await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(10)])
        await rig.take_in()
        async with running(rig):
            await settled(
                rig,
                "SELECT count(*) FILTER (WHERE state = 'DELIVERED') = $1"
                " FROM hub.webhook_delivery WHERE webhook_id <> $2",
                10 * (ENDPOINTS - 1),
                dead,
            )
            assert {s for s, _ in await rig.states(dead)} <= {"SENDING", "PENDING"}
            assert len(receiver.of("/dead")) == 4  # its own limit, and no more
            # The control: deliveries to the dead endpoint wait until it answers.
            receiver.answers.clear()
            never.set()
            await settled(
                rig,
                "SELECT count(*) FILTER (WHERE state = 'DELIVERED') = 6"
                " FROM hub.webhook_delivery WHERE webhook_id = $1",
                dead,
            )


async def test_a_failing_endpoint_is_narrow_until_it_takes_something(
    rig: Rig, receiver: Receiver
) -> None:
    at_once, most = 0, 0

    async def failing(_: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return web.Response(status=500)

    receiver.answers["/in"] = failing
    name = await rig.endpoint(receiver.url + "/in", concurrency=16, schedule=(1,) * 20)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.deliver()
    most = 0
    await rig.log(*[(f"d{i}", None, customer(f"d{i}")) for i in range(40)])
    await rig.deliver()
    assert most == 1
    receiver.answers["/in"] = status(200)
    rig.clock.move(seconds=5)
    await rig.deliver()
    assert {s for s, _ in await rig.states(name)} == {"DELIVERED"}


async def test_a_busy_receiver_is_left_alone_as_long_as_it_asks(
    rig: Rig, receiver: Receiver
) -> None:
    receiver.answers["/busy"] = status(503, **{"retry-after": "3600"})
    await rig.endpoint(receiver.url + "/busy", concurrency=1)
    other = await rig.endpoint(receiver.url + "/other")
    for i in range(5):
        await rig.log((f"c{i}", None, customer(f"c{i}")))
        await rig.deliver()
    assert len(receiver.of("/busy")) == 1
    assert len(receiver.of("/other")) == 5
    assert {s for s, _ in await rig.states(other)} == {"DELIVERED"}


async def test_names_and_ports_that_do_not_answer_are_failures_like_others(
    rig: Rig, receiver: Receiver
) -> None:
    await rig.endpoint(f"http://127.0.0.1:{free_port()}/in")
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    assert await rig.states(name) == [("DELIVERED", "")]
