"""Changes as feeds deliver them, of one dataset or of several."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from penstock.client.record import read_struct
from penstock.client.record_data import to_dict
from penstock.client.stubs import load_stubs
from penstock.hub.v1 import changes_pb2

#: Makes a Change from the message of a service.
Reader = Callable[[Any], "Change"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one record in the caller's View.

    ``operation`` is CREATED, UPDATED, DELETED, ENTERED_VIEW (it existed and becomes visible),
    LEFT_VIEW (it exists and is no longer visible) or SNAPSHOT (it existed when the feed began).
    ``after`` is the record as the caller sees it now, None if it is gone; ``before`` is its earlier
    image, if asked for. With a shape they are None, and ``shaped`` and ``shaped_before`` hold its
    columns instead, sorted by name. ``changed_fields`` are the paths, or the columns, that an
    update changed. Changes that were committed together share ``transaction_id``;
    ``sequence`` rises.
    """

    dataset: str
    operation: str
    key: str
    before: Message | None
    after: Message | None
    changed_fields: tuple[str, ...]
    transaction_id: int
    commit_time: datetime
    sequence: int
    shaped_before: dict[str, Any] | None = None
    shaped: dict[str, Any] | None = None

    @property
    def gone(self) -> bool:
        """Whether the caller no longer sees the record."""
        return self.after is None and self.shaped is None

    def to_json(self) -> dict[str, Any]:
        """The change as proto JSON."""
        document: dict[str, Any] = {"operation": self.operation, "key": self.key}
        if self.before is not None:
            document["before"] = to_dict(self.before)
        if self.after is not None:
            document["after"] = to_dict(self.after)
        if self.shaped_before is not None:
            document["shapedBefore"] = self.shaped_before
        if self.shaped is not None:
            document["shaped"] = self.shaped
        if self.changed_fields:
            document["changedFields"] = list(self.changed_fields)
        moment = self.commit_time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return document | {
            "transactionId": str(self.transaction_id),
            "commitTime": moment,
            "sequence": str(self.sequence),
            "dataset": self.dataset,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a poll. Continue from ``cursor``, even if there were no changes.

    ``view`` names what the caller sees; if it has changed, changes alone do not show what has
    entered or left. ``more`` says that the next poll need not wait.
    """

    changes: tuple[Change, ...]
    cursor: str
    view: str
    more: bool


@dataclass(frozen=True, slots=True)
class Position:
    """How far a feed has come, to the change; it can be stored as JSON.

    ``cursor`` is the last checkpoint, ``view`` names what the caller sees. ``sequence`` and
    ``keys`` (dataset and key) tell which changes after the checkpoint have been delivered: all
    below ``sequence``, and those of ``keys`` with that sequence. ``digest`` stands for what these
    changes were: if the hub's database has gone back in time, others may come under their numbers.
    """

    cursor: str
    view: str = ""
    sequence: int = 0
    keys: frozenset[tuple[str, str]] = frozenset()
    digest: str = field(default="", compare=False)

    def passed(self, change: Change) -> bool:
        """Whether the change was delivered before."""
        if change.sequence != self.sequence:
            return change.sequence < self.sequence
        return (change.dataset, change.key) in self.keys

    def behind(self, changes: Iterable[Change]) -> Position:
        """The position after these changes have been delivered, too."""
        sequence, keys, digest = self.sequence, set(self.keys), self.digest
        for change in changes:
            digest = chain_change(digest, change)
            if change.sequence != sequence:
                sequence = change.sequence
                keys.clear()
            keys.add((change.dataset, change.key))
        return Position(self.cursor, self.view, sequence, frozenset(keys), digest)

    def to_json(self) -> dict[str, Any]:
        """The position as JSON."""
        keys = [list(key) for key in sorted(self.keys)]
        return {
            "cursor": self.cursor,
            "view": self.view,
            "sequence": self.sequence,
            "keys": keys,
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, found: Any) -> Position:
        """The position that ``to_json`` wrote. Raises ValueError for anything else."""
        try:
            keys = frozenset((str(dataset), str(key)) for dataset, key in found["keys"])
            position = cls(
                str(found["cursor"]),
                str(found["view"]),
                int(found["sequence"]),
                keys,
                str(found.get("digest", "")),  # positions of earlier versions have none
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the position of a feed: {error!r}") from None
        if not position.cursor:
            raise ValueError("not the position of a feed: it has no cursor")
        return position


def chain_change(digest: str, change: Change) -> str:
    """The digest of a series of changes, from that of the series without its last one.

    The commit time tells changes of one state of the database from those of another that have the
    same sequence, record and operation.
    """
    moment = change.commit_time.isoformat(timespec="microseconds")
    parts = (digest, str(change.sequence), change.dataset, change.key, change.operation, moment)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def reader_of(dataset: str = "") -> Reader:
    """The reader of changes of a dataset's own service or, without one, of several datasets."""
    return _Mixed().read if not dataset else _Typed(dataset).read


def numbers_of(operations: str | Iterable[str]) -> list[int]:
    """The numbers of operations, given by name, as a sequence or comma-separated.

    Raises ValueError for a name that is not an operation.
    """
    given = operations.split(",") if isinstance(operations, str) else operations
    names = [name.strip().upper() for name in given if name.strip()]
    known = changes_pb2.Operation.keys()[1:]
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"unknown operation '{wrong[0]}'; there are {', '.join(known)}")
    return [changes_pb2.Operation.Value(name) for name in names]


class _Typed:
    """Reads changes whose records are messages of the dataset."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset

    def read(self, message: Any) -> Change:
        before = message.before if message.HasField("before") else None
        after = message.after if message.HasField("after") else None
        return _read_change(message, self._dataset, before, after)


class _Mixed:
    """Reads changes whose records are wrapped, because they may belong to any dataset."""

    def read(self, message: Any) -> Change:
        before = self._record(message, "before")
        return _read_change(message, message.dataset, before, self._record(message, "after"))

    def _record(self, message: Any, field: str) -> Message | None:
        if not message.HasField(field):
            return None
        record_class = load_stubs(message.dataset).record_class
        return record_class.FromString(getattr(message, field).value)


def _read_change(
    message: Any, dataset: str, before: Message | None, after: Message | None
) -> Change:
    return Change(
        dataset,
        changes_pb2.Operation.Name(message.operation),
        message.key,
        before,
        after,
        tuple(message.changed_fields),
        message.transaction_id,
        message.commit_time.ToDatetime(UTC),
        message.sequence,
        read_columns(message, "shaped_before"),
        read_columns(message, "shaped"),
    )


def read_columns(message: Any, field: str) -> dict[str, Any] | None:
    """The columns of a shape in a change, sorted by name; None if the change has none."""
    if not message.HasField(field):
        return None
    found = read_struct(getattr(message, field))
    return {name: found[name] for name in sorted(found)}
