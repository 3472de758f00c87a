"""Claimed but unsent messages take memory, of which every consumer and endpoint has a share."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from aiohttp import web

from penstockd.catalog import Catalog
from penstockd.webhooks import lanes as module
from penstockd.webhooks.dispatcher import GROUP
from penstockd.webhooks.lanes import (
    HELD_BYTES,
    LANE_BYTES,
    Holding,
    choose_within_bytes,
)
from penstockd.webhooks.queue import DueDelivery, list_due
from webhook_rig import Receiver, Rig, customer, receiving, rigged

SIZE = 10_000
NAME = "x" * 9_000


def fill(held: Holding, consumer: str, webhook_id: str, size: int = SIZE) -> int:
    """Hold messages as long as that is allowed; returns their bytes."""
    total = 0
    while held.permits(consumer, webhook_id, size):
        held.hold(consumer, webhook_id, size)
        total += size
    return total


def test_a_consumer_holds_a_quarter_of_what_others_leave() -> None:
    held, lanes = Holding(), count()
    greedy = sum(fill(held, "first", f"f{next(lanes)}") for _ in range(50))
    assert HELD_BYTES // 8 < greedy <= HELD_BYTES // 4
    left = HELD_BYTES - greedy
    for number in range(20):
        consumer = f"later {number}"
        taken = sum(fill(held, consumer, f"{consumer}/{lane}") for lane in range(20))
        assert left // 8 < taken <= left // 4
        left -= taken
    assert not held.full


def test_an_endpoint_leaves_room_for_the_others_of_its_consumer() -> None:
    held = Holding()
    taken = [fill(held, "one", f"w{number}") for number in range(10)]
    assert 0 < taken[0] <= LANE_BYTES
    assert all(taken)


def test_one_message_of_any_size_is_held_and_no_second() -> None:
    held = Holding()
    assert held.permits("one", "w", 2 * HELD_BYTES)
    held.hold("one", "w", 2 * HELD_BYTES)
    assert held.full
    assert not held.permits("other", "v", 1)
    held.release("one", "w", 2 * HELD_BYTES)
    assert held.permits("other", "v", 1)


def test_what_is_released_can_be_held_again() -> None:
    held = Holding()
    first = fill(held, "one", "w")
    for _ in range(first // SIZE):
        held.release("one", "w", SIZE)
    assert fill(held, "one", "w") == first


def test_a_pull_takes_as_many_as_fit_and_at_least_one() -> None:
    due = [DueDelivery(str(i), "w", 1000) for i in range(10)]
    assert choose_within_bytes(due, 1) == ["0"]
    assert choose_within_bytes(due, 5 * 1512) == ["0", "1", "2", "3", "4"]
    assert len(choose_within_bytes(due, 10**6)) == 10


@pytest.mark.parametrize("fair", [True, False])
async def test_large_messages_to_a_silent_receiver_hold_up_nobody(
    store_url: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, fair: bool
) -> None:
    """The control is the earlier rule: one bound for all."""
    monkeypatch.setattr(module, "HELD_BYTES", 20 * SIZE)
    if not fair:
        monkeypatch.setattr(Holding, "permits", lambda held, *_: not held.full)
    silent = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.Response:
        await silent.wait()
        return web.Response()

    async with (
        receiving() as receiver,
        rigged(store_url, catalog, connect_seconds=300, total_seconds=300) as rig,
    ):
        receiver.answers["/silent"] = hang
        for _ in range(3):
            await rig.endpoint(receiver.url + "/silent", concurrency=16)
        await rig.log(*[(f"c{i}", None, customer(f"c{i}", name=NAME)) for i in range(40)])
        await rig.take_in()
        while await rig.dispatcher.claim():
            pass
        other = await rig.endpoint(receiver.url + "/other", consumer="admin")
        await rig.log(("d", None, customer("d")))
        await rig.take_in()
        claimed = await rig.dispatcher.claim()
        sending = await rig.rows(
            "SELECT webhook_id = $1, count(*) FROM hub.webhook_delivery WHERE state = 'SENDING'"
            " GROUP BY 1 ORDER BY 1",
            other,
        )
        if fair:
            assert claimed >= 1
            assert sending[0][1] <= 5 + 3  # five large ones, and the small one to each endpoint
            assert sending[1] == (True, 1)
        else:
            assert claimed == 0
        silent.set()
        await rig.dispatcher.drain()
        assert len(receiver.of("/silent")) == 3 * 41  # in the end all of it arrives
        assert len(receiver.of("/other")) == 1


async def test_messages_that_are_larger_than_expected_are_returned_unsent(
    rig: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 200 * SIZE)
    name = await rig.endpoint(receiver.url + "/in", concurrency=16)
    escaped = "\N{START OF HEADING}" * 2_000  # six times as large in JSON
    await rig.log(*[(f"c{i}", None, customer(f"c{i}", name=escaped)) for i in range(40)])
    await rig.take_in()
    async with rig.database.transaction() as connection:
        due = await list_due(connection, {name: GROUP}, rig.clock())
    stored = sum(d.stored_bytes for d in due)
    assert stored < 10 * SIZE  # that bound would let all be claimed
    assert await rig.dispatcher.claim() == 40
    rows = await rig.rows(
        "SELECT count(*), max(attempt_count) FROM hub.webhook_delivery WHERE state = 'PENDING'"
    )
    assert rows[0][0] > 10
    assert rows[0][1] == 0
    await rig.dispatcher.drain()
    assert len({r.id for r in receiver.requests}) == len(receiver.requests) == 40
