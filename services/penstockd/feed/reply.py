"""What a stream of changes sends, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from penstockd.calls import Permit
from penstockd.exports.receipts import Receipt
from penstockd.feed.event import Reconcile
from penstockd.feed.source import Frame
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Begin:
    """The first record of a stream. ``place`` is where to continue if nothing else comes; None
    for a snapshot that begins, since that begins again."""

    cursor: Cursor
    place: Cursor | None
    view: str
    policy_revision: int
    receipt_id: str
    shapes: Sequence[str]
    lenses: Mapping[str, Lens]


@dataclass(frozen=True, slots=True)
class End:
    """The last record of a stream."""

    reason: str
    message: str
    cursor: Cursor
    reconcile: Reconcile
    receipt: Receipt


class FeedReply(Protocol):
    """The receiver of a stream. Each method returns when the client has taken its data."""

    async def begin(self, begin: Begin) -> int:
        """Send the first record. All methods return the number of bytes that they sent."""

    async def changes(
        self,
        frame: Frame,
        ends: int | None,
        checkpoint: tuple[Cursor, datetime | None] | None,
        permit: Permit | None,
    ) -> int:
        """Send changes, which are in the audit.

        ``ends`` is the number of changes of the transaction that ends here. A frame without records
        needs no permit.
        """

    async def heartbeat(self, cursor: Cursor, place: Cursor | None) -> int:
        """Send a sign of life: nothing has happened. ``place`` is where to continue if that is
        after the checkpoint ``cursor``."""

    async def end(self, end: End) -> int:
        """Send the last record."""
