"""A changed webhook."""

from __future__ import annotations

from collections.abc import Callable

from penstockd.commands.context import Call, Hub
from penstockd.commands.webhooks.asking import changed, check_reach, touched
from penstockd.commands.webhooks.checks import check
from penstockd.commands.webhooks.list_webhooks import Stored, stored
from penstockd.store.database import Connection
from penstockd.webhooks.composer import place_of
from penstockd.webhooks.endpoints import put_webhook
from penstockd.webhooks.model import Webhook


async def update_webhook(
    hub: Hub, call: Call, webhook_id: str, change: Callable[[Webhook], Webhook]
) -> Stored:
    """What ``change`` makes of a webhook.

    Raises PermissionDenied, WebhookNotFound, and what is wrong with it (``checks``).
    """

    async def update(connection: Connection) -> Stored:
        webhook = change(await touched(hub, call, connection, webhook_id, lock=True))
        check(hub, call, webhook)
        check_reach(hub, call, webhook)
        call.asked(url=place_of(webhook.url), datasets=[s.dataset for s in webhook.selections])
        await put_webhook(connection, webhook, hub.webhooks.seal)
        return await stored(hub, connection, await touched(hub, call, connection, webhook_id))

    return await changed(hub, call, update)
