"""Requests for changes: streams and polls, of one dataset and of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import duration_pb2

from penstock.client.change import Page, Position, Reader, numbers_of, reader_of
from penstock.client.errors import LOST_PLACES, FeedEnded, PenstockError
from penstock.client.feed import Feed
from penstock.client.link import Link
from penstock.client.stubs import Stubs
from penstock.hub.v1 import changes_pb2, changes_pb2_grpc


@dataclass(frozen=True, slots=True)
class FeedTerms:
    """What streams and polls have in common. Raises ValueError for contradictory arguments."""

    cursor: str | Position
    snapshot: bool
    operations: str | Iterable[str]
    size: int
    include_before: bool
    shapes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.snapshot and self.cursor:
            raise ValueError("a snapshot begins where it is taken, not at a cursor")

    @property
    def position(self) -> Position | None:
        """Where a stream begins; None: now."""
        given = self.cursor
        return given if isinstance(given, Position) else Position(given) if given else None

    def of_stream(self) -> dict[str, Any]:
        """The fields of a request for a stream, except the cursor."""
        return {
            "snapshot": self.snapshot,
            "operations": numbers_of(self.operations),
            "batch_size": self.size,
            "include_before": self.include_before,
        }

    def of_poll(self, wait: float) -> dict[str, Any]:
        """The fields of a poll."""
        pause = duration_pb2.Duration()
        pause.FromMilliseconds(round(wait * 1000))
        given = self.cursor
        return {
            "cursor": given.cursor if isinstance(given, Position) else given,
            "wait": pause,
            "operations": numbers_of(self.operations),
            "page_size": self.size,
            "include_before": self.include_before,
        }


class DatasetFeeds:
    """The changes of one dataset."""

    def __init__(self, link: Link, stubs: Stubs) -> None:
        self._link = link
        self._stubs = stubs

    def watch(
        self,
        *,
        cursor: str | Position = "",
        snapshot: bool = False,
        filter: str = "",
        fields: str | Sequence[str] = (),
        shape: str = "",
        operations: str | Sequence[str] = (),
        batch_size: int = 0,
        include_before: bool = False,
        patience: float | None = None,
        on_break: Callable[[PenstockError], object] | None = None,
    ) -> Feed:
        """The changes as they are committed, in batches; see ``Feed``.

        The feed begins after ``cursor`` (from a checkpoint, a receipt, a digest or a poll; or a
        ``Position``, which also knows the changes delivered after the last checkpoint), with all
        current records if ``snapshot``, and now without either. ``operations`` leaves out all
        others, ``batch_size`` 0 leaves the size to the hub, ``include_before`` adds the earlier
        image of each record. With a ``shape`` (``id`` or ``id@version``) changes have its columns
        (``Change.shaped``); the feed keeps the version with which it began. A Position whose view,
        shape included, is no longer the caller's ends the feed at once.
        """
        asked = FeedTerms(cursor, snapshot, operations, batch_size, include_before)
        method = self._stubs.method("Watch", many=True)
        request = self._stubs.request(method)(
            filter=filter, fields=_join_fields(fields), shape=shape, **asked.of_stream()
        )
        return Feed(
            self._link,
            getattr(self._stubs.stub_class(self._link.channel), method),
            request,
            reader_of(self._stubs.dataset),
            position=asked.position,
            patience=patience,
            on_break=on_break,
        )

    def changes(
        self,
        cursor: str = "",
        *,
        wait: float = 0.0,
        filter: str = "",
        fields: str | Sequence[str] = (),
        shape: str = "",
        operations: str | Sequence[str] = (),
        page_size: int = 0,
        include_before: bool = False,
    ) -> Page:
        """The changes after a cursor; without a cursor, no changes and the current cursor.

        If there are none yet, waits for the first, ``wait`` seconds at most (30 is the
        hub's limit). FeedEnded if the cursor has expired.
        """
        asked = FeedTerms(cursor, False, operations, page_size, include_before)
        method = f"List{self._stubs.singular}Changes"
        request = self._stubs.request(method)(
            filter=filter, fields=_join_fields(fields), shape=shape, **asked.of_poll(wait)
        )
        stub = getattr(self._stubs.stub_class(self._link.channel), method)
        return _poll_page(self._link, stub, request, reader_of(self._stubs.dataset), wait)


def watch_all(
    link: Link,
    datasets: Sequence[str],
    asked: FeedTerms,
    *,
    patience: float | None,
    on_break: Callable[[PenstockError], object] | None,
) -> Feed:
    """The changes of several datasets as they are committed; see ``Client.watch``."""
    return Feed(
        link,
        changes_pb2_grpc.ChangesStub(link.channel).WatchChanges,
        changes_pb2.WatchChangesRequest(
            datasets=datasets, shapes=asked.shapes, **asked.of_stream()
        ),
        reader_of(),
        position=asked.position,
        patience=patience,
        on_break=on_break,
    )


def poll_all(link: Link, datasets: Sequence[str], asked: FeedTerms, wait: float) -> Page:
    """The changes of several datasets after a cursor; see ``Client.changes``."""
    stub = changes_pb2_grpc.ChangesStub(link.channel).ListChanges
    request = changes_pb2.ListChangesRequest(
        datasets=datasets, shapes=asked.shapes, **asked.of_poll(wait)
    )
    return _poll_page(link, stub, request, reader_of(), wait)


def _poll_page(link: Link, method: Any, request: Any, reader: Reader, wait: float) -> Page:
    try:
        reply = link.unary(method, request, safe=True, longer=wait)
    except PenstockError as error:
        if error.reason not in LOST_PLACES:
            raise
        raise FeedEnded(error, reconcile="REPAIR", cursor=request.cursor) from None
    changes = tuple(map(reader, reply.changes))
    return Page(changes, reply.next_cursor, reply.view, reply.more)


def _join_fields(fields: str | Sequence[str]) -> str:
    return fields if isinstance(fields, str) else ",".join(fields)
