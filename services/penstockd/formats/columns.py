"""Columnar exports: turns the rows of a COPY stream into Arrow record batches.

The kernel lays the columns out (``columns.c``) and Arrow reads them in place, so that no value
passes through the interpreter. Arrow is loaded at its first use, which takes half a second;
``formats.load_ahead`` does so in advance.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.formats.nested import NestedColumn, nested_column
from penstockd.formats.writing import DocumentWriter
from penstockd.native.abi import Status
from penstockd.native.column_plan import column_plan
from penstockd.native.copy_types import COPY_TYPES
from penstockd.native.kernel import Data, Filled

#: Bytes of the COPY stream that become one batch; FIRST_BYTES are those of the first.
BATCH_BYTES = 2 << 20
FIRST_BYTES = 256 << 10


@functools.cache
def import_arrow() -> Any:
    """pyarrow with the modules that are used here; it has no type hints."""
    # Arrow's own memory pools keep freed memory: with them an export of Parquet takes twice the
    # memory. It reads the variable when it is loaded; ``set_memory_pool`` later does not affect all
    # of it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    return pyarrow


def arrow_type(field: Field) -> Any:
    """The type of a field in Arrow and Parquet."""
    pa = import_arrow()
    match field.kind:
        case Kind.DECIMAL:
            return pa.decimal128(field.precision or 38, field.scale)
        case Kind.TIMESTAMP:
            return pa.timestamp("us", "UTC")
        case Kind.LIST | Kind.MAP | Kind.STRUCT:
            return pa.json_(pa.utf8())
    plain = {
        Kind.STRING: pa.utf8(), Kind.ENUM: pa.utf8(), Kind.BYTES: pa.binary(),
        Kind.BOOL: pa.bool_(), Kind.INT32: pa.int32(), Kind.INT64: pa.int64(),
        Kind.UINT32: pa.uint32(), Kind.UINT64: pa.uint64(), Kind.FLOAT: pa.float32(),
        Kind.DOUBLE: pa.float64(), Kind.DATE: pa.date32(),
    }  # fmt: skip
    return plain[field.kind]


def nested_columns(fields: Sequence[Field]) -> list[NestedColumn | None]:
    """For each field, the nested type of its lists or maps; None if it has none, or for JSON."""
    return [nested_column(f, import_arrow(), arrow_type) for f in fields]


def arrow_schema(
    dataset: Dataset, fields: Sequence[Field], nested: Sequence[NestedColumn | None] | None = None
) -> Any:
    """The schema of an export: fields by their paths, with the model's descriptions.

    Every field but the key may be null, since a role may see null in place of any other.
    """
    pa = import_arrow()
    columns = [
        pa.field(
            *(f.path, arrow_type(f) if column is None else column.type, not f.in_key),
            metadata={"description": f.description} if f.description else None,
        )
        for f, column in zip(fields, nested or [None] * len(fields), strict=True)
    ]
    metadata = {"penstock:dataset": dataset.name}
    if dataset.description:
        metadata["description"] = dataset.description
    return pa.schema(columns, metadata)


#: Bytes of a file, and the number of rows that they add to it.
Output = tuple[bytes, int]


class JobThread:
    """A thread that runs one job at a time: submitting a job waits for the previous one."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "columns")
        self._job: Future[Output] | None = None

    def hand(self, work: Callable[..., Output], *arguments: Any) -> Output:
        """Start a job; return the result of the previous one, or raise its error."""
        done = self.finish()
        self._job = self._threads.submit(work, *arguments)
        return done

    def finish(self) -> Output:
        """Wait for the current job; return its result, or an empty Output if there is no job."""
        job, self._job = self._job, None
        return job.result() if job else (b"", 0)


class ColumnarWriter(DocumentWriter):
    """A writer of batches of rows; subclasses implement ``_write`` for a batch.

    Some megabytes of the database's stream are gathered while those before them are encoded in a
    thread, so that the read never pauses. Where batches end depends on the rows alone.
    """

    types: Mapping[Kind, tuple[str, sa.types.TypeEngine[Any]]] = {
        **COPY_TYPES,
        Kind.FLOAT: ("real", sa.REAL()),
        Kind.DOUBLE: ("double precision", sa.Double()),
    }

    #: Whether lists and maps are nested types, or text in JSON.
    nests = True

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        super().__init__(dataset, fields)
        self._nested = nested_columns(fields) if self.nests else [None] * len(fields)
        self.schema = arrow_schema(dataset, fields, self._nested)
        #: For each column: the type that the kernel makes, and the extension type around it or
        #: None.
        self._types = [
            (t.storage_type, t) if isinstance(t, import_arrow().BaseExtensionType) else (t, None)
            for t in arrow_schema(dataset, fields).types
        ]
        self._gathered: list[Data] = []
        self._wanted = FIRST_BYTES
        self._seen = 0  # rows so far, written or not
        self._lane = JobThread()

    def feed(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """The bytes that are ready; the rows of ``chunk`` follow later. See ``DocumentWriter``."""
        ready, view = [], memoryview(bytes(chunk))
        while len(view) >= self._wanted:
            self._gathered.append(view[: self._wanted])
            view, self._wanted = view[self._wanted :], BATCH_BYTES
            ready.append(self._count_rows(self._lane.hand(self._encoded, self._take_chunks())))
        self._gathered.append(view)
        self._wanted -= len(view)
        return b"".join(ready)

    def tail(self) -> bytes:
        """The last batch and the end of the file; FormatError if the stream broke off."""
        return b"".join(self.ending())

    def ending(self) -> Iterator[bytes]:
        """``tail`` in pieces, each of which may take long."""
        yield self._count_rows(self._lane.finish())
        yield self._count_rows(self._encoded(self._take_chunks()))
        super().tail()
        for output in self._close():
            yield self._count_rows(output)

    def _plan(self) -> bytes:
        return column_plan(self.fields)

    def _count_rows(self, output: Output) -> bytes:
        data, rows = output
        self.rows += rows
        return data

    def _take_chunks(self) -> list[Data]:
        gathered, self._gathered = self._gathered, []
        return gathered

    def _encoded(self, gathered: list[Data]) -> Output:
        data = [self._rest, *gathered]
        if not self._started:
            data = [self._start(b"".join(data))]
        if not self._started:
            return b"", 0
        ready, rows, taken = [], 0, 0
        for filled in self._kernel.columns(data, len(self.selected)):
            if filled.status == Status.MALFORMED:
                raise self._malformed(filled.detail, self._seen - self.rows + filled.rows)
            if filled.rows:
                output, more = self._write(self._batch(filled))
                ready.append(output)
                rows += more
            self._seen += filled.rows
            self._ended = self._ended or filled.status == Status.END
            taken += filled.consumed
        self._rest = b"" if self._ended else _last_bytes(data, sum(map(len, data)) - taken)
        self._check_size(len(self._rest))
        return b"".join(ready), rows

    def _batch(self, filled: Filled) -> Any:
        """The columns as an Arrow batch; its buffers stay valid as long as ``_buffer`` says."""
        pa, arrays = import_arrow(), []
        skipped = len(self.selected) - len(self.fields)
        places = zip(self._types, self._nested, filled.columns[skipped:], strict=True)
        for (storage, around), nested, place in places:
            valid, ends, data, size, nulls = place
            bits = self._buffer(valid, (filled.rows + 7) // 8) if nulls else None
            buffers = [bits, self._buffer(data, size)]
            if pa.types.is_binary(storage) or pa.types.is_string(storage):
                buffers.insert(1, self._buffer(ends, 4 * (filled.rows + 1)))
            array = pa.Array.from_buffers(storage, filled.rows, buffers, nulls)
            if nested is not None:
                arrays.append(pa.array(nested.values(array.to_pylist()), nested.type))
                continue
            arrays.append(pa.ExtensionArray.from_storage(around, array) if around else array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _buffer(self, address: int, size: int) -> Any:
        """The bytes at an address of the kernel's memory, valid until the kernel's next call."""
        return import_arrow().foreign_buffer(address, size)

    def _write(self, batch: Any) -> Output:
        """The output that a batch completes."""
        raise NotImplementedError

    def _close(self) -> Iterator[Output]:
        """The output after the last batch."""
        raise NotImplementedError


def _last_bytes(parts: Sequence[Data], size: int) -> bytes:
    """The last ``size`` bytes of the concatenated parts."""
    found: list[bytes] = []
    for part in reversed(parts):
        if size <= 0:
            break
        found.append(bytes(part[-size:]))
        size -= len(part)
    return b"".join(reversed(found))


#: The end of every complete stream of Arrow IPC.
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowWriter(ColumnarWriter):
    """An Arrow IPC stream: the schema, a batch per few megabytes of rows, an end mark."""

    content_type = "application/vnd.apache.arrow.stream"
    suffix = ".arrows"

    def head(self) -> bytes:
        """The schema."""
        return bytes(self.schema.serialize())

    def _write(self, batch: Any) -> Output:
        return batch.serialize().to_pybytes(), batch.num_rows

    def _close(self) -> Iterator[Output]:
        yield END_OF_STREAM, 0


class JsonArrowWriter(ArrowWriter):
    """The same with lists and maps as JSON."""

    nests = False
