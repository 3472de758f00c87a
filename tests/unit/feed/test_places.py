"""The places from which a stream goes on within what it sends at a time."""

from __future__ import annotations

from datetime import UTC, datetime

from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.source import FeedSource, Frame, place_frames
from penstockd.store.cursor import Cursor
from places import PLACES

END = Cursor("0123456789ab", 9, told=None, mark=b"the mark")
MARKS = {3: b"mark 3..", 9: b"mark 9.."}


class Source(FeedSource):
    """Encodes nothing, so that it needs no lens."""

    def _codec(self, dataset: str) -> object:  # type: ignore[override]
        class Codec:
            def encode(self, event: Event, sequence: int) -> bytes:
                return b"x"

        return Codec()


def frames(*numbers: tuple[int, int], most: int = 1) -> tuple[Frame, ...]:
    """Frames of changes, each by its number and that of its transaction's last change."""
    source = Source({}, PLACES.sequences, batch_size=most)
    time = datetime(2026, 1, 1, tzinfo=UTC)
    made = FeedOperation.CREATED
    events = [
        Event(number, last, "d", f"k{i}", made, None, b"", (), time)
        for i, (number, last) in enumerate(numbers)
    ]
    return source.frames(events)


def numbers_of(placed: tuple[Frame, ...]) -> list[int | None]:
    return [None if frame.place is None else frame.place.number for frame in placed]


def test_each_frame_ends_at_a_place() -> None:
    placed = place_frames(frames((1, 3), (2, 3), (3, 3), (8, 9)), END, MARKS, whole=False)
    assert numbers_of(placed) == [1, 2, 3, 9]
    assert [f.place.mark for f in placed if f.place] == [MARKS[3]] * 3 + [END.mark]


def test_the_end_of_a_whole_transaction_is_a_checkpoint_instead() -> None:
    placed = place_frames(frames((8, 9), (9, 9)), END, MARKS, whole=True)
    assert numbers_of(placed) == [8, None]


def test_changes_that_share_a_number_are_not_separated() -> None:
    """Such as those of the records that one change moved."""
    placed = place_frames(frames((2, 3), (3, 3), (3, 3), (3, 3), (9, 9)), END, MARKS, whole=False)
    assert numbers_of(placed) == [2, None, None, 3, 9]
    two = place_frames(frames((3, 3), (3, 3), (3, 3), (8, 9), most=2), END, MARKS, whole=False)
    assert numbers_of(two) == [None, 9]


def test_a_transaction_that_is_no_longer_kept_is_no_place() -> None:
    placed = place_frames(frames((1, 1), (2, 3), (9, 9)), END, {3: MARKS[3]}, whole=False)
    assert numbers_of(placed) == [None, 2, 9]


def test_only_the_last_place_is_among_what_one_change_moved() -> None:
    told = Cursor("0123456789ab", 8, told=("d", "k"), mark=b"the mark")
    placed = place_frames(frames((3, 3), (9, 9), (9, 9)), told, MARKS, whole=False)
    assert [f.place and f.place.told for f in placed] == [None, None, ("d", "k")]
    assert numbers_of(placed) == [3, None, 8]
