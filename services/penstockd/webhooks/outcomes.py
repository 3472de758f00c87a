"""What becomes of a delivery after an attempt, and of an endpoint after many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstockd.webhooks.model import Delivery, DeliveryState, Reason, Webhook
from penstockd.webhooks.queue import Attempt, Result
from penstockd.webhooks.schedule import Chance, next_time
from penstockd.webhooks.sender import Reply

#: After so long without a delivery taken, an endpoint is disabled.
DISABLE_AFTER = timedelta(days=5)
#: Parts of that time after which the owner is warned, in percent.
WARNINGS = (50, 70, 90)
#: Statuses whose Retry-After is about the receiver, not the one message.
_BUSY = (429, 503)


def attempt_of(
    reply: Reply, at: datetime, headers: Mapping[str, str], url: str, body_bytes: int
) -> Attempt:
    """What is kept of an attempt. Values of the owner's own headers are not in ``headers``."""
    lines = [f"POST {url}", *(f"{name}: {value}" for name, value in headers.items())]
    return Attempt(
        start_time=at,
        latency_ms=reply.latency * 1000,
        delivered=reply.delivered,
        reason=reply.reason,
        address=reply.address,
        request_head="\n".join(lines),
        body_bytes=body_bytes,
        status=reply.status,
        reply_head=reply.head,
        reply_body=reply.body,
    )


def judge(
    delivery: Delivery,
    schedule: Sequence[int],
    reply: Reply,
    attempt: Attempt,
    at: datetime,
    chance: Chance,
) -> Result:
    """Delivered, to be tried again, or dead, of an attempt that ended at a time."""
    if reply.delivered:
        return Result(delivery, DeliveryState.DELIVERED, attempt=attempt)
    again = None
    if reply.reason != Reason.GONE.value:
        again = next_time(schedule, delivery.tries, at, reply.retry_after, chance)
    state = DeliveryState.DEAD if again is None else DeliveryState.PENDING
    return Result(delivery, state, reply.reason, again, attempt)


def rest_of(reply: Reply) -> timedelta | None:
    """How long a receiver that is busy asks to be left alone."""
    return reply.retry_after if reply.status in _BUSY else None


@dataclass(frozen=True, slots=True)
class Health:
    """Since when an endpoint has failed without a break, and how many warnings that was worth.

    ``warning`` is the percentage to warn of now, if any; ``disable`` whether it has failed for too
    long.
    """

    failing_time: datetime | None
    warned: int
    warning: int | None = None
    disable: bool = False


def health(webhook: Webhook, results: Sequence[Result]) -> Health:
    """An endpoint's health after some results, in the order in which they came."""
    failing, warned, warning, disable = webhook.failing_time, webhook.warned, None, False
    for result in results:
        if result.attempt is None:
            continue
        if result.attempt.delivered:
            failing, warned, warning, disable = None, 0, None, False
            continue
        failing = failing or result.attempt.start_time
        part = (result.attempt.start_time - failing) / DISABLE_AFTER * 100
        due = sum(part >= w for w in WARNINGS)
        if due > warned:
            warned, warning = due, WARNINGS[due - 1]
        disable = part >= 100
    return Health(failing, warned, warning, disable)
