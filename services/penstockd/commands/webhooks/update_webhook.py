"""A changed webhook. At another origin it is another receiver, which is to know no secret of the
one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import changed, check_reach, touched
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.checks import check_webhook
from penstockd.webhooks.composer import place_of
from penstockd.webhooks.endpoints import drop_secrets, put_secret, put_webhook, read_secrets
from penstockd.webhooks.model import Scheme, Webhook
from penstockd.webhooks.schedule import now
from penstockd.webhooks.signing import Secret, new_secret
from penstockd.webhooks.stored import Stored, read_stored

_PORTS = {"https": 443, "http": 80}


async def update_webhook(
    hub: Hub, call: Call, webhook_id: str, change: Callable[[Webhook], Webhook]
) -> tuple[Stored, Secret | None]:
    """What ``change`` makes of a webhook, and its new secret if its URL has another origin.

    Then headers that ``change`` does not give anew are dropped, and the secrets of before, too.
    Raises PermissionDenied, WebhookNotFound, and what is wrong with it (``checks``).
    """

    async def update(connection: Connection) -> tuple[Stored, Secret | None]:
        before = await touched(hub, call, connection, webhook_id, lock=True)
        webhook, secret = change(before), None
        moved = origin(before.url) != origin(webhook.url)
        if moved:
            webhook = change(replace(before, headers={}))
        check_webhook(call.policy, hub.catalog, hub.webhooks.guard, webhook)
        check_reach(hub, call, webhook)
        call.asked(url=place_of(webhook.url), datasets=[s.dataset for s in webhook.selections])
        await put_webhook(connection, webhook, hub.webhooks.seal)
        if moved:
            secret = await _another_secret(hub, connection, webhook_id)
        found = await touched(hub, call, connection, webhook_id)
        return await read_stored(connection, hub.webhooks.seal, found), secret

    return await changed(hub, call, update)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL; what they are in full, and in lower case."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # it is refused by ``checks``
        port = None
    return parts.scheme, parts.hostname or "", port or _PORTS.get(parts.scheme)


async def _another_secret(hub: Hub, connection: Connection, webhook_id: str) -> Secret:
    """A secret of the same kind, in the place of all that there are."""
    known = await read_secrets(connection, webhook_id, hub.webhooks.seal)
    secret = new_secret(known[0].scheme if known else Scheme.HMAC, now())
    await drop_secrets(connection, webhook_id)
    await put_secret(connection, webhook_id, secret, hub.webhooks.seal)
    return secret
