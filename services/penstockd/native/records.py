"""The kernel prepares records that arrive as messages for the store, as it does rows of CSV.

It lays them out as cells (``src/records.c``) and makes records of these, which need no further
check. It leaves records with values that it cannot read, as it leaves such rows of a file.
"""

from __future__ import annotations

import functools
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from datetime import datetime

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.native.abi import (
    CELL,
    MESSAGE_LEAF_WORDS,
    MESSAGE_MOST_COLUMNS,
    MESSAGE_MOST_NAME,
    MESSAGE_MOST_SHAPES,
    MESSAGE_NAME_WORDS,
    MESSAGE_PLAN_WORDS,
    MESSAGE_SHAPE_WORDS,
    MessageKind,
    MessageLeaf,
    MessageName,
    MessagePlan,
    MessageShape,
    Text,
)
from penstockd.native.kernel import Kernel
from penstockd.native.load_plan import load_plan
from penstockd.native.words import flatten_words, pack_words
from penstockd.store.fresh import Decode, FreshRows

_CELL = chr(CELL)
_KINDS = {
    FieldDescriptor.TYPE_INT32: MessageKind.INT32,
    FieldDescriptor.TYPE_SINT32: MessageKind.ZIGZAG,
    FieldDescriptor.TYPE_SFIXED32: MessageKind.SFIXED32,
    FieldDescriptor.TYPE_INT64: MessageKind.VARINT,
    FieldDescriptor.TYPE_SINT64: MessageKind.ZIGZAG,
    FieldDescriptor.TYPE_SFIXED64: MessageKind.FIXED64,
    FieldDescriptor.TYPE_UINT32: MessageKind.UNSIGNED,
    FieldDescriptor.TYPE_UINT64: MessageKind.UNSIGNED,
    FieldDescriptor.TYPE_FIXED32: MessageKind.FIXED32,
    FieldDescriptor.TYPE_FIXED64: MessageKind.UNSIGNED,
    FieldDescriptor.TYPE_FLOAT: MessageKind.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: MessageKind.DOUBLE,
    FieldDescriptor.TYPE_BOOL: MessageKind.BOOL,
    FieldDescriptor.TYPE_BYTES: MessageKind.BYTES,
    FieldDescriptor.TYPE_ENUM: MessageKind.ENUM,
}


#: The wire types of scalars: bit 1 << type (https://protobuf.dev/programming-guides/encoding).
_VARINT_WIRE, _FIXED64_WIRE, _SIZED_WIRE, _FIXED32_WIRE = 1 << 0, 1 << 1, 1 << 2, 1 << 5
_WIRES = {
    FieldDescriptor.TYPE_SFIXED32: _FIXED32_WIRE,
    FieldDescriptor.TYPE_FIXED32: _FIXED32_WIRE,
    FieldDescriptor.TYPE_FLOAT: _FIXED32_WIRE,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64_WIRE,
    FieldDescriptor.TYPE_FIXED64: _FIXED64_WIRE,
    FieldDescriptor.TYPE_DOUBLE: _FIXED64_WIRE,
    FieldDescriptor.TYPE_STRING: _SIZED_WIRE,
    FieldDescriptor.TYPE_BYTES: _SIZED_WIRE,
    FieldDescriptor.TYPE_MESSAGE: _SIZED_WIRE,
}


class RecordReader:
    """Makes new records from the ``fields`` of messages."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._dataset, self._fields = dataset, tuple(fields)

    def read(
        self, records: Sequence[Message], time: datetime, etag: int, decode: Decode
    ) -> tuple[FreshRows, list[int]]:
        """The new records, by their index in ``records``, and the indexes of those that are left.

        ``decode`` returns the values of records by index.
        """
        fresh, everything = FreshRows(), list(range(len(records)))
        plan = load_plan(self._dataset, self._fields, time, etag)
        layout = message_plan(self._dataset, self._fields)
        cells = None
        if plan is not None and layout is not None:
            cells = Kernel(layout).messages([r.SerializeToString() for r in records])
        if plan is None or cells is None:
            return fresh, everything
        sizes = array("i")
        for part in Kernel(plan).load(cells, len(records), 0):
            fresh.add(part.keys.decode().split(_CELL)[:-1], part.rows, part.entries)
            sizes.frombytes(part.sizes)
        taken = [i for i, size in enumerate(sizes[::2]) if size > 0]
        left = [] if len(taken) == len(records) else sorted({*everything} - {*taken})
        fresh.source(
            taken,
            array("i", [n for n in sizes if n > 0]),
            lambda places: decode([taken[p] for p in places]),
        )
        return fresh, left


@dataclass
class _LeafStep:
    number: int
    wires: int
    kind: int
    presence: bool
    message: int
    column: int
    names: Sequence[tuple[int, bytes]] = ()


@dataclass
class _Shape:
    leaves: list[_LeafStep] = member(default_factory=list)


@functools.lru_cache(256)
def message_plan(dataset: Dataset, fields: tuple[Field, ...]) -> bytes | None:
    """How the kernel finds ``fields`` in serialised records; None if the plan exceeds its limits.

    A block of little-endian int32 (``Plan`` in ``records.c``), tables of enum names, and the names.
    """
    shapes: list[_Shape] = [_Shape()]
    columns = {f.path: i for i, f in enumerate(fields)}
    _add_shape(shapes, 0, dataset.message_type, fields, columns, 0)
    if len(shapes) > MESSAGE_MOST_SHAPES or len(columns) > MESSAGE_MOST_COLUMNS:
        return None
    leaves = [leaf for shape in shapes for leaf in shape.leaves]
    if any(len(name) > MESSAGE_MOST_NAME for leaf in leaves for _, name in leaf.names):
        return None
    firsts = itertools.accumulate((len(shape.leaves) for shape in shapes), initial=0)
    parts = [MessageShape(at, len(shape.leaves)) for at, shape in zip(firsts, shapes, strict=False)]
    names_at = MESSAGE_PLAN_WORDS + MESSAGE_SHAPE_WORDS * len(shapes)
    names_at += MESSAGE_LEAF_WORDS * len(leaves)
    text_at = names_at + MESSAGE_NAME_WORDS * sum(len(leaf.names) for leaf in leaves)
    names: list[MessageName] = []
    rows: list[MessageLeaf] = []
    text = bytearray()
    for leaf in leaves:
        places = (4 * (names_at + MESSAGE_NAME_WORDS * len(names)), len(leaf.names))
        fixed = (leaf.number, leaf.wires, leaf.kind, leaf.presence, leaf.message, leaf.column)
        rows.append(MessageLeaf(*fixed, *places))
        for value, name in leaf.names:
            names.append(MessageName(value, Text(4 * text_at + len(text), len(name))))
            text += name
    plan = MessagePlan(len(columns), len(shapes))
    return pack_words(flatten_words(plan, *parts, *rows, *names)) + bytes(text)


def _add_shape(
    shapes: list[_Shape],
    index: int,
    message: Descriptor,
    fields: Sequence[Field],
    columns: dict[str, int],
    depth: int,
) -> None:
    """Fill in the shape of a message, and add the shapes of the messages in it."""
    leaves = shapes[index].leaves
    for name, run in itertools.groupby(fields, lambda f: f.steps[depth]):
        members, fd = list(run), message.fields_by_name[name]
        if len(members[0].steps) == depth + 1:
            column = columns[members[0].path]
            kind = _shape_kind(fd, members[0])
            leaf = _LeafStep(fd.number, _wire_types(fd), kind, members[0].presence, index, column)
            leaf.names = list(_enum_names(members[0])) if kind == MessageKind.ENUM else ()
            leaves.append(leaf)
            continue
        assert fd.message_type is not None, "a path goes through messages only"
        shapes.append(_Shape())
        leaves.append(
            _LeafStep(fd.number, _SIZED_WIRE, MessageKind.GROUP, True, index, len(shapes) - 1)
        )
        _add_shape(shapes, len(shapes) - 1, fd.message_type, members, columns, depth + 1)
    leaves.sort(key=lambda leaf: leaf.number)


def _shape_kind(fd: FieldDescriptor, field: Field) -> int:
    match field.kind:
        case Kind.MAP:
            return MessageKind.MAP
        case Kind.LIST:
            strings = field.element is not None and field.element.kind is Kind.STRING
            return MessageKind.STRINGS if strings else MessageKind.LIST
        case Kind.STRUCT:
            return MessageKind.STRUCT
        case Kind.TIMESTAMP:
            return MessageKind.TIME
        case Kind.STRING:
            return MessageKind.STRING
        case Kind.DECIMAL | Kind.DATE:
            return MessageKind.SCARCE
    return _KINDS[fd.type]


def _wire_types(fd: FieldDescriptor) -> int:
    """The wire types that values of a field can have; repeated scalars may be packed."""
    return _WIRES.get(fd.type, _VARINT_WIRE) | (_SIZED_WIRE if fd.is_repeated else 0)


def _enum_names(field: Field) -> Iterator[tuple[int, bytes]]:
    """The numbers and names of an enum; the first name of each number."""
    known: dict[int, str] = {}
    for name, number in (field.enum_values or {}).items():
        known.setdefault(number, name)
    return ((number, name.encode()) for number, name in known.items())
