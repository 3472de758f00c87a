"""Digests of records: turns rows from PostgreSQL's COPY into the SHA-256 of each canonical form.

``penstock/hub/v1/digests.proto`` defines the canonical form of a record. The kernel makes and
hashes it (``src/digest.c``); it never leaves the kernel. ``penstock.client.digest`` makes the same
digests from messages and JSON.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.options.v1 import options_pb2
from penstockd.catalog import MOVING
from penstockd.catalog.model import KEY_COLUMN, VALUE_MESSAGES, Dataset, Field, Kind
from penstockd.native.abi import (
    DIGEST_OP_WORDS,
    DIGEST_PLAN_WORDS,
    DigestCode,
    DigestPlan,
    DigestShape,
    Status,
)
from penstockd.native.copy_types import COPY_TYPES
from penstockd.native.digest_kernel import Digested, DigestKernel
from penstockd.native.errors import FormatError
from penstockd.native.words import pack_words

#: Bytes of one record's digest.
DIGEST_BYTES = 32

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_PIECE = 256 << 10  # bytes passed to the kernel at once
_MOST = 16 << 20  # bytes of one row
_CODES = {
    Kind.STRING: DigestCode.STRING,
    Kind.ENUM: DigestCode.ENUM,
    Kind.BOOL: DigestCode.BOOL,
    Kind.INT32: DigestCode.INT4,
    Kind.INT64: DigestCode.INT8,
    Kind.UINT32: DigestCode.INT8_BARE,
    Kind.UINT64: DigestCode.NUMERIC,
    Kind.DECIMAL: DigestCode.DECIMAL,
    Kind.FLOAT: DigestCode.SINGLE,
    Kind.DOUBLE: DigestCode.FLOAT,
    Kind.BYTES: DigestCode.BYTEA,
    Kind.DATE: DigestCode.DATE,
    Kind.TIMESTAMP: DigestCode.TIME,
    Kind.LIST: DigestCode.JSONB,
    Kind.MAP: DigestCode.JSONB,
    Kind.STRUCT: DigestCode.JSONB,
}


def digest_fields(dataset: Dataset, fields: Sequence[Field]) -> tuple[Field, ...]:
    """The fields that a digest covers, in the order of the canonical form; always with the key."""
    # Fields that change with every write would reveal changes of fields that the caller does not
    # see.
    wanted = {f for f in fields if f.path not in MOVING} | {dataset.key}
    return tuple(sorted(wanted, key=lambda f: f.json_steps))


class Digester:
    """Turns one COPY stream of ``fields`` (``digest_fields``) into the digests of its rows.

    Not thread-safe, but ``feed`` may run in another thread: it spends its time outside the
    interpreter's lock.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._kernel = DigestKernel(canonical_plan(fields))
        self._rest = b""
        self._started = self.ended = False
        self._rows = 0

    @staticmethod
    def sql(field: Field, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """What to SELECT for a field whose (masked) value is ``column``."""
        return sa.cast(column, COPY_TYPES[field.kind][1])

    def feed(self, chunk: bytes) -> Iterator[Digested]:
        """The rows that the next bytes of the stream complete.

        Raises FormatError if a value cannot be printed, if a row takes more than 16 MiB, or if the
        stream is not a binary COPY of the digester's columns.
        """
        data = self._rest + chunk if self._rest else bytes(chunk)
        self._rest = b""
        if not self._started:
            if len(data) < _HEADER:
                self._rest = data
                return
            data = self._begin_file(data)
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE] if len(data) > _PIECE else data
            piece = self._rest + piece if self._rest else piece
            consumed = 0
            for done in self._kernel.digest(piece):
                if done.status == Status.MALFORMED:
                    raise self._malformed(done)
                consumed += done.consumed
                self._rows += done.rows
                self.ended = self.ended or done.status == Status.END
                yield done
            self._rest = b"" if self.ended else piece[consumed:]
            if len(self._rest) > _MOST:
                raise FormatError("takes more than 16 MiB", row=self._rows + 1)

    def _begin_file(self, data: bytes) -> bytes:
        (extension,) = struct.unpack_from(">i", data, _HEADER - 4)
        if not data.startswith(_SIGNATURE) or extension:
            raise FormatError("the database did not send a binary COPY")
        self._started = True
        return data[_HEADER:]

    def _malformed(self, done: Digested) -> FormatError:
        if done.detail < 0:
            return FormatError("the database did not send the columns that were asked for")
        path = self.fields[done.detail].path
        return FormatError(f"a value of '{path}' cannot be printed", row=self._rows + done.rows + 1)


def canonical_plan(fields: Sequence[Field]) -> bytes:
    """The kernel's plan for ``fields``, which must be in the order of ``digest_fields``."""
    return _DigestLayout(fields).pack()


class _DigestLayout:
    """``Plan``, ``Op``, ``Member`` and shapes of ``src/digest.c``, laid out in one block.

    Words are int32; a bytes item takes two of them, the offset and length of a literal; a tuple
    holds the number of a shape, which becomes the shape's offset.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._shapes: list[list[int | bytes | tuple[int]]] = []
        self._known: dict[str, int] = {}
        self._columns = 0
        self._key = next(i for i, f in enumerate(fields) if f.key)
        self._ops: list[list[int | bytes | tuple[int]]] = []
        self._shape([DigestShape.STRING])
        self._members(fields, 0)

    def pack(self) -> bytes:
        """The block."""
        items = [*itertools.chain.from_iterable(self._ops)]
        head = DIGEST_PLAN_WORDS + DIGEST_OP_WORDS * len(self._ops)
        sizes = [sum(_item_width(i) for i in shape) for shape in self._shapes]
        places = [4 * (head + n) for n in itertools.accumulate(sizes, initial=0)]
        items += itertools.chain.from_iterable(self._shapes)
        text, words = bytearray(), []
        for item in items:
            if isinstance(item, bytes):
                words += [places[-1] + len(text), len(item)]
                text += item
            else:
                words.append(places[item[0]] if isinstance(item, tuple) else item)
        plan = DigestPlan(self._columns, self._key, len(text), len(self._ops))
        return pack_words([*plan, *words]) + bytes(text)

    def _members(self, fields: Sequence[Field], depth: int) -> None:
        for name, found in itertools.groupby(fields, lambda f: f.json_steps[depth]):
            members = list(found)
            if members[0].json_steps[depth + 1 :]:
                op = self._op(DigestCode.GROUP, name)
                first, before = self._columns, len(self._ops)
                self._members(members, depth + 1)
                op[2:4] = [self._columns - first, len(self._ops) - before]
            else:
                self._leaf(members[0], name)

    def _leaf(self, field: Field, name: str) -> None:
        op = self._op(DigestCode.PASSED if field.path == KEY_COLUMN else _CODES[field.kind], name)
        op[1] = int(field.presence)
        if field.kind is Kind.STRUCT:
            op[4] = (self._shape([DigestShape.ANY]),)
        elif field.repeated:
            op[4] = (self._repeated(field),)
        if field.kind is Kind.ENUM:
            op[6] = _none_of(field.enum_values or {})
        self._columns += 1

    def _op(self, code: int, name: str) -> list[int | bytes | tuple[int]]:
        op: list[int | bytes | tuple[int]] = [code, 0, 0, 0, (0,), _encode_name(name), b""]
        self._ops.append(op)
        return op

    def _shape(self, shape: list[int | bytes | tuple[int]]) -> int:
        self._shapes.append(shape)
        return len(self._shapes) - 1

    def _repeated(self, field: Field) -> int:
        if field.element_message is not None:
            of = self._message(field.element_message)
        else:
            assert field.element is not None, "a repeated field has elements"
            of = self._scalar(field.element.kind, field.element.enum_values or {})
        return self._shape([DigestShape.MAP if field.kind is Kind.MAP else DigestShape.LIST, (of,)])

    def _scalar(self, kind: Kind, names: Any) -> int:
        if kind is Kind.ENUM:
            return self._shape([DigestShape.ENUM, _none_of(names)])
        shapes = {
            Kind.BOOL: DigestShape.BOOL,
            Kind.INT32: DigestShape.NUMBER,
            Kind.UINT32: DigestShape.NUMBER,
            Kind.FLOAT: DigestShape.NUMBER,
            Kind.DOUBLE: DigestShape.NUMBER,
            Kind.INT64: DigestShape.WHOLE,
            Kind.UINT64: DigestShape.WHOLE,
            Kind.DECIMAL: DigestShape.DECIMAL,
        }
        return self._shape([shapes.get(kind, DigestShape.STRING)])

    def _message(self, message: Descriptor) -> int:
        if message.full_name not in self._known:
            shape: list[int | bytes | tuple[int]] = [DigestShape.MESSAGE, len(message.fields)]
            self._known[message.full_name] = self._shape(shape)
            for fd in sorted(message.fields, key=lambda fd: fd.json_name):
                presence = int(fd.has_presence)
                name = fd.json_name
                shape += [name.encode(), _encode_name(name), presence, (self._member(fd),)]
        return self._known[message.full_name]

    def _member(self, fd: FieldDescriptor) -> int:
        of, one, is_map = fd.message_type, fd, False
        if of is not None and of.GetOptions().map_entry:
            one, is_map = of.fields_by_name["value"], True
        node = self._value(one, fd)
        return (
            self._shape([DigestShape.MAP if is_map else DigestShape.LIST, (node,)])
            if fd.is_repeated
            else node
        )

    def _value(self, fd: FieldDescriptor, field: FieldDescriptor) -> int:
        of = fd.message_type
        if of is not None:
            return (
                self._shape([DigestShape.STRING])
                if of.full_name in VALUE_MESSAGES
                else self._message(of)
            )
        if fd.enum_type is not None:
            return self._scalar(Kind.ENUM, {v.name: v.number for v in fd.enum_type.values})
        every: Any = field.GetOptions()
        if every.Extensions[options_pb2.field].WhichOneof("encoding") == "decimal":
            return self._shape([DigestShape.DECIMAL])
        return self._scalar(_KINDS.get(fd.cpp_type, Kind.STRING), {})


_KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: Kind.BOOL,
    FieldDescriptor.CPPTYPE_INT32: Kind.INT32,
    FieldDescriptor.CPPTYPE_UINT32: Kind.UINT32,
    FieldDescriptor.CPPTYPE_INT64: Kind.INT64,
    FieldDescriptor.CPPTYPE_UINT64: Kind.UINT64,
    FieldDescriptor.CPPTYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE: Kind.DOUBLE,
}


def _item_width(item: int | bytes | tuple[int]) -> int:
    return 2 if isinstance(item, bytes) else 1


def _encode_name(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def _none_of(names: Any) -> bytes:
    return next((name for name, number in names.items() if number == 0), "").encode()
