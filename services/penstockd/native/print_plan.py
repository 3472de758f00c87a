"""What the kernel is told: how each column is printed, and the literals around it.

A plan is a block of little-endian int32 (``Plan`` and ``Op`` of ``src/encode.c``) followed by
the shapes of repeated fields and the literals, addressed by their offset in the block.

The kernel keeps the keys of the rows (``keys``), so that the database always sends them: where the
fields lack the key, it is a column before theirs, which is not printed.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.model import Dataset, Field, Kind

CSV, JSON, XML, SAFE_CSV, SHEET = range(5)
_GROUP, _LITERAL = 0, 1
_CODES = {
    Kind.STRING: 2,
    Kind.ENUM: 2,
    Kind.BOOL: 3,
    Kind.INT32: 4,
    Kind.INT64: 5,
    Kind.UINT32: 5,
    Kind.UINT64: 6,
    Kind.DECIMAL: 6,
    Kind.FLOAT: 7,
    Kind.DOUBLE: 7,
    Kind.BYTES: 8,
    Kind.DATE: 9,
    Kind.TIMESTAMP: 10,
    Kind.LIST: 11,
    Kind.MAP: 11,
}
_PASSED = 12
_BARE = {Kind.BOOL, Kind.INT32, Kind.UINT32, Kind.FLOAT, Kind.DOUBLE, Kind.LIST, Kind.MAP}
_SCALAR, _LIST, _MAP, _MESSAGE = range(4)  # shapes
_TIMESTAMP = "google.protobuf.Timestamp"


@dataclass
class _Op:
    code: int
    before: bytes = b""
    after: bytes = b""
    null: bytes = b""
    arg: int = 0
    shape: int = 0


@dataclass
class _Builder:
    """Collects operations, shapes and literals; ``pack`` lays them out."""

    format: int
    columns: int = 0
    key: int = 0
    ops: list[_Op] = field(default_factory=list)
    shapes: list[list[int | bytes | tuple[int]]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, format: int, fields: Sequence[Field]) -> _Builder:
        """A plan that has no operation yet but to pass over the key, if ``fields`` lack it."""
        found = cls(format)
        if lacks_key(fields):
            found.ops.append(_Op(_PASSED))
            found.columns = 1
        return found

    def leaf(self, column: Field, before: bytes, after: bytes, null: bytes) -> None:
        shape = self.shape_of(column) if self.format == XML and column.repeated else 0
        self.ops.append(_Op(_CODES[column.kind], before, after, null, self.columns, shape))
        if column.key:
            self.key = self.columns
        self.columns += 1

    def group(self, before: bytes, null: bytes) -> _Op:
        op = _Op(_GROUP, before, null=null, arg=self.columns, shape=len(self.ops))
        self.ops.append(op)
        return op

    def close(self, group: _Op, literal: bytes) -> None:
        self.ops.append(_Op(_LITERAL, literal))
        group.arg = self.columns - group.arg
        group.shape = len(self.ops) - 1 - group.shape

    def shape_of(self, column: Field) -> int:
        of = self.message(column.element_message) if column.element_message else self.scalar()
        return self.add([_MAP if column.kind is Kind.MAP else _LIST, (of,)])

    def scalar(self) -> int:
        if "" not in self.known:
            self.known[""] = self.add([_SCALAR])
        return self.known[""]

    def add(self, shape: list[int | bytes | tuple[int]]) -> int:
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def message(self, message: Descriptor) -> int:
        if message.full_name not in self.known:
            shape: list[int | bytes | tuple[int]] = [_MESSAGE, len(message.fields)]
            self.known[message.full_name] = self.add(shape)
            for fd in message.fields:
                shape += [fd.json_name.encode(), fd.name.encode(), (self.member(fd),)]
        return self.known[message.full_name]

    def member(self, fd: FieldDescriptor) -> int:
        of, is_map = fd.message_type, False
        if of is not None and of.GetOptions().map_entry:
            of, is_map = of.fields_by_name["value"].message_type, True
        plain = of is None or of.full_name == _TIMESTAMP
        node = self.scalar() if of is None or plain else self.message(of)
        return self.add([_MAP if is_map else _LIST, (node,)]) if fd.is_repeated else node

    def pack(self, opening: bytes, closing: bytes) -> bytes:
        head = 9 + 9 * len(self.ops)
        # a bytes item of a shape takes two words: offset and length
        sizes = [sum(2 if isinstance(i, bytes) else 1 for i in s) for s in self.shapes]
        places = [4 * (head + n) for n in itertools.accumulate(sizes, initial=0)]
        text = bytearray()
        origin = places[-1]

        def put(literal: bytes) -> tuple[int, int]:
            at = origin + len(text)
            text.extend(literal)
            return at, len(literal)

        words = [*put(opening), *put(closing)]
        total = len(opening) + len(closing)
        for op in self.ops:
            shape = op.shape if op.code == _GROUP else places[op.shape]
            words += [op.code, op.arg, shape, *put(op.before), *put(op.after), *put(op.null)]
            total += max(len(op.before) + len(op.after), len(op.null))
        for item in itertools.chain.from_iterable(self.shapes):
            if isinstance(item, bytes):
                words += put(item)
            else:
                words.append(places[item[0]] if isinstance(item, tuple) else item)
        words = [self.format, len(self.ops), self.columns, total, self.key, *words]
        return struct.pack(f"<{len(words)}i", *words) + bytes(text)


def lacks_key(fields: Sequence[Field]) -> bool:
    """Whether the key is not among the fields, and so must be read beside them."""
    return not any(f.key for f in fields)


def csv_plan(fields: Sequence[Field], *, safe: bool = False) -> bytes:
    """The plan of CSV lines; a NULL is a bare empty cell, an empty string is quoted.

    ``safe``: cells of text that a spreadsheet would run are disarmed by an apostrophe.
    """
    plan = _Builder.of(SAFE_CSV if safe else CSV, fields)
    for i, column in enumerate(fields):
        comma = b"," if i else b""
        plan.leaf(column, comma, b"", comma)
    return plan.pack(b"", b"\n")


def sheet_plan(fields: Sequence[Field]) -> bytes:
    """The plan of rows of an XLSX sheet; the kernel prints whole cells, a NULL is an empty one."""
    plan = _Builder.of(SHEET, fields)
    for column in fields:
        plan.leaf(column, b"", b"", b"<c/>")
    return plan.pack(b"<row>", b"</row>")


def json_plan(fields: Sequence[Field], opening: bytes, closing: bytes) -> bytes:
    """The plan of one proto JSON object a row, between ``opening`` and ``closing``."""
    plan = _Builder.of(JSON, fields)
    _json_members(plan, fields, 0)
    return plan.pack(opening + b"{", b"}" + closing)


def xml_plan(dataset: Dataset, fields: Sequence[Field]) -> bytes:
    """The plan of one element a row, named for the dataset's record."""
    plan = _Builder.of(XML, fields)
    _xml_members(plan, fields, 0)
    name = dataset.singular.encode()
    return plan.pack(b"<%s>" % name, b"</%s>\n" % name)


def _json_members(plan: _Builder, fields: Sequence[Field], depth: int) -> None:
    for i, (name, members) in enumerate(_members(fields, depth, json_names=True)):
        lead = ("," if i else "").encode() + json.dumps(name).encode() + b":"
        if members[0].steps[depth + 1 :]:
            group = plan.group(lead + b"{", lead + b"null")
            _json_members(plan, members, depth + 1)
            plan.close(group, b"}")
        else:
            quote = b"" if members[0].kind in _BARE else b'"'
            plan.leaf(members[0], lead + quote, quote, lead + b"null")


def _xml_members(plan: _Builder, fields: Sequence[Field], depth: int) -> None:
    for name, members in _members(fields, depth, json_names=False):
        opening, closing = f"<{name}>".encode(), f"</{name}>".encode()
        if members[0].steps[depth + 1 :]:
            group = plan.group(opening, b"")
            _xml_members(plan, members, depth + 1)
            plan.close(group, closing)
        else:
            plan.leaf(members[0], opening, closing, b"")


def _members(
    fields: Sequence[Field], depth: int, json_names: bool
) -> list[tuple[str, list[Field]]]:
    """Fields by their name at a depth, in order; ValueError if a message's are not together."""
    runs = itertools.groupby(fields, lambda f: (f.json_steps if json_names else f.steps)[depth])
    found = [(name, list(members)) for name, members in runs]
    if len({name for name, _ in found}) < len(found):
        raise ValueError("the fields of a nested message must stand together, each field once")
    return found
