"""What happened to a record in the eyes of one View."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.cursor import Cursor


class FeedOperation(enum.IntEnum):
    """What became of a record (``penstock.hub.v1.Operation``).

    The first three are what was done to it. ENTERED_VIEW: it was there, and is shown from now on;
    LEFT_VIEW: it is still there, and is shown no longer. SNAPSHOT: it was there when a stream
    began.
    """

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    ENTERED_VIEW = 4
    LEFT_VIEW = 5
    SNAPSHOT = 6

    @property
    def word(self) -> str:
        """Its lower-case name, by which webhooks call it."""
        return self.name.lower()


class Reconcile(enum.IntEnum):
    """How to be sure that a replica is right after a stream (``penstock.hub.v1.Reconcile``)."""

    RESUME = 1
    REPAIR = 2
    STOP = 3


@dataclass(slots=True)  # not frozen: that takes four times as long to make, a million times
class Event:
    """One change as a View shows it, never changed: nothing in it is hidden from the View's holder.

    ``number`` is its place in the log, ``transaction`` that of the last change of its transaction.
    ``before`` and ``after`` are serialised records as the holder sees them; ``before`` is None if
    it saw none, ``after`` if it sees none any more. ``changed`` are the paths that differ, of an
    update.
    """

    number: int
    transaction: int
    dataset: str
    key: str
    operation: FeedOperation
    before: bytes | None
    after: bytes | None
    changed: tuple[str, ...]
    commit_time: datetime

    @property
    def size(self) -> int:
        """About how many bytes it is."""
        return 100 + len(self.key) + len(self.before or b"") + len(self.after or b"")


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events in the order of the log, and the cursor behind them.

    ``whole``: they end with a whole transaction, so that the cursor may be a checkpoint. ``more``:
    the log had more when they were read, and ``head`` was its end.
    """

    events: tuple[Event, ...]
    cursor: Cursor
    whole: bool
    more: bool
    head: Cursor
