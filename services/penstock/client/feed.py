"""A stream of changes that reconnects by itself and returns each change once."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

from google.protobuf.message import Message

from penstock.client.change import Change, Position, Reader, chain_change
from penstock.client.errors import LOST_PLACES, FeedEnded, PenstockError
from penstock.client.link import Link
from penstock.client.retry import Backoff
from penstock.hub.v1 import changes_pb2

#: A stream without even a heartbeat for so long is dead, in seconds; the hub sends heartbeats at
#: most 15 s apart.
SILENCE = 45.0
#: The pauses before a stream is reopened, after the retries that every call makes.
RECONNECT = Backoff(attempts=1 << 62, first=0.1, most=10.0)
#: How long to wait for an absent hub at the start, in seconds: its workers may be starting.
START = 10.0

# Transient failures: the stream is reopened, after growing pauses if it makes no progress. gRPC
# also reports INTERNAL for a stream whose worker was killed.
_PASSING = {
    "UNAVAILABLE",
    "INTERNAL",
    "UNKNOWN",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
}
_REPAIRED = {*LOST_PLACES, "VIEW_CHANGED"}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some changes in order, possibly none, and the feed's position after them.

    With a ``checkpoint``, all changes up to it have been delivered: a cursor to continue from.
    ``position`` is the feed's position after these changes; it is None before the end of a
    snapshot. ``begins_anew``: a snapshot broke off and starts again from its first record; discard
    what came of it before.
    """

    changes: tuple[Change, ...]
    checkpoint: str
    position: Position | None
    begins_anew: bool = False


class Feed:
    """The changes of datasets as they are committed; iterate over it for batches.

    It never ends by itself. After a broken connection it reopens from the last checkpoint and skips
    what it has delivered. The first batch is empty, and its checkpoint is where the feed begins
    (a snapshot's checkpoint comes at its end); later batches are empty if only time has passed.

    Raises FeedEnded when changes alone cannot continue the feed, and PenstockError when the hub
    refuses, or is absent for 10 s at the start, or for ``patience`` seconds (None: for ever) at any
    time. ``on_break`` receives the error of each interruption. Only one thread may use a feed, but
    any may call ``close``, which ends the iteration without an error.
    """

    def __init__(
        self,
        link: Link,
        method: Any,
        request: Message,
        reader: Reader,
        *,
        position: Position | None = None,
        patience: float | None = None,
        on_break: Callable[[PenstockError], object] | None = None,
    ) -> None:
        self._link, self._method, self._request, self._reader = link, method, request, reader
        self._patience = patience
        self._on_break = on_break or (lambda error: None)
        self._closed = False
        # Unlike an Event, a signal handler may put to it at any moment.
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._watch = Watchdog()
        self._snapshot: bool = request.snapshot  # type: ignore[attr-defined]
        self._begun = self._renewed = False
        # The digest of the changes that a stream repeats after a break, until a new one arrives.
        self._replay: str | None = None
        # When the first failure since the last message occurred.
        self._lost_since: float | None = None
        #: The feed's position; None before the start, and before the end of a snapshot.
        self.position = position
        #: Names what the caller sees; "" before the start.
        self.view = position.view if position else ""
        #: The receipts of the stream's segments so far (``penstock.hub.v1.Receipt``).
        self.receipts: list[Any] = []

    def close(self) -> None:
        """Ends the feed."""
        self._closed = True
        self.woken.put(None)
        self._watch.cancel()

    def __iter__(self) -> Generator[Batch, None, None]:
        with self._watch:
            pauses = RECONNECT.pauses()
            while not self._is_closed():
                began, position = time.monotonic(), self.position
                try:
                    yield from self._segment()
                    failure = PenstockError("UNAVAILABLE", "the stream was cut off")
                except PenstockError as error:
                    failure = error
                if self._is_closed():
                    return
                now = time.monotonic()
                if self._lost_since is None:
                    self._lost_since = now
                self._judge(failure, now - self._lost_since)
                # A stream that merely opens is no sign of progress.
                if self.position != position or now - began > RECONNECT.most:
                    pauses = RECONNECT.pauses()
                self._on_break(failure)
                with suppress(queue.Empty):
                    self.woken.get(timeout=next(pauses) or 0.0)

    def _is_closed(self) -> bool:
        return self._closed  # a method, since the value changes while the loop runs

    def _judge(self, failure: PenstockError, away: float) -> None:
        """Raises a failure that is not transient, or that has lasted too long."""
        if isinstance(failure, FeedEnded):
            raise failure
        if failure.reason in _REPAIRED:
            cursor = self.position.cursor if self.position else ""
            raise FeedEnded(failure, reconcile="REPAIR", cursor=cursor)
        passes, patience = failure.code in _PASSING, self._patience
        if not self._begun:
            # Report what the hub gives a reason for; other failures come from starting workers.
            passes = failure.code == "UNAVAILABLE" or (passes and not failure.reason)
            patience = START if patience is None else min(patience, START)
        if not passes or (patience is not None and away > patience):
            raise failure

    def _segment(self) -> Generator[Batch, None, None]:
        """The batches of one stream, to its proper end."""
        proof = _Proof()
        self._replay = "" if self.position is not None and self.position.digest else None
        with closing(
            self._link.stream(
                self._method, self._make_request(), timeout=None, opened=self._watch.opened
            )
        ) as stream:
            for message in self._watch.each(stream):
                self._lost_since = None
                proof.add(message.changes)
                if message.HasField("end"):
                    self._end(message.end, proof, stream)
                begins = message.HasField("begin")
                batch = self._begin(message.begin) if begins else self._batch(message)
                if batch is not None:
                    yield batch

    def _make_request(self) -> Any:
        request: Any = type(self._request)()
        request.CopyFrom(self._request)
        if self.position is not None:
            request.cursor, request.snapshot = self.position.cursor, False
        return request

    def _begin(self, begin: Any) -> Batch | None:
        if self.view and begin.view != self.view:
            raise PenstockError("ABORTED", "your access has changed", reason="VIEW_CHANGED")
        again, self._begun, self.view = self._begun, True, begin.view
        if again:
            return None if self.position else Batch((), "", None, begins_anew=True)
        if self.position is None and not self._snapshot:
            self.position = Position(begin.cursor, begin.view)
        elif self.position is not None and not self.position.view:
            self.position = replace(self.position, view=begin.view)
        return Batch((), self.position.cursor if self.position else "", self.position)

    def _batch(self, message: Any) -> Batch | None:
        changes = tuple(map(self._reader, message.changes))
        if self.position is not None:
            changes = self._fresh(changes, self.position)
            self.position = self.position.behind(changes)
        cursor = message.checkpoint.cursor
        if not cursor and self.position is not None:
            # A heartbeat is a checkpoint, too, unless it repeats the one before: then changes of an
            # unfinished transaction may have come since.
            cursor = message.heartbeat.cursor
            cursor = cursor if cursor != self.position.cursor else ""
        if cursor:
            self._compare_replay()
            self.position = Position(cursor, self.view)
        if not changes and not cursor:
            return None
        return Batch(changes, cursor, self.position)

    def _fresh(self, changes: Sequence[Change], position: Position) -> tuple[Change, ...]:
        """The changes that were not delivered before."""
        fresh = []
        for change in changes:
            if not position.passed(change):
                self._compare_replay()
                fresh.append(change)
            elif self._replay is not None:
                self._replay = chain_change(self._replay, change)
        return tuple(fresh)

    def _compare_replay(self) -> None:
        """Raise PenstockError unless what came again after a break is what was delivered before.

        After a failover that loses changes, the hub gives their numbers to other changes. The last
        checkpoint may be older than what was lost, so the hub cannot see it; the feed can.
        """
        replay, self._replay = self._replay, None
        if replay is not None and self.position is not None and replay != self.position.digest:
            raise PenstockError(
                "OUT_OF_RANGE",
                "the log no longer holds changes delivered after the last checkpoint",
                reason="CURSOR_INVALID",
            )

    def _end(self, end: Any, proof: _Proof, stream: Iterator[Any]) -> NoReturn:
        """Checks the hub's receipt, then raises the reason why the hub ended the stream."""
        self.receipts.append(end.receipt)
        proof.check(end.receipt)
        if end.reconcile in (changes_pb2.REPAIR, changes_pb2.STOP):
            cause = PenstockError("ABORTED", end.message, reason=end.reason)
            try:
                for _ in self._watch.each(stream):
                    pass
            except PenstockError as error:
                # The status after the last record has the request's id; a connection that breaks
                # after the record adds nothing.
                cause = error if error.reason == end.reason else cause
            name = changes_pb2.Reconcile.Name(end.reconcile)
            raise FeedEnded(cause, reconcile=name, cursor=end.cursor)
        raise PenstockError("UNAVAILABLE", end.message, reason=end.reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Proof:
    """What has arrived of a segment, compared with the hub's closing receipt."""

    def __init__(self) -> None:
        self._rows = 0
        self._digest = hashlib.sha256()

    def add(self, changes: Any) -> None:
        name = changes_pb2.Operation.Name
        lines = [f"{c.sequence}\t{name(c.operation)}\t{c.key}\n" for c in changes]
        self._rows += len(lines)
        self._digest.update("".join(lines).encode())

    def check(self, receipt: Any) -> None:
        """Raises PenstockError if the receipt does not match."""
        if receipt.row_count != self._rows or receipt.sha256 != self._digest.hexdigest():
            raise PenstockError(
                "DATA_LOSS",
                f"{self._rows} changes have arrived, and the hub's receipt stands for others",
                reason="FEED_INCOMPLETE",
                metadata={"receipt": receipt.receipt_id},
            )


class Watchdog:
    """Cancels a call whose stream is silent for too long, or on request.

    Only the time spent waiting for the next message counts. It runs a thread while it is entered.
    """

    def __init__(self) -> None:
        # Reentrant in one thread: a signal may arrive while it is held.
        self._lock = threading.RLock()
        self._call: Any = None
        self._cancelled = False
        self._waits_since: float | None = None
        self._done = threading.Event()

    def opened(self, call: Any) -> None:
        """Watches a new call in place of the one before."""
        with self._lock:
            self._call = call
            self._waits_since = time.monotonic()
            if self._cancelled:
                call.cancel()

    def cancel(self) -> None:
        """Ends the call, and any call opened later."""
        with self._lock:
            self._cancelled = True
            if self._call is not None:
                self._call.cancel()

    def each(self, stream: Iterator[Any]) -> Iterator[Any]:
        """The messages of a stream."""
        for message in stream:
            self._waits_since = None
            yield message
            self._waits_since = time.monotonic()
        self._waits_since = None

    def _look(self) -> None:
        while not self._done.wait(SILENCE / 9):
            with self._lock:
                since = self._waits_since
                silent = 0.0 if since is None else time.monotonic() - since
                if self._call is not None and silent > SILENCE:
                    self._call.cancel()

    def __enter__(self) -> Self:
        self._done.clear()
        threading.Thread(target=self._look, name="penstock-feed", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
