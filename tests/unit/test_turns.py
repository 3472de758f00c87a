"""Payers take turns on the event loop: nobody waits for all of another's work."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Hashable

import pytest

from penstockd.budget import Budget, OwnLine, await_metered, own_task, serve_call
from penstockd.shares import Payer, payer_var
from penstockd.turns import ROUND, SLICE, Turns

SEED = os.environ.get("PENSTOCK_TEST_SEED", str(random.randrange(10**9)))


class Steps:
    """Steps that take exactly their stated time, whatever the clock shows."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.ran: list[tuple[Hashable, int]] = []
        self.round = 0
        self.rounds: list[int] = []
        self.heard: list[tuple[object, ...]] = []

    async def step(self, payer: Hashable, number: int, seconds: float) -> None:
        """Run one step, which records its time."""
        try:
            if self.turns.is_full():
                await self.turns.wait(payer)
        except asyncio.CancelledError as exc:
            self.heard.append(exc.args)
            raise
        finally:
            self.ran.append((payer, number))
            self.rounds.append(self.round)
            self.turns.add(seconds)

    def make_ready(self, payer: Hashable, count: int, seconds: float) -> list[asyncio.Task[None]]:
        """Tasks of one step each, ready in this order."""
        return [asyncio.create_task(self.step(payer, i, seconds)) for i in range(count)]

    async def make_wait(self, payers: str, count: int, seconds: float) -> list[asyncio.Task[None]]:
        """Tasks of one step each, for each payer, that all wait in line."""
        self.make_ready("first", 1, 2 * ROUND)
        tasks = [task for payer in payers for task in self.make_ready(payer, count, seconds)]
        await asyncio.sleep(0)
        del self.ran[:], self.rounds[:]
        return tasks

    async def finish(self, *tasks: asyncio.Task[None]) -> list[BaseException | None]:
        """Run all tasks to their ends, and count the rounds."""
        while not all(task.done() for task in tasks):
            self.round += 1
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("many", [100, 2000])
async def test_nobody_waits_for_more_than_one_turn_of_each_of_the_others(many: int) -> None:
    steps = Steps()
    greedy = steps.make_ready("greedy", many, SLICE / 2)
    others = [task for name in "abc" for task in steps.make_ready(name, 3, SLICE / 2)]
    await steps.finish(*greedy, *others)
    last = max(i for i, (payer, _) in enumerate(steps.ran) if payer != "greedy")
    # The round in which all became ready, then two turns of the greedy payer beside theirs.
    assert last <= (ROUND + 2 * SLICE + len(others) * SLICE) / (SLICE / 2) + 4
    assert steps.rounds[last] <= 6 and steps.rounds[-1] >= many / 12


async def test_a_neighbour_waits_a_few_rounds_however_much_another_has_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def burn(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    async def rounds_beside(many: int) -> int:
        """The rounds that a neighbour's call waits if it becomes ready after many of another's."""
        ready, order = asyncio.Event(), list[str]()

        async def call(name: str) -> None:
            payer_var.set(Payer(name))
            await ready.wait()
            burn(SLICE / 2)
            order.append(name)

        names = [*["greedy"] * many, "neighbour"]
        calls = [asyncio.create_task(await_metered(Budget("call"), call(name))) for name in names]
        await asyncio.sleep(0)
        ready.set()
        rounds = 0
        while not calls[-1].done():
            rounds += 1
            await asyncio.sleep(0)
        await asyncio.gather(*calls)
        return rounds

    few, found = await rounds_beside(20), await rounds_beside(200)
    assert few <= 6 and found <= 6
    # The negative control: in one common line it waits for everything that was ready before.
    monkeypatch.setattr(Budget, "line", "all")
    assert await rounds_beside(200) >= 200 * (SLICE / 2) / (ROUND + SLICE) - 4


async def test_payers_get_the_same_time_however_long_their_steps_are() -> None:
    steps = Steps()
    long = steps.make_ready("long", 200, 0.9 * ROUND)
    short = steps.make_ready("short", 1800, 0.1 * ROUND)
    await steps.finish(*long, *short)
    used = Counter[Hashable]()
    for payer, _ in steps.ran[:1000]:
        used[payer] += 9 if payer == "long" else 1
    assert 0.8 <= used["long"] / used["short"] <= 1.25, used
    # One very long step costs the payer its next turns, but not for ever.
    steps = Steps()
    first = steps.make_ready("long", 1, 1000 * ROUND)
    then = [*steps.make_ready("long", 20, SLICE), *steps.make_ready("short", 100, SLICE)]
    await steps.finish(*first, *then)
    assert steps.ran.index(("long", 1)) < 2 + 2 * ROUND / SLICE


async def test_a_cancelled_step_keeps_its_turn_and_hears_why() -> None:
    steps = Steps()
    tasks = await steps.make_wait("a", 5, ROUND / 100)
    tasks[1].cancel("gone away")
    tasks[1].cancel("gone away")
    tasks[3].cancel()
    found = await steps.finish(*tasks)
    assert [type(end) for end in found] == [
        asyncio.CancelledError if i in (1, 3) else type(None) for i in range(5)
    ]
    assert steps.heard == [("gone away",), ()]
    assert [number for _, number in steps.ran] == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)
    assert not steps.turns.is_full()


async def test_thousands_that_end_together_do_not_hold_a_round() -> None:
    steps = Steps()
    tasks = await steps.make_wait("a", 2000, ROUND / 10)
    for task in tasks:
        task.cancel()
    await steps.finish(*tasks)
    assert max(Counter(steps.rounds).values()) <= 12


async def test_everything_runs_once_and_in_order_whatever_comes() -> None:
    print("seed", SEED)
    chance, steps = random.Random(SEED), Steps()
    tasks, numbers = list[asyncio.Task[None]](), Counter[str]()
    for _ in range(3000):
        payer = chance.choice("abcde")
        seconds = chance.choice([0, SLICE / 9, SLICE, 3 * ROUND])
        tasks.append(asyncio.create_task(steps.step(payer, numbers[payer], seconds)))
        numbers[payer] += 1
        if chance.random() < 0.2:
            # Waiting tasks end at their turn; one that has not begun is never seen.
            await asyncio.sleep(0)
            chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            await asyncio.sleep(0)
    await steps.finish(*tasks)
    seen = defaultdict[Hashable, list[int]](list)
    for name, number in steps.ran:
        seen[name].append(number)
    ended = sum(1 for task in tasks if not task.cancelled())
    assert ended <= len(steps.ran) <= len(tasks)
    assert all(len(set(found)) == len(found) for found in seen.values())
    # In the order in which they became ready; only tasks that need not wait may pass.
    waited = await _order_of_waiting(chance)
    assert waited == sorted(waited)


async def _order_of_waiting(chance: random.Random) -> list[int]:
    """The order in which one payer's waiting steps run, when some are cancelled."""
    steps = Steps()
    tasks = await steps.make_wait("ab", 300, SLICE)
    for task in chance.sample(tasks, 200):
        task.cancel()
    await steps.finish(*tasks)
    return [number for payer, number in steps.ran if payer == "a"]


async def test_whose_turns_steps_take() -> None:
    lines = dict[str, Hashable]()

    async def note(name: str, budget: Budget) -> None:
        lines[f"{name} arrives"] = budget.line
        payer_var.set(Payer(name))
        lines[f"{name} is known"] = budget.line

    async def own() -> None:
        lines["own"] = Budget("own").line

    call = Budget("call")
    await asyncio.create_task(serve_call(call, note("c", call)))
    await own_task("own", own())
    assert lines == {
        "c arrives": OwnLine.ARRIVING,
        "c is known": "c",
        "own": OwnLine.HUB,
    }


def test_a_loop_that_ended_leaves_nobody_in_line() -> None:
    steps = Steps()

    async def leave() -> None:
        await steps.make_wait("a", 3, ROUND)

    asyncio.run(leave())
    asyncio.run(asyncio.wait_for(steps.step("a", 9, 3 * ROUND), 60))
    asyncio.run(asyncio.wait_for(steps.step("a", 10, 3 * ROUND), 60))
    assert steps.ran[-2:] == [("a", 9), ("a", 10)]
