"""The organs of a hub that feeds of the change log need."""

from __future__ import annotations

from typing import Protocol

from penstockd.calls import ReadingOrgans
from penstockd.catalog import Catalog
from penstockd.exports.opening import OpeningOrgans
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.limits import Streams
from penstockd.store.places import Places


class FeedOrgans(ReadingOrgans, Protocol):
    """The organs for reading changes."""

    @property
    def catalog(self) -> Catalog:
        """The datasets."""

    @property
    def feed(self) -> Broadcast:
        """The change log."""

    @property
    def streams(self) -> Streams:
        """Limits streams for each consumer, and the time for which a client may read nothing."""

    @property
    def places(self) -> Places:
        """Seals cursors, and opens them."""


class StreamOrgans(FeedOrgans, OpeningOrgans, Protocol):
    """The organs of a stream of changes, which may begin with a state of the data."""
