"""Messages for a developer's machine: pulled by a command there, and acknowledged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import changed, touched, writer
from penstockd.commands.webhooks.composing import composer
from penstockd.commands.webhooks.create_webhook import LISTEN_SECONDS
from penstockd.errors import PermissionDenied, WebhookKindUnfit
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.hub import Hub
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
#: A call that waits looks when its line is rung, and so often even if it is not; and at the most so
#: often. In seconds.
_LOOK, _REST = 5.0, 0.05

_RETURN = """
UPDATE hub.webhook_delivery SET state = 'PENDING'
WHERE webhook_id = $1 AND state = 'SENDING' AND next_time <= $2
"""
_DUE = """
SELECT min(next_time) FROM hub.webhook_delivery
WHERE webhook_id = $1 AND state IN ('PENDING', 'SENDING') AND next_time > $2
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
        due: datetime | None = await connection.fetchval(_DUE, webhook_id, now())
    if due is None:
        return _LOOK
    return min(_LOOK, max(_REST, (due - now()).total_seconds()))


async def _pull(hub: Hub, call: Call, webhook_id: str, most: int) -> list[Pulled]:
    policy = hub.policy.current
    call.renew(policy)
    writer(call)
    async with call.writing(hub.database.transaction()) as connection:
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
            # Those that waited behind these are free, and others may be due again.
            await ring_everywhere(connection, webhook_line(webhook_id))
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
