"""A new webhook, with its first secret."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import TO_WRITE, changed, touched
from penstockd.errors import TooManyWebhooks
from penstockd.hub import Hub
from penstockd.policy.model import Permission, Principal
from penstockd.store.database import Connection
from penstockd.store.log import last_number
from penstockd.webhooks.checks import check_webhook
from penstockd.webhooks.composer import place_of
from penstockd.webhooks.endpoints import count_webhooks, lock_intake, put_secret, put_webhook
from penstockd.webhooks.model import Kind, Scheme, Webhook
from penstockd.webhooks.schedule import now
from penstockd.webhooks.signing import Secret, new_secret
from penstockd.webhooks.stored import Stored, read_stored

#: Webhooks of one consumer.
MAX_WEBHOOKS = 1000
#: How long one of kind LISTEN stays without being pulled from.
LISTEN_SECONDS = 600


async def create_webhook(
    hub: Hub, call: Call, draft: Webhook, scheme: Scheme
) -> tuple[Stored, Secret]:
    """The webhook of a draft, the caller's own or, by administrators, another consumer's.

    Raises PermissionDenied, TooManyWebhooks, and what is wrong with it (``checks``).
    """
    call.require(*TO_WRITE)
    principal = call.principal
    owner = draft.consumer_id or principal.consumer_id
    if owner != principal.consumer_id:
        call.require(Permission.ACCESS_WRITE)
    webhook = replace(
        draft,
        webhook_id=f"wh_{secrets.token_hex(10)}",
        consumer_id=owner,
        scopes=principal.scopes,
        claims=_brought(call, principal) if owner == principal.consumer_id else {},
    )
    if webhook.kind is Kind.LISTEN:
        webhook = replace(webhook, expire_time=now() + timedelta(seconds=LISTEN_SECONDS))
    check_webhook(call.policy, hub.catalog, hub.webhooks.guard, webhook)
    secret = new_secret(scheme, now())

    async def create(connection: Connection) -> Stored:
        # Where the log ends now is where the webhook begins.
        await lock_intake(connection)
        if await count_webhooks(connection, owner) >= MAX_WEBHOOKS:
            raise TooManyWebhooks(f"'{owner}' has {MAX_WEBHOOKS} webhooks already")
        start = await last_number(connection)
        await put_webhook(connection, replace(webhook, start_number=start), hub.webhooks.seal)
        await put_secret(connection, webhook.webhook_id, secret, hub.webhooks.seal)
        made = await touched(hub, call, connection, webhook.webhook_id)
        call.asked(url=place_of(webhook.url), datasets=[s.dataset for s in webhook.selections])
        return await read_stored(connection, hub.webhooks.seal, made)

    return await changed(hub, call, create), secret


def _brought(call: Call, principal: Principal) -> dict[str, tuple[str, ...]]:
    """The claims that the caller's token has brought, which are not the consumer's own."""
    own = call.policy.consumers[principal.consumer_id].claims
    return {name: values for name, values in principal.claims.items() if own.get(name) != values}
