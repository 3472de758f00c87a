"""Work that is long under way lets calls go first that come in, but not for ever."""

from __future__ import annotations

import asyncio

from penstockd.turns import _MOST_RESTS, Turns


async def test_calls_that_come_in_go_first() -> None:
    turns, order = Turns(), list[str]()

    async def come_in() -> None:
        for _ in range(5):
            turns.begin()
            order.append("call")
            await asyncio.sleep(0)

    calls = asyncio.create_task(come_in())
    await turns.give()
    order.append("work")
    await calls
    assert order == ["call"] * 5 + ["work"]
    # Nobody comes in: nothing to wait for.
    known = turns._known
    await turns.give()
    assert turns._known == known


async def test_the_work_goes_on_however_many_come_in() -> None:
    turns = Turns()

    async def come_in() -> None:
        while True:
            turns.begin()
            await asyncio.sleep(0)

    calls = asyncio.create_task(come_in())
    await turns.give()
    assert turns._begun >= _MOST_RESTS
    calls.cancel()
    await asyncio.gather(calls, return_exceptions=True)
