"""Changes as feeds give them, of one dataset or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from penstock.client.record import to_dict
from penstock.client.stubs import load_stubs
from penstock.hub.v1 import changes_pb2

#: Makes a Change of the message of a service.
Reader = Callable[[Any], "Change"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one record in the caller's View.

    ``operation`` is CREATED, UPDATED, DELETED, ENTERED_VIEW (it was there and may be seen from now
    on), LEFT_VIEW (it is there and may be seen no longer) or SNAPSHOT (it was there when the feed
    began). ``after`` is the record as the caller sees it now, None if it is gone; ``before`` as it
    was seen before, if asked for. ``changed_fields`` are the paths that differ, of an update.
    Changes that were committed together share ``transaction_id``; ``sequence`` rises.
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

    @property
    def gone(self) -> bool:
        """Whether the caller sees the record no longer."""
        return self.after is None

    def to_json(self) -> dict[str, Any]:
        """The change as proto JSON has it."""
        document: dict[str, Any] = {"operation": self.operation, "key": self.key}
        if self.before is not None:
            document["before"] = to_dict(self.before)
        if self.after is not None:
            document["after"] = to_dict(self.after)
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
    """The answer to a poll. ``cursor`` is where to go on, even if there were no changes.

    ``view`` names what the caller sees; if it is not what it was, changes alone do not tell what
    has come and gone. ``more`` says that the next poll need not wait.
    """

    changes: tuple[Change, ...]
    cursor: str
    view: str
    more: bool


@dataclass(frozen=True, slots=True)
class Position:
    """How far a feed has come, to the change; as JSON it may be kept for the next time.

    ``cursor`` is the last checkpoint, ``view`` names what the caller sees. ``sequence`` and
    ``keys`` (dataset and key) tell which changes behind the checkpoint have been given: all below
    ``sequence``, and of that sequence those of ``keys``.
    """

    cursor: str
    view: str = ""
    sequence: int = 0
    keys: frozenset[tuple[str, str]] = frozenset()

    def passed(self, change: Change) -> bool:
        """Whether the change was given before."""
        if change.sequence != self.sequence:
            return change.sequence < self.sequence
        return (change.dataset, change.key) in self.keys

    def behind(self, changes: Iterable[Change]) -> Position:
        """The position when these have been given, too."""
        sequence, keys = self.sequence, set(self.keys)
        for change in changes:
            if change.sequence != sequence:
                sequence = change.sequence
                keys.clear()
            keys.add((change.dataset, change.key))
        return Position(self.cursor, self.view, sequence, frozenset(keys))

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        keys = [list(key) for key in sorted(self.keys)]
        return {
            "cursor": self.cursor,
            "view": self.view,
            "sequence": self.sequence,
            "keys": keys,
        }

    @classmethod
    def from_json(cls, found: Any) -> Position:
        """What ``to_json`` made. Raises ValueError if it is something else."""
        try:
            keys = frozenset((str(dataset), str(key)) for dataset, key in found["keys"])
            position = cls(str(found["cursor"]), str(found["view"]), int(found["sequence"]), keys)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the position of a feed: {error!r}") from None
        if not position.cursor:
            raise ValueError("not the position of a feed: it has no cursor")
        return position


def reader_of(dataset: str = "") -> Reader:
    """How changes are read: those of a dataset's own service or, without one, those of many."""
    return _Mixed().read if not dataset else _Typed(dataset).read


def numbers_of(operations: str | Iterable[str]) -> list[int]:
    """The numbers of operations, given by name, as a sequence or with commas.

    Raises ValueError for a name that is not an operation.
    """
    given = operations.split(",") if isinstance(operations, str) else operations
    names = [name.strip().upper() for name in given if name.strip()]
    known = changes_pb2.Operation.keys()[1:]
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"there is no operation '{wrong[0]}'; there are {', '.join(known)}")
    return [changes_pb2.Operation.Value(name) for name in names]


class _Typed:
    """Reads changes whose records are messages of the dataset."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset

    def read(self, message: Any) -> Change:
        before = message.before if message.HasField("before") else None
        after = message.after if message.HasField("after") else None
        return _change(message, self._dataset, before, after)


class _Mixed:
    """Reads changes whose records are wrapped, since they may be of any dataset."""

    def read(self, message: Any) -> Change:
        before = self._record(message, "before")
        return _change(message, message.dataset, before, self._record(message, "after"))

    def _record(self, message: Any, field: str) -> Message | None:
        if not message.HasField(field):
            return None
        record_class = load_stubs(message.dataset).record_class
        return record_class.FromString(getattr(message, field).value)


def _change(message: Any, dataset: str, before: Message | None, after: Message | None) -> Change:
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
    )
