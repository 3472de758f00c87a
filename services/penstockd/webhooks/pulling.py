"""Pulls messages for a developer's machine: what is due is lent to it, for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

from penstockd.calls import Call
from penstockd.errors import PermissionDenied
from penstockd.feed.bells import webhook_line
from penstockd.feed.broadcast import Broadcast
from penstockd.policy.snapshot import Policy
from penstockd.store.database import Database
from penstockd.webhooks.desk import TO_WRITE, WebhookDesk
from penstockd.webhooks.endpoints import LISTEN_SECONDS, set_expiry
from penstockd.webhooks.model import State
from penstockd.webhooks.pulled import Pulled, as_posted, listening_endpoint
from penstockd.webhooks.queue import claim, lend, next_due, return_lent
from penstockd.webhooks.schedule import now
from penstockd.webhooks.settling import Settling

#: What is not acknowledged in this time comes again.
LEASE = timedelta(seconds=60)
#: A call that waits looks when its line is rung, and so often even if it is not; and at the most so
#: often. In seconds.
LOOK, REST = 5.0, 0.05


class PullOrgans(Protocol):
    """The organs by which messages are pulled."""

    @property
    def database(self) -> Database:
        """Keeps deliveries."""

    @property
    def policy(self) -> Policy:
        """What the caller may see, as it is now."""

    @property
    def feed(self) -> Broadcast:
        """Rings when something may be due."""

    @property
    def webhooks(self) -> WebhookDesk:
        """Finds webhooks and makes messages."""


async def pull_due(organs: PullOrgans, call: Call, webhook_id: str, most: int) -> list[Pulled]:
    """Messages that are due now, lent to the caller, which is judged by the policy of now.

    Raises WebhookNotFound, WebhookKindUnfit, AccessRevoked, PolicyStale, and PermissionDenied also
    for administrators who are not the owner.
    """
    desk = organs.webhooks
    call.renew(organs.policy.current)
    call.require(*TO_WRITE)
    async with call.writing(organs.database.transaction()) as connection:
        webhook = await desk.touch(call, connection, webhook_id)
        if webhook.consumer_id != call.entry.consumer_id:
            raise PermissionDenied("only the owner pulls: messages are made through its View")
        endpoint = await listening_endpoint(connection, webhook, desk.seal)
        await set_expiry(connection, webhook_id, now() + timedelta(seconds=LISTEN_SECONDS))
        if webhook.state is not State.ACTIVE:
            return []
        await return_lent(connection, webhook_id, now())
        taken = await claim(connection, {webhook_id: most}, now())
        if not taken:
            return []
        await lend(connection, taken, now() + LEASE)
        composed, dead = await desk.compose(call, connection, endpoint, taken)
        if dead:
            settling = Settling(desk.seal, now)
            await settling.write(connection, dead, {webhook_id: endpoint})
    return [as_posted(endpoint, each) for each in composed]


async def wait_in_line(
    organs: PullOrgans,
    webhook_id: str,
    seconds: float,
    pull: Callable[[], Awaitable[list[Pulled]]],
) -> list[Pulled]:
    """What ``pull`` gives, as soon as it gives something, within some seconds.

    Of the calls of this process that wait for the same webhook only the first looks.
    """
    deadline = time.monotonic() + seconds
    line = organs.feed.tail.bells.line(webhook_line(webhook_id))
    async with line.turn(seconds) as first:
        while first and not organs.feed.stopping.is_set():
            rung = line.rung
            if pulled := await pull():
                return pulled
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await line.wait(rung, min(left, await _until_due(organs.database, webhook_id)))
    return []


async def _until_due(database: Database, webhook_id: str) -> float:
    """Seconds until something is due that nobody announces then: another attempt, or what was
    pulled and is not acknowledged."""
    async with database.connection() as connection:
        due = await next_due(connection, webhook_id, now())
    if due is None:
        return LOOK
    return min(LOOK, max(REST, (due - now()).total_seconds()))
