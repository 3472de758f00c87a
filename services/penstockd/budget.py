"""CPU time: what one call may take of it, and how it shares the event loop with the others.

A worker serves all its calls on one event loop, so that work which does not end soon stops every
other call. Three rules keep that from happening, whatever a caller sends:

- The coroutine of a call runs inside ``metered``, which measures each of its steps, that is the
  time from one ``await`` that waits to the next. A step above PAUSE is logged as ``loop_paused``.
- Work that grows with what was sent either calls ``breathe`` as it goes on, or leaves the event
  loop by ``offload``: a thread of Python gives way to the loop after THREAD_SLICE.
- What a call has used is counted in its ``Budget``, whether the event loop, a thread or a task that
  serves other calls as well did the work. ``breathe`` and ``offload`` refuse to go on once it is
  used up, and so does ``check``, for loops inside offloaded work.

Work that breathes lets calls go first that come in: a worker takes in one call a round of its event
loop. If every round also did some milliseconds of one consumer's large lists, a thousand calls that
came in together would be taken in for seconds, and another consumer's call behind them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import structlog

from penstockd.errors import CallTooCostly

#: Seconds that a step may keep the event loop before it is logged.
PAUSE = 0.05
#: Seconds that a step may stand still, by the clock on the wall, before it is logged.
BLOCKED = 0.5
#: Seconds that a step works before ``breathe`` lets others have their turn.
SLICE = 0.002
#: Seconds that calls work in one round of the event loop; the steps of others wait for the next.
ROUND = 0.002
#: Seconds that a thread works before it lets the event loop have the interpreter: a call waits for
#: that at each of its steps. With Python's own 5 ms a call beside two threads takes several times
#: as long.
THREAD_SLICE = 0.0005
#: How long it waits for calls to be taken in, at a time and at the most, in seconds: however many
#: there are, the work goes on.
_REST, _MOST_RESTS = 0.001, 50
#: CPU seconds that a call may take, unless it is a stream, which ends when its client goes away.
CALL_SECONDS = 20.0
#: CPU seconds that an upload may take for each byte that was received, besides CALL_SECONDS.
SECONDS_PER_BYTE = 100e-6
#: Bytes of which a call's own work takes so little that it stays on the event loop.
LITTLE = 16 * 1024

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger(__name__)
_clock = time.thread_time

#: What works for calls beside the event loop. Few threads, since they share one interpreter.
_THREADS = max(2, min(4, os.cpu_count() or 1))
_pool = ThreadPoolExecutor(_THREADS, "offloaded")


class Budget:
    """The CPU time that one call has used, in seconds, and the most that it may use."""

    def __init__(
        self, name: str, seconds: float | None = CALL_SECONDS, *, payer: Budget | None = None
    ) -> None:
        """``name`` is the method, for the log; ``seconds`` None sets no limit.

        What is used is counted for the ``payer``, too, whose limit is not looked at.
        """
        self.name = name
        self._payer = payer
        self.longest = 0.0  #: the CPU time of the longest step on the event loop
        self.began: float | None = None  #: when the step began that runs now, by the thread's clock
        self._used = 0.0
        self._most = seconds

    @property
    def used(self) -> float:
        """CPU seconds so far, on the event loop and beside it."""
        return self._used

    def charge(self, seconds: float) -> None:
        """Count CPU time that was used for the call."""
        self._used += seconds
        if self._payer is not None:
            self._payer.charge(seconds)

    def allow(self, seconds: float) -> None:
        """Let the call use more."""
        if self._most is not None:
            self._most += seconds

    def check(self, running: float = 0.0) -> None:
        """Raise CallTooCostly if the budget is used up; ``running`` is not charged yet."""
        if self._most is not None and self._used + running > self._most:
            raise CallTooCostly(
                f"the call has taken {self._used + running:.0f} s of computing time; "
                "send less at once"
            )

    def step(self, cpu: float, wall: float) -> None:
        """Count one step on the event loop, and log it if it was long.

        On a busy machine a step takes long without working; only one that takes very long is told
        of for that reason: it waits for something without an ``await``.
        """
        self._used += cpu
        if self._payer is not None:
            self._payer.charge(cpu)
            self._payer.longest = max(self._payer.longest, cpu)
        if cpu > self.longest:
            self.longest = cpu
        if cpu > PAUSE or wall > BLOCKED:
            _log.warning("loop_paused", method=self.name, cpu_seconds=cpu, seconds=wall)


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)
#: When the offloaded work that runs in this thread began, by the thread's clock.
_offloaded: ContextVar[float | None] = ContextVar("budget_offloaded", default=None)
#: When work that nobody meters last gave way to others, by the clock of the event loop's thread.
_gave_way = 0.0
#: Calls that were taken in so far, and how many of them work that breathes has let go first.
_begun = _known = 0


def share_interpreter() -> None:
    """Let threads of this process give way after THREAD_SLICE: for one that serves calls."""
    sys.setswitchinterval(THREAD_SLICE)


def current() -> Budget | None:
    """The budget of the call that is served now, None outside of calls."""
    return _current.get()


def check() -> None:
    """Raise CallTooCostly if the call that is served now has used up its budget."""
    budget = _current.get()
    if budget is not None:
        began = _offloaded.get() or budget.began
        budget.check(0.0 if began is None else _clock() - began)


async def breathe() -> None:
    """Let other calls have their turn if this one has worked for a while.

    To be called in every loop on the event loop whose length a caller decides. Raises
    CallTooCostly.
    """
    global _gave_way
    budget = _current.get()
    began = None if budget is None else budget.began
    if _clock() - (_gave_way if began is None else began) > SLICE:
        check()
        await _give_way()
        _gave_way = _clock()


async def _give_way() -> None:
    """Let others have their turn, and wait while calls come in."""
    global _known
    await asyncio.sleep(0)
    for _ in range(_MOST_RESTS):
        if _begun == _known:
            return
        _known = _begun
        await asyncio.sleep(_REST)


async def offload(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, done by a thread, of which there are few. Raises CallTooCostly.

    For work of pure Python, or of C that does not hold the interpreter's lock.
    """
    budget = _current.get()
    if budget is not None:
        budget.check()
    context = contextvars.copy_context()
    job = functools.partial(work, *args, **kwargs)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, lambda: context.run(_charged, budget, job))


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``offload`` to a thread that may also wait for something: there are more of them."""
    check()
    job = functools.partial(work, *args, **kwargs)
    return await asyncio.to_thread(_charged, _current.get(), job)


def charging(work: Callable[P, T]) -> Callable[P, T]:
    """``work`` for a thread of somebody's own making, charged to the call that is served now."""
    budget = _current.get()

    def charged(*args: P.args, **kwargs: P.kwargs) -> T:
        return _charged(budget, functools.partial(work, *args, **kwargs))

    return charged


async def offload_large(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``offload`` for work on ``size`` bytes; where these are few it is done at once."""
    if size <= LITTLE:
        return work(*args, **kwargs)
    return await offload(work, *args, **kwargs)


def _charged(budget: Budget | None, work: Callable[[], T]) -> T:
    began = _clock()
    _offloaded.set(began)
    try:
        return work()
    finally:
        if budget is not None:
            budget.charge(_clock() - began)


async def serve_call(budget: Budget, work: Awaitable[T]) -> T:
    """``metered`` for a call that is taken in: work that breathes lets it go first."""
    global _begun
    _begun += 1
    return await metered(budget, work)


async def metered(budget: Budget, work: Awaitable[T]) -> T:
    """What ``work`` returns; its steps are counted in ``budget``, which is the current one."""
    token = _current.set(budget)
    try:
        result: T = await _Steps(budget, work)
        return result
    finally:
        _current.reset(token)


def task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of the call that is served now; its steps count as the call's."""
    budget = _current.get()
    if budget is None:
        return asyncio.create_task(work)
    return asyncio.create_task(metered(budget, work))


def shared_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that several calls wait for. Its steps count as those of the call that is served now,
    but it ends whatever that one may still use: the others have their own budgets."""
    payer = _current.get()
    if payer is None:
        return asyncio.create_task(work)
    return asyncio.create_task(metered(Budget(payer.name, None, payer=payer), work))


def own_task(name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of the hub itself, under a name for the log: no call pays for it."""
    return asyncio.create_task(metered(Budget(name, None), work))


class _Round:
    """The round of the event loop that goes on now: how long calls have worked in it.

    A loop looks for what comes in between two rounds alone, and a round is as long as all steps
    that are ready when it begins. Hundreds of calls that are refused at one moment would hold it
    for seconds, and with it new calls and the question whether the worker is well.
    """

    def __init__(self) -> None:
        self.used = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None  # which is to say when the round ends

    def goes_on(self) -> bool:
        """Whether it is the round of the loop that runs now."""
        if self._loop is not asyncio.get_running_loop():
            self._end()
        return self._loop is not None

    def add(self, seconds: float) -> None:
        """Count a step."""
        self.used += seconds
        if self._loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # the work is closed, and no loop runs any more
                return
            loop.call_soon(self._end)
            self._loop = loop

    def _end(self) -> None:
        self.used, self._loop = 0.0, None


_round = _Round()


class _Steps:
    """Runs a coroutine step by step, and measures each."""

    def __init__(self, budget: Budget, work: Awaitable[Any]) -> None:
        self._budget = budget
        self._work: Generator[Any, Any, Any] = work.__await__()

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(next, self._work)
        while True:
            while _round.used > ROUND and _round.goes_on():
                try:
                    yield None  # its turn comes in the next round, and what has come in is seen
                except BaseException as exc:
                    resume = functools.partial(self._work.throw, exc)
                    break
            began, wall = _clock(), time.monotonic()
            self._budget.began = began
            try:
                waits = resume()
            except StopIteration as stop:
                return stop.value
            finally:
                self._budget.began = None
                cpu = _clock() - began
                self._budget.step(cpu, time.monotonic() - wall)
                _round.add(cpu)
            try:
                value = yield waits
            except BaseException as exc:  # also a cancellation: it is the work's to see
                resume = functools.partial(self._work.throw, exc)
            else:
                resume = functools.partial(self._work.send, value)
