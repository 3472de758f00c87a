"""Writes what became of claimed deliveries, and what follows from that for their endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Endpoint, lock_known, read_webhook, set_failing, set_state
from penstockd.webhooks.model import Cause, DeliveryState, Reason, State, Webhook
from penstockd.webhooks.notices import keep_notice
from penstockd.webhooks.outcomes import Health, health
from penstockd.webhooks.queue import Draft, Result, bury, put_deliveries, settle
from penstockd.webhooks.records import time_text
from penstockd.webhooks.schedule import Clock
from penstockd.webhooks.signing import Seal

FAILING = "webhook.failing"
DISABLED = "webhook.disabled"

_HEARERS = """
SELECT webhook_id FROM hub.webhook
WHERE consumer_id = $1 AND webhook_id <> $2 AND state = 'ACTIVE' AND (options->>'notices')::boolean
"""

_log = structlog.get_logger(__name__)


class Settling:
    """Settles groups of results, each within a transaction of the caller's."""

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._seal, self._clock = seal, clock
        # Endpoints whose failing was noted here: they are not read anew for that.
        self._failing: set[str] = set()

    async def write(
        self,
        connection: Connection,
        results: Sequence[Result],
        endpoints: Mapping[str, Endpoint],
    ) -> None:
        """Settle results, warn owners, and disable endpoints that are gone or fail for days."""
        at = self._clock()
        names = sorted({r.delivery.webhook_id for r in results})
        # Those that were deleted meanwhile have taken their deliveries along.
        known = await lock_known(connection, names)
        by_endpoint: dict[str, list[Result]] = {}
        for result in results:
            if result.delivery.webhook_id in known:
                by_endpoint.setdefault(result.delivery.webhook_id, []).append(result)
        written: list[Result] = []
        ended: list[tuple[Webhook, Reason]] = []
        for name, group in by_endpoint.items():
            webhook = endpoints[name].webhook
            reason = await self._observe(connection, webhook, group, at)
            off = reason is not None or webhook.state is State.DISABLED
            written += [_given_up(r) if off else r for r in group]
            if reason is not None:
                ended.append((webhook, reason))
        if written:
            await settle(connection, written, at)
        for webhook, reason in ended:
            await self._disable(connection, webhook, reason, at)

    async def _observe(
        self, connection: Connection, webhook: Webhook, results: Sequence[Result], at: datetime
    ) -> Reason | None:
        """Keep the endpoint's health up to date; why it is to be disabled, if it is."""
        failed = [r for r in results if r.attempt is not None and not r.attempt.delivered]
        known = webhook.failing_time is not None or webhook.webhook_id in self._failing
        if not failed and not known:
            return None
        # What was read with the endpoint may be older than what was written since.
        stored = await read_webhook(connection, webhook.webhook_id, self._seal, lock=True)
        if stored is None:
            return None
        found: Health = health(stored, results)
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
            data = {"failingSince": time_text(found.failing_time), "percent": found.warning}
            await self._tell(connection, stored, FAILING, data, at)
        return None

    async def _disable(
        self, connection: Connection, webhook: Webhook, reason: Reason, at: datetime
    ) -> None:
        _log.warning("webhook_disabled", webhook=webhook.webhook_id, reason=reason.value)
        await set_state(connection, webhook.webhook_id, State.DISABLED, reason.value)
        await bury(connection, webhook.webhook_id, Reason.ENDPOINT_DISABLED, at)
        await self._tell(connection, webhook, DISABLED, {"reason": reason.value}, at)

    async def _tell(
        self,
        connection: Connection,
        webhook: Webhook,
        kind: str,
        data: Mapping[str, Any],
        at: datetime,
    ) -> None:
        """A notice for the owner: kept, and sent to its other endpoints that want such."""
        content = {"webhookId": webhook.webhook_id, "url": webhook.url, **data}
        await keep_notice(connection, webhook, kind, content, at)
        rows = await connection.fetch(_HEARERS, webhook.consumer_id, webhook.webhook_id)
        drafts = [Draft(row[0], Cause.NOTICE, kind, at, notice=content) for row in rows]
        if drafts:
            await put_deliveries(connection, drafts, at)


def _given_up(result: Result) -> Result:
    """A result of an endpoint that is disabled: nothing of it is tried again."""
    if result.state is not DeliveryState.PENDING:
        return result
    reason = Reason.ENDPOINT_DISABLED.value
    return replace(result, state=DeliveryState.DEAD, reason=reason, next_time=None)
