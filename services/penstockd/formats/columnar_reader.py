"""Parquet and Arrow IPC in: spooled to a file, then read as cells and rows like those of CSV.

A footer or a dictionary may refer to any part of the file, so that the whole file must have arrived
before it is read. ``unpack`` reads it, in its own process.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, ClassVar

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.errors import RequestTooLarge
from penstockd.formats.csv_reader import CsvReader, json_path
from penstockd.formats.reading import RowBatch
from penstockd.native.abi import ROW
from penstockd.native.errors import FormatError

#: Bytes of one file, which is kept in the system's temporary folder while it is read.
FILE_LIMIT = 8 << 30
#: Bytes of memory that reading may take at once.
MEMORY_LIMIT = 128 << 20
#: CPU seconds that reading may take: a base, and one more for every so many bytes of the file.
_SECONDS, _BYTES_PER_SECOND = 60, 1 << 20
SCRIPT = Path(__file__).with_name("unpack.py")
_ENVIRONMENT = {
    # Memory that counts towards the limit, and no threads, whose stacks would count, too.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_HEAD = struct.Struct(">cI")
# As in unpack.py, which this process does not import, since Arrow is heavy.
_HEADER, _ROWS, _SUSPECT, _PROBLEM, _END = b"H", b"R", b"S", b"P", b"E"
_KEY = "KEY"
_ROW = bytes([ROW])


class ColumnarReader(CsvReader):
    """A file whose columns are named for the fields, each of a type that fits, or text as in CSV.

    Floats in a decimal field count as the shortest text that reads back as the same number, and
    keys and references may be whole numbers. Times must have a time zone; they are
    truncated to microseconds. A struct is read as columns with dotted names. Trailing zeros of a
    decimal come from its column's scale and are dropped.

    RequestTooLarge for a file above FILE_LIMIT.
    """

    format: ClassVar[str]

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        super().__init__(dataset, fields)
        self._spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the reader
        weakref.finalize(self, self._spool.close)
        self._size = 0

    def _feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[RowBatch]:
        self._size += len(chunk)
        if self._size > FILE_LIMIT:
            raise RequestTooLarge(f"the file is larger than {FILE_LIMIT >> 30} GiB")
        self._spool.write(chunk)
        yield from ()

    def _close(self) -> Iterator[RowBatch]:
        if not self._size:
            raise FormatError("the file is empty", truncated=True)
        self._spool.flush()
        self._spool.seek(0)
        problem: FormatError | None = None
        for kind, data in self.frames():
            if kind == _HEADER:
                self._header(data)
            elif kind == _PROBLEM:
                said = json.loads(data)
                problem = FormatError(said["reason"], said["row"], truncated=said["truncated"])
            elif kind in (_ROWS, _SUSPECT):
                batch = self._batch(data, data.count(_ROW), kind == _SUSPECT)
                if batch.rows or batch.bad or batch.fresh:
                    yield batch
        if problem is not None:
            raise problem

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """The frames of the other process; FormatError if it ends before the last frame."""
        with self._process() as process:
            try:
                yield from _read_frames(process)
            except BaseException:  # including GeneratorExit, when the caller stops reading
                process.kill()
                raise

    def _process(self) -> subprocess.Popen[bytes]:
        request = {
            "format": self.format,
            "kinds": {
                name: _KEY if f.kind is Kind.STRING and (f.key or f.reference) else f.kind.name
                for f in self.offered
                if not f.output_only
                for name in (f.path, json_path(f))
            },
            "memory": MEMORY_LIMIT,
            "seconds": _SECONDS + self._size // _BYTES_PER_SECOND,
        }
        return subprocess.Popen(
            # -P: do not import from the script's folder.
            [sys.executable, "-P", str(SCRIPT), json.dumps(request)],
            stdin=self._spool,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT,
        )


class ParquetReader(ColumnarReader):
    """Parquet of any version, encoding and compression."""

    format = "PARQUET"


class ArrowReader(ColumnarReader):
    """Arrow IPC, as a stream or as a file."""

    format = "ARROW"


def _read_frames(process: subprocess.Popen[bytes]) -> Iterator[tuple[bytes, bytes]]:
    stream = process.stdout
    assert stream is not None
    while True:
        head = stream.read(_HEAD.size)
        if len(head) == _HEAD.size:
            kind, size = _HEAD.unpack(head)
            data = stream.read(size)
            if len(data) == size:
                yield kind, data
                if kind in (_PROBLEM, _END):
                    return
                continue
        raise FormatError(f"the file cannot be read: it broke its reader ({process.wait()})")
