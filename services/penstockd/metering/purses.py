"""What one process holds of allowances: purses, filled by leases in portions.

A call takes from a purse without asking the database while there is enough in it. Portions grow
with use and shrink near the limit, where processes return what they do not need as soon as another
asks for it. So exactly as much is spent as there is, wherever the calls arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import enum
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

import structlog

from penstockd.budget import shared_task
from penstockd.errors import Refused
from penstockd.metering.ledger import ENDLESS, RENEWAL, AllowanceKey, Ledger, Need, Portion
from penstockd.store.announcements import ALLOWANCE_CHANNEL, Announcements

#: How long a call waits for what other processes hold and may return, in seconds, how often it
#: looks, and how often it asks them.
PATIENCE, LOOK, ASK = 2.0, 0.02, 0.1
#: For how long a refusal is repeated without a look, in seconds.
REFUSED = 0.1
#: A purse that nobody used for so many seconds is emptied.
IDLE = 2.0
#: For how long a look at what is left is good, in seconds.
KNOWN = 1.0
#: The first portion, in multiples of what is needed, and the most.
_FIRST, _MOST = 16, 1 << 14

_log = structlog.get_logger(__name__)


class Over(enum.Enum):
    """Whether more may be taken than is left: no; as long as there is any; or in any case."""

    NO = enum.auto()
    FROM_SOME = enum.auto()
    ALWAYS = enum.auto()


class Spent(Exception):
    """There is not enough left of an allowance."""


@dataclass(eq=False, slots=True)
class Charge:
    """An amount that a call has taken from a purse."""

    purse: Purse
    portion_id: int
    amount: int
    open: bool = True

    def settle(self) -> None:
        """Note that the amount is spent: the audit has it."""
        self._end(0, False)

    def give_back(self) -> None:
        """Put the amount back: nothing was spent."""
        self._end(self.amount, False)

    def lose(self) -> None:
        """Note that it is not known whether the amount was spent: only the database can tell."""
        self._end(0, True)

    def doubt(self) -> None:
        """Put the amount back, and look whether its portion still exists before more is taken of
        it: the database refused to spend it."""
        if self.open:
            self.purse.doubt(self.portion_id)
        self.give_back()

    def _end(self, back: int, unclear: bool) -> None:
        if self.open:
            self.open = False
            self.purse.end_charge(self, back, unclear)


class Purse:
    """What this process holds of one allowance. Belongs to one event loop."""

    def __init__(self, spender: Spender, account: AllowanceKey, *, hoards: bool) -> None:
        """``hoards``: whether it leases ahead of need."""
        self.account, self._spender, self._hoards = account, spender, hoards
        self.portion_id: int | None = None
        self.allowance_id: int | None = None
        self.in_hand = self.reserved = 0
        #: What of the allowance was taken by anybody, what is in hand included, at the last lease.
        self.taken = 0
        self.used_at = self._leased_at = time.monotonic()
        self._known_at = -KNOWN
        #: Whether only the database knows what of the portion is spent; whether it may be gone.
        self._unclear = self._doubted = False
        #: How many leases are under way; one goes on if its caller leaves.
        self._leasing = 0
        self._factor = _FIRST
        self._wanted = 0
        self._cap: int | None = None
        #: The amount that was refused last, with how much patience, and until when it is refused
        #: without a look.
        self._refused, self._refused_patience, self._refused_until = 0, 0.0, 0.0
        self._turn = asyncio.Lock()

    async def take(
        self, amount: int, cap: int, over: Over = Over.NO, patience: float = PATIENCE
    ) -> Charge:
        """Take an amount; waits for other processes as long as it has ``patience``.

        Raises Spent, and DatabaseUnavailable.
        """
        self.used_at = time.monotonic()
        if cap != self._cap:
            await self._adopt(cap)
        if self._doubted or self.in_hand < amount or self._turn.locked():
            self._wanted += amount
            try:
                async with self._turn:
                    if self._doubted:
                        await self._lease(0, cap)
                    if self.in_hand < amount:
                        await self._fill_over(amount, cap, over, patience)
                    return self._reserve(amount)
            finally:
                self._wanted -= amount
        return self._reserve(amount)

    async def look(self, cap: int) -> None:
        """Find out what is left, unless that is known. Raises DatabaseUnavailable."""
        self.used_at = time.monotonic()
        if self.knows:
            return
        if cap != self._cap:
            await self._adopt(cap)
        async with self._turn:
            if not self.knows:
                await self._lease(0, cap)

    def has_some(self, cap: int) -> bool:
        """Whether some of the allowance is in hand, so that nobody needs to be asked."""
        self.used_at = time.monotonic()
        return self.in_hand > 0 and cap == self._cap and not self._doubted

    @property
    def knows(self) -> bool:
        """Whether it has looked not long ago."""
        return self.portion_id is not None and time.monotonic() - self._known_at < KNOWN

    def end_charge(self, charge: Charge, back: int, unclear: bool) -> None:
        """See ``Charge``. What was taken from an earlier portion is none of this one's."""
        if charge.portion_id == self.portion_id:
            self.reserved -= charge.amount
            self.in_hand += back
            self._unclear = self._unclear or unclear

    def doubt(self, portion_id: int) -> None:
        """See ``Charge``."""
        self._doubted = self._doubted or portion_id == self.portion_id

    def reset(self) -> None:
        """Forget the portion: it was taken back."""
        self.portion_id, self.in_hand, self.reserved = None, 0, 0
        self._unclear = self._doubted = False

    async def return_idle(self) -> None:
        """Return what is in hand; close the portion if nothing is reserved.

        Meanwhile nothing is leased: that would be of the same portion.
        """
        portion_id = self.portion_id
        if portion_id is None or self._turn.locked() or self._leasing:
            return
        async with self._turn:
            if not self.reserved:
                await self._close(portion_id)
            elif self.in_hand:
                await self._give_back(portion_id, self.in_hand)

    async def _close(self, portion_id: int) -> None:
        # If this fails, the portion may exist or not: it is closed again.
        self.in_hand, self._unclear = 0, True
        await self._spender.ledger.close(portion_id)
        if self.portion_id == portion_id:
            self.reset()

    @property
    def stale(self) -> bool:
        """Whether it should be emptied: nobody uses it, or only the database knows its state."""
        idle = time.monotonic() - self.used_at > IDLE
        return idle or (self._unclear and not self.reserved)

    async def _adopt(self, cap: int) -> None:
        """Apply a new cap: what was leased under another one goes back first."""
        async with self._turn:
            if cap != self._cap:
                self._cap, self._refused_until = cap, 0.0
                if self.portion_id is not None and self.in_hand:
                    await self._give_back(self.portion_id, self.in_hand)

    async def _give_back(self, portion_id: int, amount: int) -> None:
        self.in_hand -= amount
        try:
            await self._spender.ledger.give_back(portion_id, amount)
        except Refused:
            self._unclear = True
            raise

    def _reserve(self, amount: int) -> Charge:
        assert self.portion_id is not None or not amount, "it was filled"
        self.in_hand -= amount
        self.reserved += amount
        return Charge(self, self.portion_id or 0, amount)

    async def _fill_over(self, amount: int, cap: int, over: Over, patience: float) -> None:
        if over is Over.NO:
            return await self._fill(amount, cap, patience)
        if over is Over.FROM_SOME and not self.in_hand:
            await self._fill(1, cap, patience)
        if self.in_hand < amount:
            self._refused_until = 0.0
            await self._fill(amount, ENDLESS, patience)

    def _repeats_refusal(self, amount: int, patience: float) -> bool:
        """Whether as much was refused a moment ago to somebody as patient."""
        refused = amount >= self._refused and patience <= self._refused_patience
        return refused and time.monotonic() < self._refused_until

    async def _fill(self, amount: int, cap: int, patience: float) -> None:
        """Lease until there is enough. Raises Spent."""
        if self._repeats_refusal(amount, patience):
            raise Spent
        ends, asks_at = time.monotonic() + patience, 0.0
        while True:
            if asks := time.monotonic() >= asks_at:
                asks_at = time.monotonic() + ASK
            # If the caller leaves, what was leased is still noted.
            leasing = shared_task(self._lease(amount, cap, asks=asks))
            leasing.add_done_callback(_retrieve_error)
            given = await asyncio.shield(leasing)
            if self.in_hand >= amount:
                return
            if given is not None and (given.elsewhere <= 0 or time.monotonic() >= ends):
                self._refused, self._refused_patience = amount, patience
                self._refused_until = time.monotonic() + REFUSED
                raise Spent
            await asyncio.sleep(LOOK)

    async def _lease(self, amount: int, cap: int, *, asks: bool = False) -> Portion | None:
        self._leasing += 1
        try:
            return await self._lease_of(await self._spender.identify(), amount, cap, asks=asks)
        finally:
            self._leasing -= 1

    async def _lease_of(self, spender: int, amount: int, cap: int, *, asks: bool) -> Portion | None:
        short = amount - self.in_hand
        if cap == ENDLESS != self._cap:
            need = Need(short, short, 0)  # no more is taken over the cap than is needed
        else:
            wanted = max(short, self._wanted - self.in_hand)
            need = Need(short, wanted, self._look_ahead(amount), asks)
        try:
            given = await self._spender.ledger.lease(spender, self.account, cap, need)
        except Refused:
            self._unclear = True  # it may have been leased
            raise
        if given is None:
            self._spender.lose()
            return None
        if self.portion_id != given.portion_id:
            self.reset()
        self.portion_id, self.allowance_id = given.portion_id, given.allowance_id
        self.in_hand += given.granted
        self._doubted = False
        self.taken, self._known_at = cap - given.room, time.monotonic()
        return given

    def _look_ahead(self, amount: int) -> int:
        """How much to lease: more, the sooner the last lease was used up."""
        if not self._hoards:
            return 0
        now = time.monotonic()
        if now - self._leased_at < RENEWAL:
            self._factor = min(self._factor * 2, _MOST)
        else:
            self._factor = max(self._factor // 2, _FIRST)
        self._leased_at = now
        return amount * self._factor


class Spender:
    """This process as one that leases portions: its term, and its purses."""

    def __init__(self, ledger: Ledger, announcements: Announcements) -> None:
        self.ledger, self._announcements = ledger, announcements
        self._spender_id: int | None = None
        self._opening = asyncio.Lock()
        self._purses: dict[tuple[str, str, dt.datetime], Purse] = {}
        #: The database's time less this process's monotonic clock, in seconds.
        self._ahead = 0.0
        self._note_time(dt.datetime.now(dt.UTC), time.monotonic())

    @property
    def seconds(self) -> float:
        """The database's time in seconds since 1970, projected from the last renewal; a machine's
        wall clock may jump."""
        return self._ahead + time.monotonic()

    @property
    def now(self) -> dt.datetime:
        """See ``seconds``."""
        return dt.datetime.fromtimestamp(self.seconds, dt.UTC)

    def _note_time(self, now: dt.datetime, then: float) -> None:
        """Note the database's time at a time of the monotonic clock."""
        self._ahead = now.timestamp() - then

    def purse(self, account: AllowanceKey, *, hoards: bool = True) -> Purse:
        """The purse of an account."""
        key = account[:3]
        if (found := self._purses.get(key)) is None:
            found = self._purses[key] = Purse(self, account, hoards=hoards)
        return found

    def find_purse(self, account: AllowanceKey) -> Purse | None:
        """The purse of an account, if there is one."""
        return self._purses.get(account[:3])

    def tell_left(self, account: AllowanceKey, cap: int) -> int:
        """What is left of an allowance, as this process knows it."""
        purse = self.find_purse(account)
        if purse is None or purse.portion_id is None:
            return cap
        return max(0, min(cap, cap - purse.taken + purse.in_hand))

    async def identify(self) -> int:
        """The id of this process's term; a new one begins if there is none."""
        if self._spender_id is not None:
            return self._spender_id
        async with self._opening:
            if self._spender_id is None:
                self._spender_id, now = await self.ledger.open()
                self._note_time(now, time.monotonic())
            return self._spender_id

    def lose(self) -> None:
        """Note that the term is over, and all that was leased with it."""
        if self._spender_id is not None:
            _log.warning("allowances_lost", spender=self._spender_id)
        self._spender_id = None
        for purse in self._purses.values():
            purse.reset()

    async def follow(self, then: Callable[[], None]) -> None:
        """Renew the term, and return what others need or nobody uses, until cancelled; ``then``
        follows each time.

        Raises DatabaseUnavailable.
        """
        # What others need, however much it is, never delays the renewal.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._return_asked())
            group.create_task(self._keep_term(then))

    async def _return_asked(self) -> None:
        with self._announcements.subscribe(ALLOWANCE_CHANNEL) as mailbox:
            while True:
                news = await mailbox.take(RENEWAL)
                await self._return_named({a.payload for a in news.announcements})

    async def _return_named(self, asked: Container[str]) -> None:
        await self._return_from(lambda purse: str(purse.allowance_id) in asked)

    async def _keep_term(self, then: Callable[[], None]) -> None:
        while True:
            await self.renew()
            await self._return_from(lambda purse: purse.stale)
            then()
            await asyncio.sleep(RENEWAL)

    async def renew(self) -> None:
        """Renew the term, if there is one."""
        if self._spender_id is None:
            return
        asked = time.monotonic()
        now = await self.ledger.renew(self._spender_id)
        if now is None:
            self.lose()
        else:
            self._note_time(now, asked)

    async def close(self) -> None:
        """End the term in order: everything that was not spent returns at once."""
        spender, self._spender_id = self._spender_id, None
        if spender is not None:
            with contextlib.suppress(Refused):
                await self.ledger.end(spender)

    async def _return_from(self, chosen: Callable[[Purse], bool]) -> None:
        for key, purse in list(self._purses.items()):
            if chosen(purse):
                await purse.return_idle()
            if purse.stale and purse.portion_id is None:
                self._purses.pop(key, None)


def _retrieve_error(task: asyncio.Task[Portion | None]) -> None:
    """Mark the error of a lease as seen, since its caller may have left."""
    if not task.cancelled():
        task.exception()
