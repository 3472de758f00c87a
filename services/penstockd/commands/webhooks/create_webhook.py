"""CreateWebhook: a new webhook, with its first secret."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.store.database import Connection
from penstockd.store.log import last_number
from penstockd.webhooks.desk import TO_WRITE
from penstockd.webhooks.endpoints import (
    LISTEN_SECONDS,
    Stored,
    count_webhooks,
    lock_intake,
    put_secret,
    put_webhook,
)
from penstockd.webhooks.errors import TooManyWebhooks
from penstockd.webhooks.messages import place_of
from penstockd.webhooks.model import Scheme, Webhook, WebhookKind, read_clock
from penstockd.webhooks.owners import brought_claims, check_webhook, hold_chosen_shapes
from penstockd.webhooks.signing import Secret, new_secret

#: The most webhooks that one consumer can have.
MAX_WEBHOOKS = 1000


async def create_webhook(
    hub: Hub, call: Call, draft: Webhook, scheme: Scheme | None
) -> tuple[Stored, Secret]:
    """Create a webhook from a draft, for the caller or, by administrators, for another consumer.

    Its secret is for HMAC unless ``scheme`` says otherwise. Raises PermissionDenied,
    TooManyWebhooks, ShapeNotFound, and what ``check_webhook`` raises.
    """
    call.require(*TO_WRITE)
    desk, principal = hub.webhooks, call.principal
    owner = draft.consumer_id or principal.consumer_id
    if owner != principal.consumer_id:
        call.require(Permission.ACCESS_WRITE)
    webhook = replace(
        draft,
        webhook_id=f"wh_{secrets.token_hex(10)}",
        consumer_id=owner,
        scopes=principal.scopes,
        claims=brought_claims(call.policy, principal) if owner == principal.consumer_id else {},
    )
    if webhook.kind is WebhookKind.LISTEN:
        webhook = replace(webhook, expire_time=read_clock() + timedelta(seconds=LISTEN_SECONDS))
    secret = new_secret(scheme or Scheme.HMAC, read_clock())

    async def create(connection: Connection) -> Stored:
        checked = await hold_chosen_shapes(connection, webhook)
        check_webhook(call.policy, hub.catalog, desk.guard, checked)
        # The webhook begins at the current end of the log.
        await lock_intake(connection)
        if await count_webhooks(connection, owner) >= MAX_WEBHOOKS:
            raise TooManyWebhooks(f"'{owner}' has {MAX_WEBHOOKS} webhooks already")
        start = await last_number(connection)
        await put_webhook(connection, replace(webhook, start_number=start), desk.seal)
        await put_secret(connection, webhook.webhook_id, secret, desk.seal)
        call.asked(url=place_of(webhook.url), datasets=[s.dataset for s in webhook.selections])
        return await desk.show(call, connection, webhook.webhook_id)

    return await desk.change(call, create), secret
