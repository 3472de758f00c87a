"""Payers share the threads that work beside the event loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from penstockd.budget import in_thread, run_offloaded
from penstockd.shares import Payer, payer_var
from penstockd.threads import SharedThreads


def run_for(
    threads: SharedThreads, consumer: str, work: Callable[[], object]
) -> asyncio.Task[object]:
    """Run a consumer's work in a task."""
    token = payer_var.set(Payer(consumer))
    try:
        return asyncio.create_task(threads.run(work))
    finally:
        payer_var.reset(token)


async def test_one_payer_s_work_leaves_a_thread_to_others() -> None:
    threads, end = SharedThreads(2, "test"), threading.Event()
    begun = list[int]()

    def block(number: int) -> None:
        begun.append(number)
        end.wait()

    greedy = [run_for(threads, "greedy", functools.partial(block, i)) for i in range(200)]
    await asyncio.sleep(0)
    try:
        # It does not end before the others', but theirs does.
        assert await asyncio.wait_for(run_for(threads, "other", lambda: "done"), 60) == "done"
        assert await asyncio.wait_for(run_for(threads, "", lambda: "the hub's"), 60) == "the hub's"
        assert len(begun) <= 2
    finally:
        end.set()
    await asyncio.gather(*greedy)
    assert sorted(begun) == list(range(200))


async def test_payers_take_turns_at_threads() -> None:
    threads, order = SharedThreads(1, "test"), list[str]()
    begin, end = threading.Event(), threading.Event()
    # One thread is always occupied: the other works through the queue.
    occupied = run_for(threads, "x", end.wait)
    first = run_for(threads, "y", begin.wait)
    await asyncio.sleep(0)
    names = [*["greedy"] * 50, *["a"] * 3, *["b"] * 3]
    tasks = [run_for(threads, name, functools.partial(order.append, name)) for name in names]
    await asyncio.sleep(0)
    begin.set()
    await asyncio.gather(first, *tasks)
    end.set()
    await occupied
    last = max(i for i, name in enumerate(order) if name != "greedy")
    assert last <= 9, order


async def test_who_goes_away_frees_the_thread_once_its_work_has_ended() -> None:
    threads, end, running = SharedThreads(1, "test"), threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        end.wait()

    gone = run_for(threads, "a", block)
    waits = [run_for(threads, "a", lambda: None) for _ in range(3)]
    await asyncio.to_thread(running.wait)
    gone.cancel()
    waits[1].cancel()
    await asyncio.gather(gone, waits[1], return_exceptions=True)
    done, _ = await asyncio.wait({waits[0], waits[2]}, timeout=0.05)
    assert not done, "the thread is occupied by work whose caller has gone"
    end.set()
    await asyncio.gather(waits[0], waits[2])


async def test_errors_and_results_come_back() -> None:
    threads = SharedThreads(1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 7) == 7


@pytest.mark.parametrize("leave", [run_offloaded, in_thread])
async def test_what_calls_offload_is_shared(
    leave: Callable[..., Coroutine[Any, Any, object]],
) -> None:
    """However much of one consumer's work waits, another's gets done."""
    end = threading.Event()

    def work_for(consumer: str, work: Callable[[], object]) -> asyncio.Task[object]:
        payer_var.set(Payer(consumer))
        return asyncio.create_task(leave(work))

    greedy = [work_for("greedy", end.wait) for _ in range(200)]
    await asyncio.sleep(0)
    try:
        assert await asyncio.wait_for(work_for("other", lambda: "done"), 60) == "done"
    finally:
        end.set()
        await asyncio.gather(*greedy)


def test_threads_serve_one_loop_after_another() -> None:
    threads, end = SharedThreads(1, "test"), threading.Event()

    async def leave() -> None:
        run_for(threads, "a", end.wait)
        await asyncio.sleep(0)

    asyncio.run(leave())
    end.set()
    assert asyncio.run(asyncio.wait_for(threads.run(lambda: 1), 60)) == 1
