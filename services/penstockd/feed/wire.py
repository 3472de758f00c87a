"""Events as the messages that feeds carry, encoded by hand: once for all who get the same.

The fields are those of ``penstock.hub.v1.Change`` and of each dataset's own ``…Change``, which have
the same numbers; records go in as they are. A list of changes is the ``changes`` (field 1) of a
response, so that lists can be joined end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from penstockd.catalog.record import seconds_and_micros
from penstockd.catalog.wire import varint
from penstockd.feed.event import Event, Operation

#: How a record is put into field 3 or 4 of a change.
Wrap = Callable[[str, bytes], bytes]

_CHANGES = b"\x0a"
_BEFORE, _AFTER, _FIELD, _TRANSACTION, _TIME, _SEQUENCE, _DATASET = (
    b"\x1a",
    b"\x22",
    b"\x2a",
    b"\x30",
    b"\x3a",
    b"\x40",
    b"\x4a",
)
_ANY_TYPE, _ANY_VALUE = b"\x0a", b"\x12"
_HEADS = {o: b"\x08" + varint(o) + b"\x12" for o in Operation}


class ChangeCodec:
    """Encodes the changes of one dataset, as its own service's or as those of all datasets."""

    def __init__(self, type_name: str, dataset: str = "", *, include_before: bool = False) -> None:
        """``dataset`` is given for ``penstock.hub.v1.Change``, which holds records as Any."""
        self._before = include_before
        self._tail = b""
        self._type = b""
        if dataset:
            name = dataset.encode()
            self._tail = _DATASET + varint(len(name)) + name
            url = b"type.googleapis.com/" + type_name.encode()
            self._type = _ANY_TYPE + varint(len(url)) + url + _ANY_VALUE
        self._time: tuple[datetime | None, bytes] = (None, b"")

    def encode(self, event: Event) -> bytes:
        """One change as an element of ``changes``."""
        key = event.key.encode()
        parts = [_HEADS[event.operation], varint(len(key)), key]
        if self._before and event.before is not None:
            parts += self._record(_BEFORE, event.before)
        if event.after is not None:
            parts += self._record(_AFTER, event.after)
        for path in event.changed:
            name = path.encode()
            parts += (_FIELD, varint(len(name)), name)
        parts += (
            _TRANSACTION,
            varint(event.transaction),
            self._timed(event.commit_time),
            _SEQUENCE,
            varint(event.number),
            self._tail,
        )
        data = b"".join(parts)
        return b"".join((_CHANGES, varint(len(data)), data))

    def _record(self, tag: bytes, record: bytes) -> tuple[bytes, ...]:
        if not self._type:
            return tag, varint(len(record)), record
        value = varint(len(record))
        size = len(self._type) + len(value) + len(record)
        return tag, varint(size), self._type, value, record

    def _timed(self, moment: datetime) -> bytes:
        """The commit time; changes of one transaction share it."""
        latest, encoded = self._time
        if latest is not moment and latest != moment:
            stamp = timestamp(moment)
            encoded = _TIME + varint(len(stamp)) + stamp
            self._time = (moment, encoded)
        return encoded


def timestamp(moment: datetime) -> bytes:
    """A serialised google.protobuf.Timestamp."""
    seconds, micros = seconds_and_micros(moment)
    return (
        b"\x08"
        + varint(seconds & 0xFFFFFFFFFFFFFFFF)
        + (b"\x10" + varint(micros * 1000) if micros else b"")
    )


def receipt_lines(events: Iterable[Event]) -> bytes:
    """What the receipt of a segment digests: sequence, operation and key of every change."""
    return "".join([f"{e.number}\t{e.operation.name}\t{e.key}\n" for e in events]).encode()
