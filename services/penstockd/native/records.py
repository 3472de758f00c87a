"""Records that come as messages, made ready for the store by the kernel as rows of CSV are.

The kernel lays them out as cells (``src/records.c``), and what it then makes records of needs no
further look. A record with a value that is spelled otherwise is left, as a row of a file is.
"""

from __future__ import annotations

import functools
import itertools
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from datetime import datetime

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.native.kernel import Kernel
from penstockd.native.load_plan import load_plan
from penstockd.store.fresh import Decode, FreshRows

_CELL = "\x1f"  # split.c
_MOST_COLUMNS, _MOST_SHAPES = 1000, 64  # records.c
#: The longest name of an enum value, in bytes: records.c has room for 64 in a cell.
_MOST_NAME = 56
_GROUP, _STRING, _SCARCE, _BOOL, _ENUM, _VARINT, _ZIGZAG, _FIXED32, _FIXED64, _SFIXED32 = range(10)
_INT32, _UNSIGNED, _FLOAT, _DOUBLE, _BYTES, _TIME, _STRINGS, _LIST, _MAP = range(10, 19)
_KINDS = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _ZIGZAG,
    FieldDescriptor.TYPE_SFIXED32: _SFIXED32,
    FieldDescriptor.TYPE_INT64: _VARINT,
    FieldDescriptor.TYPE_SINT64: _ZIGZAG,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_UINT32: _UNSIGNED,
    FieldDescriptor.TYPE_UINT64: _UNSIGNED,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_FIXED64: _UNSIGNED,
    FieldDescriptor.TYPE_FLOAT: _FLOAT,
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_BOOL: _BOOL,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_ENUM: _ENUM,
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
    """Makes new records of messages of which ``fields`` count."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._dataset, self._fields = dataset, tuple(fields)

    def read(
        self, records: Sequence[Message], time: datetime, revision: int, decode: Decode
    ) -> tuple[FreshRows, list[int]]:
        """The records as new ones, by their index in ``records``, and the indexes of those left.

        ``decode`` gives the values of records by index.
        """
        fresh, everything = FreshRows(), list(range(len(records)))
        plan = load_plan(self._dataset, self._fields, time, revision)
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
class _Leaf:
    number: int
    wires: int
    kind: int
    presence: bool
    message: int
    column: int
    names: Sequence[tuple[int, bytes]] = ()


@dataclass
class _Shape:
    leaves: list[_Leaf] = member(default_factory=list)


@functools.lru_cache(256)
def message_plan(dataset: Dataset, fields: tuple[Field, ...]) -> bytes | None:
    """How the kernel finds ``fields`` in serialised records; None if it cannot hold the plan.

    A block of little-endian int32 (``Plan`` in ``records.c``), tables of enum names, and these.
    """
    shapes: list[_Shape] = [_Shape()]
    columns = {f.path: i for i, f in enumerate(fields)}
    _add(shapes, 0, dataset.message_type, fields, columns, 0)
    if len(shapes) > _MOST_SHAPES or len(columns) > _MOST_COLUMNS:
        return None
    leaves = [leaf for shape in shapes for leaf in shape.leaves]
    if any(len(name) > _MOST_NAME for leaf in leaves for _, name in leaf.names):
        return None
    head = 2 + 2 * len(shapes) + 8 * len(leaves)
    words = [len(columns), len(shapes)]
    at = 0
    for shape in shapes:
        words += [at, len(shape.leaves)]
        at += len(shape.leaves)
    names: list[int] = []
    text = bytearray()
    origin = 4 * (head + 3 * sum(len(leaf.names) for leaf in leaves))
    for leaf in leaves:
        words += [leaf.number, leaf.wires, leaf.kind, leaf.presence, leaf.message, leaf.column]
        words += [4 * (head + len(names)), len(leaf.names)]
        for value, name in leaf.names:
            names += [value, origin + len(text), len(name)]
            text += name
    words += names
    return struct.pack(f"<{len(words)}i", *words) + bytes(text)


def _add(
    shapes: list[_Shape],
    index: int,
    message: Descriptor,
    fields: Sequence[Field],
    columns: dict[str, int],
    depth: int,
) -> None:
    """Fill in the shape of a message, and add those of the messages in it."""
    leaves = shapes[index].leaves
    for name, run in itertools.groupby(fields, lambda f: f.steps[depth]):
        members, fd = list(run), message.fields_by_name[name]
        if len(members[0].steps) == depth + 1:
            column = columns[members[0].path]
            kind = _kind(fd, members[0])
            leaf = _Leaf(fd.number, _wires(fd), kind, members[0].presence, index, column)
            leaf.names = list(_names(members[0])) if kind == _ENUM else ()
            leaves.append(leaf)
            continue
        assert fd.message_type is not None, "a path goes through messages only"
        shapes.append(_Shape())
        leaves.append(_Leaf(fd.number, _SIZED_WIRE, _GROUP, True, index, len(shapes) - 1))
        _add(shapes, len(shapes) - 1, fd.message_type, members, columns, depth + 1)
    leaves.sort(key=lambda leaf: leaf.number)


def _kind(fd: FieldDescriptor, field: Field) -> int:
    match field.kind:
        case Kind.MAP:
            return _MAP
        case Kind.LIST:
            strings = field.element is not None and field.element.kind is Kind.STRING
            return _STRINGS if strings else _LIST
        case Kind.TIMESTAMP:
            return _TIME
        case Kind.STRING:
            return _STRING
        case Kind.DECIMAL | Kind.DATE:
            return _SCARCE
    return _KINDS[fd.type]


def _wires(fd: FieldDescriptor) -> int:
    """The wire types that values of a field have; those of repeated scalars may be packed."""
    return _WIRES.get(fd.type, _VARINT_WIRE) | (_SIZED_WIRE if fd.is_repeated else 0)


def _names(field: Field) -> Iterator[tuple[int, bytes]]:
    """The names of an enum, of several for one number the first."""
    known: dict[int, str] = {}
    for name, number in (field.enum_values or {}).items():
        known.setdefault(number, name)
    return ((number, name.encode()) for number, name in known.items())
