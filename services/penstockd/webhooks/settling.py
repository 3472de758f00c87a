"""Settles claimed deliveries, and applies the consequences for their endpoints and owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog

from penstockd.catalog.scalars import timestamp_text
from penstockd.keyring import Seal
from penstockd.observe.metrics import find_counter
from penstockd.store.cursor import Cursor, read_extent
from penstockd.store.database import Connection
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import (
    Endpoint,
    lock_known,
    read_webhook,
    set_failing,
    set_state,
)
from penstockd.webhooks.model import (
    Cause,
    Chance,
    Clock,
    Delivery,
    DeliveryState,
    Reason,
    State,
    Webhook,
    next_time,
)
from penstockd.webhooks.queue import (
    Attempt,
    Draft,
    SendResult,
    bury_deliveries,
    put_deliveries,
    settle_results,
)
from penstockd.webhooks.replies import Reply

#: The database has gone back in time: messages sent to a receiver may be undone.
UNDONE = "changes.undone"

#: The log no longer has changes that had not been queued for a receiver.
SKIPPED = "changes.skipped"

#: An endpoint that has failed for this long without a delivery is disabled.
DISABLE_AFTER = timedelta(days=5)
#: Percentages of that time after which the owner is warned.
WARNINGS = (50, 70, 90)
#: Statuses whose Retry-After concerns the receiver, not the one message.
_BUSY = (429, 503)
FAILING = "webhook.failing"
DISABLED = "webhook.disabled"
PAUSED = "webhook.paused"
_HEARERS = """
SELECT webhook_id FROM hub.webhook
WHERE consumer_id = $1 AND webhook_id <> $2 AND state = 'ACTIVE' AND (options->>'notices')::boolean
"""

_log = structlog.get_logger(__name__)


async def keep_notice(
    connection: Connection, webhook: Webhook, kind: str, content: Mapping[str, Any], at: datetime
) -> None:
    """Store a notice for the owner of a webhook, to be listed."""
    await connection.execute(
        "INSERT INTO hub.webhook_notice (consumer_id, webhook_id, type, data, create_time)"
        " VALUES ($1, $2, $3, $4, $5)",
        webhook.consumer_id,
        webhook.webhook_id,
        kind,
        orjson.dumps(content).decode(),
        at,
    )


async def tell_undone(
    connection: Connection, endpoints: Sequence[Endpoint], places: Places, at: datetime
) -> None:
    """Notify every receiver once that the database has gone back in time.

    The message has the epoch and a cursor: data read again at or after this cursor contains nothing
    that was undone, and changes continue from there.
    """
    cursor = (await read_extent(connection)).newest
    epoch, begin_time = await connection.fetchrow(  # type: ignore[misc]
        "SELECT epoch, begin_time FROM hub.epoch ORDER BY epoch DESC LIMIT 1"
    )
    content = {"epoch": str(epoch), **_describe_repair(places, cursor)}
    for endpoint in endpoints:
        await _tell_receiver(connection, endpoint.webhook, UNDONE, content, begin_time, at)
    await connection.execute("UPDATE hub.webhook_head SET epoch = $1", epoch)


async def tell_skipped(
    connection: Connection,
    webhook: Webhook,
    places: Places,
    after: int,
    cursor: Cursor,
    at: datetime,
    *,
    replay: bool = False,
) -> None:
    """Notify a receiver that the log no longer has the changes after number ``after`` up to
    ``cursor``: none of them was queued, or none of a ``replay``.

    Data read again at or after the cursor contains all of them, and changes continue from there.
    """
    _log.error(
        "webhook_changes_skipped",
        webhook=webhook.webhook_id,
        after=after,
        upto=cursor.number,
        replay=replay,
    )
    content = {
        "afterRevision": str(places.sequences.sequence(after)),
        "replay": replay,
        **_describe_repair(places, cursor),
    }
    await _tell_receiver(connection, webhook, SKIPPED, content, at, at)


def _describe_repair(places: Places, cursor: Cursor) -> dict[str, Any]:
    """From where on a receiver's data is right again, and what it should do."""
    return {
        "revision": str(places.sequences.sequence(cursor.number)),
        "cursor": places.seal(cursor),
        "reconcile": "REPAIR",
    }


async def _tell_receiver(
    connection: Connection,
    webhook: Webhook,
    kind: str,
    content: Mapping[str, Any],
    event_time: datetime,
    at: datetime,
) -> None:
    """Store a notice for the owner of a webhook, and send it to the webhook itself."""
    content = {"webhookId": webhook.webhook_id, **content}
    await keep_notice(connection, webhook, kind, content, at)
    dead = webhook.state is State.DISABLED
    draft = Draft(
        webhook.webhook_id,
        Cause.NOTICE,
        kind,
        event_time,
        notice=content,
        state=DeliveryState.DEAD if dead else DeliveryState.PENDING,
        reason=Reason.ENDPOINT_DISABLED.value if dead else "",
    )
    await put_deliveries(connection, [draft], at)


async def tell_owner(
    connection: Connection, webhook: Webhook, kind: str, data: Mapping[str, Any], at: datetime
) -> None:
    """Store a notice about a webhook for its owner, and send it to the owner's other webhooks that
    want notices."""
    content = {"webhookId": webhook.webhook_id, "url": webhook.url, **data}
    await keep_notice(connection, webhook, kind, content, at)
    rows = await connection.fetch(_HEARERS, webhook.consumer_id, webhook.webhook_id)
    drafts = [Draft(row[0], Cause.NOTICE, kind, at, notice=content) for row in rows]
    if drafts:
        await put_deliveries(connection, drafts, at)


def attempt_of(
    reply: Reply, at: datetime, headers: Mapping[str, str], url: str, body_bytes: int
) -> Attempt:
    """An attempt as it is stored. ``headers`` lacks the values of the owner's own headers."""
    find_counter(
        "penstock_webhook_attempts_total", "delivered" if reply.delivered else "failed"
    ).inc()
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


def judge_attempt(
    delivery: Delivery,
    schedule: Sequence[int],
    reply: Reply,
    attempt: Attempt,
    at: datetime,
    chance: Chance,
) -> SendResult:
    """The result of an attempt that ended at a time: delivered, to be retried, or dead."""
    if reply.delivered:
        return SendResult(delivery, DeliveryState.DELIVERED, attempt=attempt)
    again = None
    if reply.reason != Reason.GONE.value:
        again = next_time(schedule, delivery.tries, at, reply.retry_after, chance)
    state = DeliveryState.DEAD if again is None else DeliveryState.PENDING
    return SendResult(delivery, state, reply.reason, again, attempt)


def rest_of(reply: Reply) -> timedelta | None:
    """The pause that a busy receiver requests."""
    return reply.retry_after if reply.status in _BUSY else None


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """The time since which an endpoint has failed without a break, and the number of warnings so
    far.

    ``warning`` is the percentage to warn of now, if any; ``disable`` is whether it has failed for
    too long.
    """

    failing_time: datetime | None
    warned: int
    warning: int | None = None
    disable: bool = False


def judge_health(webhook: Webhook, results: Sequence[SendResult]) -> EndpointHealth:
    """An endpoint's health after some results, in order of arrival."""
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
    return EndpointHealth(failing, warned, warning, disable)


class Settling:
    """Settles groups of results, each in the caller's transaction."""

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._seal, self._clock = seal, clock
        # Endpoints that were found failing here; the loaded endpoints are not refreshed for that.
        self._failing: set[str] = set()

    async def write(
        self,
        connection: Connection,
        results: Sequence[SendResult],
        endpoints: Mapping[str, Endpoint],
    ) -> None:
        """Settle results, warn owners, and disable endpoints that are gone or failed for days."""
        at = self._clock()
        names = sorted({r.delivery.webhook_id for r in results})
        # Endpoints that were deleted meanwhile took their deliveries with them.
        known = await lock_known(connection, names)
        by_endpoint: dict[str, list[SendResult]] = {}
        for result in results:
            if result.delivery.webhook_id in known:
                by_endpoint.setdefault(result.delivery.webhook_id, []).append(result)
        written: list[SendResult] = []
        ended: list[tuple[Webhook, Reason]] = []
        for name, group in by_endpoint.items():
            webhook = endpoints[name].webhook
            reason = await self._observe(connection, webhook, group, at)
            off = reason is not None or webhook.state is State.DISABLED
            written += [_given_up(r) if off else r for r in group]
            if reason is not None:
                ended.append((webhook, reason))
        if written:
            await settle_results(connection, written, at)
        for webhook, reason in ended:
            await self._disable(connection, webhook, reason, at)

    async def _observe(
        self, connection: Connection, webhook: Webhook, results: Sequence[SendResult], at: datetime
    ) -> Reason | None:
        """Update the endpoint's health; returns the reason to disable it, if any."""
        failed = [r for r in results if r.attempt is not None and not r.attempt.delivered]
        known = webhook.failing_time is not None or webhook.webhook_id in self._failing
        if not failed and not known:
            return None
        # The loaded endpoint may be older than the latest writes.
        stored = await read_webhook(connection, webhook.webhook_id, self._seal, lock=True)
        if stored is None:
            return None
        found: EndpointHealth = judge_health(stored, results)
        if found.failing_time is None:
            self._failing.discard(webhook.webhook_id)
        else:
            self._failing.add(webhook.webhook_id)
        if (found.failing_time, found.warned) != (stored.failing_time, stored.warned):
            await set_failing(connection, webhook.webhook_id, found.failing_time, found.warned)
        if stored.state is State.DISABLED:
            return None
        if any(r.reason == Reason.GONE.value for r in failed):
            return Reason.GONE
        if found.disable:
            return Reason.FAILED_FOR_DAYS
        if found.warning is not None and found.failing_time is not None:
            data = {"failingSince": timestamp_text(found.failing_time), "percent": found.warning}
            await tell_owner(connection, stored, FAILING, data, at)
        return None

    async def _disable(
        self, connection: Connection, webhook: Webhook, reason: Reason, at: datetime
    ) -> None:
        _log.warning("webhook_disabled", webhook=webhook.webhook_id, reason=reason.value)
        await set_state(connection, webhook.webhook_id, State.DISABLED, reason.value)
        await bury_deliveries(connection, webhook.webhook_id, Reason.ENDPOINT_DISABLED, at)
        await tell_owner(connection, webhook, DISABLED, {"reason": reason.value}, at)


def _given_up(result: SendResult) -> SendResult:
    """A result of a disabled endpoint, which is not tried again."""
    if result.state is not DeliveryState.PENDING:
        return result
    reason = Reason.ENDPOINT_DISABLED.value
    return replace(result, state=DeliveryState.DEAD, reason=reason, next_time=None)
