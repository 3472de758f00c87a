"""gzip and zstd around any format, for files that are written and files that are read.

Compressors and decompressors work outside the interpreter's lock. The same rows compress to the
same bytes in every run, so that an interrupted export can resume where it broke off.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from penstockd.catalog.model import Field
from penstockd.errors import RequestTooLarge, ValueInvalid
from penstockd.formats.writing import DocumentWriter
from penstockd.native.errors import FormatError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP = 16 + zlib.MAX_WBITS  # zlib's code for gzip; its header contains neither a name nor a time
# Light levels: a stream must not wait for its compression.
_GZIP_LEVEL, _ZSTD_LEVEL = 1, 1
_PIECE = 128 << 10  # bytes that are decompressed at once
_WINDOW_LOG = 27  # the largest zstd window that a file may require: 128 MiB, as in its tool

#: A file may decompress to this many times its size; one that exceeds it is a bomb, not records.
RATIO_LIMIT = 300
#: Bytes to which a file may decompress whatever its ratio.
FREE_BYTES = 16 << 20


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """One way to compress a file."""

    name: str
    suffix: str
    content_type: str
    magic: bytes
    compressor: Callable[[], _Compressor]


def _gzip_compressor() -> _Compressor:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)


def _zstd_compressor() -> _Compressor:
    parameter = zstd.CompressionParameter
    # With a checksum zstd detects a damaged file, as gzip does.
    options: dict[int, int] = {parameter.compression_level: _ZSTD_LEVEL, parameter.checksum_flag: 1}
    return zstd.ZstdCompressor(options=options)


COMPRESSIONS = {
    c.name: c
    for c in (
        Compression("GZIP", ".gz", "application/gzip", b"\x1f\x8b", _gzip_compressor),
        Compression("ZSTD", ".zst", "application/zstd", b"\x28\xb5\x2f\xfd", _zstd_compressor),
    )
}


def find_compression(name: str) -> Compression | None:
    """The compression with this name, in any case; None for "". ValueInvalid if it is unknown."""
    if not name:
        return None
    if found := COMPRESSIONS.get(name.upper()):
        return found
    reason = f"is '{name[:40]}', not one of {', '.join(COMPRESSIONS)}"
    raise ValueInvalid.of("compression", reason)


class CompressedWriter(DocumentWriter):
    """A writer whose file is compressed; see ``DocumentWriter``."""

    def __init__(self, inner: DocumentWriter, by: Compression) -> None:
        self.inner = inner
        self.dataset, self.fields, self.rows = inner.dataset, inner.fields, 0
        self.selected, self.keys = inner.selected, inner.keys
        self.content_type = by.content_type
        self.suffix = inner.suffix + by.suffix
        self.copy_options, self.most_rows = inner.copy_options, inner.most_rows
        self.shows_nulls = inner.shows_nulls
        self._by = by
        self._compressor = by.compressor()

    def sql(self, field: Field, column: Any) -> Any:
        """As the inner writer."""
        return self.inner.sql(field, column)

    def too_long(self, field: Field, column: Any) -> Any:
        """As the inner writer."""
        return self.inner.too_long(field, column)

    def head(self) -> bytes:
        """The compressor's own head and as much of the inner one as it releases."""
        return self._compressor.compress(self.inner.head())

    def feed(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """As the inner writer; bytes may be delayed, since compressors hold some back."""
        data = self._compressor.compress(self.inner.feed(chunk))
        self.rows = self.inner.rows
        return data

    def tail(self) -> bytes:
        """The rest of the compressed file."""
        return self._compressor.compress(self.inner.tail()) + self._compressor.flush()

    def ending(self) -> Iterator[bytes]:
        """As the inner writer, compressed."""
        for piece in self.inner.ending():
            yield self._compressor.compress(piece)
        self.rows = self.inner.rows
        yield self._compressor.flush()

    @property
    def lossy_cells(self) -> Mapping[str, int]:
        """See ``DocumentWriter``."""
        return self.inner.lossy_cells

    def receipt(self, document: bytes) -> bytes:
        """The in-band receipt as its own member (frame), since the bytes before it are final."""
        if not (data := self.inner.receipt(document)):
            return b""
        compressor = self._by.compressor()
        return compressor.compress(data) + compressor.flush()


class Unpacker:
    """Decompresses a file that may be compressed, a bounded piece at a time.

    ``by`` None detects the compression by the first bytes. A file may have several gzip members or
    zstd frames. Raises FormatError for a file that is damaged or ends too early (``truncated``),
    and RequestTooLarge for one that becomes more than RATIO_LIMIT times as large.
    """

    def __init__(self, by: Compression | None) -> None:
        self._by = by
        self._known = False
        self._first = b""
        self._taken = self._given = 0
        self._member: Any = None

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[bytes | memoryview]:
        """The pieces from the next bytes of the file; the generator must be exhausted."""
        if not self._known:
            self._first += chunk
            if not self._decide(final=False):
                return
            chunk, self._first = self._first, b""
        yield from self._pieces(chunk)

    def close(self) -> Iterator[bytes | memoryview]:
        """The last pieces, after all bytes were fed."""
        if not self._known:
            self._decide(final=True)
            yield from self._pieces(self._first)
        if self._member is not None and not self._member.eof:
            assert self._by is not None
            raise FormatError(f"the {self._by.name.lower()} file ends too early", truncated=True)

    def _decide(self, final: bool) -> bool:
        """Detect the compression if possible; return whether it is known."""
        if self._by is None:
            known = COMPRESSIONS.values()
            self._by = next((c for c in known if self._first.startswith(c.magic)), None)
            open_ = any(c.magic.startswith(self._first) for c in known)
            self._known = self._by is not None or final or not open_
        else:
            self._known = True
        if self._known and self._by is not None:
            self._member = _make_decompressor(self._by)
        return self._known

    def _pieces(self, chunk: bytes | bytearray | memoryview) -> Iterator[bytes | memoryview]:
        view = memoryview(chunk)
        for at in range(0, len(view), _PIECE):
            if self._member is None:
                yield view[at : at + _PIECE]
            else:
                yield from self._unpacked(bytes(view[at : at + _PIECE]))

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        assert self._by is not None
        self._taken += len(data)
        while True:
            if self._member.eof and data:
                if not data.strip(b"\0"):  # padding, as on tapes
                    return
                self._member = _make_decompressor(self._by)
            try:
                piece, data, more = _decompress_once(self._member, data)
            except (zlib.error, zstd.ZstdError, EOFError) as exc:
                name = self._by.name.lower()
                raise FormatError(f"the file is not {name} or is damaged: {exc}") from exc
            if piece:
                self._given += len(piece)
                self._check_ratio()
                yield piece
            if not more and not data:
                return

    def _check_ratio(self) -> None:
        if self._given > FREE_BYTES + RATIO_LIMIT * self._taken:
            raise RequestTooLarge(
                f"the file becomes more than {RATIO_LIMIT} times as large when it is decompressed"
            )


def _make_decompressor(by: Compression) -> Any:
    if by.name == "GZIP":
        return zlib.decompressobj(_GZIP)
    limits: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    return zstd.ZstdDecompressor(options=limits)


def _decompress_once(member: Any, data: bytes) -> tuple[bytes, bytes, bool]:
    """Decompress once: a piece, the rest of ``data``, and whether the member holds more."""
    piece: bytes = member.decompress(data, _PIECE)
    if member.eof:
        return piece, member.unused_data, False
    if isinstance(member, zstd.ZstdDecompressor):
        return piece, b"", not member.needs_input
    rest: bytes = member.unconsumed_tail
    return piece, rest, len(piece) == _PIECE


def compress_writer(writer: DocumentWriter, name: str) -> DocumentWriter:
    """A writer whose file is compressed with ``name``; the writer itself for ""."""
    by = find_compression(name)
    return writer if by is None else CompressedWriter(writer, by)


__all__ = ["COMPRESSIONS", "CompressedWriter", "Unpacker", "compress_writer", "find_compression"]
