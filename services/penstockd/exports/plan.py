"""Requests for exports, and the plans that are checked before anything is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement

from penstockd.calls import Call
from penstockd.catalog import Dataset, Field
from penstockd.errors import ValueInvalid
from penstockd.formats import DocumentWriter, open_writer
from penstockd.policy.model import Action
from penstockd.policy.read import ExportQuery as Read
from penstockd.policy.view import View
from penstockd.query import parse_fields


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
    omit_receipt: bool = False
    resume_receipt: str = ""
    resume_offset: int = 0
    nested: str = ""


def open_target(
    view: View, fields: Sequence[Field], format: str, **choices: Any
) -> tuple[DocumentWriter, Sequence[Field], Sequence[ColumnElement[Any]]]:
    """The writer of the visible fields, the fields that it reads, and what the caller sees of
    these.

    ``choices`` are those of ``open_writer``, which raises FormatUnknown and ValueInvalid. The
    writer knows only visible members, since the types in its file name them.
    """
    target = open_writer(format, view.dataset, [view.shown(f) for f in fields], **choices)
    lacks_key = len(target.selected) > len(fields)
    selected = (view.dataset.key, *fields) if lacks_key else tuple(fields)
    return target, selected, [target.sql(f, view.column(f)) for f in selected]


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """A checked export: the query, and the writer of its file."""

    export: ExportRequest
    view: View
    target: DocumentWriter
    read: Read
    sql: str
    settings: Mapping[str, str]
    digest: bytes

    @classmethod
    def of(cls, call: Call, dataset: Dataset, export: ExportRequest) -> ExportPlan:
        """The plan of a request.

        Raises PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid, FormatUnknown and
        ValueInvalid.
        """
        view = call.view(dataset, Action.READ)
        call.asked(
            format=export.format,
            filter=export.filter,
            order_by=export.order_by,
            fields=export.fields,
            limit=export.limit,
            compression=export.compression.upper(),
            resume_receipt=export.resume_receipt,
            resume_offset=export.resume_offset,
        )
        for name in ("limit", "resume_offset"):
            if getattr(export, name) < 0:
                raise ValueInvalid.of(name, "is negative")
        fields = parse_fields(export.fields, view)
        target, selected, columns = open_target(
            view,
            fields,
            export.format,
            compression=export.compression,
            spreadsheet_safe=export.spreadsheet_safe,
            nested=export.nested,
        )
        read = Read(view, selected, columns, filter=export.filter, order_by=export.order_by)
        sql, settings = read.copy(export.limit)
        # The same caller, statement (with its masks and rows) and format produce the same file,
        # byte by byte. Policy revisions that change none of these do not matter.
        said = [
            call.entry.consumer_id,
            [f.path for f in fields],
            [export.format, export.compression.upper(), export.spreadsheet_safe],
            export.nested.upper(),
            sql,
            sorted(settings.items()),
        ]
        digest = hashlib.sha256(orjson.dumps(said)).digest()
        return cls(export, view, target, read, sql, settings, digest)
