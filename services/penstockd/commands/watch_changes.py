"""Watch: changes as they are committed, after a cursor or after a snapshot of all records."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.feed.reply import FeedReply
from penstockd.feed.stream import MAX_HEARTBEAT, USUAL_BATCH, ChangeStream, Watch
from penstockd.feed.watching import Wanted, open_start
from penstockd.hub import Hub


async def watch_changes(
    hub: Hub, call: Call, wanted: Wanted, watch: Watch, reply: FeedReply
) -> None:
    """Send changes to ``reply`` until the caller goes away.

    Nothing has been sent when PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid,
    ShapeNotFound, CursorInvalid, CursorExpired or TooManyStreams is raised. A later error is also
    written to the stream's last record: ShapeNotFound (it was deleted), ShapeUnfit, AccessChanged,
    ViewChanged, PolicyStale, ClientStalled, CursorExpired, CursorInvalid (the database has gone
    back in time), HubStopping, DatabaseUnavailable.
    """
    source = await wanted.open_source(hub, call, USUAL_BATCH)
    if not 0 <= watch.heartbeat_seconds <= MAX_HEARTBEAT:
        raise ValueInvalid.of("heartbeat_seconds", f"must be from 1 to {MAX_HEARTBEAT}")
    watch.check()
    call.asked(cursor=watch.cursor, snapshot=watch.snapshot)
    if call.headers_only:
        if watch.cursor:
            await open_start(hub, source, watch.cursor)
        return
    with hub.streams.one_more(call.entry.consumer_id or ""):
        await ChangeStream(hub, call, wanted, source, watch, reply).run()
