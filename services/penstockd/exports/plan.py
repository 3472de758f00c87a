"""Requests for exports, and the plans that are checked before anything is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement

from penstockd.calls import Call
from penstockd.catalog import Field
from penstockd.errors import ValueInvalid
from penstockd.formats import DocumentWriter, open_writer
from penstockd.policy.read import ExportQuery as Read
from penstockd.policy.read import Unfolding
from penstockd.policy.view import View
from penstockd.query import parse_fields
from penstockd.shapes.columns import ShapedView

#: The value of ``receipt``, in upper or lower case, that puts the receipt into the file.
INLINE = "INLINE"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request for an export, unchecked except for ``format``, which names an existing one."""

    format: str
    filter: str = ""
    order_by: str = ""
    fields: str = ""
    limit: int = 0
    compression: str = ""
    spreadsheet_safe: bool = False
    receipt: str = ""
    resume_receipt: str = ""
    resume_offset: int = 0
    nested: str = ""
    shape: str = ""
    bom: bool | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The content for the audit entry."""
        return {
            "format": self.format,
            "filter": self.filter,
            "order_by": self.order_by,
            "fields": self.fields,
            "limit": self.limit,
            "compression": self.compression.upper(),
            "resume_receipt": self.resume_receipt,
            "resume_offset": self.resume_offset,
        }

    @property
    def inline_receipt(self) -> bool:
        """Whether the file ends with its receipt, if its format has a place for it."""
        return self.receipt.upper() == INLINE


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """The file of an export: its writer, and the SQL of what the writer takes.

    ``shown`` are the fields of the dataset that it shows, ``rule_fields`` their text for
    ``Call.rule``. With an ``unfolding``, the rows are elements of a list.
    """

    writer: DocumentWriter
    columns: Sequence[ColumnElement[Any]]
    shown: Sequence[Field]
    rule_fields: str
    unfolding: Unfolding | None = None


def open_target(
    view: View, fields: str, shaped: ShapedView | None, format: str, **choices: Any
) -> ExportTarget:
    """The file of visible fields, all if ``fields`` is empty, or of a shape's columns.

    ``choices`` are those of ``open_writer``, which raises FormatUnknown and ValueInvalid. Raises
    FieldUnknown and, for both fields and a shape, ValueInvalid.
    """
    if shaped is not None:
        if fields:
            raise ValueInvalid.of(
                "fields", "cannot be combined with a shape, which has its own columns"
            )
        sql = {c.field: c.sql for c in shaped.columns}
        writer = open_writer(format, view.dataset, shaped.fields, **choices)
        sql[view.dataset.key] = view.key_column
        columns = [writer.sql(f, sql[f]) for f in writer.selected]
        unfolding = shaped.rows.unfolding
        return ExportTarget(writer, columns, shaped.reads, shaped.rule_fields, unfolding)
    shown = parse_fields(fields, view)
    # The writer knows only visible members, since the types in its file name them.
    writer = open_writer(format, view.dataset, [view.shown(f) for f in shown], **choices)
    lacks_key = len(writer.selected) > len(shown)
    selected = (view.dataset.key, *shown) if lacks_key else shown
    column = view.json_column if writer.shows_nulls else view.column
    columns = [writer.sql(f, column(f)) for f in selected]
    return ExportTarget(writer, columns, shown, fields)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """A checked export: the query, and its file."""

    export: ExportRequest
    view: View
    target: ExportTarget
    read: Read
    sql: str
    settings: Mapping[str, str]
    digest: bytes

    @classmethod
    def of(
        cls, call: Call, view: View, export: ExportRequest, shaped: ShapedView | None = None
    ) -> ExportPlan:
        """The plan of a request in a View, in the columns of ``shaped`` if it is given.

        Raises FieldUnknown, FilterInvalid, OrderInvalid, FormatUnknown and ValueInvalid.
        """
        call.asked(**export.said)
        for name in ("limit", "resume_offset"):
            if getattr(export, name) < 0:
                raise ValueInvalid.of(name, "is negative")
        if export.receipt and not export.inline_receipt:
            raise ValueInvalid.of("receipt", f"must be {INLINE.lower()}, or left out")
        target = open_target(
            view,
            export.fields,
            shaped,
            export.format,
            compression=export.compression,
            spreadsheet_safe=export.spreadsheet_safe,
            nested=export.nested,
            bom=export.bom,
        )
        read = Read(
            view,
            target.columns,
            filter=export.filter,
            order_by=export.order_by,
            unfolding=target.unfolding,
        )
        sql, settings = read.copy(export.limit)
        # The same caller, statement (with its masks and rows) and format produce the same file,
        # byte by byte. Policy revisions that change none of these do not matter.
        said = [
            call.entry.consumer_id,
            [f.path for f in target.writer.fields],
            [export.format, export.compression.upper(), export.spreadsheet_safe],
            export.nested.upper(),
            export.bom,
            sql,
            sorted(settings.items()),
            shaped.document if shaped else "",
        ]
        digest = hashlib.sha256(orjson.dumps(said)).digest()
        return cls(export, view, target, read, sql, settings, digest)
