"""ListChanges: the changes after a cursor, for tools that cannot hold a stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.errors import (
    AccessChanged,
    AccessRevoked,
    HubStopping,
    ValueInvalid,
    ViewChanged,
    Violation,
)
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.source import Block, Source
from penstockd.feed.watching import Standings, Wanted
from penstockd.hub import Hub
from penstockd.store.cursor import Cursor

#: How long a poll may wait for its first change, in seconds.
MAX_WAIT = 30.0
#: Changes of a page, unless the caller says how many, and bytes after which it ends. With the
#: stretch of the log that brings it there, it is no more than the 4 MiB that clients of gRPC take.
USUAL_PAGE, PAGE_BYTES = 1000, 1024 * 1024
#: How long a poll that does not wait passes over what is nothing for its caller, in seconds.
PASS_SECONDS = 1.0
#: How often a poll that waits looks whether the worker ends, in seconds.
LOOK = 1.0


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

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, CursorInvalid,
    CursorExpired, AccessRevoked (while it waited), PolicyStale, TooManyStreams (of those that
    wait), HubStopping and DatabaseUnavailable.
    """
    source = wanted.source(hub, call, USUAL_PAGE)
    if not 0 <= wait_seconds <= MAX_WAIT:
        problem = f"must be from 0 to {MAX_WAIT:g} s"
        raise ValueInvalid(f"wait {problem}", violations=[Violation("wait", problem)])
    call.asked(cursor=cursor)
    disclosure = FeedDisclosure(hub, call, source)
    if not cursor:
        head = await hub.feed.head()
        call.entry.row_count = 0
        return ChangePage(b"", str(head), source.view, False)
    standings = Standings(hub, call, wanted, source)
    with hub.streams.one_more(call.entry.consumer_id or "", waits=wait_seconds > 0):
        page, blocks = await _read(hub, call, source, Cursor.parse(cursor), wait_seconds)
    try:
        standings.check()
    except AccessRevoked:
        raise
    except (AccessChanged, ViewChanged):
        # While it waited, what the caller may see has become another: it is to ask anew.
        call.entry.row_count = 0
        return ChangePage(b"", cursor, source.view, True)
    await disclosure.blocks(blocks)
    return page


async def _read(
    hub: Hub, call: Call, source: Source, cursor: Cursor, wait: float
) -> tuple[ChangePage, list[Block]]:
    feed, clock = hub.feed, asyncio.get_running_loop().time
    until, passing = clock() + wait, clock() + PASS_SECONDS
    changes: list[bytes] = []
    blocks: list[Block] = []
    count = size = 0
    # The cursor is judged at once, whatever there is to wait for.
    await feed.read(source, cursor, cursor.number)
    while count < source.batch_size and size < PAGE_BYTES:
        if cursor.number < feed.tail.head:
            if not changes and clock() >= max(until, passing):
                break  # there is more, but the caller waits
            block = await feed.next_stretch(source, cursor, source.batch_size - count)
            cursor = block.cursor
            blocks.append(block)
            for frame in block.frames:
                changes.append(frame.data)
                count, size = count + frame.count, size + len(frame.data)
        elif feed.stopping.is_set() and not changes:
            raise HubStopping("this worker ends; go on from the same cursor")
        elif changes or clock() >= until:
            break
        else:
            await feed.tail.wait(cursor.number, min(until - clock(), LOOK))
    call.entry.row_count = count
    more = cursor.number < feed.tail.head
    return ChangePage(b"".join(changes), str(cursor), source.view, more), blocks
