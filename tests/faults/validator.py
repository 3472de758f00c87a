"""Judges a feed of changes: reports every broken promise as soon as it sees it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message

from penstockd.catalog import Catalog
from penstockd.catalog.record import Codec
from penstockd.store.database import Connection
from penstockd.store.log import Change
from penstockd.store.writer import Operation

#: Dataset and key -> the record, serialised with all of its fields.
State = dict[tuple[str, str], bytes]


class Broken(enum.Enum):
    """The promise that a fault breaks."""

    ORDER = "numbers rise, and each comes once"
    GAP = "no number is missing"
    ATOMICITY = "the changes of a transaction come together, and are all of it"
    CHECKPOINT = "a checkpoint stands behind a whole transaction that has been given"
    IMAGE = "a before-image is the record's last after-image"
    STATE = "all changes together make the table"
    LOST = "a write that was acknowledged comes exactly once"
    PHANTOM = "what nobody wrote does not come"
    ALIAS = "a checkpoint belongs to the current log, not to one that was undone"


@dataclass(frozen=True)
class Fault:
    """One broken promise of a feed."""

    broken: Broken
    detail: str


@dataclass(frozen=True)
class Write:
    """A write as its writer knows it: ``mark`` identifies it in the log (see FeedValidator)."""

    dataset: str
    key: str
    mark: str


def source_id(record: Message) -> str:
    """The usual mark: test writers set a unique ``source_id`` in every write."""
    return str(getattr(record, "source_id"))  # noqa: B009  # a message of any dataset


@dataclass
class FeedValidator:
    """Follows one feed from a position on; ``faults`` lists everything that it has found.

    ``after`` and ``state`` are the cursor and the records at the start of the feed. ``mark``
    returns the part of an after-image that identifies a write; the mark of a deletion is "". The
    validator ignores changes up to ``after`` and those of other writers: ``finish`` receives the
    keys that its own writers wrote.
    """

    catalog: Catalog
    after: int = 0
    state: State = field(default_factory=dict)
    mark: Callable[[Message], str] = source_id
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    _seen: Counter[Write] = field(default_factory=Counter)
    _open: int | None = None  # the transaction that is not complete yet
    _revisions: dict[str, int] = field(default_factory=dict)
    _marks: dict[int, bytes] = field(default_factory=dict)

    def change(self, change: Change) -> None:
        """Take the feed's next change."""
        self.count += 1
        self._check_number(change)
        self._check_transaction(change)
        before, after = self._image(change, change.before), self._image(change, change.after)
        self._check_images(change, before, after)
        mark = self.mark(after) if after is not None else ""
        self._seen[Write(change.dataset, change.key, mark)] += 1
        place = (change.dataset, change.key)
        if change.after is None:
            self.state.pop(place, None)
        else:
            self.state[place] = change.after

    def checkpoint(self, number: int, mark: bytes = b"") -> None:
        """The feed reports everything up to ``number`` as delivered, by a cursor with that mark."""
        if mark:
            self.resumed(number, mark)
        if self._open is not None:
            self._fault(Broken.CHECKPOINT, f"{number} splits the transaction up to {self._open}")
        if number != self.after:
            self._fault(Broken.CHECKPOINT, f"{number} was said after {self.after} was given")

    def resumed(self, number: int, mark: bytes) -> None:
        """The feed continues from, or gives out, a cursor of a place with a mark."""
        if self._marks.setdefault(number, mark) != mark:
            self._fault(Broken.ALIAS, f"{number} has had two marks")

    def finish(
        self,
        table: Mapping[tuple[str, str], bytes],
        acked: Iterable[Write],
        tried: Iterable[Write],
        marks: Mapping[int, bytes] | None = None,
    ) -> None:
        """The feed is at its end: compare it with the table and the writes, and its checkpoints
        with the log's ``marks``, by the last numbers of transactions.

        ``acked`` are the acknowledged writes; ``tried`` also includes those that may or may not be
        stored. The keys in ``tried`` must have no other changes.
        """
        if self._open is not None:
            self._fault(Broken.ATOMICITY, f"of the transaction up to {self._open} changes miss")
        self._check_state(table)
        if marks is not None:
            self._check_marks(marks)
        wanted, possible = Counter(acked), Counter(tried)
        for write, times in wanted.items():
            if self._seen[write] < times:
                self._fault(Broken.LOST, f"{write} came {self._seen[write]} times, not {times}")
        keys = {(w.dataset, w.key) for w in possible}
        for write, times in self._seen.items():
            if (write.dataset, write.key) in keys and times > possible[write]:
                self._fault(Broken.PHANTOM, f"{write} came {times} times, not {possible[write]}")

    def check(self) -> None:
        """Raise AssertionError if there were faults, with the first of them."""
        lines = [f"{f.broken.name}: {f.detail}" for f in self.faults[:10]]
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *lines])

    def _fault(self, broken: Broken, detail: str) -> None:
        self.faults.append(Fault(broken, detail))

    def _check_number(self, change: Change) -> None:
        if change.number <= self.after:
            self._fault(Broken.ORDER, f"{change.number} came after {self.after}")
        elif change.number > self.after + 1:
            self._fault(Broken.GAP, f"{change.number} came after {self.after}")
        self.after = change.number

    def _check_transaction(self, change: Change) -> None:
        if self._open is not None and change.transaction != self._open:
            self._fault(
                Broken.ATOMICITY, f"{change.number} comes amid the transaction up to {self._open}"
            )
        if change.number > change.transaction:
            self._fault(Broken.ATOMICITY, f"{change.number} is beyond its {change.transaction}")
        self._open = change.transaction if change.number < change.transaction else None

    def _image(self, change: Change, image: bytes | None) -> Message | None:
        if image is None:
            return None
        record = self.catalog[change.dataset].message_class.FromString(image)
        if (key := getattr(record, self.catalog[change.dataset].key.path)) != change.key:
            self._fault(Broken.IMAGE, f"{change.number} is of {change.key}, its image of {key}")
        return record

    def _check_images(self, change: Change, before: Message | None, after: Message | None) -> None:
        given = (before is not None, after is not None)
        fitting = {
            Operation.CREATED: (False, True),
            Operation.UPDATED: (True, True),
            Operation.DELETED: (True, False),
        }[Operation(change.operation)]
        if given != fitting:
            self._fault(Broken.IMAGE, f"{change.number} has the images {given}, not {fitting}")
        if self.state.get((change.dataset, change.key)) != change.before:
            self._fault(Broken.IMAGE, f"{change.number} of {change.key} starts from another record")
        if after is not None:
            # One transaction, one revision: the etag of everything that it wrote, and of nothing
            # else.
            revision = str(getattr(after, "etag"))  # noqa: B009  # a message of any dataset
            if self._revisions.setdefault(revision, change.transaction) != change.transaction:
                self._fault(Broken.ATOMICITY, f"revision {revision} is in two transactions")

    def _check_marks(self, marks: Mapping[int, bytes]) -> None:
        for number, mark in self._marks.items():
            if marks.get(number) != mark:
                self._fault(Broken.ALIAS, f"the log has another transaction at {number}, or none")

    def _check_state(self, table: Mapping[tuple[str, str], bytes]) -> None:
        for place in sorted(self.state.keys() | table.keys()):
            if self.state.get(place) != table.get(place):
                what = "differs" if place in self.state and place in table else "is in one only"
                self._fault(Broken.STATE, f"{place} {what}")


async def read_table(connection: Connection, catalog: Catalog) -> State:
    """All records of all datasets, in the form of the log."""
    state: State = {}
    for dataset in catalog:
        codec = Codec(dataset, dataset.fields)
        columns = ", ".join(f'"{f.path}"' for f in dataset.fields)
        for row in await connection.fetch(f'SELECT {columns} FROM data."{dataset.name}"'):
            image = codec.message(list(row)).SerializeToString(deterministic=True)
            state[dataset.name, row[dataset.key.path]] = image
    return state


async def read_marks(connection: Connection) -> dict[int, bytes]:
    """The marks of the log, by the last numbers of its transactions."""
    rows = await connection.fetch(
        "SELECT last_number, mark FROM hub.log_transaction"
        " UNION ALL SELECT oldest_number, oldest_mark FROM hub.log_head"
    )
    return {row[0]: row[1] for row in rows}
