"""HTTP/2 in raw frames, for requests that no library would send."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0, 1, 2, 3, 4, 6, 7, 8, 9),
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
#: The setting for the bytes of each stream that the peer may send before it must be asked.
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(struct.pack(">HI", name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def header_block(path: str, method: str = "GET", **headers: str) -> bytes:
    """The headers of a request, as literals that no table stores; ``_`` stands for ``-``."""
    pairs = {":method": method, ":scheme": "http", ":authority": "hub", ":path": path}
    pairs |= {name.replace("_", "-"): value for name, value in headers.items()}
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs.items())


def _text(text: str) -> bytes:
    data, size = text.encode(), len(text.encode())
    if size < 127:
        return bytes([size]) + data
    rest, more = size - 127, b""
    while rest >= 128:
        more += bytes([rest % 128 | 128])
        rest //= 128
    return bytes([127]) + more + bytes([rest]) + data


class Connection:
    """A connection that counts its replies instead of storing them."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, acknowledging: bool
    ) -> None:
        self.reader, self.writer = reader, writer
        self._acknowledging = acknowledging
        self.answered: set[int] = set()
        """Streams whose headers have come."""
        self.reset: set[int] = set()
        """Streams that the peer has given up."""
        self.ended: set[int] = set()
        """Streams whose replies are complete."""
        self.received: dict[int, int] = {}
        """Bytes of DATA by stream."""
        self.closed = False
        self._reading = asyncio.create_task(self._read())

    def request(self, stream: int, path: str, method: str = "GET", **headers: str) -> None:
        """Send a whole request without a body."""
        block = header_block(path, method, **headers)
        self.writer.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))

    def begin(self, stream: int, path: str, method: str = "POST", **headers: str) -> None:
        """Send the headers of a request, but not its body."""
        block = header_block(path, method, **headers)
        self.writer.write(frame(HEADERS, END_HEADERS, stream, block))

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = b"\0" + await self.reader.readexactly(9)
                length, kind, flags, stream = struct.unpack(">IBBI", head)
                payload = await self.reader.readexactly(length)
                self._take(kind, flags, stream, payload)
        self.closed = True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)
        if kind == HEADERS:
            self.answered.add(stream)
        elif kind == DATA:
            self.received[stream] = self.received.get(stream, 0) + len(payload)
        elif kind == RESET:
            self.reset.add(stream)
        elif kind in (SETTINGS, PING) and not flags & ACK and self._acknowledging:
            self.writer.write(frame(kind, ACK, 0, payload if kind == PING else b""))

    async def close(self) -> None:
        """End it at once."""
        self.writer.transport.abort()
        await self._reading


@contextlib.asynccontextmanager
async def connected(
    port: int, *, window: int | None = None, acknowledging: bool = True
) -> AsyncIterator[Connection]:
    """A connection to the loopback; ``window`` is the initial window of each stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + settings({} if window is None else {INITIAL_WINDOW_SIZE: window}))
    connection = Connection(reader, writer, acknowledging=acknowledging)
    try:
        yield connection
    finally:
        await connection.close()
