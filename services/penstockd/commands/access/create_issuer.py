"""CreateIssuer: the worker that stores a new issuer accepts its tokens at once."""

from __future__ import annotations

from penstockd.access.issuers import change_issuer, store_issuer
from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import load_issuers
from penstockd.calls import Call
from penstockd.errors import RecordExists
from penstockd.hub import Hub
from penstockd.store.database import Connection


async def create_issuer(hub: Hub, call: Call, issuer: Issuer) -> Issuer:
    """A new issuer. Raises PermissionDenied without access.write, ValueInvalid, RecordExists."""

    async def create(connection: Connection) -> Issuer:
        stored = await load_issuers(connection)
        if any(issuer.issuer_id == s.issuer_id or issuer.issuer == s.issuer for s in stored):
            names = f"'{issuer.issuer_id}' or '{issuer.issuer}'"
            raise RecordExists(f"an issuer {names} exists already")
        return await store_issuer(hub, call, connection, issuer)

    return await change_issuer(hub, call, issuer.issuer_id, create)
