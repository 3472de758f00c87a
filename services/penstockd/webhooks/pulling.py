"""Pulls messages for a developer's machine: due deliveries are lent to it for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from penstockd.calls import Call
from penstockd.errors import PermissionDenied
from penstockd.feed.bells import webhook_line
from penstockd.feed.broadcast import Broadcast
from penstockd.keyring import Seal
from penstockd.policy.snapshot import Policy
from penstockd.store.database import Connection, Database
from penstockd.webhooks.desk import TO_WRITE, WebhookDesk
from penstockd.webhooks.endpoints import LISTEN_SECONDS, Endpoint, read_secrets, set_expiry
from penstockd.webhooks.errors import WebhookKindUnfit
from penstockd.webhooks.lanes import choose_within_bytes
from penstockd.webhooks.messages import Composed
from penstockd.webhooks.model import Delivery, Reason, State, Webhook, WebhookKind, read_clock
from penstockd.webhooks.queue import (
    SendResult,
    claim_listed,
    lend_deliveries,
    list_due,
    next_due,
    return_lent,
)
from penstockd.webhooks.replies import Reply
from penstockd.webhooks.settling import Settling, attempt_of, judge_attempt
from penstockd.webhooks.signing import Signer

#: The most messages that one call pulls or acknowledges.
MAX_DELIVERIES = 100

#: The most bytes of records in the messages that one call pulls; a single message may have more.
PULLED_BYTES = 512 * 1024

#: A pulled message that is not acknowledged within this time is due again.
LEASE = timedelta(seconds=60)
#: The longest and the shortest wait between two looks of a waiting call, in seconds. A ring of its
#: line also makes it look.
LOOK, REST = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class Pulled:
    """A message as it would be posted."""

    delivery_id: str
    event_type: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a pulled message: the reply's status, 0 if it could not be posted."""

    delivery_id: str
    status: int
    latency: timedelta
    response_head: str


async def listening_endpoint(connection: Connection, webhook: Webhook, seal: Seal) -> Endpoint:
    """The endpoint of a webhook of kind LISTEN. Raises WebhookKindUnfit for others."""
    if webhook.kind is not WebhookKind.LISTEN:
        raise WebhookKindUnfit("only webhooks of kind LISTEN are pulled from")
    secrets = await read_secrets(connection, webhook.webhook_id, seal)
    return Endpoint(webhook, tuple(secrets), Signer(secrets))


def as_posted(endpoint: Endpoint, composed: Composed) -> Pulled:
    """A message with the headers with which it would be posted."""
    delivery, message = composed.delivery, composed.message
    signed = endpoint.signer.sign(delivery.delivery_id, read_clock(), message.body)
    headers = {**endpoint.webhook.headers, **message.headers, **signed}
    return Pulled(delivery.delivery_id, delivery.event_type, headers, message.body)


def judge_outcome(webhook: Webhook, delivery: Delivery, outcome: Outcome) -> SendResult:
    """The result of a delivery that was pulled, as if the hub had posted it."""
    reply = _reply_of(outcome)
    attempt = attempt_of(reply, read_clock(), {}, "(forwarded)", 0)
    return judge_attempt(
        delivery, webhook.options.schedule, reply, attempt, read_clock(), lambda: 0.5
    )


def _reply_of(outcome: Outcome) -> Reply:
    """The reply that a command reports, as if the hub had posted itself."""
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


class PullOrgans(Protocol):
    """The organs for pulling."""

    @property
    def database(self) -> Database:
        """Stores deliveries."""

    @property
    def policy(self) -> Policy:
        """The current policy."""

    @property
    def feed(self) -> Broadcast:
        """Rings when something may be due."""

    @property
    def webhooks(self) -> WebhookDesk:
        """Finds webhooks and makes messages."""


async def pull_due(organs: PullOrgans, call: Call, webhook_id: str, most: int) -> list[Pulled]:
    """Messages that are due, made under the current policy and lent to the caller.

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
        await set_expiry(connection, webhook_id, read_clock() + timedelta(seconds=LISTEN_SECONDS))
        if webhook.state is not State.ACTIVE:
            return []
        await return_lent(connection, webhook_id, read_clock())
        due = await list_due(connection, {webhook_id: most}, read_clock())
        if not due:
            return []
        taken = await claim_listed(connection, choose_within_bytes(due, PULLED_BYTES))
        await lend_deliveries(connection, taken, read_clock() + LEASE)
        composed, dead = await desk.compose(call, connection, endpoint, taken)
        if dead:
            settling = Settling(desk.seal, read_clock)
            await settling.write(connection, dead, {webhook_id: endpoint})
    return [as_posted(endpoint, each) for each in composed]


async def wait_in_line(
    organs: PullOrgans,
    webhook_id: str,
    seconds: float,
    pull: Callable[[], Awaitable[list[Pulled]]],
) -> list[Pulled]:
    """Messages from ``pull`` as soon as it returns some, or none after ``seconds``.

    Of this process's calls that wait for the same webhook, only the first one looks.
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
    """Seconds until something becomes due without an announcement.

    That is a retry, or a pulled message that was not acknowledged.
    """
    async with database.connection() as connection:
        due = await next_due(connection, webhook_id, read_clock())
    if due is None:
        return LOOK
    return min(LOOK, max(REST, (due - read_clock()).total_seconds()))
