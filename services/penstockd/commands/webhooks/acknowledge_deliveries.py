"""AcknowledgeDeliveries: what became of messages that were pulled."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import changed, touched
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.outcomes import attempt_of, judge
from penstockd.webhooks.pulled import (
    MAX_DELIVERIES,
    Outcome,
    listening_endpoint,
    reply_of,
)
from penstockd.webhooks.schedule import now
from penstockd.webhooks.search import read_deliveries
from penstockd.webhooks.settling import Settling


async def acknowledge_deliveries(
    hub: Hub, call: Call, webhook_id: str, outcomes: Sequence[Outcome]
) -> None:
    """Settle messages that were pulled; those that were not are passed over.

    Raises PermissionDenied, WebhookNotFound, WebhookKindUnfit.
    """
    by_id = {o.delivery_id: o for o in outcomes[:MAX_DELIVERIES]}

    async def acknowledge(connection: Connection) -> None:
        webhook = await touched(hub, call, connection, webhook_id)
        endpoint = await listening_endpoint(connection, webhook, hub.webhooks.seal)
        taken = await read_deliveries(connection, webhook_id, list(by_id), sending=True)
        results = []
        for delivery in taken:
            reply = reply_of(by_id[delivery.delivery_id])
            attempt = attempt_of(reply, now(), {}, "(forwarded)", 0)
            schedule = webhook.options.schedule
            results.append(judge(delivery, schedule, reply, attempt, now(), lambda: 0.5))
        if results:
            settling = Settling(hub.webhooks.seal, now)
            await settling.write(connection, results, {webhook_id: endpoint})
            # Those that waited behind these are free, and others may be due again.
            await ring_everywhere(hub.announcements, connection, webhook_line(webhook_id))
        call.entry.row_count = len(results)

    await changed(hub, call, acknowledge)
