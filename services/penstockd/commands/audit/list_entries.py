"""ListEntries: what was done with the hub, newest first."""

from __future__ import annotations

from penstockd.audit.search import Found, Search, Span, find_entries
from penstockd.audit.stored_archives import ArchivedDays, find_archived
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission


async def list_entries(
    hub: Hub, call: Call, filter: str, span: Span, size: int, token: str
) -> tuple[list[Found], str, ArchivedDays | None]:
    """A page of entries, the token of the next page ("" on the last page), and the archived days of
    the time span.

    Raises PermissionDenied, FilterInvalid, FieldUnknown, ValueInvalid, PageTokenInvalid.
    """
    call.require(Permission.AUDIT_READ)
    call.asked(filter=filter, time=str(span))
    span.check()
    paging = Paging(hub.page_tokens, call, f"audit/entries\n{span}\n{filter}", size, token)
    search = Search(filter, span.start, span.end)
    async with hub.database.connection() as connection:
        found = await find_entries(connection, search, paging.limit, paging.after(None))
        archived = await find_archived(connection, *span.days)
    return *paging.cut(found, lambda f: f.values["entry_id"]), archived
