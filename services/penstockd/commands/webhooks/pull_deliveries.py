"""Messages for a developer's machine: pulled by a command there, and acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from penstockd.commands.context import Call, Hub
from penstockd.commands.webhooks.asking import changed, touched, writer
from penstockd.commands.webhooks.composing import composer
from penstockd.commands.webhooks.create_webhook import LISTEN_SECONDS
from penstockd.errors import PermissionDenied, WebhookKindUnfit
from penstockd.store.database import Connection
from penstockd.webhooks.composer import entries
from penstockd.webhooks.endpoints import Endpoint, read_secrets
from penstockd.webhooks.lanes import Composed
from penstockd.webhooks.model import Kind, Reason, State, Webhook
from penstockd.webhooks.outcomes import attempt_of, judge
from penstockd.webhooks.queue import Result, claim
from penstockd.webhooks.schedule import now
from penstockd.webhooks.search import read_deliveries
from penstockd.webhooks.sender import Reply
from penstockd.webhooks.settling import Settling
from penstockd.webhooks.signing import Signer

MAX_DELIVERIES = 100
MAX_WAIT = timedelta(seconds=20)
#: What is not acknowledged in this time comes again.
LEASE = timedelta(seconds=60)
#: How often a call that waits looks, in seconds.
_LOOK = 0.2

_RETURN = """
UPDATE hub.webhook_delivery SET state = 'PENDING'
WHERE webhook_id = $1 AND state = 'SENDING' AND next_time <= $2
"""
_LEND = "UPDATE hub.webhook_delivery SET next_time = $2 WHERE delivery_id = ANY ($1)"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A message as it would be posted."""

    delivery_id: str
    event_type: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: the status of the reply, 0 if it could not be posted."""

    delivery_id: str
    status: int
    latency: timedelta
    response_head: str


async def pull_deliveries(
    hub: Hub, call: Call, webhook_id: str, most: int, wait: timedelta
) -> list[Pulled]:
    """Messages that are due, after a while if there are none at once.

    Raises WebhookNotFound, WebhookKindUnfit, and PermissionDenied also for administrators who are
    not the owner.
    """
    writer(call)
    most = min(max(most or 10, 1), MAX_DELIVERIES)
    deadline = time.monotonic() + min(wait, MAX_WAIT).total_seconds()
    while True:
        pulled = await hub.tasks.run(_pull(hub, call, webhook_id, most))
        if pulled or time.monotonic() >= deadline:
            call.entry.row_count = len(pulled)
            return pulled
        await asyncio.sleep(_LOOK)


async def _pull(hub: Hub, call: Call, webhook_id: str, most: int) -> list[Pulled]:
    policy = hub.policy.current
    async with hub.database.transaction() as connection:
        webhook = await touched(hub, call, connection, webhook_id)
        if webhook.consumer_id != call.entry.consumer_id:
            raise PermissionDenied("only the owner pulls: messages are made through its View")
        endpoint = await _endpoint(hub, connection, webhook)
        await connection.execute(
            "UPDATE hub.webhook SET expire_time = $2 WHERE webhook_id = $1",
            webhook_id,
            now() + timedelta(seconds=LISTEN_SECONDS),
        )
        if webhook.state is not State.ACTIVE:
            return []
        await connection.execute(_RETURN, webhook_id, now())
        taken = await claim(connection, {webhook_id: most}, now())
        if not taken:
            return []
        await connection.execute(_LEND, [d.delivery_id for d in taken], now() + LEASE)
        made, owners = await composer(hub, connection)
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
    return [_pulled(endpoint, each) for each in composed]


def _pulled(endpoint: Endpoint, composed: Composed) -> Pulled:
    delivery, message = composed.delivery, composed.message
    signed = endpoint.signer.sign(delivery.delivery_id, now(), message.body)
    headers = {**endpoint.webhook.headers, **message.headers, **signed}
    return Pulled(delivery.delivery_id, delivery.event_type, headers, message.body)


async def acknowledge_deliveries(
    hub: Hub, call: Call, webhook_id: str, outcomes: Sequence[Outcome]
) -> None:
    """Settle messages that were pulled; those that were not are passed over.

    Raises PermissionDenied, WebhookNotFound, WebhookKindUnfit.
    """
    by_id = {o.delivery_id: o for o in outcomes[:MAX_DELIVERIES]}

    async def acknowledge(connection: Connection) -> None:
        webhook = await touched(hub, call, connection, webhook_id)
        endpoint = await _endpoint(hub, connection, webhook)
        taken = await read_deliveries(connection, webhook_id, list(by_id), sending=True)
        results = []
        for delivery in taken:
            reply = _reply(by_id[delivery.delivery_id])
            attempt = attempt_of(reply, now(), {}, "(forwarded)", 0)
            schedule = webhook.options.schedule
            results.append(judge(delivery, schedule, reply, attempt, now(), lambda: 0.5))
        if results:
            settling = Settling(hub.webhooks.seal, now)
            await settling.write(connection, results, {webhook_id: endpoint})
        call.entry.row_count = len(results)

    await changed(hub, call, acknowledge)


async def _endpoint(hub: Hub, connection: Connection, webhook: Webhook) -> Endpoint:
    if webhook.kind is not Kind.LISTEN:
        raise WebhookKindUnfit("only webhooks of kind LISTEN are pulled from")
    secrets = await read_secrets(connection, webhook.webhook_id, hub.webhooks.seal)
    return Endpoint(webhook, tuple(secrets), Signer(secrets))


def _reply(outcome: Outcome) -> Reply:
    """What a command says it got, as if the hub had posted itself."""
    status = outcome.status or None
    reason = ""
    if status is None:
        reason = Reason.FORWARD_FAILED.value
    elif status == 410:
        reason = Reason.GONE.value
    elif not 200 <= status < 300:
        reason = Reason.STATUS.value
    latency = max(0.0, outcome.latency.total_seconds())
    head = outcome.response_head[:4096]
    return Reply(latency, status, reason, head)
