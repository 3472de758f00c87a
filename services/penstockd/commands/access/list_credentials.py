"""ListCredentials: the credentials of a consumer, without their secrets."""

from __future__ import annotations

from penstockd.access.stored import find_consumer
from penstockd.auth.credentials import StoredCredential, read_credentials
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission


async def list_credentials(
    hub: Hub, call: Call, consumer_id: str, page_size: int, page_token: str
) -> tuple[list[StoredCredential], str]:
    """A page of a consumer's credentials, newest first, and the token of the next page."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"consumers/{consumer_id}"
    what = f"consumers/{consumer_id}/credentials"
    paging = Paging(hub.page_tokens, call, what, page_size, page_token)
    after = (paging.position[0], paging.position[1]) if paging.position else None
    async with hub.database.connection() as connection:
        await find_consumer(connection, consumer_id)
        found = await read_credentials(connection, consumer_id, after, paging.limit)
    return paging.cut(found, lambda c: (c.create_time, c.credential_id))
