"""A snapshot that goes on and reads a long log: the client hears of each part, and the stream ends
where it must."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from fake_organs import fake_hub
from penstockd.catalog import Catalog
from penstockd.errors import AccessRevoked, HubStopping, Refused
from penstockd.feed.source import FeedSource, Frame
from penstockd.feed.stream import ChangeStream, Watch, _Snapshot
from penstockd.feed.watching import Wanted
from penstockd.store.cursor import Cursor
from penstockd.store.tables import Tables
from places import PLACES

EPOCH = "0123456789ab"


def place(number: int) -> Cursor:
    return Cursor(EPOCH, number, mark=b"the mark", last=("customers", "c1"), scope=bytes(16))


class Reply:
    """Takes what a stream sends, and has something happen after the second heartbeat."""

    def __init__(self, happens: Any) -> None:
        self.happens, self.beats = happens, list[int]()

    async def heartbeat(self, cursor: Cursor, place: Cursor | None) -> int:
        assert place == cursor, "before its end a snapshot has no checkpoint"
        self.beats.append(cursor.number)
        if len(self.beats) == 2:
            self.happens()
        return 1


class Standings:
    """Access that may end."""

    over = False

    def check(self) -> None:
        if self.over:
            raise AccessRevoked("nothing is left")


async def strides() -> AsyncIterator[Frame]:
    """A log without end."""
    for number in range(1, 1000):
        yield Frame(b"", 0, b"", {}, place=place(number))


@pytest.mark.parametrize(("what", "error"), [("stopping", HubStopping), ("access", AccessRevoked)])
async def test_it_ends_where_the_client_goes_on(
    catalog: Catalog, what: str, error: type[Refused]
) -> None:
    standings, stopping = Standings(), asyncio.Event()

    def happens() -> None:
        standings.over = what == "access"
        if what == "stopping":
            stopping.set()

    bells = SimpleNamespace(line=lambda name: SimpleNamespace(rung=0))
    feed = SimpleNamespace(stopping=stopping, tail=SimpleNamespace(bells=bells))
    hub = fake_hub(catalog, Tables(catalog))
    organs: Any = SimpleNamespace(
        feed=feed, policy=hub.policy, streams=hub.streams, database=hub.database
    )
    reply: Any = Reply(happens)
    source, call = FeedSource({}, PLACES.sequences), hub.call()
    stream = ChangeStream(organs, call, Wanted([]), source, Watch(), reply)
    stream._standings = standings  # type: ignore[assignment]
    held: Any = SimpleNamespace(in_time=contextlib.nullcontext)
    frames: Any = strides()
    with pytest.raises(error):
        await stream._send_snapshot(_Snapshot(held, SimpleNamespace(), frames))  # type: ignore[arg-type]
    assert reply.beats == [1, 2]
    assert stream._place == place(2)
