"""Organs fail alone, are restarted, and log it once; a singleton works while it holds its lease."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from harness import PATIENCE
from penstockd import organs as module
from penstockd.errors import DatabaseUnavailable
from penstockd.organs import TRIES, Organ, Organs, end_tasks, make_singleton
from penstockd.store.fences import SingletonLease, elapsed_seconds
from penstockd.store.singleton_rows import Holder
from penstockd.store.singletons import Leases


class FakeLeases:
    """Gives one lease after the other."""

    def __init__(self) -> None:
        self.given: list[SingletonLease] = []
        self.released: list[SingletonLease] = []
        self.declined: list[SingletonLease] = []
        self.failing: dict[str, str] = {}

    async def obtain(self, name: str) -> SingletonLease:
        if not self.given or not self.given[-1].runs:
            self.given.append(
                SingletonLease(
                    name,
                    len(self.given) + 1,
                    datetime.now(UTC),
                    elapsed_seconds(),
                    elapsed_seconds,
                    Holder("", ""),
                )
            )
        return self.given[-1]

    async def release(self, lease: SingletonLease) -> None:
        lease.end("released")
        self.released.append(lease)

    async def decline(self, lease: SingletonLease) -> None:
        self.declined.append(lease)
        await self.release(lease)

    async def report_failure(self, name: str, error: str, seconds: float) -> None:
        self.failing[name] = error

    async def report_recovery(self, name: str) -> None:
        self.failing.pop(name, None)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.002)


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.002)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_an_organ_that_fails_is_begun_again_alone_and_told_of_once() -> None:
    begun = {"sick": 0, "sound": 0}

    def counted(name: str, work: Callable[[], Awaitable[None]]) -> Organ:
        async def run() -> None:
            begun[name] += 1
            await work()

        return Organ(name, run)

    async def fail() -> None:
        if begun["sick"] < 6:
            raise DatabaseUnavailable("it went away")
        await forever()

    organs = Organs([counted("sick", fail), counted("sound", forever)], steady=0.2)
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(organs.run())
        await until(lambda: organs.failing)
        assert organs.failing == {"sick": "DatabaseUnavailable: it went away"}
        await until(lambda: not organs.failing)
        await end_tasks([running])
    assert begun == {"sick": 6, "sound": 1}
    assert [e["event"] for e in logged] == ["organ_failed", "organ_works_again"]


async def test_an_organ_with_a_defect_or_that_ends_is_begun_again_too() -> None:
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ExceptionGroup("", [ZeroDivisionError("a defect")])

    organs = Organs([Organ("odd", run)])
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(organs.run())
        await until(lambda: begun > 3)
        await end_tasks([running])
    errors = [str(e["exc_info"]) for e in logged]
    assert errors == ["a defect", "it ended"]


async def test_a_failure_at_the_end_does_not_hide_the_end() -> None:
    """As when the database is lost just as the process is stopped."""
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        try:
            await forever()
        except asyncio.CancelledError:
            raise ExceptionGroup("", [DatabaseUnavailable("it went away")]) from None

    running = asyncio.create_task(Organs([Organ("late", run)]).run())
    await until(lambda: begun)
    async with asyncio.timeout(PATIENCE):
        await end_tasks([running])
    assert running.cancelled() and begun == 1


async def test_a_singleton_works_while_its_lease_runs_and_waits_for_the_next() -> None:
    leases = FakeLeases()
    terms: list[int] = []
    ended: list[int] = []

    async def work(fenced: Any) -> None:
        terms.append(fenced.lease.term)
        try:
            await forever()
        finally:
            ended.append(fenced.lease.term)

    organ = make_singleton("digging", cast(Leases, leases), cast(Any, None), work)
    running = asyncio.create_task(Organs([organ]).run())
    await until(lambda: terms == [1])
    leases.given[0].end("taken")
    await until(lambda: terms == [1, 2])
    assert ended == [1]
    await end_tasks([running])
    assert ended == [1, 2]


async def test_a_singleton_that_fails_keeps_its_lease_and_lets_it_go_after_some_tries() -> None:
    leases = FakeLeases()
    tries = 0

    async def work(fenced: Any) -> None:
        nonlocal tries
        tries += 1
        raise DatabaseUnavailable("it went away")

    organ = make_singleton("digging", cast(Leases, leases), cast(Any, None), work)
    running = asyncio.create_task(Organs([organ]).run())
    await until(lambda: leases.declined)
    assert tries == TRIES and [x.term for x in leases.given] == [1]
    assert leases.failing == {"digging": "DatabaseUnavailable: it went away"}
    await end_tasks([running])


async def test_a_singleton_that_works_again_is_reported_and_one_failure_is_not_failing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STEADY", 0.01)
    leases = FakeLeases()
    left, told = 1, []

    async def work(fenced: Any) -> None:
        nonlocal left
        told.append(dict(leases.failing))
        left -= 1
        if left >= 0:
            raise ValueError("a defect")
        await forever()

    def start() -> asyncio.Task[None]:
        organ = make_singleton("digging", cast(Leases, leases), cast(Any, None), work)
        return asyncio.create_task(Organs([organ]).run())

    running = start()
    await until(lambda: left < 0)
    await end_tasks([running])
    assert told == [{}, {}] and not leases.failing
    told.clear()
    left = 2
    running = start()
    await until(lambda: left < 0)
    assert told == [{}, {}, {"digging": "ValueError: a defect"}]
    await until(lambda: not leases.failing)
    await end_tasks([running])


async def test_a_singleton_ends_its_work_before_it_hands_its_lease_over() -> None:
    leases = FakeLeases()
    told: list[str] = []

    async def work(fenced: Any) -> None:
        term = fenced.lease.term
        told.append(f"{term} begins")
        try:
            await forever()
        finally:
            assert fenced.lease.runs and not leases.released
            told.append(f"{term} ends")

    organ = make_singleton("digging", cast(Leases, leases), cast(Any, None), work)
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(Organs([organ]).run())
        await until(lambda: told == ["1 begins"])
        leases.given[0].wanted.set()
        await until(lambda: len(told) == 3)
        leases.released.clear()
        await end_tasks([running])
    assert told == ["1 begins", "1 ends", "2 begins", "2 ends"]
    assert "organ_failed" not in [e["event"] for e in logged]  # nothing has gone wrong


async def test_errors_of_tasks_that_end_are_not_logged_even_if_nobody_waits_for_them() -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: logged.append(said))
    ended = asyncio.Event()

    async def fail_late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await ended.wait()
            raise RuntimeError("its connection is gone")

    task = asyncio.create_task(fail_late())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_tasks([task]))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending])
    ended.set()
    await asyncio.wait([task])
    del task, ending
    gc.collect()
    assert not logged
