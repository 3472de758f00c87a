"""Claims due deliveries, sends them and settles the results, each in groups."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.shown import KnownDigests, Shown, insert_shown
from penstockd.calls import Allowance
from penstockd.errors import PolicyStale, Refused
from penstockd.keyring import Seal
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.store.database import Connection
from penstockd.store.fences import SingletonLease, Transactions
from penstockd.webhooks.endpoints import NOTHING_LOADED, Endpoint
from penstockd.webhooks.lanes import MESSAGE_OVERHEAD, Holding, Lane
from penstockd.webhooks.messages import Composed, Composer, make_entries
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
#: How long deliveries wait if their owner may receive no more records now, in seconds.
ALLOWANCE_SECONDS = 60.0

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
    ) -> None:
        """``lease`` is the one that ``database`` checks; None if nothing else delivers."""
        self._lease, self._allowance = lease, allowance
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
        self._shown = KnownDigests()

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
        policy = self._policy.current
        async with self._database.transaction() as connection:
            await self._refresh(connection)
            room = self._room()
            # A full lane may have more to claim once some of it is settled.
            self._more = any(lane.held for n, lane in self._lanes.items() if n not in room)
            if not room:
                return 0
            due = await list_due(connection, room, self._clock())
            chosen = self._chosen(due)
            listed = Counter(d.webhook_id for d in due)
            self._more |= any(listed[name] == most for name, most in room.items())
            self._more |= len(chosen) < len(due)
            if not chosen:
                return 0
            found = await claim_listed(connection, chosen, self._term)
            sizes = {d.delivery_id: d.stored_bytes for d in due}
            composed, dead = await self._compose(policy, found, sizes)
            composed, kept_in, shown = await self._audit(connection, policy, composed)
            dead += kept_in
            if dead:
                await self._settling.write(connection, dead, self._endpoints())
                self.wake()  # deliveries may be parked behind them
        for digest in shown:
            self._shown.add(digest)
        for each in composed:
            lane = self._lanes[each.delivery.webhook_id]
            lane.held += 1
            self._holding.hold(*self._place(lane), len(each.message.body))
        for each in composed:
            self._lanes[each.delivery.webhook_id].take(each)
        return len(found)

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
            self._shown.clear()  # stored rules may be undone
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

    async def _audit(
        self, connection: Connection, policy: PolicySnapshot, composed: Sequence[Composed]
    ) -> tuple[list[Composed], list[SendResult], set[bytes]]:
        """Record the messages that will leave, under the policy that they were made with.

        Returns the messages that may leave, the results of those that may not leave yet, and the
        digests of the rules that were new.
        """
        by_endpoint: dict[str, list[Composed]] = {}
        for each in composed:
            by_endpoint.setdefault(each.delivery.webhook_id, []).append(each)
        made: list[Entry] = []
        shown: dict[bytes, Shown] = {}
        leaving: list[Composed] = []
        kept_in: list[SendResult] = []
        for name, group in by_endpoint.items():
            endpoint = self._lanes[name].endpoint
            told, rules = make_entries(
                endpoint, self._roster.sights(policy, endpoint.webhook), group
            )
            if not self._allows(told):
                later = self._clock() + timedelta(seconds=ALLOWANCE_SECONDS)
                waiting = DeliveryState.PENDING
                kept_in += [SendResult(c.delivery, waiting, next_time=later) for c in group]
                continue
            leaving += group
            made += told
            shown |= {r.digest: r for r in rules if r.digest not in self._shown}
        if shown:
            await insert_shown(connection, list(shown.values()))
        if made:
            await insert_entries(connection, made)
        return leaving, kept_in, set(shown)

    def _allows(self, entries: Sequence[Entry]) -> bool:
        """Whether the owner of an endpoint may receive the records of these entries."""
        if self._allowance is not None:
            try:
                self._allowance.take(entries[0], sum(e.row_count or 0 for e in entries))
            except Refused:
                return False
        return True

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
