"""Organs: the tasks of a process besides its calls, each restarted when it fails.

An organ that fails disturbs no other. A failure is logged once, however often it repeats, and so is
the recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from penstockd.errors import Refused
from penstockd.store.database import Database
from penstockd.store.fences import FencedDatabase, LeaseOver, SingletonLease
from penstockd.store.singletons import Leases

#: The pause before a failed organ is restarted, in seconds; it grows from the first to the second.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
#: An organ that has run for this many seconds counts as recovered.
STEADY = 10.0
#: After this many failures without a steady run between, a singleton lets another node try.
TRIES = 5
#: This many failures without a steady run between count as failing; a single one repairs itself.
FAILS = 2
#: How often tasks that do not end are cancelled again, in seconds.
_PULSE = 1.0

#: Errors that an organ can raise without a defect.
_EXPECTED = (Refused, LeaseOver)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Organ:
    """A task that runs until it is cancelled."""

    name: str
    run: Callable[[], Awaitable[None]]


class Organs:
    """The organs of a process."""

    def __init__(self, organs: Sequence[Organ], *, steady: float = STEADY) -> None:
        self._organs, self._steady = organs, steady
        self._failing: dict[str, Exception] = {}

    @property
    def names(self) -> Sequence[str]:
        """The names of all of them."""
        return [organ.name for organ in self._organs]

    @property
    def failing(self) -> Mapping[str, str]:
        """The errors of the organs that are failing, by name."""
        return {name: _describe_error(error) for name, error in [*self._failing.items()]}

    async def run(self) -> None:
        """Run all of them until cancelled."""
        tasks = [asyncio.create_task(self._keep(organ), name=organ.name) for organ in self._organs]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end_tasks(tasks)

    async def _keep(self, organ: Organ) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            recovery = asyncio.get_running_loop().call_later(
                self._steady, self._recovered, organ.name
            )
            try:
                await organ.run()
                self._failed(organ.name, RuntimeError("it ended"))
            except Exception as exc:
                self._failed(organ.name, first_error(exc))
            finally:
                recovery.cancel()
            # A task group that fails while being cancelled raises only its failure.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            if time.monotonic() - began >= self._steady:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _failed(self, name: str, error: Exception) -> None:
        known = self._failing.get(name)
        self._failing[name] = error
        if type(known) is type(error):
            return
        if isinstance(error, _EXPECTED):
            _log.warning("organ_failed", organ=name, error=str(error))
        else:
            _log.error("organ_failed", organ=name, exc_info=error)

    def _recovered(self, name: str) -> None:
        if self._failing.pop(name, None) is not None:
            _log.info("organ_works_again", organ=name)


class _Trials:
    """The results of a singleton's work in this process since it last ran steadily."""

    def __init__(self, name: str, leases: Leases) -> None:
        self._name, self._leases = name, leases
        self._failures, self._began = 0, 0.0

    async def note_steady(self) -> None:
        """Wait until the work has run steadily, then report that it does not fail."""
        await asyncio.sleep(STEADY)
        self._failures = 0
        await self._leases.report_recovery(self._name)

    async def note_end(self, task: asyncio.Future[None], lease: SingletonLease) -> None:
        """Count an end of the work, report it if it is not the first, and let another node try
        after TRIES."""
        error = first_error(_find_error(task) or RuntimeError("it ended"))
        if isinstance(error, LeaseOver):
            return
        if not self._failures:
            self._began = time.monotonic()
        self._failures += 1
        if self._failures >= FAILS:
            seconds = time.monotonic() - self._began
            await self._leases.report_failure(self._name, _describe_error(error), seconds)
        if self._failures % TRIES == 0:
            await self._leases.decline(lease)


def make_singleton(
    name: str,
    leases: Leases,
    database: Database,
    work: Callable[[FencedDatabase], Awaitable[None]],
) -> Organ:
    """An organ that works only while this process holds the lease of its name."""
    trials = _Trials(name, leases)

    async def run() -> None:
        while True:
            lease = await leases.obtain(name)
            fenced = FencedDatabase(database, lease)
            task = asyncio.ensure_future(work(fenced))
            signs = [asyncio.create_task(sign.wait()) for sign in (lease.over, lease.wanted)]
            steady = asyncio.create_task(trials.note_steady())
            try:
                await asyncio.wait({task, *signs}, return_when=asyncio.FIRST_COMPLETED)
                if lease.over.is_set():
                    # Abandon first: its answers may never come, and no other work waits on it.
                    fenced.abandon()
                    await end_tasks([task])
                    raise LeaseOver(f"the lease of {name} is over")
                if task.done():
                    await trials.note_end(task, lease)
                    return await task
                # Another node must take over: end the work first, then release the lease.
                await end_tasks([task])
                await leases.release(lease)
            finally:
                fenced.abandon()
                await end_tasks([task, steady, *signs])

    return Organ(name, run)


async def wait_for_event(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; return whether it came in time.

    Work that can be cancelled never uses ``wait_for``: in Python 3.11 it loses a cancellation that
    arrives together with its result.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def end_tasks(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks until they have ended: a task that fails while being cancelled may continue.

    Errors that they raise are dropped, even if this is cancelled before they have ended.
    """
    for task in tasks:
        task.add_done_callback(_drop_error)
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_PULSE)
    await asyncio.gather(*tasks, return_exceptions=True)


def _drop_error(task: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved: otherwise asyncio logs it, with its traceback."""
    if not task.cancelled():
        task.exception()


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, event.set)
    return event


def first_error(error: Exception) -> Exception:
    """The error itself, or the first one of an exception group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _find_error(task: asyncio.Future[None]) -> Exception | None:
    """The error of a task that ended by itself, if it raised one."""
    error = None if task.cancelled() else task.exception()
    return error if isinstance(error, Exception) else None
