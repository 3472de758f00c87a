"""RotateSecret: a new secret; the old one stays valid for a while."""

from __future__ import annotations

from datetime import timedelta

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.desk import TO_WRITE
from penstockd.webhooks.endpoints import Stored, expire_secrets, put_secret, read_secrets
from penstockd.webhooks.model import Scheme, read_clock
from penstockd.webhooks.signing import Secret, new_secret

#: How long the old secret stays valid beside the new one, by default and at most.
USUAL_OVERLAP, MAX_OVERLAP = timedelta(days=1), timedelta(days=30)


async def rotate_secret(
    hub: Hub, call: Call, webhook_id: str, overlap: timedelta, scheme: Scheme | None
) -> tuple[Stored, Secret]:
    """A new secret, of the same kind as the newest unless ``scheme`` says otherwise.

    Raises PermissionDenied, WebhookNotFound, ValueInvalid.
    """
    call.require(*TO_WRITE)
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise ValueInvalid.of("overlap", "must be 0 s to 30 days")
    seal = hub.webhooks.seal

    async def rotate(connection: Connection) -> tuple[Stored, Secret]:
        webhook = await hub.webhooks.touch(call, connection, webhook_id, lock=True)
        known = await read_secrets(connection, webhook_id, seal)
        kind = scheme or (known[0].scheme if known else Scheme.HMAC)
        secret = new_secret(kind, read_clock())
        await expire_secrets(connection, webhook_id, read_clock() + overlap)
        await put_secret(connection, webhook_id, secret, seal)
        return await hub.webhooks.describe(call, connection, webhook), secret

    return await hub.webhooks.change(call, rotate)
