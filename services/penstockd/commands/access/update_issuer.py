"""UpdateIssuer: a change takes effect at once on the worker that stores it."""

from __future__ import annotations

from collections.abc import Callable

from penstockd.access.issuers import change_issuer, store_issuer
from penstockd.access.stored import find_issuer
from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import load_issuers
from penstockd.calls import Call
from penstockd.errors import RecordExists
from penstockd.hub import Hub
from penstockd.store.database import Connection


async def update_issuer(
    hub: Hub, call: Call, issuer_id: str, change: Callable[[Issuer], Issuer]
) -> Issuer:
    """Store the issuer that ``change`` returns; its id stays.

    Raises PermissionDenied without access.write, RecordNotFound, ValueInvalid, RecordExists.
    """

    async def update(connection: Connection) -> Issuer:
        issuer = change(await find_issuer(connection, issuer_id))
        for other in await load_issuers(connection):
            if other.issuer == issuer.issuer and other.issuer_id != issuer_id:
                raise RecordExists(f"'{issuer.issuer}' is the issuer '{other.issuer_id}' already")
        return await store_issuer(hub, call, connection, issuer)

    return await change_issuer(hub, call, issuer_id, update)
