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
from penstockd.feed import stream
from penstockd.feed.reply import Begin, End
from penstockd.feed.source import FeedSource, Frame
from penstockd.feed.stream import ChangeStream, Watch
from penstockd.feed.watching import Wanted
from penstockd.store.cursor import Cursor, scope_of
from penstockd.store.tables import Tables
from places import PLACES

EPOCH = "0123456789ab"


def place(number: int) -> Cursor:
    return Cursor(EPOCH, number, mark=b"the mark", last=("customers", "c1"), scope=scope_of([]))


class Reply:
    """Takes what a stream sends, and has something happen after the second heartbeat."""

    def __init__(self, happens: Any) -> None:
        self.happens, self.beats = happens, list[int]()
        self.ends: list[End] = []

    async def begin(self, begin: Begin) -> int:
        assert begin.place == place(0)
        return 1

    async def end(self, end: End) -> int:
        self.ends.append(end)
        return 1

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


class Strides:
    """A log without end."""

    cursor, place = place(0), place(0)

    def __init__(self, *_: object) -> None:
        pass

    async def each(self, connection: object) -> AsyncIterator[Frame]:
        for number in range(1, 1000):
            yield Frame(b"", 0, b"", {}, place=place(number))


class Silence(Strides):
    """Records of which the caller sees none, however long they are read."""

    async def each(self, connection: object) -> AsyncIterator[Frame]:
        yield Frame(b"", 0, b"", {}, place=place(1))
        await asyncio.Event().wait()


async def read(*_: object) -> None:
    """Nothing comes at the place itself."""


async def take() -> Any:
    return SimpleNamespace(in_time=contextlib.nullcontext)


ENDS = pytest.mark.parametrize(
    ("what", "error"), [("stopping", HubStopping), ("access", AccessRevoked)]
)


@ENDS
async def test_it_ends_where_the_client_goes_on(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, what: str, error: type[Refused]
) -> None:
    reply = await send(catalog, monkeypatch, Strides, what, error)
    assert reply.beats == [1, 2]
    assert [end.cursor for end in reply.ends] == [place(2)]


@ENDS
async def test_a_client_hears_of_the_hub_while_nothing_is_found(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, what: str, error: type[Refused]
) -> None:
    """The second heartbeat is sent although nothing has come since the first; then the end."""
    reply = await send(catalog, monkeypatch, Silence, what, error)
    assert reply.beats == [1, 1]
    assert [end.cursor for end in reply.ends] == [place(1)]


async def send(
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    frames: type[Strides],
    what: str,
    error: type[Refused],
) -> Any:
    """The reply to a stream that goes on in a snapshot, until its access ends or its worker
    stops."""
    standings, stopping = Standings(), asyncio.Event()

    def happens() -> None:
        standings.over = what == "access"
        if what == "stopping":
            stopping.set()

    monkeypatch.setattr(stream, "Standings", lambda *_: standings)
    monkeypatch.setattr(stream, "SnapshotFrames", frames)
    monkeypatch.setattr(stream, "LOOK", 0.01)
    bells = SimpleNamespace(line=lambda name: SimpleNamespace(rung=0))
    hub = fake_hub(catalog, Tables(catalog))
    database = SimpleNamespace(
        snapshot=contextlib.nullcontext, transaction=hub.database.transaction
    )
    database.connection = hub.database.connection
    organs: Any = SimpleNamespace(
        catalog=catalog,
        feed=SimpleNamespace(stopping=stopping, read=read, tail=SimpleNamespace(bells=bells)),
        policy=hub.policy,
        streams=hub.streams,
        places=PLACES,
        database=database,
        snapshots=SimpleNamespace(take=take, release=lambda held: None),
    )
    reply: Any = Reply(happens)
    source, watch = FeedSource({}, PLACES.sequences), Watch(PLACES.seal(place(0)), False, 1)
    with pytest.raises(error):
        await ChangeStream(organs, hub.call(), Wanted([]), source, watch, reply).run()
    return reply
