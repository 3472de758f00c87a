"""The keys that sign the hub's tokens: shown and replaced."""

from __future__ import annotations

from penstockd.auth.keys import SigningKeys
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


def list_signing_keys(hub: Hub, call: Call) -> SigningKeys:
    """The keys in force. Raises PermissionDenied without access.read."""
    call.require(Permission.ACCESS_READ)
    call.entry.row_count = len(hub.tokens.keys.all)
    return hub.tokens.keys


async def rotate_signing_keys(hub: Hub, call: Call, *, now: bool) -> SigningKeys:
    """Let another key sign, in a minute or ``now`` (see ``auth.keys``); returns the keys then.

    Raises PermissionDenied without access.write.
    """
    call.require(Permission.ACCESS_WRITE)
    call.asked(now=now)

    async def run() -> None:
        async with call.writing(hub.database.transaction()) as connection:
            call.entry.record_key = await hub.trust.rotate(connection, now=now)
            await call.audit_within(connection, 1)
        await hub.policy.refresh()

    await hub.tasks.run(run())
    return hub.tokens.keys
