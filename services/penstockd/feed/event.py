"""What happened to a record, as one View shows it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.cursor import Cursor


class FeedOperation(enum.IntEnum):
    """The kind of a change to a record (``penstock.hub.v1.Operation``).

    The first three were done to it. ENTERED_VIEW: it existed, and is visible from now on.
    LEFT_VIEW: it still exists, but is no longer visible. SNAPSHOT: it existed when a stream began.
    """

    CREATED = 1
    UPDATED = 2
    DELETED = 3
    ENTERED_VIEW = 4
    LEFT_VIEW = 5
    SNAPSHOT = 6

    @property
    def word(self) -> str:
        """Its lower-case name, which webhooks use."""
        return self.name.lower()


class Reconcile(enum.IntEnum):
    """How a client makes sure that its replica is correct (``penstock.hub.v1.Reconcile``)."""

    RESUME = 1
    REPAIR = 2
    STOP = 3


@dataclass(slots=True)  # not frozen: frozen ones take four times as long to make
class Event:
    """One change as a View shows it, never modified: the View's holder may see all of it.

    ``number`` is its place in the log, ``transaction`` that of the last change of its transaction.
    ``before`` and ``after`` are serialised records as the holder sees them; ``before`` is None if
    it saw none, ``after`` if it no longer sees one. ``changed`` lists the paths that an update
    changed.
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
        """Its approximate size in bytes."""
        return 100 + len(self.key) + len(self.before or b"") + len(self.after or b"")


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events in the order of the log, and the cursor after them.

    ``whole``: they end with a complete transaction, so the cursor may be a checkpoint. ``more``:
    the log had more when they were read; ``head`` was its end.
    """

    events: tuple[Event, ...]
    cursor: Cursor
    whole: bool
    more: bool
    head: Cursor
