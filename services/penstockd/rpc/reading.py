"""Requests: from bytes to a message, within bounds, and without blocking other calls.

The protobuf parser is fast, but it holds the interpreter and creates whatever the bytes name: for
17 MiB of empty messages that is half a second and 400 MiB of memory. So a large request is split at
the borders of its fields, counted on the way, and parsed piece by piece (a message is the merger of
its pieces). The reading stops at the first field that passes its limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from penstockd.budget import let_others_run
from penstockd.errors import RequestMalformed, RequestTooLarge, ValueInvalid, Violation
from penstockd.rpc.bounds import is_record, limit_of
from penstockd.rpc.texts import refuse_null

#: Most bytes and fields that are parsed at once.
PIECE_BYTES, PIECE_FIELDS = 256 * 1024, 16 * 1024
#: How many values a message may hold in fields that are not repeated. Only the last value of each
#: field counts, so nobody has reason to send more than one.
_SPARE_FIELDS = 10_000
#: Values that are checked before other calls have their turn.
_LOOK = 500

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_NO_MESSAGE = "the request is not a message of the method's type"

_UNPACKED = (
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_MESSAGE,
)
_SIZED = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


class RequestReader:
    """Reads the requests of one method."""

    def __init__(self, kind: type[Message], most: int, prefix: str = "") -> None:
        """``kind`` is the class of the requests, and ``most`` the bytes that they may have.

        ``prefix`` is left out of the names of fields.
        """
        self._kind, self._most, self._prefix = kind, most, prefix

    async def read(self, data: bytes) -> Message:
        """Parse a request.

        Raises RequestMalformed; RequestTooLarge and, for a text that holds U+0000 or a number that
        its enum lacks, ValueInvalid, both naming the field; and CallTooCostly.
        """
        if len(data) > self._most:
            raise RequestTooLarge(f"the request has more than {self._most:,} bytes")
        message = self._kind()
        with self._named():
            await self._merge(message, data)
            await _look_through(message)
        if b"\0" in data:  # only such a message can hold U+0000 in a text
            await refuse_null(message, self._prefix)
        return message

    async def check(self, message: Message) -> None:
        """Check the bounds of a request that was not read from bytes.

        Raises RequestTooLarge and ValueInvalid, both naming the field.
        """
        with self._named():
            await _look_through(message)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn what is found to be wrong into errors for the caller."""
        try:
            yield
        except DecodeError as exc:
            raise RequestMalformed(_NO_MESSAGE) from exc
        except _BoundPassed as passed:
            field = passed.path.removeprefix(self._prefix)
            violation = Violation(field, passed.problem)
            raise RequestTooLarge(f"{field} {passed.problem}", violations=[violation]) from None
        except _ValueUnknown as unknown:
            field = unknown.path.removeprefix(self._prefix)
            raise ValueInvalid.of(
                field, f"may not be {unknown.number}, which is not a value of the enum"
            ) from None

    async def _merge(self, message: Message, data: bytes) -> None:
        """Parse the data into an empty message."""
        if len(data) <= PIECE_BYTES:
            message.MergeFromString(data)
        else:
            await _Parts(message, data, "").merge()


async def _look_through(message: Message) -> None:
    """Check that all is within bounds."""
    for i, _ in enumerate(_looked_at(message, "")):
        if i % _LOOK == _LOOK - 1:
            await let_others_run()


class _BoundPassed(Exception):
    """A field exceeds its bound."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem


class _ValueUnknown(Exception):
    """A field has a number that its enum lacks."""

    def __init__(self, path: str, number: int) -> None:
        super().__init__(path, number)
        self.path, self.number = path, number


def _looked_at(message: Message, where: str) -> Iterator[None]:
    """Yields once for each value in a message, after its bounds and its enum have been checked.

    Records are skipped: they are checked with their values. Raises _BoundPassed and _ValueUnknown.
    """
    for field, value in message.ListFields():
        path = where + field.name
        inner = field.message_type
        if field.is_repeated:
            _check_count(field, path, len(value))
            if inner is not None and inner.GetOptions().map_entry:
                yield from _read_pairs(inner, value, path)
            elif inner is not None and not is_record(inner):
                for i, item in enumerate(value):
                    yield
                    yield from _looked_at(item, f"{path}[{i}].")
            elif inner is None and (field.type in _SIZED or field.enum_type is not None):
                for i, item in enumerate(value):
                    yield
                    _check_value(field, f"{path}[{i}]", item)
        elif inner is None:
            yield
            _check_value(field, path, value)
        elif not is_record(inner):
            yield
            yield from _looked_at(value, path + ".")


def _read_pairs(entry: Descriptor, value: Any, path: str) -> Iterator[None]:
    field = entry.fields_by_name["value"]
    for key in value:
        yield
        if isinstance(key, str):
            _check_size(entry.fields_by_name["key"], path, key)
        if field.message_type is not None:
            if not is_record(field.message_type):
                yield from _looked_at(value[key], f"{path}[{key!r:.40}].")
        else:
            _check_value(field, f"{path}[{key!r:.40}]", value[key])


def _check_count(field: FieldDescriptor, path: str, count: int) -> None:
    if count > (most := limit_of(field)):
        raise _BoundPassed(path, f"must contain no more than {most} item(s)")


def _check_value(field: FieldDescriptor, path: str, value: Any) -> None:
    if field.type in _SIZED:
        _check_size(field, path, value)
    elif field.enum_type is not None and value not in field.enum_type.values_by_number:
        raise _ValueUnknown(path, value)


def _check_size(field: FieldDescriptor, path: str, value: str | bytes) -> None:
    most = limit_of(field)
    if len(value) * 4 <= most:
        return
    if len(value) > most or (isinstance(value, str) and len(value.encode()) > most):
        raise _BoundPassed(path, f"must be at most {most} bytes")


class _Parts:
    """A message that is merged from the parts of ``data``, which is large."""

    def __init__(self, message: Message, data: bytes, where: str) -> None:
        self._message, self._data, self._where = message, data, where
        self._counts: Counter[int] = Counter()
        self._spare = _SPARE_FIELDS
        self._from = self._fields = 0  # the start of the next piece, and its fields so far

    async def merge(self) -> None:
        """Parse all of it. Raises DecodeError, RequestMalformed, _BoundPassed and CallTooCostly."""
        known: Mapping[int, Any] = self._message.DESCRIPTOR.fields_by_number
        at = 0
        data, end = self._data, len(self._data)
        while at < end:
            start = at
            key, at = _decode_varint(data, at)
            kind, field = key & 7, known.get(key >> 3)
            size = 0
            if kind == _DELIMITED:
                size, at = _decode_varint(data, at)
                inside, at = at, at + size
            else:
                inside = at
                at = _skip_value(data, at, kind)
            if at > end:
                raise DecodeError(_NO_MESSAGE)
            self._count(field, kind, size)
            if size > PIECE_BYTES and field is not None and field.message_type is not None:
                await self._piece(start)
                await self._within(field, data[inside:at])
                self._from = at
            elif at - self._from >= PIECE_BYTES or self._fields >= PIECE_FIELDS:
                await self._piece(at)
        await self._piece(end)

    async def _piece(self, end: int) -> None:
        """Parse the fields counted since the last piece, up to ``end``."""
        if end > self._from:
            self._message.MergeFromString(self._data[self._from : end])
        self._from, self._fields = end, 0
        await let_others_run()

    async def _within(self, field: FieldDescriptor, data: bytes) -> None:
        """Parse a message inside this one that is large by itself."""
        assert field.message_type is not None, "it was asked for"
        if field.message_type.GetOptions().map_entry:
            raise _BoundPassed(
                self._path(field), f"holds more than {PIECE_BYTES} bytes in one pair"
            )
        if field.is_repeated:
            path = f"{self._path(field)}[{self._counts[field.number] - 1}]."
            inner = getattr(self._message, field.name).add()
        else:
            path = self._path(field) + "."
            inner = getattr(self._message, field.name)
            inner.SetInParent()
        await _Parts(inner, data, path).merge()

    def _count(self, field: FieldDescriptor | None, kind: int, size: int) -> None:
        """Count one occurrence of a field, before it is parsed."""
        self._fields += 1
        if field is None or not field.is_repeated:
            self._spare -= 1
            if not self._spare:
                raise RequestMalformed("the request repeats fields that can hold one value")
            return
        most, packs = limit_of(field), kind == _DELIMITED and field.type not in _UNPACKED
        if packs:  # an item has at most ten bytes: a lower bound
            self._counts[field.number] += size // 10
        else:
            self._counts[field.number] += 1
        if self._counts[field.number] > most:
            raise _BoundPassed(self._path(field), f"must contain no more than {most} item(s)")

    def _path(self, field: FieldDescriptor) -> str:
        return self._where + field.name


def _skip_value(data: bytes, at: int, kind: int) -> int:
    """Where the value of fixed size, or the number, that begins at ``at`` ends."""
    if kind == _VARINT:
        return _decode_varint(data, at)[1]
    if kind == _FIXED64:
        return at + 8
    if kind == _FIXED32:
        return at + 4
    raise DecodeError(_NO_MESSAGE)  # a group: none of our messages has one


def _decode_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise DecodeError(_NO_MESSAGE)
    except IndexError:
        raise DecodeError(_NO_MESSAGE) from None
