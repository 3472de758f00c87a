"""Reading and writing one dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from google.api import httpbody_pb2
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from penstock.client.digest import Digests
from penstock.client.errors import PenstockError
from penstock.client.export import Export
from penstock.client.feeds import DatasetFeeds
from penstock.client.files import (
    CONTENT_TYPES,
    Source,
    compression_of,
    format_of,
    is_plain,
    read_frames,
    replace_file,
)
from penstock.client.keys import find_lacking, joins_key
from penstock.client.link import Link
from penstock.client.record import Record, paths_of, to_message
from penstock.client.stubs import Stubs

#: How many times a download that cannot be resumed starts again.
RESTARTS = 2
#: Called with the number of bytes so far.
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Counts:
    """The outcome of the rows of an import or a batch.

    ``refused`` and ``row_errors`` (``penstock.hub.v1.RowError``, the first 1,000) describe the rows
    that a partial import or batch left out. ``ignored`` has the names, 100 at most, that an import
    ignored because no field has them, with the number of their values. ``columns``
    (``penstock.hub.v1.PreviewColumn``) has those of a preview.
    """

    rows: int
    created: int
    updated: int
    unchanged: int
    refused: int = 0
    row_errors: tuple[Any, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[Any, ...] = ()


class DatasetClient(DatasetFeeds):
    """The methods of one dataset; see ``Client.dataset``.

    Records are the generated messages (``record_class``); methods that take a record also take
    proto JSON as a dict. ``fields`` are field paths ("name", "billing_address.city"), as a
    sequence or a comma-separated string; by default, records carry all visible fields. Every method
    raises PenstockError; ValueError means that an argument is wrong and nothing was called.
    """

    def __init__(self, link: Link, stubs: Stubs) -> None:
        super().__init__(link, stubs)
        self._stub = stubs.stub_class(link.channel)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self._stubs.dataset

    @property
    def key(self) -> str:
        """The name of the key's field; "key" if it is a number or has several parts."""
        return self._stubs.key

    @property
    def record_class(self) -> type[Message]:
        """The class of the records."""
        return self._stubs.record_class

    @property
    def digests(self) -> Digests:
        """Digests of what the caller may see, and repair of copies by them."""
        return Digests(self._link, self._stubs)

    def get(self, key: str, *, fields: str | Sequence[str] = ()) -> Any:
        """The record with the key. NOT_FOUND if the caller can see no such record.

        A key is a text in all methods: "10248", or "10248~11" for a key of two parts.
        """
        method = self._stubs.method("Get")
        return self._call(method, safe=True, **{self.key: key}, fields=_join_fields(fields))

    def list(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        fields: str | Sequence[str] = (),
        page_size: int = 0,
    ) -> Iterator[Any]:
        """All records that match the filter (AIP-160); pages are fetched as they are consumed.

        Each page sees what is committed when it is read. For one consistent state, or for
        many records, use ``export``. ``page_size`` 0 leaves the size to the hub.
        """
        method = self._stubs.method("List", many=True)
        token = ""
        while True:
            page = self._call(
                method,
                safe=True,
                filter=filter,
                order_by=order_by,
                fields=_join_fields(fields),
                page_size=page_size,
                page_token=token,
            )
            yield from getattr(page, self._stubs.page_field(method))
            token = page.next_page_token
            if not token:
                return

    def create(self, record: Record, *, request_id: str = "", validate_only: bool = False) -> Any:
        """Creates a record and returns it as stored. ALREADY_EXISTS if its key is taken.

        For all methods that write: with a ``request_id`` (best a UUID), a call that is repeated
        within 24 hours writes nothing again and returns the same reply, so the client itself may
        repeat it if a connection breaks. ``validate_only`` checks everything and writes nothing.
        """
        return self._write("Create", record, request_id=request_id, validate_only=validate_only)

    def update(
        self,
        record: Record,
        mask: Sequence[str] | None = None,
        *,
        key: str = "",
        etag: str = "",
        allow_missing: bool = False,
        request_id: str = "",
        validate_only: bool = False,
    ) -> Any:
        """Changes the fields in ``mask`` of the record with this record's key; returns the record.

        Without a mask, changes all fields that the record sets; in a dict, null clears a field.
        With an ``etag``, ABORTED if the record has changed since. With ``allow_missing``, creates
        a missing record from all fields that are set. A record without its key needs the ``key``.
        For the rest see ``create``.
        """
        fields, beside = self._stubs.key_fields, {}
        if key and joins_key(fields):
            beside = {self.key: key}
        elif key:
            record = _with_key(record, self.key, key)
        elif lacking := find_lacking(record, fields):
            raise ValueError(f"the record lacks {lacking[0]}")
        paths = mask
        if paths is None:
            given = paths_of(record, self.record_class.DESCRIPTOR)
            unwritten = self._stubs.output_only | {f.name for f in fields}
            paths = [path for path in given if path not in unwritten]
        if not paths:
            raise ValueError("no field to update")
        return self._write(
            "Update",
            record,
            update_mask=field_mask_pb2.FieldMask(paths=paths),
            etag=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
            **beside,
        )

    def delete(
        self,
        key: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        request_id: str = "",
        validate_only: bool = False,
    ) -> None:
        """Deletes the record with the key. With an ``etag``, ABORTED if it has changed since.

        With ``allow_missing`` a missing record is no error. For the rest see ``create``.
        """
        self._call(
            self._stubs.method("Delete"),
            safe=bool(request_id),
            **{self.key: key},
            etag=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )

    def batch_upsert(
        self,
        records: Iterable[Record],
        *,
        partial: bool = False,
        request_id: str = "",
        validate_only: bool = False,
    ) -> Counts:
        """Creates or replaces records in one transaction: all of them, or none and an error.

        With ``partial`` the good records are written and the others reported. For more than a few
        thousand records use ``import_``. For the rest see ``create``.
        """
        method = self._stubs.method("BatchUpsert", many=True)
        messages = [to_message(record, self.record_class) for record in records]
        reply = self._call(
            method,
            safe=bool(request_id),
            **{self._stubs.record_field(method): messages},
            partial=partial,
            request_id=request_id,
            validate_only=validate_only,
        )
        return _read_counts(reply, len(messages))

    def import_(
        self,
        source: Source,
        format: str = "",
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
        partial: bool = False,
        request_id: str = "",
        validate_only: bool = False,
        delimiter: str = "",
        time_zone: str = "",
        ignore_unknown: bool = False,
        preview: bool = False,
        shape: str = "",
        time_precision: str = "",
    ) -> Counts:
        """Creates or replaces the records of a file, in one transaction.

        ``source`` is a path, a binary file, bytes or an iterable of bytes; ``format`` is CSV,
        NDJSON, JSON, XML, PARQUET, ARROW or XLSX, by default that of the path's suffix; the hub
        detects compression by gzip or zstd. If any row is bad, nothing is loaded: INVALID_ARGUMENT
        with up to 100 ``violations`` such as ``rows[70000].credit_limit`` (rows count from 1) and
        their total in ``metadata["bad_rows"]``. With ``partial`` the good rows are loaded, and the
        counts report the others. For ``request_id`` and ``validate_only`` see ``create``; the
        client never repeats an upload by itself. If ``source`` raises, nothing is loaded and the
        error is raised here. ``progress`` is called from another thread.

        ``delimiter`` separates the cells of CSV (comma, semicolon, tab, pipe, or the character), by
        default as the header shows. ``time_zone`` ("Europe/Berlin", "+02:00") is the zone of times
        that name none, which are refused without it. With ``ignore_unknown`` columns and members
        that no field has are ignored, and the counts name them. With ``preview`` nothing is
        written: the counts say what would be, and ``columns`` how each column is understood. With
        a ``shape`` (``id`` or ``id@version``) the file has the shape's columns, and the import
        reads them back into fields. ``time_precision="truncate"`` cuts times to microseconds.
        """
        name = format.upper() or format_of(source)
        method = self._stubs.method("Import", many=True)
        first = {
            "format": name,
            "partial": partial,
            "request_id": request_id,
            "validate_only": validate_only,
            "delimiter": delimiter,
            "time_zone": time_zone,
            "ignore_unknown": ignore_unknown,
            "preview": preview,
            "shape": shape,
            "time_precision": time_precision,
        }
        requests = self._uploads(method, first, read_frames(source), progress)
        reply = self._link.upload(getattr(self._stub, method), requests, timeout=timeout)
        ignored = {n.name: n.value_count for n in reply.ignored_names}
        counts = _read_counts(reply, reply.row_count)
        return replace(counts, ignored=ignored, columns=tuple(reply.columns))

    def export(
        self,
        format: str = "CSV",
        *,
        filter: str = "",
        order_by: str = "",
        fields: str | Sequence[str] = (),
        limit: int = 0,
        compression: str = "",
        spreadsheet_safe: bool = False,
        nested: str = "",
        shape: str = "",
        bom: bool | None = None,
        timeout: float | None = None,
    ) -> Export:
        """The records as a stream of bytes in a format: one consistent state.

        ``format`` is CSV, JSON, NDJSON, XML, PARQUET, ARROW or XLSX; ``compression`` GZIP or ZSTD,
        of the file itself. ``spreadsheet_safe`` disarms CSV cells that a spreadsheet would run as
        formulas; importing such cells does not restore the original values. ``nested="JSON"``
        makes lists and maps in Parquet and Arrow text in JSON, instead of LIST, MAP and STRUCT.
        ``bom`` begins CSV with a byte order mark, by which Excel recognises UTF-8;
        ``spreadsheet_safe`` does so too, unless ``bom`` is False.
        ``shape`` (``id`` or ``id@version``, see ``Client.shapes``) makes the file have its columns.

        It resumes by itself after a broken connection, and ends without an error only if the hub's
        receipt matches everything that arrived (see ``Export``). Closing it early ends the call.
        ``limit`` 0 means all records.
        """
        method = self._stubs.method("StreamExport", many=True)
        request = self._stubs.request(method)(
            filter=filter,
            order_by=order_by,
            fields=_join_fields(fields),
            format=format.upper(),
            limit=limit,
            compression=compression.upper(),
            spreadsheet_safe=spreadsheet_safe,
            nested=nested,
            shape=shape,
            bom=bom,
        )
        return Export(self._link, getattr(self._stub, method), request, timeout=timeout)

    def upload(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Counts:
        """Imports the file at ``path`` in the format of its suffix; see ``import_``."""
        return self.import_(Path(path), progress=progress)

    def download(
        self,
        path: str | os.PathLike[str],
        format: str = "",
        *,
        filter: str = "",
        order_by: str = "",
        fields: str | Sequence[str] = (),
        limit: int = 0,
        shape: str = "",
        progress: Progress | None = None,
    ) -> int:
        """Exports into the file at ``path`` and returns its size in bytes; see ``export``.

        The file appears under its name only once it is whole and its receipt has been checked:
        until then, and after a failure, the partial file is ``path`` + ".part". An export that
        cannot be resumed starts again. ``format`` is by default that of the suffix, and a further
        ".gz" or ".zst" compresses the file.
        """

        def start() -> Export:
            return self.export(
                format or format_of(Path(path)),
                filter=filter,
                order_by=order_by,
                fields=fields,
                limit=limit,
                shape=shape,
                compression=compression_of(path),
            )

        with replace_file(Path(path)) as file:
            return write_whole(start, file, progress)

    def _write(self, verb: str, record: Record, **more: Any) -> Any:
        method = self._stubs.method(verb)
        message = to_message(record, self.record_class)
        safe = bool(more.get("request_id"))
        return self._call(method, safe=safe, **{self._stubs.record_field(method): message}, **more)

    def _call(self, method: str, *, safe: bool, **request: Any) -> Any:
        message = self._stubs.request(method)(**request)
        return self._link.unary(getattr(self._stub, method), message, safe=safe)

    def _uploads(
        self,
        method: str,
        first: dict[str, Any],
        chunks: Iterator[bytes],
        progress: Progress | None,
    ) -> Iterator[Message]:
        request_class: Any = self._stubs.request(method)
        kind = CONTENT_TYPES.get(first["format"], "application/octet-stream")
        sent, seen = 0, hashlib.sha256()
        for chunk in chunks:
            seen.update(chunk)
            body = httpbody_pb2.HttpBody(content_type=kind if first else "", data=chunk)
            yield request_class(file=body, **first)
            first = {}
            sent += len(chunk)
            if progress:
                progress(sent)
        if first:  # an empty source is an import without rows; the hub decides whether to accept it
            yield request_class(file=httpbody_pb2.HttpBody(content_type=kind), **first)
        yield request_class(complete={"byte_count": sent, "sha256": seen.digest()})


def write_all(chunks: Iterable[bytes], file: IO[bytes], progress: Progress | None = None) -> int:
    """Writes the chunks to the file as they arrive; returns the number of bytes."""
    size = 0
    for chunk in chunks:
        file.write(chunk)
        size += len(chunk)
        if progress:
            progress(size)
    return size


def write_whole(
    start: Callable[[], Iterable[bytes]], file: IO[bytes], progress: Progress | None = None
) -> int:
    """Writes a whole export to a file; returns the number of bytes.

    If the export breaks off and cannot be resumed, empties the file and starts again, RESTARTS
    times at most; a target that cannot be emptied, such as a pipe, gets one attempt.
    """
    for left in range(RESTARTS, -1, -1):
        try:
            return write_all(start(), file, progress)
        except PenstockError as error:
            if error.reason != "EXPORT_NOT_RESUMABLE" or not left or not is_plain(file):
                raise
            file.seek(0)
            file.truncate()
    raise AssertionError("the last attempt returns or raises")


def _with_key(record: Record, field: str, key: str) -> Record:
    """The record with a key in its field."""
    if not isinstance(record, Message):
        return {**record, field: key}
    keyed = type(record)()
    keyed.CopyFrom(record)
    setattr(keyed, field, key)
    return keyed


def _read_counts(reply: Any, rows: int) -> Counts:
    return Counts(
        *(rows, reply.created_count, reply.updated_count, reply.unchanged_count),
        *(reply.refused_count, tuple(reply.row_errors)),
    )


def _join_fields(fields: str | Sequence[str]) -> str:
    return fields if isinstance(fields, str) else ",".join(fields)
