"""Polls: pages of the changes after a cursor. A call may wait for its page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstockd.errors import HubStopping
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.source import Block, FeedSource
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor
from penstockd.store.places import Places

#: How long a poll may wait for its first change, in seconds.
MAX_WAIT = 30.0
#: The usual number of changes in a page, and the bytes after which it ends. With the stretch of the
#: log that exceeds them, it has at most the 4 MiB that gRPC clients accept.
USUAL_PAGE, PAGE_BYTES = 1000, 1024 * 1024
#: The seconds for which a poll that does not wait skips changes that its caller does not get.
PASS_SECONDS = 1.0
#: How often a waiting poll checks whether the worker stops, in seconds.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes, encoded as the ``changes`` of a response, and the cursor to continue from."""

    changes: bytes
    next_cursor: str
    view: str
    more: bool
    count: int = 0
    shapes: Sequence[str] = ()
    lenses: Mapping[str, Lens] = field(default_factory=dict)


async def read_page(
    feed: Broadcast, places: Places, source: FeedSource, cursor: Cursor, wait: float
) -> tuple[ChangePage, list[Block]]:
    """The next page after a cursor, and the blocks in it.

    Without changes it waits for the first one, at most ``wait`` seconds. Raises CursorInvalid,
    CursorExpired, HubStopping and DatabaseUnavailable.
    """
    clock = asyncio.get_running_loop().time
    until, passing = clock() + wait, clock() + PASS_SECONDS
    changes: list[bytes] = []
    blocks: list[Block] = []
    count = size = 0
    # The cursor is checked at once, even if the call then waits.
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
            raise HubStopping("this worker stops; continue from the same cursor")
        elif changes or clock() >= until:
            break
        else:
            await feed.tail.wait(cursor.number, min(until - clock(), LOOK))
    more = cursor.number < feed.tail.head
    page = ChangePage(
        b"".join(changes),
        places.seal(cursor),
        source.view,
        more,
        count,
        source.shape_names,
        source.lenses,
    )
    return page, blocks
