"""Takes leases: finds where the next stretch begins, reads it, and claims it if it is still free.

The log is read before anything is locked. If several workers read the same stretch at a time, one
of them gets it and the others look again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.errors import CursorExpired, CursorInvalid, ValueInvalid
from penstockd.feed.bells import subscription_line
from penstockd.feed.watching import MAX_CHANGES, Standings
from penstockd.store import leases
from penstockd.store import subscriptions as store
from penstockd.store.cursor import Cursor
from penstockd.store.leases import Lease, Place
from penstockd.store.log import last_number
from penstockd.subscriptions.manage import SubscriptionOrgans, check_id, open_source, owner_of
from penstockd.subscriptions.stretch import Bounds, LeaseStretch, read_stretch

#: The usual number of changes in a stretch.
USUAL_CHANGES = 500
#: The seconds that a worker has to acknowledge, by default and at most.
USUAL_ACK, MAX_ACK = 60, 3600
#: A waiting call looks when its line is rung, and at the latest after this many seconds: other
#: workers' leases expire silently, and an announcement can be missed.
LOOK = 5.0
#: The shortest pause between two looks, in seconds: at first, and after many looks in vain.
FIRST_LOOK, MAX_PAUSE = 0.01, 0.5

_RESET = "the changes after the subscription's cursor are no longer kept: reset it"


def ack_time(seconds: int) -> int:
    """The seconds that a worker has to acknowledge. Raises ValueInvalid."""
    if not 0 <= seconds <= MAX_ACK:
        raise ValueInvalid.of("ack_seconds", f"must be from 1 to {MAX_ACK}")
    return seconds or USUAL_ACK


def changes_of(name: str, wanted: int, usual: int) -> int:
    """The number of changes that a caller requests, or ``usual`` for 0. Raises ValueInvalid."""
    if not 0 <= wanted <= MAX_CHANGES:
        raise ValueInvalid.of(name, f"must be from 1 to {MAX_CHANGES}")
    return wanted or usual


@dataclass(frozen=True, slots=True)
class Pull:
    """A worker's request for a lease; 0 means the default. ``wait`` is in seconds."""

    max_changes: int = 0
    ack_seconds: int = 0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class TakenLease:
    """A lease and its changes: their encoded list, and the keys of records by dataset."""

    lease: Lease
    changes: bytes
    keys: Mapping[str, Sequence[str]]


class Taking:
    """Takes leases of a subscription for one caller."""

    def __init__(
        self,
        organs: SubscriptionOrgans,
        call: Call,
        subscription_id: str,
        bounds: Bounds,
        ack: int,
    ) -> None:
        self._organs, self._call = organs, call
        self._key = (owner_of(call), check_id(subscription_id))
        self._bounds, self._ack = bounds, ack
        self.line = organs.feed.tail.bells.line(subscription_line(*self._key))
        # The line's count at the last look in vain, the time to look again even if the count is the
        # same, the time of the last look, and the pause after it.
        self._vain, self._again, self._rested, self._pause = -1, 0.0, 0.0, FIRST_LOOK
        #: The number that the log must pass; None while waiting for other workers' leases to end.
        self._after: int | None = None
        self._clock = asyncio.get_running_loop().time
        #: The policy under which the caller's View was last judged.
        self.judged = call.policy
        # A place, and the cursor up to which it has no changes for the caller; written to the
        # database after a wait in vain.
        self._empty: tuple[Place, Cursor] | None = None

    async def open(self) -> Cursor:
        """Find the subscription and judge its View; return the position acknowledged so far.

        Raises SubscriptionNotFound, PermissionDenied, FieldUnknown, FilterInvalid, CursorInvalid
        and CursorExpired.
        """
        async with self._organs.database.connection() as connection:
            found = await store.find_subscription(connection, *self._key)
        store.check_epoch(undone=found.undone)
        self.source = await open_source(self._organs, self._call, found.terms, self._bounds.changes)
        try:
            await self._organs.feed.read(self.source, found.position, found.position.number)
        except CursorExpired as exc:
            raise CursorExpired(_RESET, places=exc.places) from exc
        return found.acknowledged

    async def take(self, seconds: float) -> TakenLease | None:
        """The next stretch, leased; None if there is none within the time, or if the policy has
        changed since the caller's View was judged: then it must be judged again.

        Of this process's calls that wait for the same subscription, only the first looks.

        Raises SubscriptionNotFound, CursorExpired, PolicyStale and DatabaseUnavailable.
        """
        taken = await self._take_at_once() if seconds <= 0 else await self._take_in_line(seconds)
        if taken is None and not self.outdated:
            await self._pass()
        return taken

    async def _take_in_line(self, seconds: float) -> TakenLease | None:
        deadline = self._clock() + seconds
        async with self.line.turn(seconds) as first:
            while first and not self._organs.feed.stopping.is_set():
                rung = self.line.rung
                if rung != self._vain or self._clock() >= self._again:
                    taken = await self._take_at_once()
                    if taken is not None or self.outdated:
                        return taken
                    self._vain = rung
                left = deadline - self._clock()
                if left <= 0:
                    break
                self.line.after = self._after
                if self._after is not None and self._organs.feed.tail.head > self._after:
                    self.line.ring()  # the log has moved while it was being read
                await self.line.wait(rung, min(left, self._again - self._clock()))
                # Look less often if the log has many changes but none for the caller.
                rest = min(self._rested + self._pause, deadline) - self._clock()
                await asyncio.sleep(max(0.0, rest))
        return None

    async def _take_at_once(self) -> TakenLease | None:
        """The next stretch if there is one now; otherwise note what to wait for."""
        self._rested = self._clock()
        while not self._organs.feed.stopping.is_set():
            place, busy, head = await self.look_once()
            if place is None:
                self._after, self._pause = None, FIRST_LOOK
                self._again = self._clock() + min(max(busy, FIRST_LOOK), LOOK)
                return None
            stretch = await self._read(place, head)
            if self.outdated:
                return None
            if not stretch.events and place.end is None:
                self._empty = (place, stretch.end)
                self._after, self._again = stretch.end.number, self._clock() + LOOK
                self._pause = min(2 * self._pause, MAX_PAUSE)
                return None
            taken = await self._claim(place, stretch)
            if taken is not None:
                self._pause = FIRST_LOOK
                return taken
        return None

    @property
    def outdated(self) -> bool:
        """Whether the policy has changed since the View was judged. Raises PolicyStale."""
        return self._organs.policy.current is not self.judged

    async def held(self, lease_ids: Sequence[str]) -> Sequence[str]:
        """The given leases that are neither acknowledged nor expired."""
        async with self._organs.database.connection() as connection:
            return await leases.list_outstanding(connection, *self._key, lease_ids)

    async def look_once(self) -> tuple[Place | None, float, int]:
        """The result of ``leases.next_place``, and the newest number of the log, from the database:
        changes written before a call must not be missed."""
        async with self._organs.database.connection() as connection:
            found = await store.find_subscription(connection, *self._key)
            store.check_epoch(undone=found.undone)
            place, busy = await leases.next_place(connection, found)
            return place, busy, await last_number(connection)

    async def _read(self, place: Place, head: int) -> LeaseStretch:
        start = place.start
        if self._empty is not None and self._empty[0] == place:
            start = self._empty[1]
        upto = Cursor(start.epoch, head) if place.end is None else place.end
        try:
            feed, database = self._organs.feed, self._organs.database
            return await read_stretch(feed, database, self.source, start, upto, self._bounds)
        except CursorExpired as exc:
            raise CursorExpired(_RESET, places=exc.places) from exc
        except CursorInvalid:
            if start == place.start:
                raise
            # The empty part after the place was undone: start at the place again.
            self._empty = None
            return await self._read(place, head)

    async def _claim(self, place: Place, stretch: LeaseStretch) -> TakenLease | None:
        """Lease the stretch that was read, in a transaction that completes even if the caller
        leaves."""
        frames = self.source.frames(stretch.events)

        async def claim() -> Lease | None:
            writing = self._call.writing(self._organs.database.transaction())
            async with writing as connection:
                held = await leases.lock_subscription(connection, *self._key)
                try:
                    return await held.claim(place, stretch.end, len(stretch.events), self._ack)
                except CursorInvalid:
                    return None  # a failover or a restore undid it meanwhile: look again

        lease = await self._call.finish(claim())
        if lease is None:
            return None
        keys: dict[str, list[str]] = {}
        for event in stretch.events:
            keys.setdefault(event.dataset, []).append(event.key)
        return TakenLease(lease, b"".join(frame.data for frame in frames), keys)

    async def _pass(self) -> None:
        """Move the subscription past changes that are not for it, so that its place does not
        expire."""
        if self._empty is None or self._empty[1].place == self._empty[0].start.place:
            return
        place, end = self._empty
        self._empty = None
        async with self._call.writing(self._organs.database.transaction()) as connection:
            held = await leases.lock_subscription(connection, *self._key)
            with contextlib.suppress(CursorInvalid):  # there is nothing left to move past
                await held.claim(place, end, 0, self._ack)


async def take_on(taking: Taking, standings: Standings, seconds: float) -> TakenLease | None:
    """``Taking.take``, continued after policy changes that leave the caller's View the same."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    taken = await taking.take(seconds)
    while taken is None and taking.outdated:
        if (policy := standings.renew()) is None:
            break
        taking.judged = policy
        taken = await taking.take(max(0.0, deadline - clock()))
    return taken
