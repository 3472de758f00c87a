"""ListNotices: the hub's notices to an owner about its webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.search import list_notices as search


async def list_notices(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Mapping[str, Any]], str]:
    """A page of notices and the token of the next page. Raises PermissionDenied."""
    call.require(*TO_READ)
    paging = Paging(hub.page_tokens, call, "webhook-notices", page_size, page_token)
    async with hub.database.connection() as connection:
        rows = await search(connection, call.principal.consumer_id, paging.after(0), paging.limit)
    return paging.cut(rows, lambda n: n["notice_id"])
