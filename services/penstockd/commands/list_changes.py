"""ListChanges: the changes after a cursor, for tools that cannot hold a stream."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.poll import MAX_WAIT, USUAL_PAGE, ChangePage, read_page
from penstockd.feed.watching import Standings, Wanted, check_cursor
from penstockd.hub import Hub


async def list_changes(
    hub: Hub, call: Call, wanted: Wanted, cursor: str, wait_seconds: float
) -> ChangePage:
    """The changes after ``cursor``; without one, no changes and the current cursor.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, ShapeNotFound, ShapeUnfit,
    CursorInvalid, CursorExpired, AccessRevoked (while it waited), PolicyStale, TooManyStreams (only
    calls that wait), HubStopping and DatabaseUnavailable.
    """
    source = await wanted.open_source(hub, call, USUAL_PAGE)
    if not 0 <= wait_seconds <= MAX_WAIT:
        raise ValueInvalid.of("wait", f"must be from 0 to {MAX_WAIT:g} s")
    call.asked(cursor=cursor)
    if call.headers_only:
        await check_cursor(hub, source, cursor)
        return ChangePage(b"", cursor, source.view, False, shapes=source.shape_names)
    disclosure = FeedDisclosure(call, source)
    if not cursor:
        head = await hub.feed.head()
        call.entry.row_count = 0
        return ChangePage(b"", hub.places.seal(head), source.view, False, shapes=source.shape_names)
    standings = Standings(hub.policy, call, source)
    with hub.streams.one_more(call.entry.consumer_id or "", waits=wait_seconds > 0):
        page, blocks = await read_page(
            hub.feed, hub.places, source, hub.places.open(cursor), wait_seconds
        )
    if standings.renew() is None:
        # The caller's View changed while it waited: it must ask again.
        call.entry.row_count = 0
        return ChangePage(b"", cursor, source.view, True, shapes=source.shape_names)
    await disclosure.blocks(blocks)
    call.entry.row_count = page.count
    return page
