"""Fair shares of scarce resources such as connections: who may take one now, and who is next.

Two rules keep one consumer from hurting another.

A **threshold** bounds what one consumer holds: after taking something, it holds no more than
``consumer_factor`` times what is left. So a later consumer finds room at once, however long the
others keep theirs. ``dataset_factor`` bounds all calls on one dataset in the same way, whoever
makes them: a locked table does not use up everything. A call that weighs more than one place and
more than its consumer holds takes fewer places if the thresholds allow no more: a few heavy calls
do not fill everything, and a heavy one does not wait until all is quiet.

A **fair queue** decides who is next: consumers take turns, weighted by what their calls cost, not
in order of arrival. So a consumer's calls wait for its own bursts and for nobody else's. The queue
is bounded in number and in time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from penstockd.errors import ShareExhausted


class Payer(NamedTuple):
    """The owner of the share that a call takes from: its consumer, and its dataset if it has
    one."""

    consumer: str = ""
    dataset: str | None = None


#: The payer of the current task; the hub itself by default.
payer_var: ContextVar[Payer] = ContextVar("payer", default=Payer())  # noqa: B039  # immutable


@contextmanager
def for_the_hub() -> Iterator[None]:
    """Let the hub itself pay for the current task in the block, for example to start tasks that
    serve many."""
    token = payer_var.set(Payer())
    try:
        yield
    finally:
        payer_var.reset(token)


@dataclass(frozen=True, slots=True)
class ShareTerms:
    """The terms of sharing. A factor of None means no threshold."""

    consumer_factor: int | None = None
    dataset_factor: int | None = None
    #: The seconds that a call may wait, and the number of one consumer's calls that may wait at a
    #: time. None leaves the time to the call's deadline.
    seconds: float | None = 10.0
    most_waiting: int = 2000


class _Waiter(NamedTuple):
    """``start`` is its place in the fair order (see ``_Order``)."""

    start: float
    weight: int
    granted: asyncio.Future[int]


class Shares:
    """``size`` places that consumers share. Belongs to one event loop."""

    def __init__(self, size: int, terms: ShareTerms, *, what: str = "places") -> None:
        """``what`` names the places in messages."""
        self.size, self._terms, self._what = size, terms, what
        self._used = 0
        self._consumers: Counter[str] = Counter()
        self._datasets: Counter[str] = Counter()
        self._flows: dict[Payer, deque[_Waiter]] = {}
        self._waiting: Counter[str] = Counter()
        self._order = _Order()

    @property
    def free(self) -> int:
        """Places that nobody holds."""
        return self.size - self._used

    def spare(self, payer: Payer) -> int:
        """The number of places that the payer could take without waiting."""
        count = 0
        while count < self.free and self._permits(payer, 1, more=count):
            count += 1
        return 0 if self._flows else count

    def try_take(self, payer: Payer, weight: int = 1) -> int:
        """Take ``weight`` places if the payer need not wait for them; returns the number it has
        taken, 0 if none."""
        if self._flows and not self._may_pass(payer):
            return 0
        granted = self._grantable(payer, weight)
        self._hold(payer, granted)
        return granted

    async def take(self, payer: Payer, weight: int = 1) -> int:
        """Take ``weight`` places, waiting for the payer's turn; returns the number it has taken,
        which must be given back.

        Raises ShareExhausted if that takes too long, or too many of the consumer's calls are
        waiting.
        """
        if taken := self.try_take(payer, weight):
            return taken
        terms = self._terms
        if self._waiting[payer.consumer] >= terms.most_waiting:
            raise self._exhausted(payer, f"{terms.most_waiting} of your calls are waiting already")
        granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(self._order.start(payer.consumer, weight), weight, granted)
        self._flows.setdefault(payer, deque()).append(waiter)
        self._waiting[payer.consumer] += 1
        try:
            async with asyncio.timeout(terms.seconds):
                return await granted
        except TimeoutError:
            if _is_granted(granted):
                return granted.result()
            error = self._exhausted(payer, f"the call waited {terms.seconds:g} s")
            self._withdraw(payer, waiter)
            raise error from None
        except BaseException:
            # The caller was cancelled, or ``fail`` set the error.
            if _is_granted(granted):
                self.give_back(payer, granted.result())
            else:
                self._withdraw(payer, waiter)
            raise

    def hold(self, payer: Payer) -> None:
        """Count a place that the payer already occupies, whatever its share."""
        self._hold(payer, 1)

    def give_back(self, payer: Payer, weight: int = 1) -> None:
        """Give places back; the next waiters get them."""
        self._used -= weight
        _lower_count(self._consumers, payer.consumer, weight)
        if payer.dataset is not None:
            _lower_count(self._datasets, payer.dataset, weight)
        if self._flows:
            self._grant()

    def fail(self, error: Exception) -> None:
        """Raise ``error`` in all current waiters: there is nothing to wait for."""
        for flow in list(self._flows.values()):
            for waiter in flow:
                if not waiter.granted.done():
                    waiter.granted.set_exception(error)
                    waiter.granted.exception()  # retrieved here, in case the caller has just left

    def _hold(self, payer: Payer, weight: int) -> None:
        if not weight:
            return
        self._used += weight
        self._consumers[payer.consumer] += weight
        if payer.dataset is not None:
            self._datasets[payer.dataset] += weight

    def _permits(self, payer: Payer, weight: int, *, more: int = 0) -> bool:
        """Whether the thresholds allow the payer ``weight`` places on top of ``more``.

        A payer that holds nothing is always allowed.
        """
        terms, left = self._terms, self.size - self._used - weight - more
        held = self._consumers.get(payer.consumer, 0) + more
        factor = terms.consumer_factor
        if factor is not None and held and held + weight > factor * left:
            return False
        factor = terms.dataset_factor
        if factor is not None and payer.dataset is not None:
            held = self._datasets.get(payer.dataset, 0) + more
            if held and held + weight > factor * left:
                return False
        return True

    def _grantable(self, payer: Payer, weight: int) -> int:
        """The number of places that the payer may have now if it asks for ``weight``; 0 if it must
        wait."""
        free = self.size - self._used
        if self._permits(payer, weight) and (weight <= free or not self._used):
            fitting = weight
        else:
            fitting = 0
        factor, held = self._terms.consumer_factor, self._consumers.get(payer.consumer, 0)
        if factor is None or held >= weight or (fitting and held):
            return fitting
        # The number that the thresholds allow, and in any case one place if it holds nothing.
        most = min(free, max((factor * free - held) // (1 + factor), 0 if held else 1))
        if payer.dataset is not None and (factor := self._terms.dataset_factor) is not None:
            of_dataset = self._datasets.get(payer.dataset, 0)
            least = 0 if of_dataset else 1
            most = min(most, max((factor * free - of_dataset) // (1 + factor), least))
        return max(0, min(weight, most))

    def _may_pass(self, payer: Payer) -> bool:
        """Whether the payer may be served before the waiters: none is of the same payer, and none
        waits only for free places, which the payer would take."""
        if payer in self._flows:
            return False
        return not any(self._permits(other, flow[0].weight) for other, flow in self._flows.items())

    def _grant(self) -> None:
        """Give free places to waiters in the fair order, as far as they go."""
        while self._flows:
            turn = None
            for payer, flow in self._flows.items():
                weight = flow[0].weight
                if (turn is None or flow[0].start < turn[1].start) and (
                    self._permits(payer, weight) or self._grantable(payer, weight)
                ):
                    turn = (payer, flow[0])
            if turn is None:
                return
            payer, waiter = turn
            if not (granted := self._grantable(payer, waiter.weight)):
                return  # its places are reserved for it
            self._leave(payer, waiter)
            self._order.serve(waiter.start)
            if not waiter.granted.done():
                self._hold(payer, granted)
                waiter.granted.set_result(granted)

    def _withdraw(self, payer: Payer, waiter: _Waiter) -> None:
        """Take a waiter out of the queue, if it is still there."""
        flow = self._flows.get(payer)
        if flow is not None and waiter in flow:
            self._leave(payer, waiter)
            self._grant()

    def _leave(self, payer: Payer, waiter: _Waiter) -> None:
        flow = self._flows[payer]
        flow.remove(waiter)
        if not flow:
            del self._flows[payer]
        _lower_count(self._waiting, payer.consumer, 1)
        if not self._flows:
            self._order = _Order()

    def _exhausted(self, payer: Payer, why: str) -> ShareExhausted:
        held, waiting = self._consumers[payer.consumer], self._waiting[payer.consumer]
        message = (
            f"{why} for one of the {self.size} {self._what} of a worker; your calls hold {held}, "
            f"and {waiting} wait: make fewer at a time"
        )
        return ShareExhausted(message, metadata={"held": str(held), "waiting": str(waiting)})


class _Order:
    """Start-time fair queueing: in virtual time, each call starts when the consumer's previous call
    ends, or now if later, and lasts as long as its weight. The call that starts first is served
    first."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[str, float] = {}

    def start(self, consumer: str, weight: int) -> float:
        """Where a new call of a consumer starts."""
        start = max(self._now, self._ends.get(consumer, 0.0))
        self._ends[consumer] = start + weight
        return start

    def serve(self, start: float) -> None:
        """Advance virtual time: a call with this start is served."""
        self._now = max(self._now, start)


def _is_granted(future: asyncio.Future[int]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _lower_count(counter: Counter[str], key: str, by: int) -> None:
    counter[key] -= by
    if counter[key] <= 0:
        del counter[key]
