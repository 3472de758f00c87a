"""Where streams go on, and where only polls may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstockd.errors import CursorInvalid
from penstockd.feed.source import FeedSource
from penstockd.feed.watching import check_cursor, open_start
from penstockd.store.cursor import Cursor, scope_of
from places import PLACES

HERE = Cursor("0123456789ab", 9, mark=b"the mark")
WITHIN = Cursor(
    "0123456789ab", 9, mark=b"the mark", last=("orders", "o1"), scope=scope_of(["orders"])
)


def source(*names: str) -> FeedSource:
    lenses: Any = dict.fromkeys(names)
    return FeedSource(lenses, PLACES.sequences)


class Organs:
    """A log that has every place, and notes which were asked for."""

    def __init__(self) -> None:
        self.asked: list[Cursor] = []
        self.places = PLACES
        self.feed = SimpleNamespace(read=self._read)

    async def _read(self, source: FeedSource, cursor: Cursor, upto: int) -> None:
        assert upto == cursor.number
        self.asked.append(cursor)


@pytest.mark.parametrize("start", [HERE, WITHIN])
async def test_a_stream_goes_on_in_the_log_and_in_a_snapshot(start: Cursor) -> None:
    organs: Any = Organs()
    assert await open_start(organs, source("orders"), PLACES.seal(start)) == start
    assert organs.asked == [HERE]


@pytest.mark.parametrize("names", [("contacts", "orders"), ("contacts",), ("orders", "products")])
async def test_a_snapshot_goes_on_with_its_own_datasets_alone(names: tuple[str, ...]) -> None:
    """New ones would be left out: the snapshot has not sent them, and its end says that it has."""
    organs: Any = Organs()
    with pytest.raises(CursorInvalid, match=", ".join(names)) as refused:
        await open_start(organs, source(*names), PLACES.seal(WITHIN))
    assert refused.value.metadata == {"reconcile": "REPAIR"} and not organs.asked
    # In the log, any feed goes on from any place.
    assert await open_start(organs, source(*names), PLACES.seal(HERE)) == HERE


async def test_a_poll_does_not_go_on_in_a_snapshot() -> None:
    organs: Any = Organs()
    await check_cursor(organs, source("orders"), PLACES.seal(HERE))
    with pytest.raises(CursorInvalid, match="only a stream"):
        await check_cursor(organs, source("orders"), PLACES.seal(WITHIN))
