"""A copy of a dataset in a database of your own, which is kept up to date and proved equal.

import sqlite3
from penstock.client import Client, Replica

with Client("http://127.0.0.1:8080", client_id="crm", client_secret="…") as client:
    replica = Replica(client, "customers", sqlite3.connect("replica.db"))
    replica.sync()
    assert replica.verify().equal
    replica.follow()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from penstock.client.change import Change, Page, Position
from penstock.client.digest import Repaired, record_digest
from penstock.client.errors import FeedEnded, PenstockError
from penstock.client.feed import Batch, Feed
from penstock.client.keys import find_key_fields
from penstock.client.replica.table import NotTheOnly, State, Table

if TYPE_CHECKING:
    from penstock.client.client import Client

__all__ = ["NotTheOnly", "Replica", "Verified"]

#: Changes in one answer to a poll.
PAGE = 5000
#: How often a verification checks again the records that were written meanwhile.
ATTEMPTS = 10
#: How often in a row it starts again because the caller's View has changed meanwhile.
RENEWALS = 10
# Stands for the digest of a row that cannot be a record: no record has this digest.
_NO_RECORD = bytes(32)
# Errors that a repair cannot overcome, but a snapshot can.
_UNREPAIRED = {"STATE_GONE", "VIEW_CHANGED"}


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification. ``rows`` counts the rows of the replica.

    ``different`` are keys of records that the replica lacks or holds differently from the hub;
    ``unexpected`` those of records that only the replica has.
    """

    rows: int
    different: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the replica is what the hub holds."""
        return not self.different and not self.unexpected


class Replica:
    """A table with the records of a dataset as the caller may see them.

    ``connection`` is one of sqlite3, psycopg or psycopg2 that nothing else uses, and that does not
    commit by itself. The table has a column for each field: enums as their names, nested and
    repeated fields as JSON; in SQLite, times and decimals are text. Its name is ``table``, by
    default that of the dataset. The table ``penstock_replicas`` holds the replica's cursor, which
    changes in the same transaction, so nothing is lost or repeated whenever the process ends.

    ``filter`` and ``fields`` narrow what is kept; they may differ the next time. ``update_time``
    and ``etag`` are those of the last change that the caller could see.

    When changes alone do not suffice (what the caller may see has changed, or the cursor has
    expired), it repairs itself. Raises PenstockError if the caller has no access any more, or if
    what it may see changes RENEWALS times in a row before the replica has caught up, NotTheOnly if
    something else writes the same replica, and the errors of the database.
    """

    def __init__(
        self,
        client: Client,
        dataset: str,
        connection: Any,
        *,
        table: str = "",
        filter: str = "",
        fields: str | Sequence[str] = (),
    ) -> None:
        self._source = client.dataset(dataset)
        paths = fields.split(",") if isinstance(fields, str) else list(fields)
        wanted = [path.strip() for path in paths if path.strip()]
        record_class = self._source.record_class
        if wanted:
            names = [f.name for f in find_key_fields(record_class.DESCRIPTOR)]
            wanted = [*(name for name in names if name not in wanted), *wanted]
        self.table = Table(connection, dataset, table or dataset, record_class, wanted)
        self._narrowed: dict[str, Any] = {"filter": filter, "fields": wanted}
        self._feed: Feed | None = None
        self._closed = False
        #: The results of the repairs that were needed on the way.
        self.repairs: list[Repaired] = []

    @property
    def cursor(self) -> str:
        """The replica's cursor; "" before the first ``sync``."""
        return self.table.state.cursor if self.table.state else ""

    def sync(self) -> int:
        """Brings it to what the hub holds now; returns the number of changes applied."""
        done = renewals = 0
        while not self._closed:
            state = self.table.state
            if state is None:
                done += self._snapshot()
                continue
            page = self._page(state)
            if page is None:
                renewals += 1
                if renewals > RENEWALS:
                    raise _restless_view()
                self.repair()
                continue
            renewals = 0
            with self._undone():
                self._write(page.changes)
                if page.cursor != state.cursor:
                    self.table.commit(State(page.cursor, page.view))
            done += len(page.changes)
            if not page.more:
                break
        return done

    def follow(self, on_commit: Callable[[int], object] | None = None) -> None:
        """Brings it up to date and keeps it so, until another thread calls ``close``.

        After a broken connection, it continues when the hub is back. ``on_commit`` receives the
        number of changes that each transaction wrote; an error that it raises ends this, too.
        """
        told = on_commit or (lambda count: None)
        while not self._closed:
            state = self.table.state
            if state is None:
                told(self._snapshot())
                continue
            try:
                with self._open_feed(cursor=Position(state.cursor, state.view)) as feed:
                    self._take(feed, told)
            except FeedEnded as ended:
                if ended.reconcile != "REPAIR":
                    raise
                self.repair()

    def verify(self) -> Verified:
        """Brings it up to date, and compares it with the hub by digests.

        Only digests and differences are sent; nothing is repaired. Records written at the hub
        during the comparison are checked again.
        """
        for left in range(ATTEMPTS - 1, -1, -1):
            self.sync()
            cursor, store = self.cursor, _NotedRepair(self.table)
            with self._undone():
                self._source.digests.repair(store, **self._narrowed)
            written = set() if store.equal or not left else self._written_since(cursor)
            different, unexpected = store.different - written, store.unexpected - written
            if store.equal or different or unexpected or not left:
                break
        with self._undone():
            rows = self.table.count()
        return Verified(rows, tuple(sorted(different)), tuple(sorted(unexpected)))

    def repair(self) -> Repaired:
        """Makes it equal to the hub, whatever it held; only digests and differences are sent."""
        try:
            with self._undone():
                self.table.begin()
                found = self._source.digests.repair(_Mending(self.table), **self._narrowed)
                self.table.commit(State(found.cursor, found.view))
        except PenstockError as error:
            if error.reason not in _UNREPAIRED:
                raise
            upserts = self._snapshot()
            found = Repaired(self.cursor, self.table.state.view if self.table.state else "")
            found.upserts = upserts
        self.repairs.append(found)
        return found

    def close(self) -> None:
        """Ends ``follow`` in another thread. The connection stays open."""
        self._closed = True
        if self._feed is not None:
            self._feed.close()

    def _page(self, state: State) -> Page | None:
        """The next changes; None if changes alone cannot continue from the state."""
        try:
            page = self._source.changes(state.cursor, page_size=PAGE, **self._narrowed)
        except FeedEnded:
            return None
        return page if page.view == state.view else None

    def _snapshot(self) -> int:
        """Replaces all rows with what the hub holds; returns the number of rows."""
        for _ in range(1 + RENEWALS):
            try:
                return self._snapshot_once()
            except FeedEnded as ended:
                # What the caller may see changed on the way: discard what came so far.
                if ended.reconcile != "REPAIR":
                    raise
        raise _restless_view()

    def _snapshot_once(self) -> int:
        done = 0
        with self._open_feed(snapshot=True) as feed, closing(iter(feed)) as batches:
            for batch in batches:
                if batch.begins_anew or not (done or batch.changes):
                    self.table.rollback()
                    self.table.clear()
                    done = 0
                done += self._write(batch.changes)
                if batch.position is not None:
                    self._commit(batch)
                    break
        return done

    def _take(self, feed: Feed, told: Callable[[int], object]) -> None:
        done = 0
        with closing(iter(feed)) as batches:
            for batch in batches:
                done += self._write(batch.changes)
                if batch.checkpoint and (done or batch.checkpoint != self.cursor):
                    self._commit(batch)
                    told(done)
                    done = 0

    def _commit(self, batch: Batch) -> None:
        assert batch.position is not None, "behind a checkpoint there is a position"
        self.table.commit(State(batch.checkpoint, batch.position.view))

    def _write(self, changes: Iterable[Change]) -> int:
        """Writes only the final state of each record."""
        changes = tuple(changes)
        last = {change.key: change.after for change in changes}
        self.table.put(record for record in last.values() if record is not None)
        self.table.remove(key for key, record in last.items() if record is None)
        return len(changes)

    def _written_since(self, cursor: str) -> set[str]:
        """Keys of records that have changed at the hub since."""
        keys: set[str] = set()
        while True:
            page = self._source.changes(cursor, page_size=PAGE, **self._narrowed)
            keys.update(change.key for change in page.changes)
            cursor = page.cursor
            if not page.more:
                return keys

    @contextmanager
    def _open_feed(self, **begin: Any) -> Iterator[Feed]:
        self._feed = self._source.watch(**begin, **self._narrowed)
        if self._closed:
            self._feed.close()
        with self._undone(), self._feed as feed:
            yield feed

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Rolls back what the block did not commit, and leaves no transaction open."""
        try:
            yield
        finally:
            self.table.rollback()


def _restless_view() -> PenstockError:
    """The error for a View that changes too often to catch up."""
    return PenstockError(
        "ABORTED",
        f"your access has changed {1 + RENEWALS} times while the replica was brought up to it",
        reason="VIEW_CHANGED",
    )


@dataclass(slots=True)
class _Mending:
    """The replica as a store that a repair writes to."""

    table: Table

    def digests(self, start: str, end: str) -> Iterator[tuple[str, bytes]]:
        """See ``penstock.client.digest.Store``."""
        for key, record in self.table.records(start, end):
            yield key, _NO_RECORD if record is None else record_digest(record)

    def apply(self, upserts: Sequence[Message], deletes: Sequence[str]) -> None:
        """See ``penstock.client.digest.Store``."""
        self.table.put(upserts)
        self.table.remove(deletes)


@dataclass(slots=True)
class _NotedRepair(_Mending):
    """The replica as a store that only notes what a repair would write."""

    different: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)

    @property
    def equal(self) -> bool:
        """Whether there are no differences."""
        return not self.different and not self.unexpected

    def apply(self, upserts: Sequence[Message], deletes: Sequence[str]) -> None:
        """See ``penstock.client.digest.Store``."""
        self.different.update(self.table.key_of(record) for record in upserts)
        self.unexpected.update(deletes)
