"""ListEntries: what was done with the hub, the newest first."""

from __future__ import annotations

from penstockd.audit.search import Found, Search, find
from penstockd.calls import Call
from penstockd.commands.audit.asking import Span
from penstockd.commands.list_records import page_size
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.query import query_digest


async def list_entries(
    hub: Hub, call: Call, filter: str, span: Span, size: int, token: str
) -> tuple[list[Found], str]:
    """A page of entries, and the token of the next, "" on the last.

    Raises PermissionDenied, FilterInvalid, FieldUnknown, ValueInvalid, PageTokenInvalid.
    """
    call.require(Permission.AUDIT_READ)
    call.asked(filter=filter, time=str(span))
    span.check()
    limit = page_size(size)
    bound = query_digest(
        dataset="/audit/entries",
        filter=filter,
        order_by=str(span),
        fields="",
        scope=call.entry.consumer_id or "",
    )
    before = hub.page_tokens.read(token, bound)[0] if token else None
    async with hub.database.connection() as connection:
        found = await find(connection, Search(filter, span.start, span.end), limit + 1, before)
    more = len(found) > limit
    found = found[:limit]
    call.entry.row_count = len(found)
    return found, hub.page_tokens.issue(bound, (found[-1].values["entry_id"],)) if more else ""
