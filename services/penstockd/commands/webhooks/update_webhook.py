"""UpdateWebhook: changes a webhook. Another origin means another receiver, which must not learn
the secrets of the earlier one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Stored, put_webhook, replace_secrets
from penstockd.webhooks.messages import place_of
from penstockd.webhooks.model import Webhook, read_clock
from penstockd.webhooks.owners import check_webhook, hold_chosen_shapes, parse_origin
from penstockd.webhooks.signing import Secret


async def update_webhook(
    hub: Hub, call: Call, webhook_id: str, change: Callable[[Webhook], Webhook]
) -> tuple[Stored, Secret | None]:
    """Store the webhook that ``change`` returns; a URL with another origin gets a new secret.

    In that case, headers that ``change`` does not set again are dropped, and so are the earlier
    secrets. Raises PermissionDenied, WebhookNotFound, ShapeNotFound, and what ``check_webhook``
    raises.
    """
    desk = hub.webhooks

    async def update(connection: Connection) -> tuple[Stored, Secret | None]:
        before = await desk.touch(call, connection, webhook_id, lock=True)
        webhook, secret = change(before), None
        moved = parse_origin(before.url) != parse_origin(webhook.url)
        if moved:
            webhook = change(replace(before, headers={}))
        webhook = await hold_chosen_shapes(connection, webhook)
        check_webhook(call.policy, hub.catalog, desk.guard, webhook)
        desk.check_reach(call, webhook)
        call.asked(url=place_of(webhook.url), datasets=[s.dataset for s in webhook.selections])
        await put_webhook(connection, webhook, desk.seal)
        if moved:
            secret = await replace_secrets(connection, webhook_id, read_clock(), desk.seal)
        return await desk.show(call, connection, webhook_id), secret

    return await desk.change(call, update)
