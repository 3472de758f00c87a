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
    """The organs that reading changes needs."""

    @property
    def catalog(self) -> Catalog:
        """The datasets."""

    @property
    def feed(self) -> Broadcast:
        """The change log."""

    @property
    def streams(self) -> Streams:
        """How many streams a consumer may have, and how long a client may take nothing."""

    @property
    def places(self) -> Places:
        """Seals cursors, and opens them."""


class StreamOrgans(FeedOrgans, OpeningOrgans, Protocol):
    """The organs that a stream of changes needs: it may begin with a state of the data."""
