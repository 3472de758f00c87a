"""Plans for loading: how ``src/load.c`` makes new records from CSV cells.

A plan is a block of little-endian int32 (``Plan`` and ``Op`` there), the tables of enum names, and
the literals, addressed by their offset in the block.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.checks import FieldRules
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.oneofs import oneofs_of
from penstockd.catalog.rules import Rules
from penstockd.catalog.wire import column_encoder, tag_of
from penstockd.native.abi import (
    LOAD_MOST_COLUMNS,
    LOAD_MOST_DEPTH,
    LOAD_NAME_WORDS,
    LOAD_OP_WORDS,
    LOAD_PLAN_WORDS,
    LoadCode,
    LoadName,
    LoadNumber,
    LoadOp,
    LoadPlan,
    LoadRequired,
    Text,
)
from penstockd.native.conditions import KernelRule, kernel_rules
from penstockd.native.words import flatten_words, pack_words
from penstockd.store.fresh import ENTRY_COLUMNS
from penstockd.store.rows import Defaults
from penstockd.store.writer import Operation

_CODES = {
    Kind.STRING: LoadCode.TEXT,
    Kind.ENUM: LoadCode.ENUM,
    Kind.BOOL: LoadCode.BOOL,
    Kind.INT32: LoadCode.INT32,
    Kind.INT64: LoadCode.INT64,
    Kind.UINT32: LoadCode.UINT32,
    Kind.UINT64: LoadCode.UINT64,
    Kind.FLOAT: LoadCode.FLOAT,
    Kind.DOUBLE: LoadCode.DOUBLE,
    Kind.DECIMAL: LoadCode.DECIMAL,
    Kind.DATE: LoadCode.DATE,
    Kind.TIMESTAMP: LoadCode.TIME,
}
_NUMBERS = {
    FieldDescriptor.TYPE_SINT32: LoadNumber.ZIGZAG,
    FieldDescriptor.TYPE_SINT64: LoadNumber.ZIGZAG,
    FieldDescriptor.TYPE_FIXED32: LoadNumber.FIXED32,
    FieldDescriptor.TYPE_SFIXED32: LoadNumber.FIXED32,
    FieldDescriptor.TYPE_FIXED64: LoadNumber.FIXED64,
    FieldDescriptor.TYPE_SFIXED64: LoadNumber.FIXED64,
}
#: More than a cell can take in a row or an image in addition to four times its bytes in the file.
_PER_OP = 64
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = struct.pack(">i", -1)


@dataclass
class _LoadStep:
    code: LoadCode
    column: int = -1
    arg: int = 0
    extra: int = 0
    required: int = 0
    presence: bool = False
    rules: Sequence[KernelRule] = ()
    literals: list[bytes] = member(default_factory=lambda: [b""] * 5)
    names: list[tuple[bytes, bytes]] = member(default_factory=list)


class _NoPlan(Exception):
    """The kernel cannot make these records."""


def load_plan(
    dataset: Dataset, header: Sequence[Field | None], time: datetime, etag: int
) -> bytes | None:
    """The plan of rows whose cells are those of ``header``, written at ``time`` with this etag.

    Cells of output-only fields and of None are skipped. The records that it makes meet the rules of
    the model. None if the kernel cannot check these, or if the dataset requires fields that neither
    the header nor the hub sets: the database then reports what is wrong.
    """
    stamps = {"create_time": time, "update_time": time, "etag": etag}
    columns = {f.path: i for i, f in enumerate(header) if f is not None and not f.output_only}
    if len(header) > LOAD_MOST_COLUMNS or Rules.of(dataset).slow or oneofs_of(dataset):
        return None
    try:
        ops = list(_Planner(dataset, columns, stamps).ops(dataset.message_type, dataset.fields, 0))
    except _NoPlan:
        return None
    key = [(columns[f.path], f.kind is not Kind.STRING) for f in dataset.key_fields]
    parts = [-1 - cell if whole else cell for cell, whole in key]
    return _pack_plan(dataset, len(header), parts, ops)


class _Planner:
    def __init__(
        self, dataset: Dataset, columns: Mapping[str, int], stamps: Mapping[str, Any]
    ) -> None:
        self._columns, self._stamps = columns, stamps
        self._defaults = Defaults.of(dataset)
        self._place = {f.path: i for i, f in enumerate(dataset.fields)}
        self._rules = Rules.of(dataset)
        self._count = 0

    def ops(self, message: Descriptor, fields: Sequence[Field], depth: int) -> Iterator[_LoadStep]:
        """The operations of some fields of a message, in the order of ``WireCodec``'s images."""
        if depth >= LOAD_MOST_DEPTH:
            raise _NoPlan
        for name, run in itertools.groupby(fields, lambda f: f.steps[depth]):
            members, fd = list(run), message.fields_by_name[name]
            if len(members[0].steps) == depth + 1:
                self._count += 1
                yield self._leaf(fd, members[0])
                continue
            assert fd.message_type is not None, "a path goes through messages only"
            group = _LoadStep(LoadCode.GROUP)
            group.literals[0] = tag_of(fd)
            self._count += 1
            yield group
            yield from self.ops(fd.message_type, members, depth + 1)
            # All operations up to this one have been generated, so their number is known.
            group.arg = self._count
            self._count += 1
            yield _LoadStep(LoadCode.CLOSE)

    def _within(self, field: Field) -> Any:
        return self._defaults.within(self._place[field.path])

    def _leaf(self, fd: FieldDescriptor, field: Field) -> _LoadStep:
        encode = column_encoder(fd, field)

        def image(value: Any) -> bytes:
            return encode([value])[0]

        if field.path in self._stamps:
            value = within = self._stamps[field.path]
        else:
            value, within = self._defaults.value(self._place[field.path]), self._within(field)
        op = _LoadStep(LoadCode.OTHER, self._columns.get(field.path, -1), presence=field.presence)
        if value is None and not field.nullable:
            if op.column < 0:
                raise _NoPlan
            op.required = LoadRequired.ALWAYS
        if field.in_key:
            op.required = LoadRequired.ALWAYS
        literals = [
            _encode_column(field, value),
            image(value),
            _encode_column(field, within),
            image(within),
        ]
        op.literals = [tag_of(fd), *literals]
        if op.column >= 0:
            _set_reading(op, fd, field, image)
        if rules := self._rules.by_path.get(field.path):
            _set_judging(op, field, rules, value, within)
        return op


def _set_reading(
    op: _LoadStep, fd: FieldDescriptor, field: Field, image: Callable[[Any], bytes]
) -> None:
    """Set how the cells of a column are read, if the kernel can read them."""
    op.code = _CODES.get(field.kind, LoadCode.OTHER)
    if (field.indexed or field.unique) and field.kind in (Kind.STRING, Kind.BYTES):
        op.code = LoadCode.OTHER  # their length is limited
        return
    match field.kind:
        case Kind.ENUM:
            op.names = [(name.encode(), image(name)) for name in field.enum_values or ()]
            op.extra = len(op.names)
        case Kind.DECIMAL:
            op.arg, op.extra = field.precision or 38, field.scale
        case Kind.INT32 | Kind.INT64 | Kind.UINT32 | Kind.UINT64:
            op.arg = _NUMBERS.get(fd.type, LoadNumber.VARINT)
        case Kind.LIST if field.element is not None and field.element.kind is Kind.STRING:
            op.code = LoadCode.STRINGS
        case Kind.LIST | Kind.MAP:
            op.arg = int.from_bytes(b"[]" if field.kind is Kind.LIST else b"{}", "little")


def _set_judging(op: _LoadStep, field: Field, rules: FieldRules, value: Any, within: Any) -> None:
    """Add the model's rules for a column's cells; require a cell if the default violates them."""
    nested = len(field.steps) > 1
    default = within if nested else value
    if field.repeated and default is not None:
        default = orjson.loads(default)
    if any(rules.problems(default, "")):
        op.required |= LoadRequired.WITHIN if nested else LoadRequired.ABSENT
    if op.column < 0:
        return
    if op.code == LoadCode.ENUM:
        op.names = [n for n in op.names if not any(rules.problems(n[0].decode(), ""))]
        op.extra = len(op.names)
        return
    found = kernel_rules(field, rules)
    if found is None:
        op.code, op.arg = LoadCode.OTHER, 0  # the kernel reads no cell of it
    else:
        op.rules = found


def _encode_column(field: Field, value: Any) -> bytes:
    """A column of COPY BINARY with a value that the hub itself sets."""
    if value is None:
        return _NULL
    if field.is_etag:
        return _prefix_size(struct.pack(">q", value))
    match field.kind:
        case Kind.STRING | Kind.ENUM:
            return _prefix_size(value.encode())
        case Kind.BOOL:
            return _prefix_size(struct.pack(">?", value))
        case Kind.INT32:
            return _prefix_size(struct.pack(">i", value))
        case Kind.INT64 | Kind.UINT32:
            return _prefix_size(struct.pack(">q", value))
        case Kind.UINT64 | Kind.DECIMAL if not value:
            return _prefix_size(bytes(8))
        case Kind.FLOAT:
            return _prefix_size(struct.pack(">f", value))
        case Kind.DOUBLE:
            return _prefix_size(struct.pack(">d", value))
        case Kind.BYTES:
            return _prefix_size(value)
        case Kind.TIMESTAMP:
            return _prefix_size(struct.pack(">q", (value - _EPOCH) // timedelta(microseconds=1)))
        case Kind.LIST | Kind.MAP:
            return _prefix_size(b"\x01" + value.encode())
    raise _NoPlan


def _prefix_size(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _pack_plan(dataset: Dataset, width: int, key: Sequence[int], ops: Sequence[_LoadStep]) -> bytes:
    text = bytearray()
    names: list[LoadName] = []
    names_at = LOAD_PLAN_WORDS + LOAD_OP_WORDS * len(ops)
    text_at = 4 * (names_at + LOAD_NAME_WORDS * sum(len(op.names) for op in ops))

    def put(literal: bytes) -> Text:
        text.extend(literal)
        return Text(text_at + len(text) - len(literal), len(literal))

    def put_words(words: bytes) -> int:
        text.extend(bytes(-(text_at + len(text)) % 4))
        return put(words).at

    opening = [
        struct.pack(">h", len(dataset.fields)),
        struct.pack(">hi", len(ENTRY_COLUMNS), 8),
        _prefix_size(dataset.name.encode()),
        _prefix_size(struct.pack(">h", Operation.CREATED)),
    ]
    heads = [put(literal) for literal in opening]
    rows = []
    for op in ops:
        arg = op.arg
        if op.names:
            arg = 4 * (names_at + LOAD_NAME_WORDS * len(names))
            names += (LoadName(put(n), put(i)) for n, i in op.names)
        rules_at = put_words(b"".join([r.packed(put_words(r.parts)) for r in op.rules]))
        fixed = (op.code, op.column, arg, op.extra, op.required, op.presence)
        rows.append(LoadOp(*fixed, rules_at, len(op.rules), *map(put, op.literals)))
    beside = len(text) + _PER_OP * (len(ops) + 1)
    plan = LoadPlan(width, len(ops), len(key), put_words(pack_words(key)), beside, *heads)
    return pack_words(flatten_words(plan, *rows, *names)) + bytes(text)
