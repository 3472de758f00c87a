"""Plans for printing: how the kernel prints each column, and the literals around it.

A plan is a block of little-endian int32 (``Plan`` and ``Op`` of ``src/encode.c``) followed by
the shapes of repeated fields and the literals, addressed by their offset in the block.

The kernel collects the keys of the rows (``keys``), so the database always sends them: if the
fields lack the key, it is a column before theirs that is not printed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.model import VALUE_MESSAGES, Dataset, Field, Kind
from penstockd.native.abi import (
    PRINT_OP_WORDS,
    PRINT_PLAN_WORDS,
    PrintCode,
    PrintFormat,
    PrintOp,
    PrintPlan,
    PrintShape,
    Text,
)
from penstockd.native.words import flatten_words, pack_words

_CODES = {
    Kind.STRING: PrintCode.TEXT,
    Kind.ENUM: PrintCode.TEXT,
    Kind.BOOL: PrintCode.BOOL,
    Kind.INT32: PrintCode.INT4,
    Kind.INT64: PrintCode.INT8,
    Kind.UINT32: PrintCode.INT8,
    Kind.UINT64: PrintCode.NUMERIC,
    Kind.DECIMAL: PrintCode.NUMERIC,
    Kind.FLOAT: PrintCode.FLOAT,
    Kind.DOUBLE: PrintCode.FLOAT,
    Kind.BYTES: PrintCode.BYTEA,
    Kind.DATE: PrintCode.DATE,
    Kind.TIMESTAMP: PrintCode.TIME,
    Kind.LIST: PrintCode.JSONB,
    Kind.MAP: PrintCode.JSONB,
    Kind.STRUCT: PrintCode.JSONB,
}
_BARE = {
    *(Kind.BOOL, Kind.INT32, Kind.UINT32, Kind.FLOAT, Kind.DOUBLE),
    *(Kind.LIST, Kind.MAP, Kind.STRUCT),
}


@dataclass
class _PrintStep:
    code: PrintCode
    before: bytes = b""
    after: bytes = b""
    null: bytes = b""
    arg: int = 0
    shape: int = 0


@dataclass
class _Builder:
    """Collects operations, shapes and literals; ``pack`` lays them out."""

    format: PrintFormat
    columns: int = 0
    key: int = 0
    ops: list[_PrintStep] = field(default_factory=list)
    shapes: list[list[int | bytes | tuple[int]]] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, format: PrintFormat, fields: Sequence[Field]) -> _Builder:
        """A plan without operations, except one to skip the key if ``fields`` lack it."""
        found = cls(format)
        if lacks_key(fields):
            found.ops.append(_PrintStep(PrintCode.PASSED))
            found.columns = 1
        return found

    def leaf(self, column: Field, before: bytes, after: bytes, null: bytes) -> None:
        shape = self.shape_of(column) if self.format == PrintFormat.XML and column.is_json else 0
        self.ops.append(_PrintStep(_CODES[column.kind], before, after, null, self.columns, shape))
        if column.key:
            self.key = self.columns
        self.columns += 1

    def group(self, before: bytes, null: bytes) -> _PrintStep:
        op = _PrintStep(PrintCode.GROUP, before, null=null, arg=self.columns, shape=len(self.ops))
        self.ops.append(op)
        return op

    def close(self, group: _PrintStep, literal: bytes) -> None:
        self.ops.append(_PrintStep(PrintCode.LITERAL, literal))
        group.arg = self.columns - group.arg
        group.shape = len(self.ops) - 1 - group.shape

    def shape_of(self, column: Field) -> int:
        if column.kind is Kind.STRUCT:
            return self.add([PrintShape.ANY])
        of = self.message(column.element_message) if column.element_message else self.scalar()
        return self.add([PrintShape.MAP if column.kind is Kind.MAP else PrintShape.LIST, (of,)])

    def scalar(self) -> int:
        if "" not in self.known:
            self.known[""] = self.add([PrintShape.SCALAR])
        return self.known[""]

    def add(self, shape: list[int | bytes | tuple[int]]) -> int:
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def message(self, message: Descriptor) -> int:
        if message.full_name not in self.known:
            shape: list[int | bytes | tuple[int]] = [PrintShape.MESSAGE, len(message.fields)]
            self.known[message.full_name] = self.add(shape)
            for fd in message.fields:
                shape += [fd.json_name.encode(), fd.name.encode(), (self.member(fd),)]
        return self.known[message.full_name]

    def member(self, fd: FieldDescriptor) -> int:
        of, is_map = fd.message_type, False
        if of is not None and of.GetOptions().map_entry:
            of, is_map = of.fields_by_name["value"].message_type, True
        plain = of is None or of.full_name in VALUE_MESSAGES
        node = self.scalar() if of is None or plain else self.message(of)
        return (
            self.add([PrintShape.MAP if is_map else PrintShape.LIST, (node,)])
            if fd.is_repeated
            else node
        )

    def pack(self, opening: bytes, closing: bytes) -> bytes:
        head = PRINT_PLAN_WORDS + PRINT_OP_WORDS * len(self.ops)
        # a bytes item of a shape takes two words: offset and length
        sizes = [sum(2 if isinstance(i, bytes) else 1 for i in s) for s in self.shapes]
        places = [4 * (head + n) for n in itertools.accumulate(sizes, initial=0)]
        text = bytearray()

        def put(literal: bytes) -> Text:
            text.extend(literal)
            return Text(places[-1] + len(text) - len(literal), len(literal))

        ends = put(opening), put(closing)
        total = len(opening) + len(closing)
        ops = []
        for op in self.ops:
            shape = op.shape if op.code == PrintCode.GROUP else places[op.shape]
            literals = put(op.before), put(op.after), put(op.null)
            ops.append(PrintOp(op.code, op.arg, shape, *literals))
            total += max(len(op.before) + len(op.after), len(op.null))
        words: list[int] = []
        for item in itertools.chain.from_iterable(self.shapes):
            if isinstance(item, bytes):
                words += put(item)
            else:
                words.append(places[item[0]] if isinstance(item, tuple) else item)
        plan = PrintPlan(self.format, len(self.ops), self.columns, total, self.key, *ends)
        return pack_words([*flatten_words(plan, *ops), *words]) + bytes(text)


def lacks_key(fields: Sequence[Field]) -> bool:
    """Whether the key is not among the fields, and so must be read in addition."""
    return not any(f.key for f in fields)


def csv_plan(fields: Sequence[Field], *, safe: bool = False) -> bytes:
    """The plan of CSV lines; a NULL is a bare empty cell, an empty string is quoted.

    ``safe``: an apostrophe disarms cells of text that a spreadsheet would run.
    """
    plan = _Builder.of(PrintFormat.SAFE_CSV if safe else PrintFormat.CSV, fields)
    for i, column in enumerate(fields):
        comma = b"," if i else b""
        plan.leaf(column, comma, b"", comma)
    return plan.pack(b"", b"\n")


def sheet_plan(fields: Sequence[Field]) -> bytes:
    """The plan of rows of an XLSX sheet; the kernel prints whole cells; NULL is an empty one."""
    plan = _Builder.of(PrintFormat.SHEET, fields)
    for column in fields:
        plan.leaf(column, b"", b"", b"<c/>")
    return plan.pack(b"<row>", b"</row>")


def json_plan(fields: Sequence[Field], opening: bytes, closing: bytes) -> bytes:
    """The plan of one proto JSON object per row, between ``opening`` and ``closing``."""
    plan = _Builder.of(PrintFormat.JSON, fields)
    _json_members(plan, fields, 0)
    return plan.pack(opening + b"{", b"}" + closing)


def xml_plan(dataset: Dataset, fields: Sequence[Field]) -> bytes:
    """The plan of one element per row, named for the dataset's record."""
    plan = _Builder.of(PrintFormat.XML, fields)
    _xml_members(plan, fields, 0)
    name = dataset.singular.encode()
    return plan.pack(b"<%s>" % name, b"</%s>\n" % name)


def _json_members(plan: _Builder, fields: Sequence[Field], depth: int) -> None:
    for i, (name, members) in enumerate(_group_members(fields, depth, json_names=True)):
        lead = ("," if i else "").encode() + json.dumps(name).encode() + b":"
        if members[0].steps[depth + 1 :]:
            group = plan.group(lead + b"{", lead + b"null")
            _json_members(plan, members, depth + 1)
            plan.close(group, b"}")
        else:
            quote = b"" if members[0].kind in _BARE else b'"'
            plan.leaf(members[0], lead + quote, quote, lead + b"null")


def _xml_members(plan: _Builder, fields: Sequence[Field], depth: int) -> None:
    for name, members in _group_members(fields, depth, json_names=False):
        opening, closing = f"<{name}>".encode(), f"</{name}>".encode()
        if members[0].steps[depth + 1 :]:
            group = plan.group(opening, b"")
            _xml_members(plan, members, depth + 1)
            plan.close(group, closing)
        else:
            plan.leaf(members[0], opening, closing, b"")


def _group_members(
    fields: Sequence[Field], depth: int, json_names: bool
) -> list[tuple[str, list[Field]]]:
    """Fields by their name at a depth, in order; ValueError if a message's are not adjacent."""
    runs = itertools.groupby(fields, lambda f: (f.json_steps if json_names else f.steps)[depth])
    found = [(name, list(members)) for name, members in runs]
    if len({name for name, _ in found}) < len(found):
        raise ValueError("the fields of a nested message must stand together, each field once")
    return found
