"""A dataset cut into ranges, reply by reply: together they contain every key, and no row twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstockd.digests.parts import Asked, RangeCutter
from penstockd.digests.ranges import Enough, Patience, Range

from .test_differences import digested

MOST_ROWS = 23


def reply(rows: list[str], start: str, parts: int, chunk: int) -> tuple[list[Range], str]:
    """The ranges and the end that Digest… returns for the rows from a key on."""
    left = [key for key in rows if key >= start]
    asked = Asked(start_key=start, parts=parts)
    found, next_key = RangeCutter(asked), ""
    found.step = max(1, -(-min(len(left), MOST_ROWS) // asked.most_parts))
    try:
        for at in range(0, len(left), chunk):
            found.take(digested([(key, "x") for key in left[at : at + chunk]]))
    except Enough as enough:
        next_key = enough.next_key
    found.close(next_key)
    return found.ranges, next_key


def whole(rows: list[str], parts: int, chunk: int) -> list[Range]:
    """The ranges of all replies."""
    ranges, start = reply(rows, "", parts, chunk)
    while start:
        more, start = reply(rows, start, parts, chunk)
        assert more[0].start == ranges[-1].end
        ranges += more
    return ranges


@settings(max_examples=300, deadline=None)
@given(
    st.sets(st.text("abé~", min_size=1, max_size=3), max_size=60),
    st.integers(1, 9),
    st.integers(1, 70),
)
def test_ranges_follow_each_other(keys: set[str], parts: int, chunk: int) -> None:
    rows = sorted(keys)
    ranges = whole(rows, parts, chunk)
    assert (ranges[0].start, ranges[-1].end) == ("", "")
    assert all(a.end == b.start for a, b in itertools.pairwise(ranges))
    for found in ranges:
        within = [k for k in rows if k >= found.start and (not found.end or k < found.end)]
        assert len(within) == found.count
    if len(rows) <= MOST_ROWS:
        assert len(ranges) <= parts


def test_without_time_each_reply_comes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "over", property(lambda self: True))
    rows = [f"k{i:03}" for i in range(50)]
    ranges = whole(rows, 4, 7)
    assert sum(r.count for r in ranges) == 50 and ranges[-1].end == ""
