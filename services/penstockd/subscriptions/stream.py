"""Leases as a stream that respects the client's limit of unacknowledged changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from penstockd.calls import Call, Permit
from penstockd.errors import ClientStalled, HubStopping, Refused
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.source import FeedSource
from penstockd.feed.stream import USUAL_HEARTBEAT
from penstockd.feed.watching import Standings
from penstockd.store.cursor import Cursor
from penstockd.subscriptions.manage import SubscriptionOrgans
from penstockd.subscriptions.take import (
    LOOK,
    TakenLease,
    Taking,
)

#: Seconds that a stream waits for changes, or for room, before it checks everything again.
TURN = 1.0


@dataclass(frozen=True, slots=True)
class Flow:
    """A client's limits for its stream; 0 means the default."""

    max_outstanding: int = 0
    max_changes: int = 0
    ack_seconds: int = 0
    heartbeat_seconds: int = 0


class LeaseReply(Protocol):
    """The receiver of the stream. Each method returns the bytes sent, once they are taken."""

    async def begin(self, cursor: Cursor, source: FeedSource, revision: int) -> int:
        """Send the first record."""

    async def changes(self, taken: TakenLease, permit: Permit) -> int:
        """Send a lease, whose changes are in the audit already."""

    async def heartbeat(self, cursor: Cursor) -> int:
        """Send a record that states that nothing has happened."""

    async def end(self, error: Refused, cursor: Cursor) -> int:
        """Send the last record."""


class LeaseStream:
    """A running stream. It waits while more than ``spare`` changes are unacknowledged."""

    def __init__(
        self,
        organs: SubscriptionOrgans,
        call: Call,
        taking: Taking,
        spare: int,
        flow: Flow,
        reply: LeaseReply,
    ) -> None:
        self._organs, self._call, self._taking, self._reply = organs, call, taking, reply
        self._spare = spare
        self._heartbeat = flow.heartbeat_seconds or USUAL_HEARTBEAT
        self._clock = asyncio.get_running_loop().time
        self._open: dict[str, int] = {}  # changes of leases that may be unacknowledged
        # The bell's count at the last look, and the time of the next look.
        self._known, self._look = -1, 0.0
        self._rows = self._bytes = 0
        self._stalled = False

    async def run(self) -> None:
        """Send leases until the caller leaves; see ``watch_subscription`` for errors."""
        await self._begin()
        try:
            await self._send_all()
        except BaseException as exc:
            await self._finish(exc)
            raise

    async def _begin(self) -> None:
        """Find the subscription before anything is sent."""
        self._cursor = await self._taking.open()
        self._standings = Standings(
            self._organs.policy, self._call, self._taking.source, self._call.principal.expires
        )
        self._disclosure = FeedDisclosure(self._call, self._taking.source)

    async def _send_all(self) -> None:
        """Send leases until an error ends the stream."""
        source, revision = self._taking.source, self._call.policy.revision
        await self._send(self._reply.begin(self._cursor, source, revision))
        silent = self._clock() + self._heartbeat
        while True:
            self._taking.judged = self._standings.check()
            taken = await self._next()
            if taken is not None:
                await self._give(taken)
            elif self._organs.feed.stopping.is_set():
                raise HubStopping("this worker stops; its leases keep running")
            elif self._clock() >= silent:
                await self._send(self._reply.heartbeat(self._cursor))
            else:
                continue
            silent = self._clock() + self._heartbeat

    async def _finish(self, error: BaseException) -> None:
        """Record how far the stream got, and send the error if the client still reads."""
        outcome = "INTERNAL"
        if isinstance(error, Refused):
            outcome = error.reason
        elif isinstance(error, asyncio.CancelledError):
            outcome = "OK"
        try:
            ending = self._call.record_end(outcome, self._rows, self._bytes)
            await self._call.finish(ending)
        finally:
            if isinstance(error, Refused) and not self._stalled:
                await self._send(self._reply.end(error, self._cursor))

    async def _next(self) -> TakenLease | None:
        """The next lease, if there is room for it within a turn."""
        rung = self._taking.line.rung
        if self._open and (rung != self._known or self._clock() >= self._look):
            held = await self._taking.held(list(self._open))
            self._open = {lease: self._open[lease] for lease in held}
            self._known, self._look = rung, self._clock() + LOOK
        if sum(self._open.values()) > self._spare:
            # Acknowledgements ring the line; leases that expire do not.
            await self._taking.line.wait(rung, TURN)
            return None
        return await self._taking.take(TURN)

    async def _give(self, taken: TakenLease) -> None:
        self._open[taken.lease.lease_id] = taken.lease.change_count
        permit = await self._disclosure.records(taken.keys)
        await self._send(self._reply.changes(taken, permit))
        self._rows += taken.lease.change_count
        self._call.note_sent(self._rows, self._bytes)
        self._cursor = taken.lease.end

    async def _send(self, sending: Awaitable[int]) -> None:
        """Wait for a send. Raises ClientStalled if the client reads nothing for too long."""
        seconds = self._organs.streams.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                self._bytes += await sending
        except TimeoutError:
            self._stalled = True
            raise ClientStalled(f"the client took no data for {seconds:g} s") from None
