"""The end of a stretch of changes: within its bounds and, if possible, at the end of a
transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from penstockd.feed.event import Event, FeedOperation
from penstockd.subscriptions.stretch import Bounds, fit_events

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = 1 << 30


def event(number: int, transaction: int, size: int = 0) -> Event:
    """A change of that many bytes."""
    after = b"x" * size
    return Event(number, transaction, "d", "k", FeedOperation.CREATED, None, after, (), NOW)


def test_all_that_fits_is_taken() -> None:
    events = [event(1, 2), event(2, 2), event(5, 5)]
    assert fit_events(events, Bounds(3, LARGE), 9, whole=True) == 9
    assert fit_events([], Bounds(1, LARGE), 7, whole=False) == 7


def test_a_transaction_stays_together_if_it_can() -> None:
    events = [event(1, 1), event(2, 4), event(3, 4), event(4, 4)]
    assert fit_events(events, Bounds(3, LARGE), 4, whole=True) == 1
    assert fit_events(events[1:], Bounds(2, LARGE), 4, whole=True) == 3


def test_what_was_read_to_the_middle_of_a_transaction_ends_before_it() -> None:
    events = [event(1, 1), event(2, 4), event(3, 4)]
    assert fit_events(events, Bounds(9, LARGE), 3, whole=False) == 1
    assert fit_events(events[1:], Bounds(9, LARGE), 3, whole=False) == 3
    assert fit_events(events[:1], Bounds(9, LARGE), 3, whole=False) == 3


def test_what_followed_from_one_change_stays_together() -> None:
    events = [event(3, 3), event(3, 3), event(3, 3), event(4, 4)]
    assert fit_events(events, Bounds(2, LARGE), 4, whole=True) == 3


def test_bytes_count_but_one_change_is_always_taken() -> None:
    events = [event(1, 1, 900), event(2, 2, 900)]
    assert fit_events(events, Bounds(9, 1500), 2, whole=True) == 1
    assert fit_events(events, Bounds(9, 10), 2, whole=True) == 1


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(1, 6),
)
def test_a_stretch_is_never_empty_nor_too_long(transactions: list[list[int]], most: int) -> None:
    """``transactions``: the number of events of each of their changes."""
    events, number = [], 0
    for changes in transactions:
        last = number + len(changes)
        for count in changes:
            number += 1
            events += [event(number, last)] * count
    end = fit_events(events, Bounds(most, LARGE), number, whole=True)
    taken = [e for e in events if e.number <= end]
    assert taken
    assert len(taken) <= most or len({e.number for e in taken}) == 1
    whole = all(e.transaction <= end for e in taken)
    assert whole or len({e.transaction for e in taken}) == 1
