"""Reading and writing one dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from google.api import httpbody_pb2
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from penstock.client.files import CONTENT_TYPES, Source, format_of, frames, replacing
from penstock.client.link import Link
from penstock.client.record import Record, key_of, paths_of, to_message
from penstock.client.stubs import Stubs

#: Told the number of bytes so far.
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of an import or a batch."""

    rows: int
    created: int
    updated: int
    unchanged: int


class DatasetClient:
    """The methods of one dataset; see ``Client.dataset``.

    Records are the generated messages (``record_class``); methods that take a record also take
    proto JSON as a dict. ``fields`` are field paths ("name", "billing_address.city"), as a
    sequence or a comma-separated string; without them all visible fields come. Every method
    raises PenstockError; ValueError means that an argument is wrong and nothing was called.
    """

    def __init__(self, link: Link, stubs: Stubs) -> None:
        self._link = link
        self._stubs = stubs
        self._stub = stubs.stub_class(link.channel)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self._stubs.dataset

    @property
    def key(self) -> str:
        """The name of the key field."""
        return self._stubs.key

    @property
    def record_class(self) -> type[Message]:
        """The class of the records."""
        return self._stubs.record_class

    def get(self, key: str, *, fields: str | Sequence[str] = ()) -> Any:
        """The record with the key. NOT_FOUND if there is none that the caller may see."""
        method = self._stubs.method("Get")
        return self._call(method, safe=True, **{self.key: key}, fields=_joined(fields))

    def list(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        fields: str | Sequence[str] = (),
        page_size: int = 0,
    ) -> Iterator[Any]:
        """All records that the filter (AIP-160) leaves, page by page as they are drawn.

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
                fields=_joined(fields),
                page_size=page_size,
                page_token=token,
            )
            yield from getattr(page, self._stubs.page_field(method))
            token = page.next_page_token
            if not token:
                return

    def create(self, record: Record) -> Any:
        """Creates a record and returns it as stored. ALREADY_EXISTS if its key is taken."""
        return self._write("Create", record)

    def update(self, record: Record, mask: Sequence[str] | None = None, *, etag: str = "") -> Any:
        """Changes the fields in ``mask`` of the record with the record's key; returns it.

        Without a mask all fields change that the record sets; in a dict, null sets a field to
        null. With an ``etag``, ABORTED if the record has changed since.
        """
        if not key_of(record, self.record_class.DESCRIPTOR, self.key):
            raise ValueError(f"the record has no {self.key}")
        paths = mask
        if paths is None:
            given = paths_of(record, self.record_class.DESCRIPTOR)
            unwritten = self._stubs.output_only | {self.key}
            paths = [path for path in given if path not in unwritten]
        if not paths:
            raise ValueError("there is no field to update")
        return self._write(
            "Update", record, update_mask=field_mask_pb2.FieldMask(paths=paths), etag=etag
        )

    def delete(self, key: str, *, etag: str = "") -> None:
        """Deletes the record with the key. With an ``etag``, ABORTED if it has changed since."""
        self._call(self._stubs.method("Delete"), safe=False, **{self.key: key}, etag=etag)

    def batch_upsert(self, records: Iterable[Record]) -> Counts:
        """Creates or replaces records in one transaction: all of them, or none and an error.

        For more than some thousands use ``import_``.
        """
        method = self._stubs.method("BatchUpsert", many=True)
        messages = [to_message(record, self.record_class) for record in records]
        reply = self._call(method, safe=False, **{self._stubs.record_field(method): messages})
        return _counts(reply, len(messages))

    def import_(
        self,
        source: Source,
        format: str = "",
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Counts:
        """Creates or replaces the records of a file, in one transaction.

        ``source`` is a path, a binary file, bytes or an iterable of bytes; ``format`` CSV,
        NDJSON or JSON, by default that of the path's suffix. If any row is bad, nothing is
        loaded: INVALID_ARGUMENT with up to 100 ``violations`` such as
        ``rows[70000].credit_limit`` (rows count from 1) and their total in
        ``metadata["bad_rows"]``. If ``source`` raises, nothing is loaded and the error comes
        through. ``progress`` is called from another thread.
        """
        name = format.upper() or format_of(source)
        method = self._stubs.method("Import", many=True)
        requests = self._uploads(method, name, frames(source), progress)
        reply = self._link.upload(getattr(self._stub, method), requests, timeout=timeout)
        return _counts(reply, reply.row_count)

    def export(
        self,
        format: str = "CSV",
        *,
        filter: str = "",
        order_by: str = "",
        fields: str | Sequence[str] = (),
        limit: int = 0,
        timeout: float | None = None,
    ) -> Generator[bytes, None, None]:
        """The records as a stream of bytes in CSV, JSON, NDJSON or XML: one consistent state.

        The chunks have no meaning of their own. Only an iterator that ends without an error
        has given everything; closing it early ends the call. ``limit`` 0 means all records.
        """
        method = self._stubs.method("StreamExport", many=True)
        request = self._stubs.request(method)(
            filter=filter,
            order_by=order_by,
            fields=_joined(fields),
            format=format.upper(),
            limit=limit,
        )
        bodies = self._link.stream(getattr(self._stub, method), request, timeout=timeout)
        return _data(bodies)

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
        progress: Progress | None = None,
    ) -> int:
        """Exports into the file at ``path`` and returns its size in bytes; see ``export``.

        The file appears under its name only when it is whole: until then, and after a failure,
        what there is stands in ``path`` + ".part". ``format`` is by default that of the suffix.
        """
        chunks = self.export(
            format or format_of(Path(path)),
            filter=filter,
            order_by=order_by,
            fields=fields,
            limit=limit,
        )
        with replacing(Path(path)) as file:
            return write_all(chunks, file, progress)

    def _write(self, verb: str, record: Record, **more: Any) -> Any:
        method = self._stubs.method(verb)
        message = to_message(record, self.record_class)
        return self._call(method, safe=False, **{self._stubs.record_field(method): message}, **more)

    def _call(self, method: str, *, safe: bool, **request: Any) -> Any:
        message = self._stubs.request(method)(**request)
        return self._link.unary(getattr(self._stub, method), message, safe=safe)

    def _uploads(
        self, method: str, format: str, chunks: Iterator[bytes], progress: Progress | None
    ) -> Iterator[Message]:
        request_class: Any = self._stubs.request(method)
        kind = CONTENT_TYPES.get(format, "application/octet-stream")
        first: dict[str, str] = {"format": format}
        sent = 0
        for chunk in chunks:
            body = httpbody_pb2.HttpBody(content_type=kind if first else "", data=chunk)
            yield request_class(file=body, **first)
            first = {}
            sent += len(chunk)
            if progress:
                progress(sent)
        if first:  # an empty source is an import of no rows, which the hub may judge
            yield request_class(file=httpbody_pb2.HttpBody(content_type=kind), **first)


def write_all(chunks: Iterable[bytes], file: IO[bytes], progress: Progress | None = None) -> int:
    """Writes the chunks to the file as they come; returns the number of bytes."""
    size = 0
    for chunk in chunks:
        file.write(chunk)
        size += len(chunk)
        if progress:
            progress(size)
    return size


def _data(bodies: Generator[Any, None, None]) -> Generator[bytes, None, None]:
    with closing(bodies):
        for body in bodies:
            yield body.data


def _counts(reply: Any, rows: int) -> Counts:
    return Counts(rows, reply.created_count, reply.updated_count, reply.unchanged_count)


def _joined(fields: str | Sequence[str]) -> str:
    return fields if isinstance(fields, str) else ",".join(fields)
