"""ListConsumers: all consumers, by id."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.admin import StoredConsumer, read_consumers
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission


async def list_consumers(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[StoredConsumer], str, int]:
    """A page of consumers, the token of the next page, and the policy revision."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub.page_tokens, call, "consumers", page_size, page_token)
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await read_consumers(connection, paging.after(""), paging.limit)
    return *paging.cut(found, lambda c: c.consumer.consumer_id), revision
