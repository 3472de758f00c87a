"""Fair shares: thresholds leave room for later payers, and the queue gives turns by cost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from chance import SEED
from penstockd.errors import DatabaseUnavailable, ShareExhausted
from penstockd.shares import Payer, Shares, ShareTerms, for_the_hub, payer_var

A, B, C = Payer("a", "orders"), Payer("b", "customers"), Payer("c", "orders")


def held(shares: Shares, payer: Payer) -> int:
    """Take everything that a payer can get; returns how much that is."""
    count = 0
    while shares.try_take(payer):
        count += 1
    return count


async def waiting(shares: Shares, payer: Payer, weight: int = 1) -> asyncio.Task[int]:
    """A call that has begun to wait."""
    task = asyncio.create_task(shares.take(payer, weight))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def test_one_consumer_leaves_room_and_so_do_all_that_come_after_it() -> None:
    shares = Shares(8, ShareTerms(consumer_factor=1))
    assert [held(shares, Payer(name)) for name in "abcd"] == [4, 2, 1, 1]
    assert shares.free == 0 and not shares.try_take(Payer("e"))
    wide = Shares(16, ShareTerms(consumer_factor=3))
    assert [held(wide, Payer(name)) for name in "abc"] == [12, 3, 1]
    # The negative control: without a threshold the first takes everything.
    assert [held(Shares(8, ShareTerms()), Payer(name)) for name in "a"] == [8]


def test_one_dataset_leaves_room_whoever_asks_for_it() -> None:
    shares = Shares(12, ShareTerms(dataset_factor=2))
    assert sum(held(shares, Payer(str(n), "orders")) for n in range(12)) == 8
    assert shares.try_take(Payer("new", "customers")) and shares.try_take(Payer("0"))


def test_what_is_spare_is_what_would_be_given() -> None:
    shares = Shares(9, ShareTerms(consumer_factor=2, dataset_factor=1))
    for payer in (A, Payer("a"), B, C):
        spare = shares.spare(payer)
        assert spare == held(shares, payer)


async def test_calls_of_a_burst_wait_for_each_other_and_for_nobody_else() -> None:
    shares = Shares(4, ShareTerms(consumer_factor=None))
    assert held(shares, A) == 4
    order: list[str] = []

    async def call(payer: Payer) -> None:
        await shares.take(payer)
        order.append(payer.consumer)
        shares.give_back(payer)

    burst = [asyncio.create_task(call(A)) for _ in range(100)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(call(p)) for p in (B, C, B, C)]
    await asyncio.sleep(0)
    shares.give_back(A)
    await asyncio.gather(*burst, *others)
    # In turns, although the whole burst was there first.
    assert [order.count(name) for name in "abc"] == [100, 2, 2]
    assert max(i for i, name in enumerate(order) if name in "bc") < 8


async def test_turns_are_weighed_by_what_calls_cost() -> None:
    shares = Shares(4, ShareTerms())
    assert held(shares, C) == 4
    order: list[str] = []

    async def call(payer: Payer, weight: int) -> None:
        await shares.take(payer, weight)
        order.append(payer.consumer)
        await asyncio.sleep(0)
        shares.give_back(payer, weight)

    heavy = [asyncio.create_task(call(A, 4)) for _ in range(20)]
    light = [asyncio.create_task(call(B, 1)) for _ in range(80)]
    await asyncio.sleep(0)
    shares.give_back(C, 4)
    await asyncio.gather(*heavy, *light)
    # For each call of a that ends, about four of b end.
    for done in range(1, 20):
        first = [i for i, name in enumerate(order) if name == "a"][done - 1]
        assert abs(order[:first].count("b") - 4 * done) <= 8, order


async def test_a_heavy_call_is_not_passed_for_ever_by_light_ones() -> None:
    shares = Shares(4, ShareTerms())
    assert all(shares.try_take(B) for _ in range(3))
    heavy = await waiting(shares, A, 4)
    # There is room for one, but it is reserved for the one that waits.
    assert not shares.try_take(C)
    light = await waiting(shares, C)
    for _ in range(3):
        shares.give_back(B)
    await heavy
    assert not light.done()
    shares.give_back(A, 4)
    await light


@pytest.mark.parametrize("size", range(4, 33))
@pytest.mark.parametrize("weight", [2, 7, 40])
def test_heavy_calls_of_two_consumers_leave_a_place_for_a_third(size: int, weight: int) -> None:
    shares = Shares(size, ShareTerms(consumer_factor=3, dataset_factor=2))
    for payer in (Payer("a", "orders"), Payer("b", "customers")):
        while shares.try_take(payer, weight):
            pass
    assert shares.try_take(Payer("c", "products"))
    # The control: without thresholds they fill everything.
    unfair = Shares(size, ShareTerms())
    for consumer in "ab":
        while unfair.try_take(Payer(consumer), min(weight, size // 2)):
            pass
    while unfair.try_take(Payer("a")):
        pass
    assert not unfair.try_take(Payer("c"))


async def test_a_heavy_call_takes_what_is_left_rather_than_wait_until_all_is_quiet() -> None:
    shares = Shares(14, ShareTerms(consumer_factor=3))
    assert shares.try_take(A)
    assert held(shares, B) == 9
    assert shares.try_take(A, 7) == 2
    # A consumer that already holds its share waits for its own calls.
    assert shares.try_take(C, 7) == 1
    again = await waiting(shares, A, 2)
    shares.give_back(A, 2)
    assert await again == 2


async def test_who_is_over_its_share_is_passed() -> None:
    shares = Shares(4, ShareTerms(consumer_factor=1))
    assert held(shares, A) == 2
    mine = await waiting(shares, A)
    assert shares.try_take(B)
    shares.give_back(B)
    assert not mine.done()
    shares.give_back(A)
    await mine


async def test_a_locked_dataset_holds_up_no_other_call_of_its_consumer() -> None:
    shares = Shares(6, ShareTerms(consumer_factor=None, dataset_factor=1))
    assert held(shares, Payer("a", "locked")) == 3
    behind = await waiting(shares, Payer("a", "locked"))
    assert shares.try_take(Payer("a", "free"))
    behind.cancel()


async def test_waiting_is_bounded_in_time_and_says_how_long() -> None:
    shares = Shares(2, ShareTerms(1, seconds=0.01), what="connections for exports")
    assert held(shares, A) == 1
    with pytest.raises(ShareExhausted, match=r"waited 0.01 s .* connections for exports") as caught:
        await shares.take(A)
    assert caught.value.metadata == {"held": "1", "waiting": "1"}
    shares.give_back(A)
    assert shares.try_take(A)


async def test_waiting_is_bounded_in_number_by_consumer() -> None:
    shares = Shares(1, ShareTerms(most_waiting=3))
    assert shares.try_take(A)
    calls = [await waiting(shares, payer) for payer in (A, A._replace(dataset="x"), A)]
    with pytest.raises(ShareExhausted, match="3 of your calls are waiting already"):
        await shares.take(A)
    calls.append(await waiting(shares, B))
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    shares.give_back(A)
    assert shares.free == 1 and shares.try_take(B)


async def test_what_ends_the_wait_for_all() -> None:
    shares = Shares(1, ShareTerms())
    assert shares.try_take(A)
    calls = [await waiting(shares, p) for p in (A, B, C)]
    shares.fail(DatabaseUnavailable("gone"))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(f) for f in found] == [DatabaseUnavailable] * 3
    shares.give_back(A)
    assert shares.free == 1


async def test_nothing_is_lost_whenever_callers_go_away() -> None:
    chance = random.Random(SEED)
    print("seed", SEED)
    shares = Shares(5, ShareTerms(2, 2, seconds=5))
    now: Counter[str] = Counter()

    async def call(payer: Payer, weight: int) -> None:
        taken = await shares.take(payer, weight)
        assert 1 <= taken <= weight
        try:
            now["all"] += taken
            assert now["all"] <= 5
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            now["all"] -= taken
            shares.give_back(payer, taken)

    calls = []
    for _ in range(2000):
        payer = Payer(chance.choice("abcd"), chance.choice(["x", "y", None]))
        calls.append(asyncio.create_task(call(payer, chance.choice([1, 1, 1, 2, 5]))))
        if chance.random() < 0.3:
            chance.choice(calls).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    for done in await asyncio.gather(*calls, return_exceptions=True):
        assert done is None or isinstance(done, asyncio.CancelledError), done
    assert shares.free == 5 and shares.try_take(A)


def test_what_serves_many_is_the_hub_s() -> None:
    token = payer_var.set(A)
    with for_the_hub():
        assert payer_var.get() == Payer()
    assert payer_var.get() == A
    payer_var.reset(token)
