"""CPU time: how much one call may use, and how it shares the event loop with the others.

A worker serves all its calls on one event loop, so work that does not end soon stops every other
call. Four rules prevent that, whatever a caller sends:

- The coroutine of a call runs inside ``await_metered``, which measures each of its steps, that is
  the time from one ``await`` that waits to the next. A step above PAUSE is logged as
  ``loop_paused``.
- The steps of all calls share the rounds of the loop: see ``turns``.
- Work that grows with the request either calls ``let_others_run`` as it goes on, or leaves the
  event loop by ``run_offloaded``: a Python thread gives way to the loop after THREAD_SLICE, and
  payers share the threads: see ``threads``.
- A call's ``Budget`` counts what it has used, whether the event loop, a thread or a task shared
  with other calls did the work. ``let_others_run`` and ``run_offloaded`` refuse to go on once it
  is used up, and so does ``check_budget``, for loops inside offloaded work.

``let_others_run`` lets incoming calls go first, because a worker accepts one call in each round of
its event loop. If every round also spent milliseconds on one consumer's large lists, accepting a
thousand simultaneous calls would take seconds, and other consumers' calls would wait behind them.
It waits for them only while its payer has used more than its share of the event loop, so that a
consumer that calls without pause does not stop the work of the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import structlog

from penstockd.errors import CallTooCostly
from penstockd.shares import payer_var
from penstockd.threads import SharedThreads
from penstockd.turns import SLICE, RecentUse, Turns

#: CPU seconds that a step may hold the event loop before it is logged.
PAUSE = 0.05
#: Wall-clock seconds that a step may take before it is logged.
BLOCKED = 0.5
#: Seconds that a thread works before it lets the event loop have the interpreter: a call waits that
#: long at each of its steps. With Python's default of 5 ms, a call beside two threads takes several
#: times as long.
THREAD_SLICE = 0.0005
#: ``let_others_run`` waits _REST seconds at a time while calls are accepted and its payer has used
#: more than its share, at most MOST_RESTS times: the work goes on however many calls there are.
_REST, MOST_RESTS = 0.001, 50
#: CPU seconds that a call may use, unless it is a stream, which ends when its client goes away.
CALL_SECONDS = 20.0
#: CPU seconds that an upload may use for each byte received, in addition to CALL_SECONDS.
SECONDS_PER_BYTE = 100e-6
#: Up to this many bytes, a call's work is short enough to stay on the event loop.
LITTLE = 16 * 1024

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger(__name__)
_clock = time.thread_time
#: The event loop of this process.
_turns, recent_use = Turns(), RecentUse()

#: Few threads compute at a time, since they share one interpreter; more may also block.
_CPUS = os.cpu_count() or 1
_computing = SharedThreads(max(2, min(4, _CPUS)), "offloaded")
_blocking = SharedThreads(min(31, _CPUS + 3), "blocking")


class OwnLine(enum.Enum):
    """The payer of steps on the event loop that no consumer pays for."""

    #: The hub's own work, for itself or for many.
    HUB = enum.auto()
    #: Calls of consumers that are not known yet.
    ARRIVING = enum.auto()


class Budget:
    """The CPU time that one call has used, in seconds, and the most that it may use."""

    def __init__(
        self, name: str, seconds: float | None = CALL_SECONDS, *, payer: Budget | None = None
    ) -> None:
        """``name`` is the method, for the log; ``seconds`` None sets no limit.

        Use is also charged to the ``payer``, without checking the payer's limit.
        """
        self.name = name
        self._payer = payer
        self.longest = 0.0  #: the CPU time of the longest step on the event loop
        self.began: float | None = None  #: when the current step began, by the thread's clock
        self.arrives = False  # whether the work is an incoming call
        self._used = 0.0
        self._most = seconds

    @property
    def used(self) -> float:
        """CPU seconds so far, on the event loop and beside it."""
        return self._used

    @property
    def line(self) -> Hashable:
        """The payer whose turns the current task's steps take."""
        own = OwnLine.ARRIVING if self.arrives else OwnLine.HUB
        return payer_var.get().consumer or own

    def charge(self, seconds: float) -> None:
        """Count CPU time that was used for the call."""
        self._used += seconds
        if self._payer is not None:
            self._payer.charge(seconds)

    def allow(self, seconds: float) -> None:
        """Let the call use this many seconds more."""
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

        On a busy machine a step can take long without using CPU, so its wall time is logged only if
        it is very long: then the step waits for something without an ``await``.
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
#: When the offloaded work of this thread began, by the thread's clock.
_offloaded: ContextVar[float | None] = ContextVar("budget_offloaded", default=None)
#: When unmetered work last gave way to others, by the clock of the event loop's thread.
_gave_way = 0.0
#: Calls accepted so far, and how many of them long-running work has already let go first.
_begun = _known = 0


def share_interpreter() -> None:
    """Let threads of this process give way after THREAD_SLICE. For processes that serve calls."""
    sys.setswitchinterval(THREAD_SLICE)


def get_budget() -> Budget | None:
    """The budget of the current call, None outside of calls."""
    return _current.get()


def check_budget() -> None:
    """Raise CallTooCostly if the current call has used up its budget."""
    budget = _current.get()
    if budget is not None:
        began = _offloaded.get() or budget.began
        budget.check(0.0 if began is None else _clock() - began)


async def let_others_run() -> None:
    """Let other calls have their turn if this one has worked for a while.

    Call it in every loop on the event loop whose length the caller decides. Raises CallTooCostly.
    """
    global _gave_way
    budget = _current.get()
    began = None if budget is None else budget.began
    if _clock() - (_gave_way if began is None else began) > SLICE:
        check_budget()
        await _give_way()
        _gave_way = _clock()


async def _give_way() -> None:
    """Let others have their turn. A payer that has used more than its share waits while calls are
    being accepted."""
    global _known
    budget = _current.get()
    payer = OwnLine.HUB if budget is None else budget.line
    await asyncio.sleep(0)
    for _ in range(MOST_RESTS):
        if _begun == _known or not recent_use.exceeds_share(payer):
            return
        _known = _begun
        await asyncio.sleep(_REST)


async def run_offloaded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``work`` in a thread of a small pool and return its result.

    For work in pure Python, or in C that releases the interpreter's lock. Raises CallTooCostly, and
    ShareExhausted if very many calls of one consumer wait for a thread.
    """
    budget = _current.get()
    if budget is not None:
        budget.check()
    return await _in_context(_computing, budget, functools.partial(work, *args, **kwargs))


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``run_offloaded`` for work that may also block: it uses a larger pool of threads."""
    check_budget()
    return await _in_context(_blocking, _current.get(), functools.partial(work, *args, **kwargs))


async def _in_context(threads: SharedThreads, budget: Budget | None, work: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    return await threads.run(lambda: context.run(_run_charged, budget, work))


def charge_thread(work: Callable[P, T]) -> Callable[P, T]:
    """``work`` for a thread that the caller starts itself, charged to the current call."""
    budget = _current.get()

    def charged(*args: P.args, **kwargs: P.kwargs) -> T:
        return _run_charged(budget, functools.partial(work, *args, **kwargs))

    return charged


async def offload_large(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``run_offloaded`` for work on ``size`` bytes; runs in place if they are few."""
    if size <= LITTLE:
        return work(*args, **kwargs)
    return await run_offloaded(work, *args, **kwargs)


def _run_charged(budget: Budget | None, work: Callable[[], T]) -> T:
    began = _clock()
    _offloaded.set(began)
    try:
        return work()
    finally:
        if budget is not None:
            budget.charge(_clock() - began)


async def serve_call(budget: Budget, work: Awaitable[T]) -> T:
    """``await_metered`` for an incoming call: long-running work lets it go first."""
    global _begun
    _begun += 1
    budget.arrives = True
    return await await_metered(budget, work)


async def await_metered(budget: Budget, work: Awaitable[T]) -> T:
    """Await ``work`` and return its result, with ``budget`` current and counting its steps."""
    token = _current.set(budget)
    try:
        result: T = await _Steps(budget, work)
        return result
    finally:
        _current.reset(token)


def create_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of the current call; its steps count as the call's."""
    budget = _current.get()
    if budget is None:
        return asyncio.create_task(work)
    return asyncio.create_task(await_metered(budget, work))


def shared_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that several calls wait for. Its steps are charged to the current call, but it runs to
    its end even if that budget is used up: the other calls have budgets of their own."""
    payer = _current.get()
    if payer is None:
        return asyncio.create_task(work)
    return asyncio.create_task(await_metered(Budget(payer.name, None, payer=payer), work))


def own_task(name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of the hub itself, charged to no call; the name is for the log."""
    return asyncio.create_task(await_metered(Budget(name, None), work))


class _Steps:
    """Runs a coroutine step by step, and measures each."""

    def __init__(self, budget: Budget, work: Awaitable[Any]) -> None:
        self._budget = budget
        self._work: Generator[Any, Any, Any] = work.__await__()

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = functools.partial(next, self._work)
        while True:
            if _turns.is_full():
                try:
                    yield from _turns.wait(self._budget.line)
                except GeneratorExit:
                    self._work.close()
                    raise
                except BaseException as exc:
                    resume = functools.partial(self._work.throw, exc)
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
                _turns.add(cpu)
                recent_use.add(self._budget.line, cpu)
            try:
                value = yield waits
            except GeneratorExit:  # the task is discarded; the loop may have stopped already
                self._work.close()
                raise
            except BaseException as exc:  # including cancellation, which the work must see
                resume = functools.partial(self._work.throw, exc)
            else:
                resume = functools.partial(self._work.send, value)
