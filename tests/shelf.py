"""A table of things and its files, and the streams that feed writers of files."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from penstockd import formats
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.formats.options import FROM_FILE
from penstockd.native.keys import KeySet

HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COLUMN_TYPES = {
    Kind.BOOL: "boolean",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.UINT32: "bigint",
    Kind.UINT64: "numeric(20)",
    Kind.FLOAT: "real",
    Kind.DOUBLE: "double precision",
    Kind.BYTES: "bytea",
    Kind.DECIMAL: "numeric",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.LIST: "jsonb",
    Kind.MAP: "jsonb",
    Kind.STRUCT: "jsonb",
}


class Shelf:
    """The table of one dataset: rows in, documents out."""

    def __init__(self, connection: Any, dataset: Dataset) -> None:
        self.connection = connection
        self.dataset = dataset

    async def fill(self, rows: list[list[Any]], fields: tuple[Field, ...]) -> None:
        """Make the table hold exactly these rows of ``fields``, in this order."""
        await self.connection.execute("TRUNCATE things")
        await self.connection.copy_records_to_table(
            "things",
            records=[(i, *row) for i, row in enumerate(rows)],
            columns=["#", *(f.path for f in fields)],
        )

    async def export(
        self, name: str, fields: tuple[Field, ...], chunk: int = 1 << 20, nested: str = ""
    ) -> tuple[bytes, int]:
        """The table in a format, and the counted rows; the stream is cut into chunks."""
        writer = formats.open_writer(name, self.dataset, fields, nested=nested)
        output = bytearray(writer.head())

        async def take(data: bytes) -> None:
            for at in range(0, len(data), chunk):
                output.extend(writer.feed(data[at : at + chunk]))

        columns = ", ".join(writer.sql(f, f'"{f.path}"') for f in writer.selected)
        await self.connection.copy_from_query(
            f'SELECT {columns} FROM things ORDER BY "#"', output=take, **writer.copy_options
        )
        output.extend(writer.tail())
        return bytes(output), writer.rows


def writable(dataset: Dataset) -> tuple[Field, ...]:
    """The fields that a file may set."""
    return tuple(f for f in dataset.fields if not f.output_only)


def last_batches(reader: formats.Reader) -> list[formats.RowBatch]:
    """The reader's remaining batches after all bytes of the file."""

    async def finish() -> list[formats.RowBatch]:
        return [batch async for part in reader.finish() for batch in part]

    # In a thread: the test may have an event loop of its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, finish()).result()


def read(
    name: str,
    dataset: Dataset,
    data: bytes,
    chunk: int = 1 << 20,
    options: formats.ReadOptions = FROM_FILE,
) -> tuple[formats.Reader, list[list[Any]], list[formats.BadRow]]:
    """All rows of a file that is fed in pieces of ``chunk`` bytes."""
    reader = formats.open_reader(name, dataset, dataset.fields, options)
    batches: list[formats.RowBatch] = []
    for at in range(0, len(data), chunk):
        batches += reader.feed(data[at : at + chunk])
    batches += last_batches(reader)
    for batch in batches:
        assert len(batch.numbers) == len(batch.rows)
    return reader, [r for b in batches for r in b.rows], [r for b in batches for r in b.bad]


def copy(rows: Sequence[Sequence[bytes | None]]) -> bytes:
    """The stream of COPY BINARY that holds some rows of text."""
    stream = bytearray(HEAD)
    for row in rows:
        stream += struct.pack(">h", len(row))
        for cell in row:
            stream += b"\xff" * 4 if cell is None else struct.pack(">i", len(cell)) + cell
    return bytes(stream + b"\xff\xff")


def exported(name: str, dataset: Dataset, keys: Sequence[str], paths: Sequence[str]) -> KeySet:
    """The keys of an export of some text fields."""
    fields = [dataset.by_path[p] for p in paths]
    writer = formats.open_writer(name, dataset, fields)
    rows = [[k.encode() if f.key else b"x" for f in writer.selected] for k in keys]
    body = writer.head() + writer.feed(copy(rows)) + writer.tail()
    assert body and writer.rows == len(keys)
    return writer.keys
