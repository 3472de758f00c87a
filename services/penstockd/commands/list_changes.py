"""ListChanges: the changes after a cursor, for tools that cannot hold a stream."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.commands.context import Call, Hub
from penstockd.commands.watching import Disclosed, Wanted
from penstockd.errors import HubStopping, ValueInvalid, Violation
from penstockd.feed.source import Source
from penstockd.store.cursor import Cursor

#: How long a poll may wait for its first change, in seconds.
MAX_WAIT = 30.0
#: Changes of a page, unless the caller says how many, and bytes after which it ends.
USUAL_PAGE, PAGE_BYTES = 1000, 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes as the encoded ``changes`` of a response, and where to go on."""

    changes: bytes
    next_cursor: str
    view: str
    more: bool


async def list_changes(
    hub: Hub, call: Call, wanted: Wanted, cursor: str, wait_seconds: float
) -> ChangePage:
    """The changes after ``cursor``; without one there are none, and the cursor of now.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, CursorInvalid, CursorExpired
    and DatabaseUnavailable.
    """
    source = wanted.source(hub, call, USUAL_PAGE)
    if not 0 <= wait_seconds <= MAX_WAIT:
        problem = f"must be from 0 to {MAX_WAIT:g} s"
        raise ValueInvalid(f"wait {problem}", violations=[Violation("wait", problem)])
    call.asked(cursor=cursor)
    disclosed = Disclosed(hub, call, source)
    if not cursor:
        head = await hub.feed.head()
        call.entry.row_count = 0
        return ChangePage(b"", str(head), source.view, False)
    page = await _read(hub, call, source, Cursor.parse(cursor), wait_seconds, disclosed)
    await disclosed.flush()
    return page


async def _read(
    hub: Hub, call: Call, source: Source, cursor: Cursor, wait: float, disclosed: Disclosed
) -> ChangePage:
    changes: list[bytes] = []
    count = size = 0
    subscription = hub.feed.subscribe(source, cursor)
    try:
        # The cursor is judged at once, whatever there is to wait for.
        await hub.feed.read(source, cursor, cursor.number)
        while count < source.batch_size and size < PAGE_BYTES:
            block = await subscription.take(0 if changes else wait)
            if block is None:
                break
            for frame in block.frames:
                changes.append(frame.data)
                count, size = count + frame.count, size + len(frame.data)
                disclosed.add(frame.keys)
        if not changes and hub.feed.stopping.is_set():
            raise HubStopping("this worker ends; go on from the same cursor")
        following = subscription.cursor
    finally:
        subscription.close()
    call.entry.row_count = count
    more = following.number < hub.feed.tail.head and bool(changes)
    return ChangePage(b"".join(changes), str(following), source.view, more)
