"""AcknowledgeDeliveries: the outcomes of messages that were pulled."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.model import read_clock
from penstockd.webhooks.pulling import MAX_DELIVERIES, Outcome, judge_outcome, listening_endpoint
from penstockd.webhooks.search import read_deliveries
from penstockd.webhooks.settling import Settling


async def acknowledge_deliveries(
    hub: Hub, call: Call, webhook_id: str, outcomes: Sequence[Outcome]
) -> None:
    """Settle messages that were pulled; messages that were not pulled are ignored.

    Raises PermissionDenied, WebhookNotFound, WebhookKindUnfit.
    """
    by_id = {o.delivery_id: o for o in outcomes[:MAX_DELIVERIES]}

    async def acknowledge(connection: Connection) -> None:
        webhook = await hub.webhooks.touch(call, connection, webhook_id)
        endpoint = await listening_endpoint(connection, webhook, hub.webhooks.seal)
        taken = await read_deliveries(connection, webhook_id, list(by_id), sending=True)
        results = [judge_outcome(webhook, d, by_id[d.delivery_id]) for d in taken]
        if results:
            settling = Settling(hub.webhooks.seal, read_clock)
            await settling.write(connection, results, {webhook_id: endpoint})
            # Deliveries that waited behind these are free now, and some of these may be due again.
            await ring_everywhere(hub.announcements, connection, webhook_line(webhook_id))
        call.entry.row_count = len(results)

    await hub.webhooks.change(call, acknowledge)
