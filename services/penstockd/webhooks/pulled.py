"""Messages that a developer's machine pulls, and what it says became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from penstockd.errors import WebhookKindUnfit
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Endpoint, read_secrets
from penstockd.webhooks.lanes import Composed
from penstockd.webhooks.model import Delivery, Kind, Reason, Webhook
from penstockd.webhooks.outcomes import attempt_of, judge
from penstockd.webhooks.queue import Result
from penstockd.webhooks.schedule import now
from penstockd.webhooks.sender import Reply
from penstockd.webhooks.signing import Seal, Signer

#: Messages that one call pulls or acknowledges.
MAX_DELIVERIES = 100


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


async def listening_endpoint(connection: Connection, webhook: Webhook, seal: Seal) -> Endpoint:
    """The endpoint of a webhook that is pulled from. Raises WebhookKindUnfit."""
    if webhook.kind is not Kind.LISTEN:
        raise WebhookKindUnfit("only webhooks of kind LISTEN are pulled from")
    secrets = await read_secrets(connection, webhook.webhook_id, seal)
    return Endpoint(webhook, tuple(secrets), Signer(secrets))


def as_posted(endpoint: Endpoint, composed: Composed) -> Pulled:
    """A message with the headers that it would be posted with."""
    delivery, message = composed.delivery, composed.message
    signed = endpoint.signer.sign(delivery.delivery_id, now(), message.body)
    headers = {**endpoint.webhook.headers, **message.headers, **signed}
    return Pulled(delivery.delivery_id, delivery.event_type, headers, message.body)


def judge_outcome(webhook: Webhook, delivery: Delivery, outcome: Outcome) -> Result:
    """What becomes of a delivery that was pulled, as if the hub had posted it."""
    reply = _reply_of(outcome)
    attempt = attempt_of(reply, now(), {}, "(forwarded)", 0)
    return judge(delivery, webhook.options.schedule, reply, attempt, now(), lambda: 0.5)


def _reply_of(outcome: Outcome) -> Reply:
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
