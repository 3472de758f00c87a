"""Encodes events as the messages of feeds, by hand, once for all that get the same.

The fields are those of ``penstock.hub.v1.Change`` and of each dataset's own ``…Change``, which have
the same numbers; serialised records are inserted unchanged. A list of changes is the ``changes``
(field 1) of a response, so that lists can be joined end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache

from penstockd.catalog.record import seconds_and_micros
from penstockd.catalog.varint import encode_varint
from penstockd.feed.event import Event, FeedOperation
from penstockd.store.sequences import Sequences

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
_SHAPED_BEFORE, _SHAPED_AFTER = b"\x5a", b"\x52"
_ANY_TYPE, _ANY_VALUE = b"\x0a", b"\x12"
_HEADS = {o: b"\x08" + encode_varint(o) + b"\x12" for o in FeedOperation}
_NAMES = {o: o.name for o in FeedOperation}
#: Varints in tables: small ones, and the lowest 14 bits of larger ones.
_SMALL = 1 << 14
_SIZES = [encode_varint(i) for i in range(_SMALL)]
_LOW = [bytes((i & 0x7F | 0x80, i >> 7 | 0x80)) for i in range(_SMALL)]
#: Encoded names of changed fields; there are at most as many as fields.
_FIELDS: dict[str, bytes] = {}


class ChangeCodec:
    """Encodes changes of one dataset, in the form of its own service or of all datasets."""

    def __init__(
        self,
        type_name: str,
        sequences: Sequences,
        dataset: str = "",
        *,
        include_before: bool = False,
        shaped: bool = False,
    ) -> None:
        """``dataset`` is set for ``penstock.hub.v1.Change``, which holds records as Any.
        With ``shaped``, the records are Structs with the columns of a shape."""
        self._sequences = sequences
        self._before = include_before
        self._tags = (_SHAPED_BEFORE, _SHAPED_AFTER) if shaped else (_BEFORE, _AFTER)
        self._tail = b""
        self._type = b""
        if dataset:
            name = dataset.encode()
            self._tail = _DATASET + encode_varint(len(name)) + name
        if dataset and not shaped:
            url = b"type.googleapis.com/" + type_name.encode()
            self._type = _ANY_TYPE + encode_varint(len(url)) + url + _ANY_VALUE
        self._transaction = -1
        self._rest = b""

    def encode(self, event: Event, sequence: int) -> bytes:
        """One change as an element of ``changes``, with its sequence."""
        key = event.key.encode()
        after = event.after
        parts = [_HEADS[event.operation], _encode_size(len(key)), key]
        if self._before and event.before is not None:
            parts += self._record(self._tags[0], event.before)
        if after is not None:
            if self._type:
                parts += self._record(_AFTER, after)
            else:
                parts += (self._tags[1], _encode_size(len(after)), after)
        for path in event.changed:
            parts.append(_FIELDS.get(path) or _encode_field(path))
        transaction = event.transaction
        if transaction != self._transaction:
            self._behind(event)
        parts += (self._rest, _encode_sequence(sequence), self._tail)
        data = b"".join(parts)
        return b"".join((_CHANGES, _encode_size(len(data)), data))

    def _behind(self, event: Event) -> None:
        """Encode what changes of one transaction share: its name and time, and the next tag."""
        self._transaction = event.transaction
        stamp = encode_timestamp(event.commit_time)
        name = _encode_transaction(self._sequences.transaction(event.transaction))
        self._rest = b"".join(
            (_TRANSACTION, name, _TIME, encode_varint(len(stamp)), stamp, _SEQUENCE)
        )

    def _record(self, tag: bytes, record: bytes) -> tuple[bytes, ...]:
        if not self._type:
            return tag, _encode_size(len(record)), record
        value = _encode_size(len(record))
        size = len(self._type) + len(value) + len(record)
        return tag, _encode_size(size), self._type, value, record


def _encode_size(number: int) -> bytes:
    """A varint; most are small."""
    return _SIZES[number] if number < _SMALL else encode_varint(number)


def _encode_sequence(number: int) -> bytes:
    """A varint of a sequence; neighbours share all but the lowest bits."""
    if number < _SMALL:
        return _SIZES[number]
    high = number >> 14
    if high < _SMALL:
        return _LOW[number & 0x3FFF] + _SIZES[high]
    return _LOW[number & 0x3FFF] + _LOW[high & 0x3FFF] + _encode_high(high >> 14)


def _encode_transaction(number: int) -> bytes:
    """A varint of 63 bits; neighbours share nothing."""
    highest = number >> 56
    if not highest:  # one in 128
        return encode_varint(number)
    middle = _LOW[number >> 28 & 0x3FFF] + _LOW[number >> 42 & 0x3FFF]
    return _LOW[number & 0x3FFF] + _LOW[number >> 14 & 0x3FFF] + middle + _SIZES[highest]


@lru_cache(maxsize=64)
def _encode_high(bits: int) -> bytes:
    return encode_varint(bits)


def _encode_field(path: str) -> bytes:
    """A changed field, encoded."""
    name = path.encode()
    encoded = _FIELDS[path] = _FIELD + encode_varint(len(name)) + name
    return encoded


def encode_timestamp(moment: datetime) -> bytes:
    """A serialised google.protobuf.Timestamp."""
    seconds, micros = seconds_and_micros(moment)
    return (
        b"\x08"
        + encode_varint(seconds & 0xFFFFFFFFFFFFFFFF)
        + (b"\x10" + encode_varint(micros * 1000) if micros else b"")
    )


def receipt_lines(events: Iterable[Event], sequences: Iterable[int]) -> bytes:
    """The lines that the receipt of a segment digests: sequence, operation and key of every
    change."""
    lines = [
        f"{sequence}\t{_NAMES[event.operation]}\t{event.key}\n"
        for event, sequence in zip(events, sequences, strict=True)
    ]
    return "".join(lines).encode()
