"""PullDeliveries: messages for a developer's machine, pulled by a command there."""

from __future__ import annotations

import time
from datetime import timedelta

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import TO_WRITE, touched
from penstockd.commands.webhooks.create_webhook import LISTEN_SECONDS
from penstockd.errors import PermissionDenied
from penstockd.feed.bells import webhook_line
from penstockd.hub import Hub
from penstockd.webhooks.composer import entries
from penstockd.webhooks.composing import make_composer
from penstockd.webhooks.endpoints import set_expiry
from penstockd.webhooks.lanes import Composed
from penstockd.webhooks.model import State
from penstockd.webhooks.pulled import (
    MAX_DELIVERIES,
    Pulled,
    as_posted,
    listening_endpoint,
)
from penstockd.webhooks.queue import Result, claim, lend, next_due, return_lent
from penstockd.webhooks.schedule import now
from penstockd.webhooks.settling import Settling

MAX_WAIT = timedelta(seconds=20)
#: What is not acknowledged in this time comes again.
LEASE = timedelta(seconds=60)
#: A call that waits looks when its line is rung, and so often even if it is not; and at the most so
#: often. In seconds.
_LOOK, _REST = 5.0, 0.05


async def pull_deliveries(
    hub: Hub, call: Call, webhook_id: str, most: int, wait: timedelta
) -> list[Pulled]:
    """Messages that are due, after a while if there are none at once.

    Whenever it looks, it judges the caller by the policy of then. Raises WebhookNotFound,
    WebhookKindUnfit, AccessRevoked (while it waited), PolicyStale, and PermissionDenied also for
    administrators who are not the owner.
    """
    most = min(max(most or 10, 1), MAX_DELIVERIES)
    seconds = min(wait, MAX_WAIT).total_seconds()
    pulled = await hub.tasks.run(_pull(hub, call, webhook_id, most))
    if not pulled and seconds > 0:
        with hub.streams.one_more(call.entry.consumer_id or ""):
            pulled = await _wait_and_pull(hub, call, webhook_id, most, seconds)
    call.entry.row_count = len(pulled)
    return pulled


async def _wait_and_pull(
    hub: Hub, call: Call, webhook_id: str, most: int, seconds: float
) -> list[Pulled]:
    """Of the calls of this process that wait for the same webhook only the first looks."""
    deadline = time.monotonic() + seconds
    line = hub.feed.tail.bells.line(webhook_line(webhook_id))
    async with line.turn(seconds) as first:
        while first and not hub.feed.stopping.is_set():
            rung = line.rung
            if pulled := await hub.tasks.run(_pull(hub, call, webhook_id, most)):
                return pulled
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await line.wait(rung, min(left, await _until_due(hub, webhook_id)))
    return []


async def _until_due(hub: Hub, webhook_id: str) -> float:
    """Seconds until something is due that nobody announces then: another attempt, or what was
    pulled and is not acknowledged."""
    async with hub.database.connection() as connection:
        due = await next_due(connection, webhook_id, now())
    if due is None:
        return _LOOK
    return min(_LOOK, max(_REST, (due - now()).total_seconds()))


async def _pull(hub: Hub, call: Call, webhook_id: str, most: int) -> list[Pulled]:
    policy = hub.policy.current
    call.renew(policy)
    call.require(*TO_WRITE)
    async with call.writing(hub.database.transaction()) as connection:
        webhook = await touched(hub, call, connection, webhook_id)
        if webhook.consumer_id != call.entry.consumer_id:
            raise PermissionDenied("only the owner pulls: messages are made through its View")
        endpoint = await listening_endpoint(connection, webhook, hub.webhooks.seal)
        expiry = now() + timedelta(seconds=LISTEN_SECONDS)
        await set_expiry(connection, webhook_id, expiry)
        if webhook.state is not State.ACTIVE:
            return []
        await return_lent(connection, webhook_id, now())
        taken = await claim(connection, {webhook_id: most}, now())
        if not taken:
            return []
        await lend(connection, taken, now() + LEASE)
        made, owners = await make_composer(hub.database, hub.catalog, hub.public_url, connection)
        composed: list[Composed] = []
        dead: list[Result] = []
        for delivery in taken:
            each = await made.compose(policy, endpoint, delivery, now())
            if isinstance(each, Composed):
                composed.append(each)
            else:
                dead.append(each)
        if dead:
            settling = Settling(hub.webhooks.seal, now)
            await settling.write(connection, dead, {webhook_id: endpoint})
        if composed:
            told, shown = entries(endpoint, owners.sights(policy, webhook), composed)
            await call.disclose_within(connection, told, shown)
    return [as_posted(endpoint, each) for each in composed]
