"""RotateSigningKeys: a new key signs the hub's tokens."""

from __future__ import annotations

from penstockd.auth.keys import SigningKeys
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.store.database import Connection


async def rotate_signing_keys(hub: Hub, call: Call, *, now: bool) -> SigningKeys:
    """Let a new key sign, in a minute or ``now`` (see ``auth.keys``); return the keys after that.

    Raises PermissionDenied without access.write.
    """
    call.require(Permission.ACCESS_WRITE)
    call.asked(now=now)

    async def rotate(connection: Connection) -> None:
        call.entry.record_key = await hub.trust.rotate(connection, now=now)

    await call.write(hub.database.transaction(), rotate, then=hub.policy.refresh)
    return hub.tokens.keys
