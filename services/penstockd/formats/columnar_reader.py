"""Parquet and Arrow IPC input: written to a temporary file, then read as cells and rows like those
of CSV.

A footer or a dictionary may refer to any part of the file, so the whole file must have arrived
before it is read. ``unpack`` reads it, in its own process.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from penstockd.budget import create_task, run_offloaded
from penstockd.catalog.model import Kind
from penstockd.errors import RequestTooLarge
from penstockd.formats.compression import FREE_BYTES, RATIO_LIMIT
from penstockd.formats.csv_reader import CsvReader, json_path
from penstockd.formats.reading import RowBatch
from penstockd.native.abi import ROW
from penstockd.native.errors import FormatError
from penstockd.row_frames import END, FRAME_LIMIT, HEADER, PROBLEM, ROW_LIMIT, ROWS, SUSPECT
from penstockd.spools import Spool

#: CPU seconds for reading any file; each has more by its size.
_SECONDS = 60
#: The hub waits for the other process for this many times its CPU limit in all, since it shares the
#: processors with others.
WAIT_FACTOR = 5
#: The variables that the other process inherits: those that Python needs to start. Others hold the
#: hub's secrets, which a hostile file must not reach.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_ENVIRONMENT = {
    # Memory that counts towards the limit, and no threads, whose stacks would count, too.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_HEAD = struct.Struct(">cI")
#: The hub reads this many bytes ahead from the other process, twice as many at most.
_PIPE_BYTES = 256 << 10
_KEY = "KEY"
_ROW = bytes([ROW])


class ColumnarReader(CsvReader):
    """A file whose columns are named for the fields, each of a type that fits, or text as in CSV.

    Floats in a decimal field count as the shortest text that reads back as the same number, and
    keys and references may be whole numbers. Times must have a time zone, unless the options name
    one. A struct is read as columns with dotted names. Trailing zeros of a decimal come from its
    column's scale and are dropped.

    RequestTooLarge for a file above ``file_limit``, StorageFull if the disk has no room for it.
    """

    format: ClassVar[str]
    #: The program of the other process.
    script: ClassVar[Path] = Path(__file__).with_name("unpack.py")
    #: The most bytes of one file, which is kept on disk while it is read.
    file_limit: ClassVar[int] = 8 << 30
    #: The most bytes of memory that reading may take at once.
    memory_limit: ClassVar[int] = 128 << 20
    #: The bytes of the file for which reading may take one more second of CPU.
    bytes_per_second: ClassVar[int] = 1 << 20
    #: The bytes of cells that any file may contain; a larger file may contain RATIO_LIMIT times its
    #: size. Dictionaries repeat one value in few bytes, which is usual in these formats.
    free_bytes: ClassVar[int] = 256 << 20
    _spool: Spool | None = None
    _size = 0

    def _feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[RowBatch]:
        self._size += len(chunk)
        if self._size > self.file_limit:
            raise RequestTooLarge(f"the file is larger than {self.file_limit >> 20} MiB")
        if self._spool is None:
            self._spool = Spool(self.spool_place)
        self._spool.write(chunk)
        yield from ()

    def _close(self) -> Iterator[RowBatch]:
        if self._spool is None or not self._size:
            raise FormatError("the file is empty", truncated=True)
        self._spool.rewind()
        yield from ()

    async def finish(self) -> AsyncGenerator[Iterator[RowBatch], None]:
        """The rows of the whole file, a frame of the other process at a time."""
        yield self.close()
        assert self._spool is not None, "an empty file is refused"
        try:
            async with aclosing(self.frames(self._spool)) as frames:
                async for kind, data in frames:
                    yield self._read_frame(kind, data)
        finally:
            self._spool.close()

    def _read_frame(self, kind: bytes, data: bytes) -> Iterator[RowBatch]:
        if kind == HEADER:
            self._header(data)
        elif kind == PROBLEM:
            said = json.loads(data)
            raise FormatError(said["reason"], said["row"], truncated=said["truncated"])
        elif kind in (ROWS, SUSPECT):
            batch = self._batch(data, data.count(_ROW), kind == SUSPECT)
            if batch.rows or batch.bad or batch.fresh:
                yield batch

    async def frames(self, spool: Spool) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """The frames of the other process, which ends with the generator.

        No thread waits for it. Raises FormatError if it ends before the last frame, takes too long,
        or returns far more than the size of the file.
        """
        seconds = _SECONDS + self._size // self.bytes_per_second
        process = await _start_process(run_offloaded(self._process, spool, seconds))
        loop, left, given = asyncio.get_running_loop(), float(WAIT_FACTOR * seconds), 0
        try:
            async with _open_pipe(process) as pipe:
                kind = b""
                while kind not in (PROBLEM, END):
                    began = loop.time()
                    async with asyncio.timeout(left):
                        kind, data = await _read_frame(pipe)
                        if kind in (PROBLEM, END):
                            await loop.run_in_executor(None, process.wait)
                    # Only waiting counts, not the hub's own work on the rows.
                    left -= loop.time() - began
                    given += len(data)
                    self._check_given(kind, len(data), given)
                    yield kind, data
        except asyncio.IncompleteReadError:
            process.kill()
            code = await loop.run_in_executor(None, process.wait)
            raise FormatError(f"the file cannot be read: it crashed its reader ({code})") from None
        except TimeoutError:
            raise FormatError(
                f"the file cannot be read within {WAIT_FACTOR * seconds} s: send less at once"
            ) from None
        finally:
            process.kill()
            loop.run_in_executor(None, process.wait)

    def _check_given(self, kind: bytes, size: int, given: int) -> None:
        """Raise FormatError for a frame that is too large, or that makes all too large."""
        if kind == HEADER and size > ROW_LIMIT:
            raise FormatError(f"the header is longer than {ROW_LIMIT >> 20} MiB", row=0)
        if given > max(self.free_bytes, RATIO_LIMIT * self._size):
            reason = f"the file expands to more than {RATIO_LIMIT} times its size"
            raise FormatError(reason, self.rows or None)

    def _process(self, spool: Spool, seconds: int) -> subprocess.Popen[bytes]:
        request = {
            "format": self.format,
            "kinds": {
                name: _KEY if f.kind is Kind.STRING and (f.in_key or f.reference) else f.kind.name
                for f in self.offered
                if not f.output_only
                for name in (f.path, json_path(f))
            },
            "zoned": self.leniency.zone is not None,
            "memory": self.memory_limit,
            "seconds": seconds,
        }
        return subprocess.Popen(
            # -P: do not import from the script's folder.
            [sys.executable, "-P", str(self.script), json.dumps(request)],
            bufsize=0,
            stdin=spool.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={n: os.environ[n] for n in _INHERITED if n in os.environ} | _ENVIRONMENT,
        )


class XlsxReader(ColumnarReader):
    """The first sheet of XLSX; its first row names the columns.

    Formulas count as the values stored with them. A time in a cell has no zone, so that the options
    must name one.
    """

    format = "XLSX"
    script = Path(__file__).with_name("unpack_sheet.py")
    # A sheet is text that is compressed, and read by a slower library.
    file_limit, memory_limit, bytes_per_second = 256 << 20, 256 << 20, 64 << 10
    free_bytes = FREE_BYTES


class ParquetReader(ColumnarReader):
    """Parquet of any version, encoding and compression."""

    format = "PARQUET"


class ArrowReader(ColumnarReader):
    """Arrow IPC, as a stream or as a file."""

    format = "ARROW"


async def _start_process(
    work: Coroutine[Any, Any, subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """The process that ``work`` starts; it is killed if the caller goes away meanwhile."""
    starting = create_task(work)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_kill_started)
        raise


def _kill_started(starting: asyncio.Task[subprocess.Popen[bytes]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill()


@asynccontextmanager
async def _open_pipe(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.StreamReader]:
    """What the process writes, as a stream that is closed after the block."""
    pipe = asyncio.StreamReader(_PIPE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(pipe), process.stdout
    )
    try:
        yield pipe
    finally:
        transport.close()


async def _read_frame(pipe: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next frame.

    Raises IncompleteReadError if the stream ends before its end, and FormatError if the frame is
    larger than frames are.
    """
    kind, size = _HEAD.unpack(await pipe.readexactly(_HEAD.size))
    if size > FRAME_LIMIT:
        raise FormatError("the file cannot be read: its reader returned too much at once")
    return kind, await pipe.readexactly(size)
