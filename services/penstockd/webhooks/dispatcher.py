"""Claims due deliveries, sends them and settles the results, each in groups."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from penstockd.calls import Allowance
from penstockd.errors import PolicyStale
from penstockd.keyring import Seal
from penstockd.metering.admission import Limiter
from penstockd.policy.errors import AllowanceLost
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.store.database import Connection
from penstockd.store.fences import SingletonLease, Transactions
from penstockd.webhooks.departures import Departures
from penstockd.webhooks.endpoints import NOTHING_LOADED, Endpoint
from penstockd.webhooks.lanes import MESSAGE_OVERHEAD, Holding, Lane
from penstockd.webhooks.messages import Composed, Composer
from penstockd.webhooks.model import (
    Chance,
    Clock,
    Delivery,
    DeliveryState,
    Reason,
    State,
    read_clock,
)
from penstockd.webhooks.owners import Roster
from penstockd.webhooks.queue import (
    DueDelivery,
    SendResult,
    claim_listed,
    list_due,
    promote_stuck,
    release_all,
)
from penstockd.webhooks.replies import Reply
from penstockd.webhooks.sender import Sender
from penstockd.webhooks.settling import Settling, attempt_of, judge_attempt, rest_of

#: The most messages that one transaction claims, and the most results that one settles.
GROUP = 500
#: How often to look for due deliveries without an announcement, in seconds.
POLL_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Delivers the queue. A singleton: a second instance is safe but useless."""

    def __init__(
        self,
        database: Transactions,
        policy: Policy,
        seal: Seal,
        roster: Roster,
        sender: Sender,
        composer: Composer,
        *,
        clock: Clock = read_clock,
        chance: Chance = random.random,
        lease: SingletonLease | None = None,
        allowance: Allowance | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        """``lease`` is the one that ``database`` checks; None if nothing else delivers."""
        self._lease = lease
        self._departures = Departures(roster, clock, allowance=allowance, limiter=limiter)
        self._database, self._policy, self._roster = database, policy, roster
        self._sender, self._composer = sender, composer
        self._clock, self._chance = clock, chance
        self._lanes: dict[str, Lane] = {}
        self._holding = Holding()
        self._revision = NOTHING_LOADED
        self._results: list[tuple[Lane, SendResult]] = []
        self._finished = asyncio.Event()
        self._woken = asyncio.Event()
        self._settling = Settling(seal, clock)
        # Whether more deliveries may be due than the last claim took.
        self._more = False

    async def start(self) -> None:
        """Release the deliveries that a dead keeper had claimed. Raises DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            released = await release_all(connection, self._clock())
            await promote_stuck(connection, self._clock())
        if released:
            _log.info("webhook_deliveries_released", count=released)

    async def run(self) -> None:
        """Deliver until cancelled. Raises DatabaseUnavailable, PolicyStale."""
        await self.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._dispatch())
                group.create_task(self._settle())
        finally:
            for lane in self._lanes.values():
                lane.stop()

    def wake(self) -> None:
        """Look for deliveries now: something may be due."""
        self._woken.set()

    async def drain(self) -> int:
        """Deliver all that is due and settle it; returns the number of deliveries."""
        count = 0
        while True:
            claimed, settled = await self.claim(), 0
            while self._busy():
                await self._finished.wait()
                settled += await self.settle()
            count += settled
            if not claimed and not settled:
                return count

    def _busy(self) -> bool:
        return any(lane.held for lane in self._lanes.values())

    # --- claim and send -------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while True:
            self._woken.clear()
            if await self.claim() < GROUP:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._woken.wait()

    def _pause(self) -> float:
        """Seconds until the next look, at most POLL_SECONDS: retries can wait that long."""
        ready = [s for lane in self._lanes.values() if (s := lane.ready_in) is not None]
        return max(0.001, min([POLL_SECONDS, *ready]))

    async def claim(self) -> int:
        """Claim what is due, as far as there is room, and start to send it; returns the number."""
        try:
            return await self._claim()
        except AllowanceLost:
            _log.warning("webhook_quotas_lost")  # nothing was claimed; it stays due
            return 0

    async def _claim(self) -> int:
        policy = self._policy.current
        with self._departures.charging() as charges:
            async with self._database.transaction() as connection:
                await self._refresh(connection)
                found, sizes = await self._claim_due(connection, policy)
                if not found:
                    return 0
                composed, dead = await self._compose(policy, found, sizes)
                groups = self._group(composed)
                cleared = await self._departures.clear(connection, policy, groups, charges)
                dead += cleared.kept_in
                if dead:
                    await self._settling.write(connection, dead, self._endpoints())
                    self.wake()  # deliveries may be parked behind them
        self._departures.confirm(cleared)
        for name, seconds in cleared.rests.items():
            self._lanes[name].rest_under(policy, seconds)
        self._take(cleared.leaving)
        return len(found)

    async def _claim_due(
        self, connection: Connection, policy: PolicySnapshot
    ) -> tuple[Sequence[Delivery], Mapping[str, int]]:
        """Claim what there is room for; the deliveries, and the stored bytes of those listed."""
        for lane in self._lanes.values():
            lane.apply(policy)
        room = self._room()
        # A full lane may have more to claim once some of it is settled.
        self._more = any(lane.held for n, lane in self._lanes.items() if n not in room)
        due = await list_due(connection, room, self._clock()) if room else []
        chosen = self._chosen(due)
        listed = Counter(d.webhook_id for d in due)
        self._more |= any(listed[name] == most for name, most in room.items())
        self._more |= len(chosen) < len(due)
        if not chosen:
            return [], {}
        found = await claim_listed(connection, chosen, self._term)
        return found, {d.delivery_id: d.stored_bytes for d in due}

    def _group(self, composed: Sequence[Composed]) -> list[tuple[Endpoint, list[Composed]]]:
        """Messages by their endpoints."""
        groups: dict[str, list[Composed]] = {}
        for each in composed:
            groups.setdefault(each.delivery.webhook_id, []).append(each)
        return [(self._lanes[name].endpoint, group) for name, group in groups.items()]

    def _take(self, composed: Sequence[Composed]) -> None:
        """Send messages as soon as their lanes have places for them."""
        for each in composed:
            lane = self._lanes[each.delivery.webhook_id]
            lane.held += 1
            self._holding.hold(*self._place(lane), len(each.message.body))
        for each in composed:
            self._lanes[each.delivery.webhook_id].take(each)

    @property
    def _term(self) -> int | None:
        return self._lease.term if self._lease is not None else None

    def _room(self) -> Mapping[str, int]:
        """How many to claim for each lane: GROUP in all, shared evenly; none if memory is full."""
        if self._holding.full:
            return {}
        open_lanes = {name: room for name, lane in self._lanes.items() if (room := lane.room)}
        if sum(open_lanes.values()) <= GROUP:
            return open_lanes
        share = max(1, GROUP // len(open_lanes))
        return {name: min(room, share) for name, room in open_lanes.items()}

    @staticmethod
    def _place(lane: Lane) -> tuple[str, str]:
        """The consumer and endpoint whose share of the memory a lane's messages use."""
        return lane.endpoint.webhook.consumer_id, lane.endpoint.webhook.webhook_id

    def _chosen(self, due: Sequence[DueDelivery]) -> list[str]:
        """The ids of those deliveries whose messages are expected to fit into memory."""
        plan, chosen = self._holding.copy(), []
        for delivery in due:
            lane = self._lanes[delivery.webhook_id]
            size = int((delivery.stored_bytes + MESSAGE_OVERHEAD) * lane.growth)
            if plan.permits(*self._place(lane), size):
                plan.hold(*self._place(lane), size)
                chosen.append(delivery.delivery_id)
        return chosen

    async def _compose(
        self, policy: PolicySnapshot, found: Sequence[Delivery], sizes: Mapping[str, int]
    ) -> tuple[list[Composed], list[SendResult]]:
        """The messages of claimed deliveries, and the results of those that are not sent now.

        A message may be many times as large as its records. What does not fit into memory is
        returned unsent, and the lane learns to expect it.
        """
        plan, composed, unsent = self._holding.copy(), [], []
        for delivery in found:
            lane = self._lanes[delivery.webhook_id]
            made = await self._composer.compose(policy, lane.endpoint, delivery, self._clock())
            if not isinstance(made, Composed):
                unsent.append(made)
                continue
            size = len(made.message.body)
            lane.growth = size / (sizes[delivery.delivery_id] + MESSAGE_OVERHEAD)
            if plan.permits(*self._place(lane), size):
                plan.hold(*self._place(lane), size)
                composed.append(made)
            else:
                unsent.append(SendResult(delivery, DeliveryState.PENDING, "", self._clock()))
                self._more = True
        return composed, unsent

    async def _refresh(self, connection: Connection) -> None:
        """Update the lanes to the current endpoints."""
        await self._roster.refresh(connection)
        revision, found = self._roster.revision, self._roster.endpoints
        if revision == self._revision:
            return
        if revision[0] != self._revision[0]:
            self._departures.forget()
        self._revision = revision
        for name, endpoint in found.items():
            if name in self._lanes:
                self._lanes[name].endpoint = endpoint
            else:
                self._lanes[name] = Lane(endpoint, self._send)
        for name in self._lanes.keys() - found.keys():
            if not self._lanes[name].held:
                del self._lanes[name]

    def _endpoints(self) -> Mapping[str, Endpoint]:
        return {name: lane.endpoint for name, lane in self._lanes.items()}

    async def _send(self, lane: Lane, composed: Composed) -> None:
        """Make one attempt and have its result settled, whatever happens on the way."""
        try:
            await self._attempt(lane, composed)
        except PolicyStale:
            back = self._clock() + timedelta(seconds=POLL_SECONDS)
            self._note_result(
                lane, composed, SendResult(composed.delivery, DeliveryState.PENDING, "", back)
            )
        except Exception:
            webhook_id = composed.delivery.webhook_id
            _log.exception("webhook_not_sent", webhook=webhook_id)
            self._judge(lane, composed, Reply(0.0, reason=Reason.NOT_SENT.value), {})

    async def _attempt(self, lane: Lane, composed: Composed) -> None:
        """Post a message; return it unsent if the policy has changed since it was made.

        If the lease is over, do nothing: the next holder releases the message and sends it.
        """
        if self._lease is not None and not self._lease.runs:
            return
        delivery, webhook = composed.delivery, lane.endpoint.webhook
        at = self._clock()
        moved = self._policy.current is not composed.policy
        if moved or webhook.state is not State.ACTIVE:
            back = SendResult(delivery, DeliveryState.PENDING, next_time=at)
            self._note_result(lane, composed, back)
            return
        message = composed.message
        signed = lane.endpoint.signer.sign(delivery.delivery_id, at, message.body)
        headers = {**message.headers, **signed}
        reply = await self._sender.post(webhook.url, {**webhook.headers, **headers}, message.body)
        self._judge(lane, composed, reply, headers, at)

    def _judge(
        self,
        lane: Lane,
        composed: Composed,
        reply: Reply,
        headers: Mapping[str, str],
        at: datetime | None = None,
    ) -> None:
        """Have an attempt that began at ``at`` (default: now) settled by its reply."""
        webhook, now = lane.endpoint.webhook, self._clock()
        size = len(composed.message.body)
        attempt = attempt_of(reply, at or now, headers, webhook.url, size)
        schedule = webhook.options.schedule
        result = judge_attempt(composed.delivery, schedule, reply, attempt, now, self._chance)
        if (rest := rest_of(reply)) is not None:
            lane.rest(rest.total_seconds())
        self._note_result(lane, composed, result)

    def _note_result(self, lane: Lane, composed: Composed, result: SendResult) -> None:
        self._holding.release(*self._place(lane), len(composed.message.body))
        self._results.append((lane, result))
        self._finished.set()

    # --- settle ---------------------------------------------------------------------------

    async def _settle(self) -> None:
        while True:
            await self._finished.wait()
            await self.settle()
            if self._more:
                self.wake()

    async def settle(self) -> int:
        """Write the results of deliveries, in one transaction; returns how many."""
        self._finished.clear()
        group = self._results[:GROUP]
        if not group:
            return 0
        async with self._database.transaction() as connection:
            await self._settling.write(connection, [r for _, r in group], self._endpoints())
        del self._results[: len(group)]
        for lane, result in group:
            lane.settled(result.attempt.delivered if result.attempt is not None else None)
            # Deliveries that were parked behind it, or returned unsent, may go now.
            waits = result.state is DeliveryState.PENDING and result.attempt is None
            self._more = self._more or waits or result.delivery.order_key is not None
        if self._results:
            self._finished.set()
        return len(group)
