"""Parquet output: row groups of bounded size, each written when it is full."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.formats.allocator import give_back
from penstockd.formats.columns import ColumnarWriter, JobThread, Output, import_arrow

#: Bytes of columns that become one row group. Two of them are in memory at a time, and two encoded
#: groups. Groups of 4 to 8 MiB take the same time and make files of the same size.
GROUP_BYTES = 6 << 20
_MARK = b"PAR1"
_SAMPLE = 1000  # rows that decide whether a column's values recur
_PAGE_BYTES = 512 << 10
ROOM = 3 << 20  # bytes that the last batch of a group takes beyond GROUP_BYTES, if rows are small
TRIM_GROUPS = 16  # Arrow keeps a part of each until the end, scattered among freed memory
_ALIGNED = 64  # bytes, as in Arrow
_TEXT = (Kind.STRING, Kind.ENUM, Kind.BYTES, Kind.LIST, Kind.MAP, Kind.STRUCT)


class ParquetWriter(ColumnarWriter):
    """Parquet 2.6 with snappy; lists, maps and messages in them are LIST, MAP and STRUCT.

    A group is encoded while the next is gathered. Measured for a million customers: dictionaries
    for values that do not recur cost 20 % more time, and so does zstd, for a file two thirds the
    size; minima and maxima of texts, which hardly let a reader skip anything, cost 10 %.
    """

    content_type = "application/vnd.apache.parquet"
    suffix = ".parquet"

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        super().__init__(dataset, fields)
        self._sink = _ArrowSink()
        self._file: Any = None
        self._group: list[Any] = []
        self._group_bytes = 0
        self._groups, self._written = JobThread(), 0
        # One is gathered while the other is written.
        self.space, self.other_space = _Space(), _Space()

    def head(self) -> bytes:
        """The mark that a file starts with, sent long before its first group is full."""
        self._sink.skipped = len(_MARK)
        return _MARK

    def _buffer(self, address: int, size: int) -> Any:
        # A copy, since the kernel has reused its memory by the time the group is written.
        return self.space.copied(address, size)

    def _write(self, batch: Any) -> Output:
        if self._file is None:
            self._file = self._open(self._recurring(batch))
        self._group.append(batch)
        self._group_bytes += batch.nbytes
        if self._group_bytes < GROUP_BYTES:
            return b"", 0
        output = self._groups.finish()
        self.space, self.other_space = self.other_space, self.space
        self.space.clear()
        self._groups.hand(self._write_group, self._taken_group())
        return output

    def _close(self) -> Iterator[Output]:
        if self._file is None:
            self._file = self._open([])
        yield self._groups.finish()
        if self._group:
            yield self._write_group(self._taken_group())
        self._file.close()
        yield self._sink.taken(), 0

    def _taken_group(self) -> Any:
        group, self._group, self._group_bytes = self._group, [], 0
        return import_arrow().Table.from_batches(group)

    def _write_group(self, table: Any) -> Output:
        self._file.write_table(table, table.num_rows)
        self._written += 1
        if self._written % TRIM_GROUPS == 0:
            give_back()
        return self._sink.taken(), table.num_rows

    def _open(self, recurring: list[str]) -> Any:
        return import_arrow().parquet.ParquetWriter(
            *(self._sink, self.schema),
            version="2.6",
            compression="snappy",
            use_dictionary=recurring,
            write_statistics=[f.path for f in self.fields if f.in_key or f.kind not in _TEXT],
            data_page_size=_PAGE_BYTES,
            store_decimal_as_integer=True,
        )

    def _recurring(self, batch: Any) -> list[str]:
        """The columns whose values are worth a dictionary, judging by the first rows."""
        sample, found = batch.slice(0, _SAMPLE), []
        columns = zip(self.fields, sample.columns, self._nested, strict=True)
        for field, column, nested in columns:
            if nested is not None:
                continue  # its parts have other names
            values = getattr(column, "storage", column)
            different = import_arrow().compute.count_distinct(values).as_py()
            if not field.key and 2 * different <= len(values) - values.null_count:
                found.append(field.path)
        return found


class JsonParquetWriter(ParquetWriter):
    """The same with lists and maps as JSON."""

    nests = False


class _Space:
    """Memory for the columns of a group, reused for later groups.

    It does not come from the C library: such large and short-lived blocks, among those that Arrow
    keeps of each group until the file's end, fragmented its heap further with every group.
    """

    def __init__(self) -> None:
        self.blocks = [mmap.mmap(-1, GROUP_BYTES + ROOM)]
        self._used = 0

    def clear(self) -> None:
        """Free what was copied so far, which must no longer be in use."""
        del self.blocks[1:]
        self._used = 0

    def copied(self, address: int, size: int) -> Any:
        """The bytes at an address as a buffer that is valid until ``clear``."""
        block, at = self.blocks[0], self._used
        if size > len(block) - at:  # if rows are very large
            self.blocks.append(block := mmap.mmap(-1, max(size, 1)))
            at = 0
        else:
            self._used += -(-size // _ALIGNED) * _ALIGNED
        buffer = import_arrow().py_buffer(block).slice(at, size)
        ctypes.memmove(buffer.address, address, size)
        return buffer


class _ArrowSink:
    """The file that Arrow writes to; the writer takes the bytes from it."""

    closed = False
    skipped = 0  #: bytes to drop at the start, which the caller already has

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: Any) -> int:
        kept = bytes(data)[self.skipped :]
        self.skipped -= len(data) - len(kept)
        self._written.append(kept)
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        """What was written since the last call."""
        written, self._written = self._written, []
        return b"".join(written)
