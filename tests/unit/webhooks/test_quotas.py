"""Messages count against the quotas of the owner of their endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from announcing import FakeAnnouncements
from penstockd.audit.entry import Entry
from penstockd.keyring import FixedKey
from penstockd.metering.admission import Limiter
from penstockd.metering.deliveries import DeliveryCharges
from penstockd.policy.plans import Countable, Plan, PlanLimits, PlanQuota, QuotaPeriod, Terms
from webhook_rig import Receiver, Rig, customer, make, status

#: What the ledger has, with what this process holds.
USED = "SELECT coalesce(sum(used), 0)::int FROM hub.allowance WHERE consumer_id = 'crm'"
TOLD = (
    "SELECT coalesce(sum((query ->> 'calls')::int), 0)::int, coalesce(sum(row_count), 0)::int,"
    " coalesce(sum(byte_count), 0)::int FROM hub.audit_entry"
    " WHERE surface = 'WEBHOOK' AND consumer_id = 'crm'"
)


@pytest.fixture
async def limited(rig: Rig) -> AsyncIterator[tuple[Rig, Limiter]]:
    """A rig that keeps quotas."""
    limiter = Limiter(rig.database, FakeAnnouncements(), FixedKey(b"p" * 32))
    made = make(rig.database, rig.catalog, rig.policy, clock=rig.clock, limiter=limiter)
    try:
        yield made, limiter
    finally:
        await limiter.close()
        await made.sender.close()


async def limit(rig: Rig, *quotas: dict[str, Any]) -> None:
    """Give the owner these limits."""
    limits = json.dumps({"quotas": list(quotas)})
    async with rig.database.transaction() as connection:
        await connection.execute(
            "UPDATE hub.consumer SET limits = $1::jsonb WHERE consumer_id = 'crm'", limits
        )
    await rig.policy.refresh()


def quota(what: str, most: int, **more: Any) -> dict[str, Any]:
    return {"what": what, "per": "month", "limit": most, **more}


async def queue(rig: Rig, count: int) -> None:
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(count)])
    await rig.take_in()


def count(states: list[tuple[str, str]], state: str) -> int:
    return sum(found == state for found, _ in states)


@pytest.mark.parametrize("what", ["webhook_attempts", "records"])
async def test_exactly_a_quota_leaves_and_the_rest_when_there_is_more(
    limited: tuple[Rig, Limiter], receiver: Receiver, what: str
) -> None:
    rig, limiter = limited
    name = await rig.endpoint(receiver.url + "/in")
    other = await rig.endpoint(receiver.url + "/other", consumer="admin")
    await limit(rig, quota(what, 3))
    await queue(rig, 8)
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 3 == len(receiver.of("/in"))
    assert count(await rig.states(name), "PENDING") == 5, "they wait, and are not given up"
    assert count(await rig.states(other), "DELIVERED") == 8
    assert (await rig.rows(TOLD))[0][:2] == (3, 3), "nothing says that the others left"
    attempts = "SELECT max(attempt_count) FROM hub.webhook_delivery WHERE state = 'PENDING'"
    assert await rig.rows(attempts) == [(0,)]
    assert await rig.dispatcher.claim() == 0, "the endpoint rests"
    await limit(rig, quota(what, 100))
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 8 == len(receiver.of("/in"))
    await limiter.close()
    assert await rig.rows(USED) == [(8,)]


async def test_a_retry_is_another_attempt(limited: tuple[Rig, Limiter], receiver: Receiver) -> None:
    rig, limiter = limited
    name = await rig.endpoint(receiver.url + "/in")
    receiver.answers["/in"] = status(500)
    await limit(rig, quota("webhook_attempts", 2), quota("records", 100))
    await queue(rig, 1)
    for _ in range(4):
        await rig.dispatcher.drain()
        rig.clock.move(days=1)
    assert len(receiver.of("/in")) == 2
    assert await rig.states(name) == [("PENDING", "")]
    await limiter.close()
    assert await rig.rows(USED) == [(4,)], "two attempts, and their two records"


async def test_a_quota_of_a_dataset_holds_back_its_messages_alone(
    limited: tuple[Rig, Limiter], receiver: Receiver
) -> None:
    rig, _ = limited
    name = await rig.endpoint(receiver.url + "/in")
    await limit(rig, quota("records", 2, dataset="customers"))
    await queue(rig, 4)
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 2
    assert await rig.dispatcher.claim() == 0, "they wait by themselves"
    await limit(rig, quota("records", 9, dataset="customers"))
    rig.clock.move(minutes=2)
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 4


async def test_bytes_end_within_one_message(
    limited: tuple[Rig, Limiter], receiver: Receiver
) -> None:
    rig, limiter = limited
    name = await rig.endpoint(receiver.url + "/in")
    await queue(rig, 1)
    await rig.dispatcher.drain()
    ((_, _, size),) = await rig.rows(TOLD)
    await limit(rig, quota("bytes", size + size // 2))
    await rig.log(*[(f"d{i}", None, customer(f"d{i}")) for i in range(5)])
    await rig.take_in()
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 1 + 2
    ((_, _, sent),) = await rig.rows(TOLD)
    await limiter.close()
    assert await rig.rows(USED) == [(sent - size,)]


async def test_nothing_leaves_on_portions_that_were_taken_back(
    limited: tuple[Rig, Limiter], receiver: Receiver
) -> None:
    rig, limiter = limited
    name = await rig.endpoint(receiver.url + "/in")
    await limit(rig, quota("webhook_attempts", 100))
    await queue(rig, 1)
    await rig.dispatcher.drain()
    await rig.rows("SELECT hub.end_spender($1)", await limiter.spender.identify())
    await rig.log(("d1", None, customer("d1")))
    await rig.take_in()
    assert await rig.dispatcher.claim() == 0
    assert len(receiver.of("/in")) == 1 and (await rig.rows(TOLD))[0][0] == 1
    await limiter.spender.renew()
    await rig.dispatcher.drain()
    assert count(await rig.states(name), "DELIVERED") == 2
    await limiter.close()
    assert await rig.rows(USED) == [(2,)]


async def test_only_the_database_knows_what_a_failed_transaction_was_charged(
    limited: tuple[Rig, Limiter],
) -> None:
    rig, limiter = limited
    spent = PlanQuota(Countable.WEBHOOK_ATTEMPTS, QuotaPeriod.MONTH, 10)
    terms = Terms(Plan("p"), PlanLimits(quotas=(spent,)))
    entry = Entry(request_id="r", method="m")
    with pytest.raises(KeyError), DeliveryCharges(limiter) as charges:
        await charges.take(terms, "crm", {}, 5)
        charges.enter(entry)
        await charges.take(terms, "crm", {}, 5)
        raise KeyError
    assert list(entry.spends.values()) == [1], "what was taken later is none of this entry's"
    (purse,) = limiter.spender._purses.values()
    assert purse.stale and not purse.reserved
    await limiter.close()
    assert await rig.rows(USED) == [(0,)]
