"""WatchSubscription: leases as a stream, no more unacknowledged changes than the client wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from penstockd.calls import Call, Permit
from penstockd.errors import ClientStalled, DatabaseUnavailable, HubStopping, Refused
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.source import FRAME_BYTES
from penstockd.feed.stream import MAX_HEARTBEAT, USUAL_HEARTBEAT
from penstockd.feed.watching import Standings
from penstockd.hub import Hub
from penstockd.store.cursor import Cursor
from penstockd.subscriptions.pull import USUAL_CHANGES, changes_of
from penstockd.subscriptions.stretch import Bounds
from penstockd.subscriptions.take import (
    LOOK,
    Taken,
    Taking,
    ack_time,
    invalid,
)

#: How long a stream waits for changes, or for room, before it looks around, in seconds.
TURN = 1.0


@dataclass(frozen=True, slots=True)
class Flow:
    """How a client wants its stream; 0 stands for what is usual."""

    max_outstanding: int = 0
    max_changes: int = 0
    ack_seconds: int = 0
    heartbeat_seconds: int = 0


class Reply(Protocol):
    """Where the stream goes. Each method returns, with the bytes sent, when they are taken."""

    async def begin(self, cursor: Cursor, view: str, revision: int) -> int:
        """The first record."""

    async def changes(self, taken: Taken, permit: Permit) -> int:
        """A lease, whose changes are in the audit."""

    async def heartbeat(self, cursor: Cursor) -> int:
        """Nothing has happened."""

    async def end(self, error: Refused | DatabaseUnavailable, cursor: Cursor) -> int:
        """The last record."""


async def watch_subscription(
    hub: Hub, call: Call, subscription_id: str, flow: Flow, reply: Reply
) -> None:
    """Send leases to ``reply`` until the caller goes away.

    Nothing has been sent when ValueInvalid, SubscriptionNotFound, PermissionDenied, FieldUnknown,
    FilterInvalid, CursorInvalid, CursorExpired or TooManyStreams is raised. An error after that
    stands in the stream's last record, too: AccessChanged, ViewChanged, PolicyStale, ClientStalled,
    CursorExpired, SubscriptionNotFound, HubStopping, DatabaseUnavailable.
    """
    room = changes_of("max_outstanding", flow.max_outstanding, USUAL_CHANGES)
    most = min(room, changes_of("max_changes", flow.max_changes, room))
    if not 0 <= flow.heartbeat_seconds <= MAX_HEARTBEAT:
        raise invalid("heartbeat_seconds", f"must be from 1 to {MAX_HEARTBEAT}")
    bounds, ack = Bounds(most, FRAME_BYTES), ack_time(flow.ack_seconds)
    taking = Taking(hub, call, subscription_id, bounds, ack)
    call.asked(subscription=subscription_id)
    with hub.streams.one_more(call.entry.consumer_id or ""):
        run = _Run(hub, call, taking, room - most, flow, reply)
        await run.open()
        try:
            await run.send_all()
        except BaseException as exc:
            await run.finish(exc)
            raise


class _Run:
    """One stream under way. ``spare``: with more unacknowledged changes than so many, it waits."""

    def __init__(
        self, hub: Hub, call: Call, taking: Taking, spare: int, flow: Flow, reply: Reply
    ) -> None:
        self._hub, self._call, self._taking, self._reply = hub, call, taking, reply
        self._spare = spare
        self._heartbeat = flow.heartbeat_seconds or USUAL_HEARTBEAT
        self._clock = asyncio.get_running_loop().time
        self._open: dict[str, int] = {}  # changes of leases that may be unacknowledged
        self._known, self._look = -1, 0.0  # when the leases were last looked after
        self._rows = self._bytes = 0
        self._stalled = False

    async def open(self) -> None:
        """Find the subscription. Nothing is sent yet."""
        self._cursor = await self._taking.open()
        self._standings = Standings(self._hub, self._call, self._taking.terms, self._taking.source)
        self._disclosure = FeedDisclosure(self._hub, self._call, self._taking.source)

    async def send_all(self) -> None:
        """Leases for ever."""
        source, revision = self._taking.source, self._call.policy.revision
        await self._send(self._reply.begin(self._cursor, source.view, revision))
        silent = self._clock() + self._heartbeat
        while True:
            if self._taking.outdated:
                self._taking.judged = self._standings.check()
            taken = await self._next()
            if taken is not None:
                await self._give(taken)
            elif self._hub.feed.stopping.is_set():
                raise HubStopping("this worker ends; its leases go on to run")
            elif self._clock() >= silent:
                await self._send(self._reply.heartbeat(self._cursor))
            else:
                continue
            silent = self._clock() + self._heartbeat

    async def finish(self, error: BaseException) -> None:
        """Write down how far the stream came, and tell the client if it still listens."""
        told = isinstance(error, Refused | DatabaseUnavailable)
        outcome = "INTERNAL"
        if isinstance(error, Refused | DatabaseUnavailable):
            outcome = error.reason
        elif isinstance(error, asyncio.CancelledError):
            outcome = "OK"
        try:
            entry = self._call.entry.end(outcome, self._rows, self._bytes)
            await self._hub.tasks.run(self._hub.journal.record(entry))
        finally:
            if told and not self._stalled:
                assert isinstance(error, Refused | DatabaseUnavailable)
                await self._send(self._reply.end(error, self._cursor))

    async def _next(self) -> Taken | None:
        """The next lease, if there is room for it within a turn."""
        rung = self._taking.line.rung
        if self._open and (rung != self._known or self._clock() >= self._look):
            held = await self._taking.held(list(self._open))
            self._open = {lease: self._open[lease] for lease in held}
            self._known, self._look = rung, self._clock() + LOOK
        if sum(self._open.values()) > self._spare:
            # Whatever makes room rings, unless leases expire.
            await self._taking.line.wait(rung, TURN)
            return None
        return await self._taking.take(TURN)

    async def _give(self, taken: Taken) -> None:
        self._open[taken.lease.lease_id] = taken.lease.change_count
        permit = await self._disclosure.records(taken.keys)
        await self._send(self._reply.changes(taken, permit))
        self._rows += taken.lease.change_count
        self._cursor = taken.lease.end

    async def _send(self, sending: Awaitable[int]) -> None:
        """Raises ClientStalled if the client takes nothing for too long."""
        seconds = self._hub.streams.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                self._bytes += await sending
        except TimeoutError:
            self._stalled = True
            raise ClientStalled(f"the client took no data for {seconds:g} s") from None
