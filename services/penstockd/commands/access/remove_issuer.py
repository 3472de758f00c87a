"""DeleteIssuer: the worker that deletes an issuer refuses its tokens at once."""

from __future__ import annotations

from penstockd.access.issuers import change_issuer
from penstockd.access.stored import find_issuer
from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import delete_issuer
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection


async def remove_issuer(hub: Hub, call: Call, issuer_id: str) -> None:
    """Delete an issuer. Raises PermissionDenied without access.write, RecordNotFound."""

    async def remove(connection: Connection) -> Issuer:
        issuer = await find_issuer(connection, issuer_id)
        await delete_issuer(connection, issuer_id)
        return issuer

    await change_issuer(hub, call, issuer_id, remove)
